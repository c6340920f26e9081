from .catalogue import CLAIMS
from .claim import Claim, Evidence, Undefined, Verdict, check

__all__ = ["CLAIMS", "Claim", "Evidence", "Undefined", "Verdict", "check"]

"""The paper's qualitative claims, each with a statistic, a threshold and a verdict."""

from analysis.claims import features, kernels, norms, outcomes
from analysis.claims.claim import Claim, Evidence, Undefined, Verdict, check

CLAIMS: tuple[Claim, ...] = (*norms.CLAIMS, *features.CLAIMS, *kernels.CLAIMS, *outcomes.CLAIMS)

__all__ = ["CLAIMS", "Claim", "Evidence", "Undefined", "Verdict", "check"]

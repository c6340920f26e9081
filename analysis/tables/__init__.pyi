from .claims import make_claims
from .makers import NAMES, make_table
from .table import Table

__all__ = ["NAMES", "Table", "make_claims", "make_table"]

"""The type checker of the test run: beartype, to which an int is a float, as PEP 484 has it."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))

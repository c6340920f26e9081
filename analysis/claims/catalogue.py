"""All claims, in the paper's order."""

from __future__ import annotations

from analysis.claims import features, kernels, norms, outcomes
from analysis.claims.claim import Claim

CLAIMS: tuple[Claim, ...] = (*norms.CLAIMS, *features.CLAIMS, *kernels.CLAIMS, *outcomes.CLAIMS)

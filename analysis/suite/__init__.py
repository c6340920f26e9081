"""Suites of runs: what is run, as jobs of this machine or of a cluster, and what became of them."""

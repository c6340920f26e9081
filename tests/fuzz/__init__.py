"""Malformed inputs in the thousands, each with a seed: `python -m fuzz` from the folder of tests, or `make fuzz`."""

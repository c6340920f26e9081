"""Other ways to the same kernel, each in an environment and a process of its own: ``python -m benchmarks.peers``."""

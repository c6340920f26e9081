"""``python -m ntk_lpft.compute``: the NTK of a classifier on a data set, split into P and F."""

import sys

from ntk_lpft.commands.compute import main

if __name__ == "__main__":
    sys.exit(main())

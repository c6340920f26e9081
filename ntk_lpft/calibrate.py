"""``python -m ntk_lpft.calibrate``: temperature scaling of trained classifiers, and what it does to calibration."""

import sys

from ntk_lpft.commands.calibrate import main

if __name__ == "__main__":
    sys.exit(main())

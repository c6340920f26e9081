"""``python -m ntk_lpft.finetune``: LP, FT, LP-FT, LoRA or LP-LoRA, with head, features and kernels tracked."""

import sys

from ntk_lpft.commands.finetune import main

if __name__ == "__main__":
    sys.exit(main())

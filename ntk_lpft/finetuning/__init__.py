"""What moves: LP, FT, LP-FT, LoRA and LP-LoRA on Trainer, with checkpoints that hold no pickles."""

import lazy_loader

# Names are imported when they are used, so that a command that needs no model does not wait for transformers and peft.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

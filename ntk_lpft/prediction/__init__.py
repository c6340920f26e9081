"""What the kernel at the start says of training, over one step and many, beside what training does."""

import lazy_loader

# Names are imported when they are used, so that a command that needs no model does not wait for transformers and peft.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

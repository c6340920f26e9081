"""Folders of results: every file of a run, how it is named, written, read, checked and gone on with."""

import lazy_loader

# Names are imported when they are used, so that a command that needs no model does not wait for transformers and peft.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""The paper's tables, made from a results folder: numbers over seeds, beside the paper's, and what is missing."""

import lazy_loader

# Names are imported when they are used, so that ``--help`` does not wait for torch, transformers and pandas.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

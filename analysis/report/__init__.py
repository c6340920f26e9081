"""One self-contained page of a results folder: claims, tables, figures, settings and how every job went."""

import lazy_loader

# Names are imported when they are used, so that ``--help`` does not wait for torch, transformers and pandas.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

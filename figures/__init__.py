"""The paper's figures, drawn from the results of a suite: ``draw`` makes one, ``caption`` says what it shows."""

import lazy_loader

# Names are imported when they are used, so that ``--help`` does not wait for torch, transformers and pandas.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

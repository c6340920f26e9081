"""All drawing of the library: kernels, training, calibration, prediction, in one style.

Each function returns a matplotlib figure of its own and changes no setting of matplotlib; `save` writes one to a file.
"""

import lazy_loader

# Names are imported when they are used, so that a command that draws one kind of picture does not wait for the others.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

from .makers import FIGURES, Maker, caption, draw

__all__ = ["FIGURES", "Maker", "caption", "draw"]

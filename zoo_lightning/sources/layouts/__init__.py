"""Layouts of other projects' checkpoints, and their translation into timm's."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

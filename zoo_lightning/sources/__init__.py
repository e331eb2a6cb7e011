"""Sources: pretrained models, from a reference in a configuration to tensors that fit a backbone.

The names below are imported when they are first used: ``spec`` and ``shipped`` need no torch, so
that configurations can be checked and the shipped zoo listed without loading it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

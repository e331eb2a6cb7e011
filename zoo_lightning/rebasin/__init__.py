"""Permutation of sources' channels to agree with a reference's, their function unchanged.

Pure PyTorch. :mod:`~zoo_lightning.rebasin.channels` finds which channels of a network may change
places, :mod:`~zoo_lightning.rebasin.weights` and :mod:`~zoo_lightning.rebasin.activations` find a
permutation, and :mod:`~zoo_lightning.rebasin.sources` applies it to a zoo.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

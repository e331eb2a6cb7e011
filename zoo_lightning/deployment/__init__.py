"""Export of trained models to timm, ONNX and ``torch.export``, for use without this package.

:func:`export` writes a folder; its :class:`Manifest` describes the model's inputs and outputs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Predictions for image files, from a run, a checkpoint or an export.

:class:`Predictor` predicts classes or landmarks; :func:`open_model` opens any model, policies
included; :func:`find_images` lists image files.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

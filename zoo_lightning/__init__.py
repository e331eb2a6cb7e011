"""Zoo-Tuning: one good model from several pretrained models of one architecture.

Public API: backbones, tasks, data modules, and functions to load, export, evaluate and predict with
trained models. Names are imported when they are first used, since importing torch and Lightning
takes seconds.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Experiments: YAML files by name, resolved to options without building anything.

The names below are imported when they are first used, since Lightning takes seconds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Comparison of transfer methods: grids of runs, tables with statistics, and plots.

The names below are imported when they are first used, since torch and Lightning take seconds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

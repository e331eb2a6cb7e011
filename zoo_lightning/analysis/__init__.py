"""Analysis of trained zoos: gates, effects of removing sources, figures and reports.

:func:`gate_report` measures a zoo, :func:`watch_images` and :func:`watch_game` record gates of
single samples, and the ``plot_*`` functions draw both.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Assessment of sources on a data set before training: scores, probes, relations, initialisations.

:func:`informed_start` finds ``gate_init``, :func:`rank_sources` and :func:`relate` compare sources,
:func:`solve_head` initialises a head. Without SciPy and scikit-learn, so that ``fit`` can use it in
the core install.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Hyperparameter sweeps from W&B sweep files, run on W&B's server or locally by Optuna.

``read_sweep`` reads and checks a sweep file; ``python -m zoo_lightning sweep FILE`` runs it.
:class:`SweepStudy` and :func:`run_here` run a sweep locally and need Optuna
(``pip install -e '.[sweeps]'``).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

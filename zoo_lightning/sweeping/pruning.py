"""W&B's hyperband: which runs lag behind at the bands of validations and are stopped.

W&B asks every run at the same bands, and for any ``eta``. Optuna's own HyperbandPruner follows the
paper, where chance decides at which of them a run is asked; it serves ``strict: true``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo_lightning.errors import ConfigError
from zoo_lightning.sweeping.schema import Hyperband, Metric
from zoo_lightning.sweeping.states import is_put_back

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

LAST_BAND = 10**9
"""No run has so many validations."""


def bands_of(early: Hyperband) -> list[int]:
    """Numbers of validations after which runs are compared, in rising order."""
    bands: list[int] = []
    if early.max_iter is not None:
        band = float(early.max_iter)
        for _ in range(early.s or 0):
            band /= early.eta
            if band >= 1:
                bands.append(int(band))
        return sorted(bands)
    band = float(early.min_iter or 1)
    while band < LAST_BAND:
        bands.append(int(band))
        band *= early.eta
    return bands


def lags(
    history: Sequence[float], histories: Sequence[Sequence[float]], early: Hyperband, rises: bool
) -> bool:
    """Whether a run is to be stopped: its best is not among the best of the band it has passed.

    Args:
        history: figures of the run, validation by validation.
        histories: of all runs of the sweep, itself included.
        early: the bands.
        rises: whether higher is better.
    """
    sign = -1.0 if rises else 1.0
    passed = [band for band in bands_of(early) if band < len(history)]
    if not passed:
        return False
    there = sorted(sign * each[passed[-1]] for each in histories if len(each) > passed[-1])
    # One in eta goes on, and whoever is as good as that one.
    threshold = there[int(1.0 / early.eta * len(there))]
    return min(sign * value for value in history) > threshold


def pruner_of(early: Hyperband | None, metric: Metric) -> BasePruner:
    """Optuna's pruner for a sweep's ``early_terminate``.

    Raises:
        ConfigError: numbers that the strict way does not take.
    """
    import optuna

    if early is None:
        return optuna.pruners.NopPruner()
    if early.strict:
        if early.eta != int(early.eta):
            raise ConfigError(
                f"early_terminate.eta: {early.eta} with strict: true; expected a whole number"
            )
        eta = int(early.eta)
        if early.max_iter is None:
            return optuna.pruners.HyperbandPruner(early.min_iter or 1, "auto", eta)
        first = max(math.floor(early.max_iter / eta ** (early.s or 1)), 1)
        return optuna.pruners.HyperbandPruner(first, early.max_iter, eta)

    class Bands(optuna.pruners.BasePruner):
        """Asks W&B's rule."""

        def prune(self, study: optuna.study.Study, trial: optuna.trial.FrozenTrial) -> bool:
            # What was put back into the queue is there again under another number.
            histories = [
                [value for _, value in sorted(each.intermediate_values.items())]
                for each in study.get_trials(deepcopy=False)
                if not is_put_back(each) and each.number != trial.number
            ]
            history = [value for _, value in sorted(trial.intermediate_values.items())]
            return lags(history, [*histories, history], early, metric.rises)

    return Bands()

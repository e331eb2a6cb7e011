"""Search of a local sweep with Optuna: search space, sampler and pruner.

Distributions that Optuna shares with W&B, TPE for ``method: bayes``, and ``HyperbandPruner`` for
``strict: true`` are Optuna's. Two parts are implemented here, because Optuna's differ from W&B's:

- parameters of grid and random search. Optuna's ``GridSampler`` and ``RandomSampler`` depend on
  which process asks first, and may run a point of a grid twice.
- the rule of ``early_terminate``. Optuna's ``SuccessiveHalvingPruner`` takes only a whole ``eta``,
  does not count bands back from ``max_iter``, and stops runs that W&B's server lets continue.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo_lightning.errors import ConfigError
from zoo_lightning.sweeps.parameters import EDGE, Distribution, ParameterPath, json_text
from zoo_lightning.sweeps.schema import EarlyTermination, Sweep, SweepMetric

try:
    import optuna
    import sqlalchemy  # noqa: F401
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial, TrialState
except ImportError as error:
    raise ConfigError(
        f"a local sweep needs Optuna, which cannot be imported ({error}); "
        "run pip install -e '.[sweeps]'"
    ) from error

INDEX, ERROR = "index", "error"
"""Names of a trial's user attributes: its number in the sweep, and why it failed.

A failed trial without ``ERROR`` was interrupted.
"""


class SearchSpace:
    """Map the parameters of a sweep to Optuna's distributions, and back to values.

    A distribution that Optuna lacks is searched by its quantile, which is uniform. Categorical
    values are stored as JSON text, because Optuna does not distinguish ``True`` from 1 and allows
    no lists.

    Args:
        sweep: sweep file with the parameters.

    Attributes:
        distributions: Optuna's distributions by name.
        size: number of grid points; ``None`` for other methods.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._parameters = {path: sweep.parameters[path] for path in sorted(sweep.parameters)}
        self._searched = {p: d for p, d in self._parameters.items() if d.kind != "constant"}
        self._seed = zlib.crc32(json.dumps(sweep.content["parameters"], sort_keys=True).encode())
        self._grid = sweep.method == "grid"
        self._points: dict[ParameterPath, list[Any]] = {}
        self.size: int | None = None
        if self._grid:
            self._points = {path: each.points() for path, each in self._searched.items()}
            self.size = math.prod(map(len, self._points.values()))
        self.distributions = {
            self._name(path): self._distribution(path, each)
            for path, each in self._searched.items()
        }

    def _name(self, path: ParameterPath) -> str:
        direct = self._grid or self._parameters[path].native
        return ".".join(path) if direct else f"quantile of {'.'.join(path)}"

    def _distribution(self, path: ParameterPath, given: Distribution) -> BaseDistribution:
        if self._grid:
            return CategoricalDistribution([json_text(each) for each in self._points[path]])
        if not given.native:
            return FloatDistribution(EDGE, 1 - EDGE)
        if given.kind == "categorical":
            return CategoricalDistribution(
                list(dict.fromkeys(map(json_text, given.options["values"])))
            )
        low, high = given.limits
        if given.kind == "int_uniform":
            return IntDistribution(int(low), int(high))
        return FloatDistribution(low, high, log=given.kind.startswith("log"))

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Suggest the parameters of an Optuna trial, or return those that it already has."""
        found: dict[str, Any] = {}
        for name, each in self.distributions.items():
            if isinstance(each, CategoricalDistribution):
                found[name] = trial.suggest_categorical(name, each.choices)
            elif isinstance(each, IntDistribution):
                found[name] = trial.suggest_int(name, each.low, each.high)
            elif isinstance(each, FloatDistribution):
                found[name] = trial.suggest_float(name, each.low, each.high, log=each.log)
        return found

    def values(self, suggested: Mapping[str, Any]) -> dict[ParameterPath, Any]:
        """Map an Optuna trial's parameters to the sweep's values, including constants."""
        found = {}
        for path, given in self._parameters.items():
            if given.kind == "constant":
                found[path] = given.options["value"]
                continue
            each = suggested[self._name(path)]
            if self._grid or given.kind == "categorical":
                found[path] = json.loads(each)
            else:
                found[path] = each if given.native else given.value(each)
        return found

    def drawn(self, index: int) -> dict[str, Any]:
        """Compute the parameters of a trial of grid or random search from its number alone.

        So a sweep's result depends neither on the process that runs a trial nor on interruptions.
        """
        if self._grid:
            found = {}
            for path in reversed(list(self._searched)):  # the last one varies fastest
                index, at = divmod(index, len(self._points[path]))
                found[self._name(path)] = json_text(self._points[path][at])
            return found
        quantiles = np.random.default_rng([self._seed, index]).random(len(self._searched))
        return {
            self._name(path): self._at(given, float(quantile))
            for (path, given), quantile in zip(self._searched.items(), quantiles, strict=True)
        }

    def _at(self, given: Distribution, quantile: float) -> Any:
        if not given.native:
            return min(max(quantile, EDGE), 1 - EDGE)
        value = given.value(quantile)
        if given.kind == "categorical":
            return json_text(value)
        low, high = given.limits
        return min(max(value, low), high)  # exponentials of logarithms are off by rounding


class IndexSampler(optuna.samplers.BaseSampler):
    """Optuna sampler of grid and random search, by the trial's number in the sweep.

    Args:
        space: search space of the sweep.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing: parameters are independent."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing: parameters are independent."""
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Compute the value of a parameter from the trial's number."""
        return self.space.drawn(trial.user_attrs[INDEX])[param_name]


def sampler_of(sweep: Sweep, space: SearchSpace) -> optuna.samplers.BaseSampler:
    """Create the Optuna sampler for a sweep's ``method``."""
    if sweep.method == "bayes":
        return optuna.samplers.TPESampler(constant_liar=True)
    return IndexSampler(space)


def bands_of(early: EarlyTermination) -> list[int]:
    """Compute the numbers of validations after which W&B compares runs, increasing."""
    bands, band = [], float(early.max_iter or early.min_iter or 1)
    if early.max_iter is not None:
        for _ in range(early.s or 0):
            band /= early.eta
            if band >= 1:
                bands.append(int(band))
        return sorted(bands)
    while band < 1e9:  # no run has more validations
        bands.append(int(band))
        band *= early.eta
    return bands


def lags(
    history: Sequence[float],
    histories: Sequence[Sequence[float]],
    early: EarlyTermination,
    rises: bool,
) -> bool:
    """Whether W&B would stop a run: its best value is worse than the last band's threshold.

    Args:
        history: metric of the run, one value for each validation.
        histories: metric of all runs of the sweep, including this one.
        early: settings of early termination.
        rises: whether higher is better.
    """
    sign = -1.0 if rises else 1.0
    passed = [band for band in bands_of(early) if band < len(history)]
    if not passed:
        return False
    there = sorted(sign * each[passed[-1]] for each in histories if len(each) > passed[-1])
    # One in eta continues, and so does every run that is as good as that one.
    threshold = there[int(1.0 / early.eta * len(there))]
    return min(sign * value for value in history) > threshold


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether a trial was interrupted, so that another trial repeats it."""
    return trial.state == TrialState.FAIL and ERROR not in trial.user_attrs


class WandbPruner(optuna.pruners.BasePruner):
    """Optuna pruner by the rule of W&B's ``early_terminate``.

    Args:
        early: settings of early termination.
        rises: whether a higher metric is better.
    """

    def __init__(self, early: EarlyTermination, rises: bool) -> None:
        self.early, self.rises = early, rises

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether to stop the trial."""
        # An interrupted trial is there again under the number of the one that repeats it.
        histories = [
            _history(each)
            for each in study.get_trials(deepcopy=False)
            if not is_interrupted(each) and each.number != trial.number
        ]
        history = _history(trial)
        return lags(history, [*histories, history], self.early, self.rises)


def _history(trial: FrozenTrial) -> list[float]:
    return [value for _, value in sorted(trial.intermediate_values.items())]


def pruner_of(early: EarlyTermination | None, metric: SweepMetric) -> optuna.pruners.BasePruner:
    """Create the Optuna pruner for a sweep's ``early_terminate``.

    Raises:
        ConfigError: ``strict`` is set and ``eta`` is not a whole number.
    """
    if early is None:
        return optuna.pruners.NopPruner()
    if not early.strict:
        return WandbPruner(early, metric.rises)
    if early.eta != int(early.eta):
        raise ConfigError(
            f"early_terminate.eta must be a whole number with strict: true, got {early.eta}"
        )
    eta = int(early.eta)
    if early.max_iter is None:
        return optuna.pruners.HyperbandPruner(early.min_iter or 1, "auto", eta)
    first = max(math.floor(early.max_iter / eta ** (early.s or 1)), 1)
    return optuna.pruners.HyperbandPruner(first, early.max_iter, eta)

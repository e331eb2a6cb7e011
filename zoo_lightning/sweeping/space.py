"""A sweep's parameters as Optuna sees them, and the values that they stand for.

What Optuna has no distribution for it searches by the quantile, whose distribution is uniform.
Values of lists of values go as JSON text, in which ``true`` is not 1 and lists are allowed.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo_lightning.sweeping.distributions import EDGE, Distribution
from zoo_lightning.sweeping.schema import Sweep
from zoo_lightning.sweeping.showing import text_of
from zoo_lightning.sweeping.states import import_optuna

Path = tuple[str, ...]


class Space:
    """Of a sweep's parameters.

    Args:
        sweep: whose parameters.

    Attributes:
        distributions: Optuna's, by name.
        size: how many points a grid has; ``None`` of other methods.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._optuna = import_optuna()
        self._parameters = {path: sweep.parameters[path] for path in sorted(sweep.parameters)}
        self._searched = {p: d for p, d in self._parameters.items() if d.kind != "constant"}
        self._seed = zlib.crc32(json.dumps(sweep.content["parameters"], sort_keys=True).encode())
        self._grid = sweep.method == "grid"
        self.size: int | None = None
        if self._grid:
            self._points = {path: each.points() for path, each in self._searched.items()}
            self.size = math.prod(map(len, self._points.values()))
        self.distributions = {
            self._name(path): self._distribution(path, each)
            for path, each in self._searched.items()
        }

    def _name(self, path: Path) -> str:
        return ".".join(path) if self._direct(path) else f"quantile of {'.'.join(path)}"

    def _direct(self, path: Path) -> bool:
        return self._grid or self._parameters[path].native

    def _distribution(self, path: Path, given: Distribution) -> Any:
        kinds = self._optuna.distributions
        if self._grid:
            return kinds.CategoricalDistribution([text_of(each) for each in self._points[path]])
        if not given.native:
            return kinds.FloatDistribution(EDGE, 1 - EDGE)
        if given.kind == "categorical":
            return kinds.CategoricalDistribution(
                list(dict.fromkeys(map(text_of, given.options["values"])))
            )
        low, high = given.limits
        if given.kind == "int_uniform":
            return kinds.IntDistribution(low, high)
        return kinds.FloatDistribution(low, high, log=given.kind.startswith("log"))

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Have an Optuna trial choose its parameters, or give those that it has."""
        kinds, found = self._optuna.distributions, {}
        for name, each in self.distributions.items():
            if isinstance(each, kinds.CategoricalDistribution):
                found[name] = trial.suggest_categorical(name, each.choices)
            elif isinstance(each, kinds.IntDistribution):
                found[name] = trial.suggest_int(name, each.low, each.high)
            else:
                found[name] = trial.suggest_float(name, each.low, each.high, log=each.log)
        return found

    def values(self, chosen: Mapping[str, Any]) -> dict[Path, Any]:
        """What a trial's parameters stand for, constants included."""
        found = {}
        for path, given in self._parameters.items():
            if given.kind == "constant":
                found[path] = given.options["value"]
                continue
            picked = chosen[self._name(path)]
            if self._grid or given.kind == "categorical":
                found[path] = json.loads(picked)
            else:
                found[path] = picked if given.native else given.value(picked)
        return found

    def drawn(self, index: int) -> dict[str, Any]:
        """Parameters of the trial of a grid or of a random search: of the same number the same.

        So neither who runs a trial nor what was stopped in between makes a difference.
        """
        if self._grid:
            found = {}
            for path in reversed(list(self._searched)):  # the last one varies fastest
                index, at = divmod(index, len(self._points[path]))
                found[self._name(path)] = text_of(self._points[path][at])
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
            return text_of(value)
        low, high = given.limits
        return min(max(value, low), high)  # exponentials of logarithms are off by rounding

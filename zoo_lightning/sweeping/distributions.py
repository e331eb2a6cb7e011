"""W&B's distributions of a parameter, by their inverse cumulative distribution functions.

Every distribution is a function from [0, 1] to values, so that whatever draws or searches there
meets W&B's meaning exactly, be it one that Optuna has no word for. Exponents are natural ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from zoo_lightning.errors import ConfigError
from zoo_lightning.sweeping.showing import text_of

EDGE = 1e-9
"""How near to 0 and 1 it is searched: some distributions are infinite there."""

SPREAD = {"mu": 0.0, "sigma": 1.0}
SHAPE = {"a": 1.0, "b": 1.0}
QUANTUM = {"q": 1.0}

REQUIRED: dict[str, tuple[str, ...]] = {
    "constant": ("value",),
    "categorical": ("values",),
    "categorical_w_probabilities": ("values", "probabilities"),
    **dict.fromkeys(
        (
            "int_uniform", "uniform", "q_uniform", "log_uniform", "log_uniform_values",
            "q_log_uniform", "q_log_uniform_values", "inv_log_uniform", "inv_log_uniform_values",
        ),
        ("min", "max"),
    ),
    **dict.fromkeys(
        ("normal", "q_normal", "log_normal", "q_log_normal", "beta", "q_beta"), ()
    ),
}  # fmt: skip
"""Keys that each distribution has to have."""

DEFAULTS: dict[str, dict[str, float]] = {
    **dict.fromkeys(("q_uniform", "q_log_uniform", "q_log_uniform_values"), QUANTUM),
    **dict.fromkeys(("normal", "log_normal"), SPREAD),
    **dict.fromkeys(("q_normal", "q_log_normal"), SPREAD | QUANTUM),
    "beta": SHAPE,
    "q_beta": SHAPE | QUANTUM,
}
"""Keys that a distribution may have, with W&B's defaults."""


@dataclass(frozen=True)
class Distribution:
    """Of one parameter.

    Attributes:
        kind: W&B's name of it.
        options: its keys with defaults filled in.
    """

    kind: str
    options: Mapping[str, Any]

    def value(self, quantile: float) -> Any:
        """The value below which a draw falls with this probability, in plain types.

        Args:
            quantile: in [0, 1].
        """
        given = self.options
        if self.kind == "constant":
            return given["value"]
        if self.kind == "categorical":
            count = len(given["values"])
            return given["values"][min(max(math.ceil(quantile * count) - 1, 0), count - 1)]
        if self.kind == "categorical_w_probabilities":
            return given["values"][_first_above(given["probabilities"], quantile)]
        if self.kind == "int_uniform":
            count = given["max"] - given["min"] + 1
            return given["min"] + min(max(math.ceil(quantile * count) - 1, 0), count - 1)
        found = _CONTINUOUS[self.kind.removeprefix("q_")](given, quantile)
        if not self.kind.startswith("q_"):
            return float(found)
        quantum = given["q"]
        rounded = round(found / quantum) * quantum  # to even in the middle, as numpy rounds
        return int(rounded) if isinstance(quantum, int) else float(rounded)

    def points(self) -> list[Any]:
        """All values of a grid, each once, in W&B's order.

        Raises:
            ConfigError: there are infinitely many, or W&B's grid takes none of this kind.
        """
        given = self.options
        if self.kind == "constant":
            return [given["value"]]
        if self.kind == "categorical":
            found = given["values"]
        elif self.kind == "int_uniform":
            return list(range(given["min"], given["max"] + 1))
        elif self.kind == "q_uniform":
            # W&B leaves the maximum itself out.
            count = math.ceil((given["max"] - given["min"]) / given["q"])
            found = [given["min"] + index * given["q"] for index in range(count)]
        else:
            raise ConfigError(
                f"distribution {self.kind!r} has no grid; expected values, value, int_uniform or "
                "q_uniform: list values, or take method random"
            )
        return list({text_of(value): value for value in found}.values())

    @property
    def native(self) -> bool:
        """Whether Optuna has a distribution that means the same."""
        return self.kind in ("categorical", "int_uniform", "uniform", "log_uniform",
                             "log_uniform_values")  # fmt: skip

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest value of a native continuous distribution."""
        low, high = self.options["min"], self.options["max"]
        return (math.exp(low), math.exp(high)) if self.kind == "log_uniform" else (low, high)


def _first_above(probabilities: list[float], quantile: float) -> int:
    total = 0.0
    for index, probability in enumerate(probabilities):
        total += probability
        if quantile < total:
            return index
    # The sum may fall short of one by rounding; what is impossible stays so.
    return max(index for index, probability in enumerate(probabilities) if probability > 0)


def _between(low: float, high: float, quantile: float) -> float:
    return low + quantile * (high - low)


def _log_uniform(low: float, high: float, quantile: float) -> float:
    return math.exp(_between(low, high, quantile))


def _inverse_log_uniform(low: float, high: float, quantile: float) -> float:
    return math.exp(-_between(low, high, 1 - quantile))


def _normal(given: Mapping[str, Any], quantile: float) -> float:
    if given["sigma"] == 0:
        return given["mu"]
    inside = min(max(quantile, EDGE), 1 - EDGE)
    return NormalDist(given["mu"], given["sigma"]).inv_cdf(inside)


def _beta(given: Mapping[str, Any], quantile: float) -> float:
    try:
        from scipy.special import betaincinv
    except ImportError as error:
        raise ConfigError(
            f"beta distributions need scipy, which cannot be imported ({error}): "
            "pip install -e '.[sweeps]'"
        ) from error
    return float(betaincinv(given["a"], given["b"], quantile))


_CONTINUOUS: dict[str, Callable[[Mapping[str, Any], float], float]] = {
    "uniform": lambda given, x: _between(given["min"], given["max"], x),
    "log_uniform": lambda given, x: _log_uniform(given["min"], given["max"], x),
    "log_uniform_values": lambda given, x: _log_uniform(
        math.log(given["min"]), math.log(given["max"]), x
    ),
    "inv_log_uniform": lambda given, x: _inverse_log_uniform(given["min"], given["max"], x),
    "inv_log_uniform_values": lambda given, x: _inverse_log_uniform(
        -math.log(given["max"]), -math.log(given["min"]), x
    ),
    "normal": _normal,
    "log_normal": lambda given, x: math.exp(_normal(given, x)),
    "beta": _beta,
}

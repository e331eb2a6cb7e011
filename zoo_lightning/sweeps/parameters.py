"""Read and check the parameters of a W&B sweep file and their distributions.

A distribution is represented by its inverse cumulative distribution function, from [0, 1] to
values. So drawing or searching in [0, 1] reproduces W&B's distributions exactly, even those that
Optuna lacks. Logarithms are natural.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from zoo_lightning.errors import ConfigError, nearest

ParameterPath = tuple[str, ...]
"""Name of a parameter: one key, which may contain dots, or the keys of nested parameters."""

EDGE = 1e-9
"""Least distance of searched quantiles from 0 and 1, where some distributions are infinite."""

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
"""Required keys of each distribution."""

DEFAULTS: dict[str, dict[str, float]] = {
    **dict.fromkeys(("q_uniform", "q_log_uniform", "q_log_uniform_values"), QUANTUM),
    **dict.fromkeys(("normal", "log_normal"), SPREAD),
    **dict.fromkeys(("q_normal", "q_log_normal"), SPREAD | QUANTUM),
    "beta": SHAPE,
    "q_beta": SHAPE | QUANTUM,
}
"""Optional keys of distributions, with W&B's defaults."""


@dataclass(frozen=True)
class Distribution:
    """Distribution of one parameter.

    Attributes:
        kind: W&B's name of the distribution.
        options: keys of the distribution, with defaults filled in.
    """

    kind: str
    options: Mapping[str, Any]

    def value(self, quantile: float) -> Any:
        """Compute the value at a quantile, in plain Python types.

        Args:
            quantile: probability in [0, 1] that a draw is not above the value.
        """
        given = self.options
        if self.kind == "constant":
            return given["value"]
        if self.kind == "categorical":
            return given["values"][_position(len(given["values"]), quantile)]
        if self.kind == "categorical_w_probabilities":
            return given["values"][_first_above(given["probabilities"], quantile)]
        if self.kind == "int_uniform":
            return given["min"] + _position(given["max"] - given["min"] + 1, quantile)
        found = _CONTINUOUS[self.kind.removeprefix("q_")](given, quantile)
        if not self.kind.startswith("q_"):
            return float(found)
        quantum = given["q"]
        rounded = round(found / quantum) * quantum  # to even in the middle, as numpy rounds
        return int(rounded) if isinstance(quantum, int) else float(rounded)

    def points(self) -> list[Any]:
        """List all values of a grid, each once, in W&B's order.

        Raises:
            ConfigError: W&B's grid search does not accept the distribution.
        """
        given = self.options
        if self.kind == "constant":
            return [given["value"]]
        if self.kind == "int_uniform":
            return list(range(given["min"], given["max"] + 1))
        if self.kind == "categorical":
            found = given["values"]
        elif self.kind == "q_uniform":
            # W&B leaves the maximum itself out.
            count = math.ceil((given["max"] - given["min"]) / given["q"])
            found = [given["min"] + index * given["q"] for index in range(count)]
        else:
            raise ConfigError(
                f"distribution {self.kind!r} has no grid; a grid takes values, value, int_uniform "
                "or q_uniform: list values, or use method: random"
            )
        return list({json_text(value): value for value in found}.values())

    @property
    def native(self) -> bool:
        """Whether Optuna has a distribution with the same meaning."""
        return self.kind in ("categorical", "int_uniform", "uniform", "log_uniform",
                             "log_uniform_values")  # fmt: skip

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest value of a native numeric distribution."""
        low, high = self.options["min"], self.options["max"]
        return (math.exp(low), math.exp(high)) if self.kind == "log_uniform" else (low, high)


def json_text(value: Any) -> str:
    """Convert a value to JSON; equal mappings give equal text."""
    return json.dumps(value, sort_keys=True)


def _position(count: int, quantile: float) -> int:
    return min(max(math.ceil(quantile * count) - 1, 0), count - 1)


def _first_above(probabilities: list[float], quantile: float) -> int:
    total = 0.0
    for index, probability in enumerate(probabilities):
        total += probability
        if quantile < total:
            return index
    # The sum may fall short of one by rounding; a value of probability 0 is never taken.
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
            f"beta distributions need scipy, which cannot be imported ({error}); "
            "run pip install -e '.[sweeps]'"
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


def read_parameters(given: Any, above: ParameterPath = ()) -> dict[ParameterPath, Distribution]:
    """Read ``parameters`` of a sweep file, nested ones included.

    Args:
        given: value of the key ``parameters``.
        above: keys of the parents of nested parameters.

    Raises:
        ConfigError: a parameter is invalid in W&B, or cannot be passed to ``fit``.
    """
    place = ".".join(("parameters", *above))
    if not isinstance(given, dict) or not given:
        raise ConfigError(f"{place}: expected a distribution for each option, got {given!r}")
    found: dict[ParameterPath, Distribution] = {}
    for key, content in given.items():
        path = (*above, key)
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", key):
            raise ConfigError(
                f"{place}: {key!r} is not the name of a parameter; expected an option such as "
                "model.init_args.lr"
            )
        inside = f"{place}.{key}"
        if isinstance(content, dict) and "parameters" in content:
            if len(content) > 1:
                raise ConfigError(
                    f"{inside}: has parameters and {', '.join(set(content) - {'parameters'})}; "
                    "expected one or the other"
                )
            found |= read_parameters(content["parameters"], path)
        else:
            found[path] = _distribution(inside, content)
    names = [".".join(path) for path in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{place}: {name} is there twice, nested and with dots; keep one")
    return found


def _distribution(place: str, given: Any) -> Distribution:
    """Distribution of one parameter; its kind is inferred from its keys where it is not named.

    Raises:
        ConfigError: keys that do not belong together, or values that are not allowed.
    """
    if not isinstance(given, dict):
        raise ConfigError(
            f"{place}: expected keys such as value, values, or min and max, got {given!r}; write "
            f"{{value: {given}}}"
        )
    kind = given.get("distribution") or _inferred(place, given)
    if kind not in REQUIRED:
        raise ConfigError(
            f"{place}.distribution: unknown distribution {kind!r}.{nearest(str(kind), REQUIRED)} "
            f"Known: {', '.join(REQUIRED)}"
        )
    defaults = DEFAULTS.get(kind, {})
    for key in given:
        if key not in ("distribution", *REQUIRED[kind], *defaults):
            known = ", ".join((*REQUIRED[kind], *defaults))
            raise ConfigError(f"{place}.{key}: not a key of {kind}, which has {known}; remove it")
    for key in REQUIRED[kind]:
        if key not in given:
            raise ConfigError(f"{place}: {kind} needs {key}; add it")
    options = defaults | {key: value for key, value in given.items() if key != "distribution"}
    if kind in ("constant", "categorical", "categorical_w_probabilities"):
        _check_values(place, kind, options)
    else:
        _check_numbers(place, kind, options)
    return Distribution(kind, options)


def _inferred(place: str, given: Mapping[str, Any]) -> str:
    if "values" in given:
        return "categorical_w_probabilities" if "probabilities" in given else "categorical"
    if "value" in given:
        return "constant"
    if "min" in given and "max" in given:
        bounds = given["min"], given["max"]
        if all(map(is_integer, bounds)):
            return "int_uniform"
        if all(isinstance(bound, float) for bound in bounds):
            return "uniform"
        # W&B's client refuses these as well: the kind is ambiguous.
        raise ConfigError(
            f"{place}: min {bounds[0]!r} and max {bounds[1]!r} without a distribution; expected "
            "two whole numbers or two with a point (1.0e-4 has one, 1e-4 is text in YAML)"
        )
    raise ConfigError(
        f"{place}: expected value, values, min and max, or a distribution, "
        f"got {', '.join(map(str, given)) or 'nothing'}"
    )


def _check_values(place: str, kind: str, options: Mapping[str, Any]) -> None:
    key = "value" if kind == "constant" else "values"
    values = [options["value"]] if kind == "constant" else options["values"]
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{place}.values: expected a list of values, got {values!r}")
    for value in values:
        try:
            same = json.loads(json.dumps(value)) == value
        except (TypeError, ValueError):
            same = False
        if not same:
            raise ConfigError(
                f"{place}.{key}: {value!r} cannot be written as JSON; expected text, numbers, "
                "true, false, null, lists and mappings of them"
            )
        if _is_scientific_text(value):
            raise ConfigError(f"{place}.{key}: {wrong_type('a number', value)}")
    if kind != "categorical_w_probabilities":
        return
    probabilities = options["probabilities"]
    if not isinstance(probabilities, list) or not all(
        is_number(each) and each >= 0 for each in probabilities
    ):
        raise ConfigError(
            f"{place}.probabilities: expected numbers from 0 to 1, got {probabilities!r}"
        )
    if len(probabilities) != len(values) or abs(sum(probabilities) - 1) > 1e-6:
        raise ConfigError(
            f"{place}.probabilities: {len(probabilities)} of sum {sum(probabilities):g} for "
            f"{len(values)} values; expected one for each value, of sum 1"
        )


def _check_numbers(place: str, kind: str, options: Mapping[str, Any]) -> None:
    for key, value in options.items():
        right = is_integer if kind == "int_uniform" else is_number
        wanted = "a whole number" if kind == "int_uniform" else "a number"
        if not right(value):
            raise ConfigError(f"{place}.{key}: {wrong_type(wanted, value)}")
    if "min" in options and options["min"] > options["max"]:
        raise ConfigError(f"{place}: min {options['min']} is above max {options['max']}; swap them")
    if kind.endswith("_values") and options["min"] <= 0:
        raise ConfigError(f"{place}.min: must be above 0 for {kind}, got {options['min']}")
    for key in ("q", "a", "b"):
        if options.get(key, 1) <= 0:
            raise ConfigError(f"{place}.{key}: must be above 0, got {options[key]}")
    if options.get("sigma", 1) < 0:
        raise ConfigError(f"{place}.sigma: must be at least 0, got {options['sigma']}")


def is_integer(value: Any) -> bool:
    """Whether a value is a whole number; booleans are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is a number other than NaN; booleans are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def wrong_type(expected: str, found: Any) -> str:
    """Format a message for a value of the wrong type, with a fix for text meant as a number."""
    fix = ""
    if _is_scientific_text(found):
        mantissa, exponent = found.lower().split("e")
        fix = f"; write {mantissa}.0e{exponent}: without the point it is text in YAML"
    return f"expected {expected}, got {found!r}{fix}"


def _is_scientific_text(value: Any) -> bool:
    """Whether text was meant as a number: YAML wants a point before the exponent."""
    return isinstance(value, str) and bool(re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", value))

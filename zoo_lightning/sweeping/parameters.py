"""Parameters of a sweep file: which distribution each has, and whether it can be one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.sweeping.distributions import DEFAULTS, REQUIRED, Distribution
from zoo_lightning.sweeping.numerals import expected, is_integer, is_number, looks_scientific

Path = tuple[str, ...]
"""Where a value goes: one key, with dots as they are, or several where the file nests them."""


def read_parameters(given: Any, above: Path = ()) -> dict[Path, Distribution]:
    """Distributions of ``parameters``, those of nested ones included.

    Args:
        given: what the file has there.
        above: keys that lead there.

    Raises:
        ConfigError: something that is no distribution of W&B's.
    """
    place = ".".join(("parameters", *above))
    if not isinstance(given, dict) or not given:
        raise ConfigError(f"{place}: expected a distribution by name of an option, found {given!r}")
    found: dict[Path, Distribution] = {}
    for key, content in given.items():
        path = (*above, key)
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", key):
            raise ConfigError(
                f"{place}: {key!r} is no parameter's name; expected an option such as "
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
    """Distribution of one parameter, found from its keys where it is not named.

    Raises:
        ConfigError: keys that do not belong together, or values that cannot be.
    """
    if not isinstance(given, dict):
        raise ConfigError(
            f"{place}: expected keys such as value, values, or min and max, found {given!r}; write "
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
            expected = ", ".join((*REQUIRED[kind], *defaults))
            raise ConfigError(f"{place}.{key}: not of {kind}, which has {expected}; remove it")
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
        # The client refuses these as well, for it cannot tell what is meant.
        raise ConfigError(
            f"{place}: min {bounds[0]!r} and max {bounds[1]!r} without a distribution; expected "
            "two whole numbers or two with a point (1.0e-4 has one, 1e-4 is text to YAML)"
        )
    raise ConfigError(
        f"{place}: expected value, values, min and max, or a distribution, "
        f"found {', '.join(map(str, given)) or 'nothing'}"
    )


def _check_values(place: str, kind: str, options: Mapping[str, Any]) -> None:
    key = "value" if kind == "constant" else "values"
    values = [options["value"]] if kind == "constant" else options["values"]
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{place}.values: expected a list of values, found {values!r}")
    for value in values:
        try:
            same = json.loads(json.dumps(value)) == value
        except (TypeError, ValueError):
            same = False
        if not same:
            raise ConfigError(
                f"{place}.{key}: {value!r} cannot be handed over; expected text, numbers, true, "
                "false, null, lists and mappings of them"
            )
        if looks_scientific(value):
            raise ConfigError(f"{place}.{key}: {expected('a number', value)}")
    if kind != "categorical_w_probabilities":
        return
    shares = options["probabilities"]
    if not isinstance(shares, list) or not all(is_number(x) and x >= 0 for x in shares):
        raise ConfigError(f"{place}.probabilities: expected numbers from 0 to 1, found {shares!r}")
    if len(shares) != len(values) or abs(sum(shares) - 1) > 1e-6:
        raise ConfigError(
            f"{place}.probabilities: {len(shares)} of sum {sum(shares):g} for {len(values)} "
            "values; expected one for each value, of sum 1"
        )


def _check_numbers(place: str, kind: str, options: Mapping[str, Any]) -> None:
    for key, value in options.items():
        right = is_integer if kind == "int_uniform" else is_number
        wanted = "a whole number" if kind == "int_uniform" else "a number"
        if not right(value):
            raise ConfigError(f"{place}.{key}: {expected(wanted, value)}")
    if "min" in options and options["min"] > options["max"]:
        raise ConfigError(f"{place}: min {options['min']} is above max {options['max']}; swap them")
    if kind.endswith("_values") and options["min"] <= 0:
        raise ConfigError(
            f"{place}.min: expected a number above 0 for {kind}, found {options['min']}"
        )
    if options.get("q", 1) <= 0:
        raise ConfigError(f"{place}.q: expected a number above 0, found {options['q']}")
    if options.get("sigma", 1) < 0:
        raise ConfigError(
            f"{place}.sigma: expected a number of at least 0, found {options['sigma']}"
        )
    if options.get("a", 1) <= 0 or options.get("b", 1) <= 0:
        raise ConfigError(
            f"{place}: expected a and b above 0, found {options['a']}, {options['b']}"
        )

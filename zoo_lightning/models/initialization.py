"""Initial weights of the sources: options ``gate_init``, ``norm_weights`` and ``weights``.

The functions check the options' values and turn them into numbers.
:mod:`zoo_lightning.transfer.starts` finds numbers from training data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from zoo_lightning.errors import ConfigError
from zoo_lightning.sources.spec import Source

Informed = Literal["rank", "probe", "greedy"]
GateInit = Literal["auto", "released", "sum_to_one", "rank", "probe", "greedy"]
NormWeights = Literal["uniform", "gates"]
AverageWeights = Literal["uniform", "rank", "probe", "greedy"]

INFORMED: tuple[str, ...] = get_args(Informed)
"""Values of ``gate_init`` and ``weights`` that stand for numbers from the training data."""

NEARLY_ONE = 1 - 1e-4
"""Initial value of a gate that should be 1, which no sigmoid reaches."""


def check_gate_init(value: Any, sources: Sequence[Source], wanted: bool = True) -> Any:
    """Check the option ``gate_init``.

    Args:
        value: name of an initialisation, or a number in (0, 1) for each source.
        sources: sources of the zoo.
        wanted: whether the value is used; it is not if all weights come from a checkpoint.

    Returns:
        The name, or the numbers as a list.

    Raises:
        ConfigError: the name is unknown or stands for numbers from data, there is not one number
            for each source, or a number is out of range.
    """
    value = _check_numbers("gate_init", value, sources, 0.0, 1.0)
    if wanted and value in INFORMED:
        raise ConfigError(_needs_data("gate_init", value))
    return value


def _needs_data(option: str, value: str) -> str:
    return (
        f"{option} {value!r} stands for numbers from the training data, which a backbone does not "
        f"have; give it the numbers: {option}="
        f"zoo_lightning.informed_start(architecture, sources, data, {value!r})"
    )


def gate_start(
    gate_init: GateInit | list[float], num_sources: int, norm_follows: bool
) -> list[float] | None:
    """Initial gates of one layer: ``m`` numbers in (0, 1), or ``None`` for the authors' values.

    Args:
        gate_init: checked value of the option.
        num_sources: number of sources ``m``.
        norm_follows: whether a norm layer normalises the layer's output.
    """
    if isinstance(gate_init, list):
        return gate_init
    if gate_init == "released" or (gate_init == "auto" and norm_follows):
        return None
    return [min(1 / num_sources, NEARLY_ONE)] * num_sources


def average_shares(
    weights: AverageWeights | list[float], sources: Sequence[Source], wanted: bool = True
) -> Tensor:
    """Weights of the sources in the average that initialises an ordinary network.

    Args:
        weights: ``uniform``, or a number of at least 0 for each source.
        sources: sources to average.
        wanted: whether the weights are used; they are not if all weights come from a checkpoint.

    Returns:
        Weights ``(m,)`` that sum to 1.

    Raises:
        ConfigError: the name is unknown or stands for numbers from data, there is not one number
            for each source, a number is below 0, or all are 0.
    """
    found = _check_numbers("weights", weights, sources, 0.0, float("inf"))
    if found in INFORMED:
        if wanted:
            raise ConfigError(_needs_data("weights", found))
        found = "uniform"
    return _normalized("weights", [1.0] * len(sources) if found == "uniform" else found)


def averaging_weights(
    norm_weights: NormWeights | list[float],
    gate_init: GateInit | list[float],
    sources: Sequence[Source],
) -> Tensor:
    """Weights of the sources in those parameters of a zoo that are averaged, not aggregated.

    Args:
        norm_weights: ``uniform``, ``gates`` for the numbers of ``gate_init``, or a number of at
            least 0 for each source.
        gate_init: checked value of that option.
        sources: sources of the zoo.

    Returns:
        Weights ``(m,)`` that sum to 1.

    Raises:
        ConfigError: the name is unknown, there is not one number for each source, a number is below
            0, all are 0, or ``gates`` is given and ``gate_init`` has no numbers.
    """
    weights = _check_numbers("norm_weights", norm_weights, sources, 0.0, float("inf"))
    if weights == "gates":
        if isinstance(gate_init, str) and gate_init not in INFORMED:
            raise ConfigError(
                f"norm_weights 'gates' uses the numbers of gate_init, which is {gate_init!r}; give "
                f"gate_init a number for each source or one of {', '.join(INFORMED)}, or use "
                "norm_weights 'uniform'"
            )
        # A name remains only where the averaged parameters come from a checkpoint.
        weights = "uniform" if isinstance(gate_init, str) else gate_init
    return _normalized("norm_weights", [1.0] * len(sources) if weights == "uniform" else weights)


def _normalized(option: str, numbers: Sequence[float]) -> Tensor:
    shares = torch.tensor(numbers)
    if shares.sum() <= 0:
        raise ConfigError(f"{option} must not all be 0, got {shares.tolist()}")
    return shares / shares.sum()


def check_choice(option: str, value: object, allowed: Sequence[str]) -> None:
    """Check the value of an option that has a fixed set of values.

    Args:
        option: name of the option.
        value: value to check.
        allowed: values that the option may have.

    Raises:
        ConfigError: the value is not allowed.
    """
    if value not in allowed:
        raise ConfigError(f"{option} must be one of {', '.join(allowed)}, got {value!r}")


def _check_numbers(
    option: str, value: Any, sources: Sequence[Source], low: float, high: float
) -> Any:
    """Check an option that is a name or one number for each source, and make the latter a list."""
    words = {
        "gate_init": get_args(GateInit),
        "norm_weights": get_args(NormWeights),
        "weights": get_args(AverageWeights),
    }
    if isinstance(value, str):
        check_choice(option, value, words[option])
        return value
    numbers = [float(number) for number in value]
    if len(numbers) != len(sources):
        names = ", ".join(source.name for source in sources)
        raise ConfigError(
            f"{option} has {len(numbers)} numbers for {len(sources)} sources ({names}); give one "
            "number for each source, in their order"
        )
    inside = all(low < n < high or (option != "gate_init" and n == low) for n in numbers)
    if not inside:
        raise ConfigError(f"{option} must lie between {low:g} and {high:g}, got {numbers}")
    return numbers

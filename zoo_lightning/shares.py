"""How much each source counts where training begins: ``gate_init``, ``norm_weights``, ``weights``.

What the options mean, and whether they can be; :mod:`zoo_lightning.starts` finds numbers from data.
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
"""Words of ``gate_init`` and ``weights`` for numbers that are found from the training data."""

NEARLY_ONE = 1 - 1e-4
"""Start of a gate that should be 1, which no sigmoid reaches."""


def check_gate_init(value: Any, sources: Sequence[Source], wanted: bool = True) -> Any:
    """Check the option ``gate_init``; numbers come back as a list.

    Args:
        value: a word or a number in (0, 1) for each source.
        sources: of the zoo.
        wanted: whether the start matters; it does not if a checkpoint brings all weights.

    Raises:
        ConfigError: an unknown word, one that needs data, or numbers that cannot be right.
    """
    value = _check_numbers("gate_init", value, sources, 0.0, 1.0)
    if wanted and value in INFORMED:
        raise ConfigError(_needs_data("gate_init", value))
    return value


def _needs_data(option: str, value: str) -> str:
    return (
        f"{option} {value!r} stands for numbers that are found from training data, of which a "
        f"backbone knows nothing; give it the numbers: {option}="
        f"zoo_lightning.informed_start(architecture, sources, data, {value!r})"
    )


def gate_start(
    gate_init: GateInit | list[float], num_sources: int, norm_follows: bool
) -> list[float] | None:
    """Start of one layer's gates: ``m`` numbers in (0, 1), or ``None`` for the released start."""
    if isinstance(gate_init, list):
        return gate_init
    if gate_init == "released" or (gate_init == "auto" and norm_follows):
        return None
    return [min(1 / num_sources, NEARLY_ONE)] * num_sources


def average_shares(
    weights: AverageWeights | list[float], sources: Sequence[Source], wanted: bool = True
) -> Tensor:
    """Shares of the sources in the average that one ordinary network starts from.

    Args:
        weights: ``uniform`` or a number of at least 0 for each source.
        sources: to be averaged.
        wanted: whether the start matters; it does not if a checkpoint brings all weights.

    Returns:
        ``(m,)``, summing to 1.

    Raises:
        ConfigError: an unknown word, one that needs training data, or numbers that cannot be right.
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
    """Shares of the sources in what is averaged: ``(m,)``, summing to 1.

    Raises:
        ConfigError: wrong number of weights, or ``gates`` without numbers to follow.
    """
    weights = _check_numbers("norm_weights", norm_weights, sources, 0.0, float("inf"))
    if weights == "gates":
        if isinstance(gate_init, str) and gate_init not in INFORMED:
            raise ConfigError(
                f"norm_weights 'gates' follows gate_init, which is {gate_init!r}; give gate_init "
                f"a number for each source or one of {', '.join(INFORMED)}, or use norm_weights "
                "'uniform'"
            )
        # A word is left only where a checkpoint brings what is averaged.
        weights = "uniform" if isinstance(gate_init, str) else gate_init
    return _normalized("norm_weights", [1.0] * len(sources) if weights == "uniform" else weights)


def _normalized(option: str, numbers: Sequence[float]) -> Tensor:
    shares = torch.tensor(numbers)
    if shares.sum() <= 0:
        raise ConfigError(f"{option} must not all be 0, got {shares.tolist()}")
    return shares / shares.sum()


def check_choice(option: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse a word that an option does not have.

    Raises:
        ConfigError: naming those it has.
    """
    if value not in allowed:
        raise ConfigError(f"{option} is {value!r}; expected one of {', '.join(allowed)}")


def _check_numbers(
    option: str, value: Any, sources: Sequence[Source], low: float, high: float
) -> Any:
    """Check an option that is a word or a number per source; numbers come back as a list."""
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

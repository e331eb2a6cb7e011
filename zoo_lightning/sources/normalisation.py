"""Normalisation of a network's input images: range of pixel values, channel order, mean and std.

This module imports no torch, so a configuration can be checked before anything heavy is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from zoo_lightning.errors import SourceError

Range = Literal["0..1", "0..255"]
Channels = Literal["rgb", "bgr", "grey"]

KEYS = ("mean", "std", "range", "channels", "bands")
"""Keys of a source that declare its normalisation."""

ALIKE = 1e-4
"""Largest difference of means or deviations, in 0..1 units, that is rounding: 0.498 and 127/255."""

LARGEST_STD = 10.0
"""Deviations above this cannot be meant in 0..1 units, of which images have at most 0.5."""


@dataclass(frozen=True)
class Normalisation:
    """Normalisation of images: ``(pixel - mean) / std`` for each channel.

    Attributes:
        mean: Mean of each channel, or one for all, in units of ``range`` and the order of
            ``channels``.
        std: Standard deviation of each channel, or one for all, in units of ``range``.
        range: Values of black and white before the mean is subtracted.
        channels: Order of the network's input channels; ``grey`` is the luminance
            0.299 R + 0.587 G + 0.114 B, in every channel that the network has. ``None`` stands for
            ``rgb``, or ``grey`` if the network has one input channel.
        bands: Names of the network's input channels if they are others, in order; else ``None``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    range: Range = "0..1"
    channels: Channels | None = None
    bands: tuple[str, ...] | None = None

    @property
    def top(self) -> float:
        """Value of white before the mean is subtracted: 1 or 255."""
        return 255.0 if self.range == "0..255" else 1.0

    def __str__(self) -> str:
        order: str = self.channels or ("grey" if len(self.mean) == 1 else "rgb")
        order = order if order == "grey" else order.upper()
        order = ", ".join(self.bands) if self.bands else order
        return f"{order} in {self.range}, mean {_listed(self.mean)}, std {_listed(self.std)}"

    def as_dict(self) -> dict[str, Any]:
        """Return the keys with which a source declares this normalisation."""
        noted: dict[str, Any] = {"mean": list(self.mean), "std": list(self.std)}
        noted |= {"range": self.range} if self.range != "0..1" else {}
        noted |= {"bands": list(self.bands)} if self.bands else {}
        return noted | ({"channels": self.channels} if self.channels else {})

    def is_like(self, other: Normalisation) -> bool:
        """Whether another normalisation gives the same values up to rounding of its numbers."""
        if (self.channels or "rgb", self.bands) != (other.channels or "rgb", other.bands):
            return False
        pairs = [*_pairs(self.mean, other.mean), *_pairs(self.std, other.std)]
        return all(abs(a / self.top - b / other.top) <= ALIKE for a, b in pairs)


def known(
    mean: Any, std: Any, range: Any = "0..1", channels: Any = None, bands: Any = None
) -> Normalisation | None:
    """Normalisation that a file or library notes; ``None`` if it is not complete or not valid.

    Args:
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        range: Values of black and white, ``0..1`` or ``0..255``.
        channels: Order of the channels; ``None`` for the usual one.
        bands: Names of the channels if they are others than colours; else ``None``.
    """
    means, stds = statistics(mean), statistics(std)
    if not means or not stds or len(means) != len(stds) or min(stds) <= 0:
        return None
    if range not in get_args(Range) or channels not in (None, *get_args(Channels)):
        return None
    if bands is not None and len(names := tuple(map(str, bands))) == len(means):
        return Normalisation(means, stds, range, bands=names)
    return Normalisation(means, stds, range, channels)


def statistics(values: Any) -> tuple[float, ...] | None:
    """Values per channel as finite numbers; ``None`` if they are not that."""
    if values is None or isinstance(values, (str, bytes, Mapping)):
        return None
    try:
        given = values if isinstance(values, Iterable) else [values]
        numbers = tuple(float(value) for value in given)
    except (TypeError, ValueError, RuntimeError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def declared(name: str, given: Mapping[str, Any]) -> Normalisation | None:
    """Normalisation that a source declares.

    Args:
        name: The source's name, for messages.
        given: Values of :data:`KEYS`; those that are absent or ``None`` are not declared. Without a
            mean nothing is subtracted, without a deviation nothing divided.

    Returns:
        The normalisation; ``None`` if nothing is declared.

    Raises:
        SourceError: If a value has the wrong type, or is not in the units of ``range``.
    """
    values = {key: given.get(key) for key in KEYS}
    if all(value is None for value in values.values()):
        return None
    bands = _band_names(name, values["bands"])
    if bands and values["channels"] is not None:
        raise SourceError(
            f"Source {name!r} has channels {values['channels']!r} and bands "
            f"{', '.join(bands)}, which say the same of its input; leave one of them out."
        )
    channels = _choice(name, "channels", values["channels"], "rgb", get_args(Channels))
    span = _choice(name, "range", values["range"], "0..1", get_args(Range))
    inputs = len(bands) if bands else 3
    mean = _numbers(name, "mean", 0.0 if values["mean"] is None else values["mean"], inputs)
    std = _numbers(name, "std", 1.0 if values["std"] is None else values["std"], inputs)
    count = max(len(mean), len(std))
    if bands:  # whose values have any sign and size
        return Normalisation(_spread(mean, inputs), _spread(std, inputs), span, bands=bands)
    found = Normalisation(_spread(mean, count), _spread(std, count), span, channels)
    _check_units(name, found)
    return found


def _choice(name: str, key: str, value: Any, usual: str, allowed: Sequence[str]) -> Any:
    """Check a word, the usual one if none is given."""
    value = usual if value is None else value
    if value not in allowed:
        raise SourceError(
            f"The {key} of source {name!r} must be one of {', '.join(allowed)}, got {value!r}."
        )
    return value


def _band_names(name: str, value: Any) -> tuple[str, ...]:
    """Check the names of a source's input channels; empty if it declares none."""
    if value is None:
        return ()
    given = value if isinstance(value, (list, tuple)) else [value]
    if not given or not all(isinstance(each, str) and each for each in given):
        raise SourceError(f"The bands of source {name!r} must be a list of names, got {value!r}.")
    if len(set(given)) < len(given):
        raise SourceError(f"The bands of source {name!r} must be different names, got {value!r}.")
    return tuple(given)


def _numbers(name: str, key: str, value: Any, inputs: int = 3) -> tuple[float, ...]:
    """Check a mean or deviation: one number, or one for each of the input channels."""
    given = value if isinstance(value, (list, tuple)) else [value]
    right = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in given)
    if not right or len(given) not in (1, inputs) or not all(map(math.isfinite, given)):
        many = "three" if inputs == 3 else str(inputs)
        raise SourceError(
            f"The {key} of source {name!r} must be a number or {many}, one for each channel, got "
            f"{value!r}."
        )
    if key == "std" and min(given) <= 0:
        raise SourceError(f"The std of source {name!r} must be above 0, got {value!r}.")
    return tuple(float(v) for v in given)


def _check_units(name: str, found: Normalisation) -> None:
    """Refuse numbers that cannot be meant in units of the range."""
    if min(found.mean) < 0 or max(found.mean) > found.top:
        other = "; give range: 0..255" if 1 < max(found.mean) <= 255 and found.top == 1 else ""
        raise SourceError(
            f"The mean of source {name!r} must lie in its range {found.range}, got "
            f"{_listed(found.mean)}{other}."
        )
    if found.top == 1 and max(found.std) > LARGEST_STD:
        raise SourceError(
            f"The std of source {name!r} must be in units of its range {found.range}, got "
            f"{_listed(found.std)}; give range: 0..255 if mean and std are of such values."
        )
    if found.top == 255 and (0 < max(found.mean) <= 1 or max(found.std) < 1):
        raise SourceError(
            f"The mean and std of source {name!r} must be in units of its range {found.range}, got "
            f"{_listed(found.mean)} and {_listed(found.std)}; give them times 255, or range: 0..1."
        )


def _spread(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    return values * count if len(values) == 1 else values


def _pairs(mine: tuple[float, ...], theirs: tuple[float, ...]) -> Iterable[tuple[float, float]]:
    """Pair the values of corresponding channels; nothing where their numbers do not agree."""
    count = max(len(mine), len(theirs))
    one, two = _spread(mine, count), _spread(theirs, count)
    return zip(one, two, strict=True) if len(one) == len(two) else [(0.0, math.inf)]


def _listed(values: Sequence[float]) -> str:
    """Write values per channel, a single one where they are all the same."""
    if len(set(values)) == 1:
        return f"{values[0]:.4g}"
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"

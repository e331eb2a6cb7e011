"""Give a whole frozen network the input it was trained on, computed from the task's input.

Sources that are aggregated need one input for all, so that their first kernels have to be changed;
a network that runs whole, such as a teacher, can have its own input instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_lightning.errors import ConfigError, nearest

RANGES = {"0..1": 1.0, "0..255": 255.0}
"""Value of white, black being 0, by the names of the option ``range``."""

CHANNELS = ("rgb", "bgr", "grey")
"""Values of the option ``channels``."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey, as in Pillow (ITU-R BT.601)."""


@dataclass(frozen=True)
class Preprocessing:
    """How a network's training images were made numbers: ``(range · pixel - mean) / std``.

    Attributes:
        mean: mean per channel, in units of ``range`` and the order of ``channels``; ``None`` if
            unknown.
        std: standard deviation per channel, likewise.
        range: ``0..1`` or ``0..255``, values of black and white before normalisation.
        channels: ``rgb``, ``bgr`` or ``grey`` (three equal channels, or one).
        image_size: side of the square input, pixels; ``None`` for the task's.

    Raises:
        ConfigError: a value is not allowed.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    range: str = "0..1"
    channels: str = "rgb"
    image_size: int | None = None

    def __post_init__(self) -> None:
        if self.range not in RANGES:
            raise ConfigError(f"range must be one of {', '.join(RANGES)}, got {self.range!r}")
        if self.channels not in CHANNELS:
            raise ConfigError(f"channels must be one of {', '.join(CHANNELS)}, got "
                              f"{self.channels!r}")  # fmt: skip
        if (self.mean is None) != (self.std is None):
            raise ConfigError("mean and std belong together; give both or none")
        if self.std is not None and not all(value > 0 for value in self.std):
            raise ConfigError(f"std must be above 0, got {list(self.std)}")
        if self.image_size is not None and self.image_size < 1:
            raise ConfigError(f"image_size must be at least 1, got {self.image_size}")


def parse_preprocessing(given: Mapping[str, Any], owner: str) -> Preprocessing:
    """Read the preprocessing of a configuration.

    Args:
        given: mapping with some of the attributes of :class:`Preprocessing`.
        owner: name of the network, for messages.

    Raises:
        ConfigError: a key is unknown or a value is not allowed.
    """
    known = [field.name for field in fields(Preprocessing)]
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"preprocessing of {owner} must be a mapping with {', '.join(known)}, got {given!r}"
        )
    for key in given:
        if key not in known:
            raise ConfigError(
                f"preprocessing of {owner}: unknown key {key!r}.{nearest(str(key), known)} Known: "
                f"{', '.join(known)}"
            )
    values = dict(given)
    try:
        for key in ("mean", "std"):
            if values.get(key) is not None:
                values[key] = tuple(float(value) for value in values[key])
        if values.get("image_size") is not None:
            values["image_size"] = int(values["image_size"])
        return Preprocessing(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"preprocessing of {owner}: {error}") from error


class OwnInput(nn.Module):
    """Map of the task's normalised images to a network's own input.

    Images are un-normalised, reordered, scaled and normalised, which is exact but for rounding, and
    resized bilinearly, with antialiasing, where the network has another size.

    Args:
        task: mean and standard deviation per channel of the task's images, in [0, 1] units.
        own: preprocessing of the network; one without ``mean`` has the task's.
        own_size: side of the network's input in pixels; ``None`` for the images' own.

    Raises:
        ConfigError: the numbers of channels of both do not fit.
    """

    def __init__(
        self,
        task: tuple[Sequence[float], Sequence[float]],
        own: Preprocessing,
        own_size: int | None = None,
    ) -> None:
        super().__init__()
        before_mean, before_std = (_column(values) for values in task)
        if own.mean is None or own.std is None:
            mean, std = before_mean * RANGES[own.range], before_std * RANGES[own.range]
            if own.channels == "bgr":
                mean, std = mean.flip(0), std.flip(0)
        else:
            mean, std = _column(own.mean), _column(own.std)
        count = len(before_mean)
        if {len(mean), len(std)} - {1, count} or (own.channels != "rgb" and count != 3):
            raise ConfigError(
                f"a preprocessing of {len(mean)} channels ({own.channels}) does not fit images of "
                f"{count} channels"
            )
        self.before_mean: Tensor
        self.before_std: Tensor
        self.mean: Tensor
        self.std: Tensor
        for name, value in (
            ("before_mean", before_mean),
            ("before_std", before_std),
            ("mean", mean),
            ("std", std),
        ):
            self.register_buffer(name, value.float())
        self.white = RANGES[own.range]
        self.channels, self.size = own.channels, own_size
        same = torch.equal(self.mean.expand_as(self.before_mean), self.before_mean)
        same = same and torch.equal(self.std.expand_as(self.before_std), self.before_std)
        self.unchanged = same and self.white == 1 and own.channels == "rgb"
        """Whether numbers stay as they are, so that the size alone may change."""

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images ``(B, C, H, W)`` to ``(B, C, S, S)``, or of their own size."""
        if not self.unchanged:
            pixels = images * self.before_std + self.before_mean
            if self.channels == "bgr":
                pixels = pixels.flip(1)
            elif self.channels == "grey":
                luma = torch.tensor(LUMA, device=pixels.device).view(1, 3, 1, 1)
                pixels = (pixels * luma).sum(dim=1, keepdim=True).expand_as(pixels)
            images = (pixels * self.white - self.mean) / self.std
        if self.size is None or images.shape[-2:] == (self.size, self.size):
            return images
        size = (self.size, self.size)
        return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


class WithOwnInput(nn.Module):
    """A network behind :class:`OwnInput`.

    Args:
        own_input: map of the task's images to the network's.
        network: network that maps its own images to any output.
    """

    def __init__(self, own_input: OwnInput, network: nn.Module) -> None:
        super().__init__()
        self.own_input, self.network = own_input, network

    def forward(self, images: Tensor) -> Any:
        """Compute the network's output for the task's normalised images ``(B, C, H, W)``."""
        return self.network(self.own_input(images))


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor([float(value) for value in values], dtype=torch.float64).view(-1, 1, 1)

"""Give a whole frozen network the input it was trained on, computed from the task's input.

Sources that are aggregated need one input for all, so that their first kernels have to be changed;
a network that runs whole, such as a teacher, can have its own input instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_lightning.errors import ConfigError

KEYS = ("mean", "std", "range", "channels")
"""Keys by which a network's preprocessing is declared."""

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
        mean: mean of each channel, or one for all, in units of ``range`` and the order of
            ``channels``.
        std: standard deviation of each channel, or one for all, likewise.
        range: ``0..1`` or ``0..255``, values of black and white before normalisation.
        channels: ``rgb``, ``bgr`` or ``grey``, the luminance in every channel.

    Raises:
        ConfigError: a value is not allowed.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    range: str = "0..1"
    channels: str = "rgb"

    def __post_init__(self) -> None:
        if self.range not in RANGES:
            raise ConfigError(f"range must be one of {', '.join(RANGES)}, got {self.range!r}")
        if self.channels not in CHANNELS:
            raise ConfigError(
                f"channels must be one of {', '.join(CHANNELS)}, got {self.channels!r}"
            )
        if not all(value > 0 for value in self.std):
            raise ConfigError(f"std must be above 0, got {list(self.std)}")


def declared(given: Mapping[str, Any], owner: str) -> Preprocessing | None:
    """Read the preprocessing that a configuration declares; ``None`` if it declares none.

    Args:
        given: values of :data:`KEYS`; those that are absent or ``None`` are not declared. Without a
            mean nothing is subtracted, without a deviation nothing divided.
        owner: name of the network, for messages.

    Raises:
        ConfigError: a value is not allowed.
    """
    values = {key: given[key] for key in KEYS if given.get(key) is not None}
    if not values:
        return None
    try:
        for key in ("mean", "std"):
            if key in values:
                numbers = values[key]
                numbers = numbers if isinstance(numbers, (list, tuple)) else [numbers]
                values[key] = tuple(float(value) for value in numbers)
        return Preprocessing(**values)
    except (TypeError, ValueError) as error:  # of numbers, and of Preprocessing
        raise ConfigError(f"preprocessing of {owner}: {error}") from error


class OwnInput(nn.Module):
    """Map of the task's normalised images to a network's own input.

    Images are un-normalised, reordered, scaled and normalised, which is exact but for rounding, and
    resized bilinearly, with antialiasing, where the network has another size.

    Args:
        task: mean and standard deviation per channel of the task's images, in [0, 1] units.
        own: preprocessing of the network; ``None`` if it is the task's.
        own_size: side of the network's input in pixels; ``None`` for the images' own.

    Raises:
        ConfigError: the numbers of channels of both do not fit.
    """

    def __init__(
        self,
        task: tuple[Sequence[float], Sequence[float]],
        own: Preprocessing | None,
        own_size: int | None = None,
    ) -> None:
        super().__init__()
        before_mean, before_std = (_column(values) for values in task)
        own = own or Preprocessing(tuple(task[0]), tuple(task[1]))
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

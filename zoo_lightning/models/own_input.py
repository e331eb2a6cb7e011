"""Give a whole frozen network the input it was trained on, computed from the task's input.

Sources that are aggregated need one input for all, so that their first kernels have to be changed;
a network that runs whole, such as a teacher, can have its own input instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_lightning.errors import ConfigError
from zoo_lightning.sources.normalisation import Normalisation
from zoo_lightning.sources.stems import LUMINANCE


class OwnInput(nn.Module):
    """Map of the task's normalised images to a network's own input.

    Images are un-normalised, reordered, scaled and normalised, which is exact but for rounding, and
    resized bilinearly, with antialiasing, where the network has another size.

    Args:
        task: mean and standard deviation per channel of the task's images, in [0, 1] units.
        own: normalisation of the network's images; ``None`` if it is the task's.
        own_size: side of the network's input in pixels; ``None`` for the images' own.

    Raises:
        ConfigError: the numbers of channels of both do not fit.
    """

    def __init__(
        self,
        task: tuple[Sequence[float], Sequence[float]],
        own: Normalisation | None,
        own_size: int | None = None,
    ) -> None:
        super().__init__()
        before_mean, before_std = (_column(values) for values in task)
        own = own or Normalisation(tuple(task[0]), tuple(task[1]))
        mean, std = _column(own.mean), _column(own.std)
        count, channels = len(before_mean), own.channels or "rgb"
        if {len(mean), len(std)} - {1, count} or (channels != "rgb" and count != 3):
            raise ConfigError(
                f"a preprocessing of {len(mean)} channels ({channels}) does not fit images of "
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
        self.white = own.top
        self.channels, self.size = channels, own_size
        same = torch.equal(self.mean.expand_as(self.before_mean), self.before_mean)
        same = same and torch.equal(self.std.expand_as(self.before_std), self.before_std)
        self.unchanged = same and self.white == 1 and channels == "rgb"
        """Whether numbers stay as they are, so that the size alone may change."""

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images ``(B, C, H, W)`` to ``(B, C, S, S)``, or of their own size."""
        if not self.unchanged:
            pixels = images * self.before_std + self.before_mean
            if self.channels == "bgr":
                pixels = pixels.flip(1)
            elif self.channels == "grey":
                luma = torch.tensor(LUMINANCE, device=pixels.device).view(1, 3, 1, 1)
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

"""Data set of classification samples: images, from files or memory, with their classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from zoo_lightning.data.labelled_set import LabelledSet, Source
from zoo_lightning.data.values import ValueRange

if TYPE_CHECKING:
    from torchvision.transforms import v2

ROTATIONS = 4
"""Quarter turns to tell apart (Gidaris et al., *Unsupervised representation learning by predicting
image rotations*, ICLR 2018)."""

Sample = tuple[Source, int]
"""An image and the index of its class."""


class ClassSet(LabelledSet[int]):
    """Data set of images with class labels or, instead, the quarter turns applied to them.

    Args:
        samples: images and class indices.
        names: readable names of the images.
        transform: map of a PIL image to uint8 ``(..., 3, S, S)``; its random generator is reseeded
            for every sample.
        seed: seed of the transform's random numbers.
        targets: ``class`` for the given labels, ``rotation`` for the random quarter turn as label.
        values: pixel values of black and white in images with more than 8 bits, see
            :func:`~zoo_lightning.data.images.open_rgb`.
    """

    def __init__(
        self,
        samples: list[Sample],
        names: list[str],
        transform: v2.Transform,
        seed: int,
        targets: Literal["class", "rotation"] = "class",
        values: ValueRange | None = None,
    ) -> None:
        super().__init__(samples, names, transform, seed, values)
        self.targets = targets

    def finished(self, image: Tensor, label: int, generator: torch.Generator) -> tuple[Tensor, Any]:
        """Turn the image by a random number of quarter turns, its label, if that is the target."""
        if self.targets == "rotation":
            label = int(torch.randint(ROTATIONS, (), generator=generator))
            image = torch.rot90(image, label, dims=(-2, -1)).contiguous()
        return image, label

"""Data module of the shipped subset of Fashion-MNIST, 8,000 images.

Made by ``python -m zoo_lightning.data.classification.draw_fashion_mnist``; source and licence
are in ``bundled/NOTICE.txt``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from zoo_lightning.data.classification.base import ClassData
from zoo_lightning.data.classification.dataset import Sample
from zoo_lightning.data.labelled import Part

BUNDLED = Path(__file__).parents[1] / "bundled" / "fashion_mnist.npz"

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""Class names in the order of Fashion-MNIST's labels."""


class FashionMNISTSubset(ClassData):
    """Data module of a subset of Fashion-MNIST: per class 600 training and 200 test images.

    Args:
        image_size: side of the network's input, pixels.
        batch_size: samples per step and process.
        crop_scale: smallest share of the image's area that a training crop shows, in (0, 1].
        options: further options of ``ClassData``.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(
        self, image_size: int = 32, batch_size: int = 64, crop_scale: float = 0.7, **options: Any
    ) -> None:
        self.root = BUNDLED.parent
        self.classes = list(CLASSES)
        super().__init__(image_size, batch_size, crop_scale=crop_scale, **options)

    def _read(self, part: Part) -> list[Sample] | None:
        if part == "val":
            return None
        with np.load(BUNDLED, allow_pickle=False) as file:
            images, labels = file[f"{part}_images"], file[f"{part}_labels"]
        return list(zip(images, labels.tolist(), strict=True))

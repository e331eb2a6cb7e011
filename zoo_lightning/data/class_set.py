"""Samples of classification: an image, from a file or from memory, and its class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from zoo_lightning.data.images import image_size, map_in_threads, open_rgb
from zoo_lightning.data.loading import sample_generator
from zoo_lightning.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchvision.transforms import v2

ROTATIONS = 4
"""Quarter turns to tell apart (Gidaris et al., *Unsupervised representation learning by predicting
image rotations*, ICLR 2018)."""

Sample = tuple[Path | np.ndarray, int]
"""An image file, or an image ``(H, W)`` or ``(H, W, 3)`` uint8, and the index of its class."""


class ClassSet(Dataset):
    """Images with their classes or, in place of classes, the quarter turns they were given.

    Args:
        samples: images and class indices.
        names: of the images, for people to read.
        transform: of a PIL image to uint8 ``(..., 3, S, S)``; its random numbers are reseeded for
            every sample.
        seed: of those random numbers.
        targets: ``class`` or ``rotation``.
    """

    def __init__(
        self,
        samples: list[Sample],
        names: list[str],
        transform: v2.Transform,
        seed: int,
        targets: Literal["class", "rotation"] = "class",
    ) -> None:
        self.samples = samples
        self.names = names
        self.transform = transform
        self.seed = seed
        self.targets = targets

    def __len__(self) -> int:
        return len(self.samples)

    def sample_name(self, index: int) -> str:
        """File of a sample, or its number where it is of no file."""
        source = self.samples[index][0]
        return str(source) if isinstance(source, Path) else f"sample {index}"

    def __getitem__(self, position: tuple[int, int] | int) -> dict[str, Any]:
        epoch, index = position if isinstance(position, tuple) else (0, position)
        source, label = self.samples[index]
        generator = sample_generator(self.seed, epoch, index)
        # torchvision draws from the CPU's global generator; it is put back as it was. Seeding that
        # one alone, because torch.manual_seed costs a millisecond in visits to absent devices.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(generator.initial_seed())
            image = self.transform(open_source(source))
        if self.targets == "rotation":
            label = int(torch.randint(ROTATIONS, (), generator=generator))
            image = torch.rot90(image, label, dims=(-2, -1)).contiguous()
        return {"image": image, "label": label, "index": index}


def open_source(source: Path | np.ndarray) -> Image.Image:
    """An image of a sample as RGB, whatever its mode, turned as EXIF says.

    Raises:
        DataError: if it is a file that is absent or no readable image.
    """
    if isinstance(source, np.ndarray):
        return Image.fromarray(source).convert("RGB")
    try:
        return open_rgb(source, upright=True)
    except DataError as error:  # damage that a quick look before training does not find
        raise DataError(f"{error} Or set `skip_broken: true`.") from error


def broken_images(
    sources: Sequence[Path | np.ndarray], decode: bool = False
) -> dict[int, DataError]:
    """Files among the images that are absent, no images, or not whole, by their positions.

    Args:
        sources: the images.
        decode: decode every file, which finds damage in the middle of a JPEG too, as far as its
            decoder complains of it; otherwise as much is read as is quick.
    """

    def fault(source: Path | np.ndarray) -> DataError | None:
        try:
            if isinstance(source, Path):
                open_rgb(source) if decode else _check_whole(source)
        except DataError as error:
            return error
        return None

    faults = map_in_threads(fault, sources)
    return {index: error for index, error in enumerate(faults) if error is not None}


def _check_whole(path: Path) -> None:
    """Check a file without decoding it, where its format lets a cut be seen; else decode it."""
    image_size(path)
    if path.suffix.lower() == ".png":
        return  # checked to its last block
    if path.suffix.lower() in (".jpg", ".jpeg"):
        with path.open("rb") as file:
            file.seek(-2, os.SEEK_END)
            if file.read() == b"\xff\xd9":  # the end-of-image marker
                return
    open_rgb(path)

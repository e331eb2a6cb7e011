"""Data sets of images, from files or memory, with a label for each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from PIL import Image

from zoo_lightning.data.bands import BandReader
from zoo_lightning.data.image_files import map_in_threads
from zoo_lightning.data.image_list import ImageList
from zoo_lightning.data.images import image_size, open_rgb
from zoo_lightning.data.loading import SizedDataset, sample_generator
from zoo_lightning.data.stored_images import ImageFile
from zoo_lightning.data.values import ValueRange
from zoo_lightning.errors import DataError
from zoo_lightning.nn.random_numbers import private_random_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor
    from torchvision.transforms import v2

L = TypeVar("L")

Source = ImageFile | np.ndarray
"""An image file, one inside a larger file, or an image ``(H, W)`` or ``(H, W, 3)`` uint8."""


class LabelledSet(SizedDataset, Generic[L]):
    """Data set of images with a label each, of any type that batches can be made of.

    Args:
        samples: images and labels.
        names: readable names of the images.
        transform: map of a PIL image to uint8 ``(..., 3, S, S)``; its random generator is reseeded
            for every sample.
        seed: seed of the transform's random numbers.
        values: pixel values of black and white in images with more than 8 bits, see
            :func:`~zoo_lightning.data.images.open_rgb`.
    """

    def __init__(
        self,
        samples: Sequence[tuple[Source, L]],
        names: list[str],
        transform: v2.Transform,
        seed: int,
        values: ValueRange | None = None,
    ) -> None:
        self.sources = ImageList(source for source, _ in samples)
        self.labels = [label for _, label in samples]
        self.names = names
        self.transform = transform
        self.seed = seed
        self.values = values

    reader: BandReader | None = None
    """Reader of images of chosen bands; ``None`` for red, green and blue."""
    shown: Sequence[int] = (0, 1, 2)
    """Channels that pictures show, three or one."""

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def samples(self) -> list[tuple[Source, L]]:
        """Images and labels."""
        return list(zip(self.sources, self.labels, strict=True))

    def sample_name(self, index: int) -> str:
        """Path of a sample's image file, or its index if the image is in memory."""
        source = self.sources[index]
        return f"sample {index}" if isinstance(source, np.ndarray) else str(source)

    def __getitem__(self, position: tuple[int, int] | int) -> dict[str, Any]:
        epoch, index = position if isinstance(position, tuple) else (0, position)
        generator = sample_generator(self.seed, epoch, index)
        # torchvision draws from the CPU's global generator.
        with private_random_numbers(generator.initial_seed(), cpu_only=True):
            image = self.transform(self._opened(self.sources[index]))
        image, label = self.finished(image, self.labels[index], generator)
        return {"image": image, "label": label, "index": index}

    def _opened(self, source: Source) -> Image.Image | Tensor:
        if self.reader is None:
            return open_source(source, self.values)
        try:
            return self.reader.image(source)
        except DataError as error:
            raise DataError(f"{error} Or set `skip_broken: true`.") from error

    def picture(self, image: Tensor) -> Tensor:
        """Show an image of the data set ``(C, S, S)`` as red, green and blue, ``(3, S, S)`` uint8.

        Bands that are no bytes are stretched around their means.
        """
        return image if self.reader is None else self.reader.picture(image, self.shown)

    def finished(self, image: Tensor, label: L, generator: torch.Generator) -> tuple[Tensor, Any]:
        """Return the transformed image and its label as they are put into a batch.

        Args:
            image: uint8 ``(..., 3, S, S)``.
            label: the sample's label.
            generator: random generator of the sample and epoch.
        """
        return image, label


def open_source(source: Source, values: ValueRange | None = None) -> Image.Image:
    """Load a sample's image as RGB in its EXIF orientation.

    Args:
        source: image file or pixels.
        values: pixel values of black and white, see :func:`~zoo_lightning.data.images.open_rgb`.

    Raises:
        DataError: if it is a file that is absent or no readable image.
    """
    if isinstance(source, np.ndarray):
        return Image.fromarray(source).convert("RGB")
    try:
        return open_rgb(source, upright=True, values=values)
    except DataError as error:  # damage that a quick look before training does not find
        raise DataError(f"{error} Or set `skip_broken: true`.") from error


def broken_images(sources: Sequence[Source], decode: bool = False) -> dict[int, DataError]:
    """Find missing, malformed or truncated image files: errors by index in ``sources``.

    Args:
        sources: the images.
        decode: whether to decode every file, which also finds damage inside a JPEG if its decoder
            reports it; otherwise only what can be checked quickly is.
    """

    def fault(source: Source) -> DataError | None:
        try:
            if not isinstance(source, np.ndarray):
                open_rgb(source) if decode else _check_whole(source)
        except DataError as error:
            return error
        return None

    faults = map_in_threads(fault, sources)
    return {index: error for index, error in enumerate(faults) if error is not None}


def _check_whole(path: ImageFile) -> None:
    """Check that a file is not truncated, decoding it only where its format requires that."""
    image_size(path)
    if path.suffix.lower() == ".png":
        return  # checked to its last block
    if path.suffix.lower() in (".jpg", ".jpeg"):
        with path.open("rb") as file:
            file.seek(-2, os.SEEK_END)
            if file.read() == b"\xff\xd9":  # the end-of-image marker
                return
    open_rgb(path)

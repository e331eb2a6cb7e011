"""Data set of images with masks, which are augmented together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from zoo_lightning.data.image_files import shrink_for_canvas
from zoo_lightning.data.images import fit_square
from zoo_lightning.data.labelled_set import LabelledSet, Source, open_source
from zoo_lightning.data.loading import sample_generator
from zoo_lightning.data.segmentation.label_files import IGNORED, VALUES
from zoo_lightning.nn.random_numbers import private_random_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo_lightning.data.values import ValueRange

PairTransform = Callable[[Image.Image, Image.Image], tuple[Tensor, Tensor]]
"""Map of an RGB image and its mask (mode L) to uint8 ``(3, S, S)`` and ``(S, S)``."""


class Mask(Protocol):
    """Protocol of masks, which are read when they are needed."""

    def read(self, size: tuple[int, int]) -> np.ndarray:
        """Values of all pixels, ``(H, W)`` uint8, for an image of a width and height."""
        ...


class MaskSet(LabelledSet[Mask]):
    """Data set of images with masks; samples have ``image``, ``labels`` and ``index``.

    Labels are int64 ``(S, S)``, with :data:`~zoo_lightning.data.segmentation.label_files.IGNORED`
    for pixels that do not count and for the padding that makes an image a square.

    Args:
        samples: images and their masks.
        names: readable names of the images.
        transform: map of an image and its mask to uint8 squares.
        seed: seed of the transform's random numbers.
        values: pixel values of black and white in images with more than 8 bits.
        ignore_index: value of a mask that marks unlabelled pixels; ``None`` for none.
    """

    def __init__(
        self,
        samples: Sequence[tuple[Source, Mask]],
        names: list[str],
        transform: PairTransform,
        seed: int,
        values: ValueRange | None = None,
        ignore_index: int | None = IGNORED,
    ) -> None:
        super().__init__(samples, names, transform, seed, values)
        self.labels_of = label_table(ignore_index)

    def __getitem__(self, position: tuple[int, int] | int) -> dict[str, Any]:
        epoch, index = position if isinstance(position, tuple) else (0, position)
        image = open_source(self.sources[index], self.values)
        mask = Image.fromarray(self.labels_of[self.labels[index].read(image.size)])
        generator = sample_generator(self.seed, epoch, index)
        # torchvision draws from the CPU's global generator.
        with private_random_numbers(generator.initial_seed(), cpu_only=True):
            pixels, labels = self.transform(image, mask)
        return {"image": pixels, "labels": labels.long(), "index": index}

    def seen_size(self, index: int) -> tuple[int, int]:
        """Width and height of an image as it is seen, pixels."""
        return open_source(self.sources[index], self.values).size


def label_table(ignore_index: int | None) -> np.ndarray:
    """Labels by value of a mask, ``(256,)`` uint8: the values, but ``IGNORED`` for one of them."""
    table = np.arange(VALUES, dtype=np.uint8)
    if ignore_index is not None:
        table[ignore_index] = IGNORED
    return table


class AlignedCrop(v2.RandomResizedCrop):
    """Random resized crop whose masks lie where the image lies.

    torchvision resizes masks with the older of its two nearest-neighbour rules, which shifts them
    by up to half a pixel against the image.
    """

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop and resize an image or a mask."""
        if not isinstance(inpt, tv_tensors.Mask):
            return super().transform(inpt, params)
        plain = inpt.as_subclass(Tensor)[None]
        exact = InterpolationMode.NEAREST_EXACT
        cut = F.resized_crop(plain, **params, size=self.size, interpolation=exact)
        return tv_tensors.wrap(cut[0], like=inpt)


def training_pair(image_size: int, crop_scale: float, flip: float, jitter: float) -> PairTransform:
    """Training transform of pairs: pad to a square, crop, mirror, change the image's colours.

    Args:
        image_size: side of the result, pixels.
        crop_scale: smallest share of the padded square's area that a crop shows, in (0, 1].
        flip: probability of mirroring.
        jitter: strength of brightness, contrast and saturation changes, at least 0.

    Returns:
        Map of an image and its mask to uint8 squares; it draws from torch's global generator.
    """
    steps = [
        AlignedCrop(image_size, (crop_scale, 1.0), antialias=True),
        v2.RandomHorizontalFlip(flip),
        *([v2.ColorJitter(jitter, jitter, jitter)] if jitter else []),
    ]
    return partial(_augmented, v2.Compose(steps))


def _augmented(steps: v2.Compose, image: Image.Image, mask: Image.Image) -> tuple[Tensor, Tensor]:
    image, mask = _for_canvas(image, mask)
    pixels, labels = padded(F.pil_to_tensor(image), 0), padded(F.pil_to_tensor(mask), IGNORED)
    pixels, labels = steps(tv_tensors.Image(pixels), tv_tensors.Mask(labels[0]))
    return pixels.as_subclass(Tensor), labels.as_subclass(Tensor)


def _for_canvas(image: Image.Image, mask: Image.Image) -> tuple[Image.Image, Image.Image]:
    """Shrink an image and its mask if the square around them would be too large."""
    image, _ = shrink_for_canvas(image, max(image.size))
    if mask.size != image.size:
        mask = mask.resize(image.size, Image.Resampling.NEAREST)
    return image, mask


def padded(pixels: Tensor, fill: int) -> Tensor:
    """Pad ``(C, H, W)`` to a square, centred as :func:`~zoo_lightning.data.images.fit_square` does.

    Args:
        pixels: image or mask.
        fill: value of the padding.
    """
    height, width = pixels.shape[-2:]
    longer = max(height, width)
    left, top = (longer - width) // 2, (longer - height) // 2
    around = (left, longer - width - left, top, longer - height - top)
    return torch.nn.functional.pad(pixels, around, value=fill)


def evaluation_pair(image_size: int) -> PairTransform:
    """Evaluation transform of pairs: the whole image, padded to a square and resized.

    Args:
        image_size: side of the result, pixels.
    """
    return partial(_whole, image_size)


def _whole(side: int, image: Image.Image, mask: Image.Image) -> tuple[Tensor, Tensor]:
    image, mask = _for_canvas(image, mask)
    longer = max(mask.size)
    square = Image.new("L", (longer, longer), IGNORED)
    square.paste(mask, ((longer - mask.width) // 2, (longer - mask.height) // 2))
    # The label of a pixel is that under its centre.
    labels = F.pil_to_tensor(square.resize((side, side), Image.Resampling.NEAREST))
    # The image as deployed models prepare it.
    return F.pil_to_tensor(fit_square(image, side)), labels[0]

"""Transforms of images to uint8 squares, with augmentation in training.

Normalisation follows on the device.
"""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from zoo_lightning.data.image_files import LARGEST_CANVAS


def training_transform(
    image_size: int, resize: int | None, crop_scale: float, flip: float, jitter: float
) -> v2.Transform:
    """Training transform: random crop, mirroring and colour changes.

    Args:
        image_size: side of the result, pixels.
        resize: side in pixels of the square that the image is resized to before it is cropped,
            ignoring its aspect ratio; ``None`` does not resize it.
        crop_scale: smallest share of the area that a crop shows, in (0, 1].
        flip: probability of mirroring.
        jitter: strength of brightness, contrast and saturation changes, at least 0.

    Returns:
        Map of an RGB image to uint8 ``(3, S, S)``; it draws from torch's global generator.
    """
    return v2.Compose(
        [
            v2.PILToTensor(),
            *_squeezing(resize),
            v2.RandomResizedCrop(image_size, (crop_scale, 1.0), antialias=True),
            v2.RandomHorizontalFlip(flip),
            *([v2.ColorJitter(jitter, jitter, jitter)] if jitter else []),
        ]
    )


def evaluation_transform(image_size: int, resize: int | None, crops: int = 1) -> v2.Transform:
    """Evaluation transform: the centre of the image, or ten crops of it.

    Args:
        image_size: side of a crop, pixels.
        resize: side in pixels of the square that the image is resized to before it is cropped,
            ignoring its aspect ratio; ``None`` resizes the shorter side to ``image_size`` and keeps
            the aspect ratio.
        crops: 1, or 10: the corners and the centre, then the same of the mirror image.

    Returns:
        Map of an RGB image to uint8 ``(3, S, S)``, or ``(10, 3, S, S)``.
    """
    whole = _squeezing(resize) or [
        MiddleOfStrips(image_size),
        v2.Resize(image_size, antialias=True),
    ]
    cut = v2.CenterCrop(image_size) if crops == 1 else TenCrops(image_size)
    # Pillow's resizing, not torchvision's of tensors, which rounds otherwise: an exported model's
    # users have Pillow, through timm's transforms or by themselves.
    return v2.Compose([*whole, v2.PILToTensor(), cut])


def _squeezing(resize: int | None) -> list[v2.Transform]:
    # As Pillow does it by default, whose resizing the authors of Zoo-Tuning use.
    cubic = InterpolationMode.BICUBIC
    return [] if resize is None else [v2.Resize((resize, resize), cubic, antialias=True)]


class MiddleOfStrips(nn.Module):
    """Crop very elongated images to their middle, so that resizing them does not exhaust memory.

    An image of few bytes and one pixel height may be so long that it would fill the memory once its
    shorter side is enlarged. The centre crop of the result is unchanged.

    Args:
        size: target length of the shorter side, pixels.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, image: Image.Image | Tensor) -> Image.Image | Tensor:
        """Crop a strip to its middle; return other images unchanged."""
        size = (image.shape[-1], image.shape[-2]) if isinstance(image, Tensor) else image.size
        shorter, longer = sorted(size)
        if self.size**2 * longer <= LARGEST_CANVAS * shorter:
            return image
        left = 3 * shorter + (longer - 3 * shorter) % 2
        width, height = (min(length, left) for length in size)
        x, y = (size[0] - width) // 2, (size[1] - height) // 2
        if isinstance(image, Tensor):
            return image[..., y : y + height, x : x + width]
        return image.crop((x, y, x + width, y + height))


class TenCrops(nn.Module):
    """Crop corners and centre of an image and of its mirror image, ``(10, 3, S, S)``."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.cut = v2.TenCrop(size)

    def forward(self, image: Tensor) -> Tensor:
        """Ten crops of an image ``(3, H, W)``."""
        return torch.stack(self.cut(image))

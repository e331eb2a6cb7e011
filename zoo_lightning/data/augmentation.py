"""Random augmentation of a training image together with its landmarks.

One affine warp maps the cached image to the network's input, so pixels are interpolated only once;
colours, blur, noise and an occluding rectangle follow. Plain Pillow and NumPy: at 64x64 this
is several times faster than the same transforms as tensor operations. All random numbers come from
the sample's own generator.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

from zoo_lightning.data.images import inverse_affine, transform_points
from zoo_lightning.errors import ConfigError

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Augmentation:
    """Options of the training augmentation; 0 (a scale of 1 to 1) disables a transform.

    Args:
        rotation: largest rotation to either side, degrees.
        scale: smallest and largest scale factor, above 0.
        shift: largest shift in each direction, fraction of the image's side.
        flip: probability of mirroring; taken as 0 if it is not known which landmarks swap.
        colour: strength in [0, 1] of changes of brightness, contrast, saturation and hue.
        grey: probability of converting the image to greyscale.
        blur: probability of a Gaussian blur of up to 1 % of the image's side.
        noise: probability of Gaussian noise with a standard deviation of up to 8 % of the range.
        occlusion: probability of covering a rectangle with sides of 10 to 40 % of the image's.

    Raises:
        ConfigError: a number is out of range.
    """

    rotation: float = 25.0
    scale: tuple[float, float] = (0.85, 1.15)
    shift: float = 0.06
    flip: float = 0.5
    colour: float = 0.4
    grey: float = 0.1
    blur: float = 0.1
    noise: float = 0.15
    occlusion: float = 0.25

    def __post_init__(self) -> None:
        for name in ("flip", "colour", "grey", "blur", "noise", "occlusion"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"`{name}` must be in [0, 1], got {getattr(self, name)}.")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(
                f"`scale` must be a smallest and a largest factor above 0, got {self.scale}."
            )
        if not 0 <= self.shift < 1 or not 0 <= self.rotation <= 180:
            raise ConfigError(
                "`shift` must be in [0, 1) and `rotation` in [0, 180], got "
                f"{self.shift} and {self.rotation}."
            )

    def as_option(self) -> dict[str, Any]:
        """Convert to plain values, in the form of the option ``augment``."""
        return asdict(self) | {"scale": list(self.scale)}


NO_AUGMENTATION = Augmentation(0, (1, 1), 0, 0, 0, 0, 0, 0, 0)


def reach(options: Augmentation) -> float:
    """Side of the square that augmented crops lie within, in sides of the unaugmented crop."""
    angle = math.radians(min(options.rotation, 45))  # a square reaches furthest on its corner
    turned = math.cos(angle) + math.sin(angle)
    return max((1 + 2 * options.shift) * turned / options.scale[0], 1.0)


def augment(
    image: np.ndarray,
    points: np.ndarray,
    size: int,
    options: Augmentation,
    flip: tuple[int, ...] | None,
    generator: torch.Generator,
    visible: np.ndarray | None = None,
    extent: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Augment one training image and transform its points.

    Args:
        image: ``(S, S, 3)`` uint8.
        points: ``(K, 2)`` in the image's pixels.
        size: side of the result, pixels.
        options: strengths of the augmentation.
        flip: permutation of the points under mirroring; ``None`` never mirrors.
        generator: random generator of the sample.
        visible: ``(K,)`` bool, the points that count; ``None`` for all.
        extent: fraction of the image's side that fills the result without augmentation; the rest
            becomes visible when the image is rotated, shifted or shrunk.

    Returns:
        Image ``(size, size, 3)`` uint8, points ``(K, 2)`` float32 in its pixels, and which of them
        count, ``(K,)`` bool.
    """
    draw = torch.rand(32, generator=generator).tolist()
    mirrored = flip is not None and draw[0] < options.flip
    affine = random_affine(image.shape[0], size, options, mirrored, draw[1:5], extent)
    points = transform_points(points, affine).astype(np.float32)
    visible = np.ones(len(points), bool) if visible is None else visible
    if mirrored and flip is not None:
        points, visible = points[list(flip)], visible[list(flip)]
    warped = warp(image, affine, size)
    if draw[5] < options.blur:
        warped = warped.filter(ImageFilter.GaussianBlur(size * 0.01 * (0.3 + 0.7 * draw[6])))
    pixels = np.asarray(warped)
    if options.colour > 0 or draw[7] < options.grey:
        pixels = recolour(pixels, options.colour, draw[7] < options.grey, draw[8:15])
    if draw[15] < options.noise:
        pixels = add_noise(pixels, 0.08 * draw[16], generator)
    if draw[17] < options.occlusion:
        pixels = cover(pixels, draw[18:25])
    return pixels, points, visible


def random_affine(
    side: int,
    size: int,
    options: Augmentation,
    mirrored: bool,
    draw: list[float],
    extent: float = 1.0,
) -> np.ndarray:
    """Draw an affine map: rotation and scale about the centre, then shift, then mirroring.

    Args:
        side: side of the source image, pixels.
        size: side of the result, pixels.
        options: ranges.
        mirrored: whether left and right are swapped.
        draw: four numbers in [0, 1).
        extent: fraction of the source's side that fills the result where the scale is 1.

    Returns:
        ``(2, 3)`` source pixels to result pixels.
    """
    angle = math.radians(options.rotation * (2 * draw[0] - 1))
    low, high = options.scale
    # Between the factors on a logarithmic scale: as often twice as large as half as large.
    scale = low * (high / low) ** draw[1] * size / (side * extent)
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    shift_x, shift_y = (options.shift * (2 * number - 1) for number in draw[2:4])
    linear = np.array([[cosine, -sine], [sine, cosine]])
    centre = np.array([side / 2, side / 2])
    target = np.array([(0.5 + shift_x) * size, (0.5 + shift_y) * size])
    affine = np.concatenate([linear, (target - linear @ centre)[:, None]], axis=1)
    if mirrored:
        affine[0] *= -1
        affine[0, 2] += size
    return affine


def warp(image: np.ndarray, affine: np.ndarray, size: int) -> Image.Image:
    """Apply an affine map to an image, bilinearly, with black outside.

    Args:
        image: ``(S, S, 3)`` uint8, at most about twice the result's resolution, to avoid aliasing.
        affine: ``(2, 3)`` image pixels to result pixels.
        size: side of the result, pixels.
    """
    # Pillow asks for the map from the result to the source; it, too, has pixel centres at a half.
    backwards = inverse_affine(affine).ravel().tolist()
    return Image.fromarray(image).transform(
        (size, size), Image.Transform.AFFINE, backwards, Image.Resampling.BILINEAR
    )


def recolour(pixels: np.ndarray, strength: float, grey: bool, draw: list[float]) -> np.ndarray:
    """Change contrast and brightness about the image's mean, saturation, and colour cast.

    Args:
        pixels: ``(S, S, 3)`` uint8.
        strength: strength of the changes, in [0, 1].
        grey: whether to convert to greyscale.
        draw: seven numbers in [0, 1).

    Returns:
        ``(S, S, 3)`` uint8.
    """
    centred = [2 * number - 1 for number in draw]
    contrast = 1 + strength * centred[0]
    saturation = 0.0 if grey else 1 + strength * centred[1]
    brightness = 255 * 0.4 * strength * centred[2]
    cast = 1 + (0.0 if grey else 0.3) * strength * np.array(centred[3:6], np.float32)
    # Saturation mixes each channel with the luma, the cast scales the channels: one 3x3 matrix.
    matrix = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * _LUMA[:, None]
    flat = pixels.reshape(-1, 3).astype(np.float32) @ (matrix * cast)
    flat = contrast * flat + ((1 - contrast) * flat.mean() + brightness)
    return _to_bytes(flat).reshape(pixels.shape)


def add_noise(pixels: np.ndarray, strength: float, generator: torch.Generator) -> np.ndarray:
    """Add Gaussian noise of the given standard deviation, a fraction of the range."""
    noise = torch.randn(pixels.shape, generator=generator).numpy()
    return _to_bytes(pixels + noise * np.float32(255 * strength))


def cover(pixels: np.ndarray, draw: list[float]) -> np.ndarray:
    """Cover a rectangle of 10 to 40 % of each side with one colour; it may extend beyond the image.

    Args:
        pixels: ``(S, S, 3)`` uint8.
        draw: seven numbers in [0, 1).
    """
    side = pixels.shape[0]
    height, width = (max(int(side * (0.1 + 0.3 * number)), 1) for number in draw[:2])
    top, left = (int(side * number) for number in draw[2:4])
    top, left = top - height // 2, left - width // 2
    pixels = pixels.copy()
    colour = [int(256 * number) for number in draw[4:7]]
    pixels[max(top, 0) : top + height, max(left, 0) : left + width] = colour
    return pixels


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels + 0.5, 0, 255).astype(np.uint8)

"""Value range shared by all images of a data set with more than 8 bits or floats.

A 12-bit detector writes 16-bit files, and floating-point values may have any scale: an image alone
does not show which value is white. So the range is an option, or is estimated once from all
training images and saved with the run; images of 8 bits always range from 0 to 255.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from PIL import Image

from zoo_lightning.data.image_files import map_in_threads, opened
from zoo_lightning.data.stored_images import ImageFile
from zoo_lightning.errors import ConfigError, DataError

ValueRange = tuple[float, float]
"""Pixel values that are mapped to black and white."""

FULL_SCALES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
"""Largest values of 8, 10, 12, 14 and 16 bits."""

OVERSHOOT = 0.05
"""Share of the full scale by which resampling may have raised floating numbers above it, or lowered
them below 0."""

LEAST_USE = 1 / 8
"""Share of a full scale above 1 that floating numbers must reach; below it, it is not theirs."""

LEAST_FRACTION = 1 / 32
"""Least maximum of floating numbers with a full scale of 1; below it they would look black."""

DARKEST_WHITE = 63
"""Largest of the upper 8 bits of values that have 14 bits or fewer."""

DARK_SAMPLE = 64
"""Number of colour images of 16 bits that are decoded to see how bright they are."""

ALWAYS_BYTES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".gif", ".webp", ".avif", ".avifs"),
    *(".heic", ".heif", ".hif", ".ico", ".icns", ".tga", ".pcx", ".psd", ".qoi"),
)
"""Suffixes of files that Pillow opens with 8 bits at most; no header is read of them."""


class Extent(NamedTuple):
    """Smallest and largest pixel value of one or several images.

    Attributes:
        low: smallest value.
        high: largest value.
        floating: whether the values are floating-point numbers.
    """

    low: float
    high: float
    floating: bool


def is_deep(mode: str) -> bool:
    """Whether images of a Pillow mode have more than 8 bits or floating-point values."""
    return mode in ("I", "F") or mode.startswith("I;16")


def to_grey(image: Image.Image, values: ValueRange | None = None) -> Image.Image:
    """Scale a decoded image that :func:`is_deep` to 8 bits, mode ``L``.

    Args:
        image: image of any size.
        values: pixel values of black and white; ``None`` estimates them from this image alone.
    """
    pixels = np.asarray(image)
    low, high = values or scale_of(extent_of(image) or Extent(0, 1, True))
    if pixels.dtype.kind == "f":
        pixels = np.nan_to_num((pixels - low) * (255 / (high - low)), posinf=255, neginf=0).round()
    else:  # the upper 8 bits
        pixels = np.floor((pixels - low) * (256 / (high - low + 1)))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def parse_value_range(given: str | Sequence[float] | None) -> ValueRange | None:
    """Parse the option ``value_range``.

    Args:
        given: ``LOW,HIGH`` or two numbers; ``None`` stays ``None``.

    Raises:
        ConfigError: not two finite numbers, the lower one first.
    """
    if given is None:
        return None
    try:
        low, high = map(float, given.split(",") if isinstance(given, str) else given)
    except (TypeError, ValueError):
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise ConfigError(
            f"`value_range` must be two numbers LOW,HIGH, for instance 0,4095, got {given!r}."
        )
    return low, high


def find_value_range(files: Iterable[ImageFile], label: str) -> ValueRange | None:
    """Estimate the value range of a set of images and log it.

    The result is the smallest full scale that holds all values: [0, 1] (for floating-point values
    only), 8, 10, 12, 14 or 16 bits. Floating-point values may exceed it by ``OVERSHOOT``. If none
    fits, the result is 0 and the largest value.

    Args:
        files: the images; each process reads the same ones and comes to the same result.
        label: name of the data in messages.

    Returns:
        ``None`` if all images have 8 bits at most.

    Raises:
        DataError: some images have integers and some floating-point values, of different scales; or
            an image has values below 0, so that black is unknown.
    """
    files = list(files)
    _warn_of_dark_colours(files, label)
    found = _extents(files)
    extents = [*found.values()]
    if not extents:
        return None
    scales = {
        floating: scale_of(joint_extent([each for each in extents if each.floating == floating]))
        for floating in {each.floating for each in extents}
    }
    if len(set(scales.values())) > 1:
        raise DataError(
            f"{label}: some images have floating numbers in {_words(scales[True])} and some "
            f"integers in {_words(scales[False])}; convert them to one kind, or give `value_range`."
        )
    (scale,) = set(scales.values())
    low, high, _ = joint_extent(extents)
    if scale[0] < 0:
        file = min(found, key=lambda path: found[path].low)
        raise DataError(
            f"{file} has values below 0, down to {low:g}, and nothing says which value is black; "
            f"give `value_range`, for instance --data.value_range={low:g},{high:g}, or convert "
            "the images."
        )
    beyond = low < scale[0] or high > scale[1]
    rank_zero_info(
        f"{label}: {len(extents)} images have more than 8 bits, with values from {low:g} to "
        f"{high:g}; {scale[0]:g} is taken for black and {scale[1]:g} for white"
        f"{', and what lies beyond is clipped' if beyond else ''} (data.value_range)"
    )
    return scale


def _warn_of_dark_colours(files: Sequence[ImageFile], label: str) -> None:
    """Warn of colour PNGs with 16 bits a channel whose values seem to be of 12 or 14 bits.

    Pillow reads the upper 8 bits of such files, so that their colours are nearly black.
    """
    suspects = [path for path in dict.fromkeys(files) if path.suffix.lower() == ".png"]
    deep = map_in_threads(has_deep_colours, suspects)
    suspects = [path for path, is_so in zip(suspects, deep, strict=True) if is_so]
    if not suspects:
        return
    brightest = max(map_in_threads(_brightest, suspects[:DARK_SAMPLE]))
    if brightest <= DARKEST_WHITE:
        rank_zero_warn(
            f"{label}: {len(suspects)} colour PNGs have 16 bits a channel, of which the upper 8 "
            f"are read, and these reach {brightest} of 255, as if the values had fewer bits; scale "
            "them to 16 bits, or the images are nearly black.",
            category=UserWarning,
        )


def has_deep_colours(path: ImageFile) -> bool:
    """Whether a file is a PNG of colours with 16 bits, by its header."""
    try:
        with path.open("rb") as file:
            head = file.read(26)
    except OSError:  # checks name it
        return False
    return head[:8] == b"\x89PNG\r\n\x1a\n" and head[24:26] in (b"\x10\x02", b"\x10\x06")


def _brightest(path: ImageFile) -> int:
    try:
        with opened(path) as image:
            return int(np.asarray(image.convert("RGB")).max())
    except Exception:  # as in _is_deep_file
        return 255


def warn_of_clipping(files: Iterable[ImageFile], values: ValueRange, label: str) -> None:
    """Warn of images whose values exceed the range of the training images.

    Args:
        files: images to test on or to predict for.
        values: pixel values of black and white in training.
        label: name of the data in messages.
    """
    found = _extents(files)
    slack = OVERSHOOT * (values[1] - values[0])
    beyond = {
        path: each
        for path, each in found.items()
        if min(each.low - values[0], values[1] - each.high) < (-slack if each.floating else 0)
    }
    if beyond:
        low, high, _ = joint_extent([*beyond.values()])
        rank_zero_warn(
            f"{label}: {len(beyond)} of {len(found)} images of more than 8 bits have values beyond "
            f"those of the training, {_words(values)}: {low:g} to {high:g}, the first in "
            f"{next(iter(beyond))}; they are clipped to black and white.",
            category=UserWarning,
        )


def settled_value_range(
    files: Sequence[ImageFile], training: Callable[[], Sequence[ImageFile]], label: str
) -> ValueRange | None:
    """Estimate the value range for test images, from the training images if they exist.

    Args:
        files: images to test on.
        training: returns the training images, or raises ``DataError``.
        label: name of the data in messages.
    """
    if not any(_is_deep_file(path) for path in _candidates(files)):
        return None
    try:
        known = training()
    except DataError:  # a test needs no training images
        known = []
    return find_value_range(known, f"{label}, training images") or find_value_range(
        files, f"{label}, test images"
    )


def _candidates(files: Iterable[ImageFile]) -> list[ImageFile]:
    return [path for path in dict.fromkeys(files) if path.suffix.lower() not in ALWAYS_BYTES]


def _extents(files: Iterable[ImageFile]) -> dict[ImageFile, Extent]:
    """Extents of those images that have more than 8 bits."""
    candidates = _candidates(files)
    found = map_in_threads(_extent_of_file, candidates)
    return {path: each for path, each in zip(candidates, found, strict=True) if each is not None}


def _is_deep_file(path: ImageFile) -> bool:
    try:
        with opened(path) as image:
            return is_deep(image.mode)
    except Exception:  # decoders raise whatever a damaged file leads them to; checks name it
        return False


def _extent_of_file(path: ImageFile) -> Extent | None:
    try:
        with opened(path) as image:
            return extent_of(image) if is_deep(image.mode) else None
    except Exception:  # as in _is_deep_file
        return None


def extent_of(image: Image.Image) -> Extent | None:
    """Extent of an image's finite values; ``None`` if there are none."""
    pixels = np.asarray(image)
    floating = pixels.dtype.kind == "f"
    pixels = pixels[np.isfinite(pixels)] if floating else pixels
    return Extent(float(pixels.min()), float(pixels.max()), floating) if pixels.size else None


def scale_of(extent: Extent) -> ValueRange:
    """Select the standard full scale that holds an extent, or 0 and the largest value.

    Args:
        extent: smallest and largest value.

    Returns:
        Black and white; black is below 0 if values fall below 0 by more than ``OVERSHOOT``.
    """
    low, high, floating = extent
    scales, slack = ((1.0, *FULL_SCALES), OVERSHOOT) if floating else (FULL_SCALES, 0.0)
    if low < -slack * high:
        return low, max(high, low + 1)
    for scale in scales:
        if high <= scale * (1 + slack):
            # Floating numbers up to 5 are neither fractions nor bytes.
            least = LEAST_USE if scale > 1 else LEAST_FRACTION
            if floating and 0 < high < scale * least:
                break
            return 0.0, scale
    return 0.0, high


def joint_extent(extents: Sequence[Extent]) -> Extent:
    """Combine the extents of several images."""
    lows, highs, floating = zip(*extents, strict=True)
    return Extent(min(lows), max(highs), any(floating))


def _words(scale: ValueRange) -> str:
    return f"{scale[0]:g} to {scale[1]:g}"

"""Image files that nobody vouches for: opened by decoders that do nothing but decode.

How many pixels an image may have is Pillow's to say: it refuses more than twice
``PIL.Image.MAX_IMAGE_PIXELS``, 179 million, for that may be a decompression bomb. Whoever has
larger images sets that number.
"""

from __future__ import annotations

import math
import os
import stat
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REFUSED = ("EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG")
"""Kinds of files that are not decoded: EPS is a program, which Ghostscript would run; Windows
itself draws WMF; of the others Pillow knows no more than their headers."""

LARGEST_CANVAS = 64_000_000
"""Pixels of a square that an image or a part of it may be put on: 192 megabytes."""


@cache
def decoded_kinds() -> list[str]:
    """Names of the kinds of images that are decoded, the usual ones first."""
    Image.init()
    with suppress(ImportError):  # photographs as telephones take them
        from pillow_heif import register_heif_opener

        register_heif_opener()
    usual = ("JPEG", "PNG")
    return [*usual, *(kind for kind in Image.ID if kind not in (*usual, *REFUSED))]


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file by what it holds, whatever it is called.

    Raises:
        OSError: it is absent, no regular file (reading a pipe would wait for ever), or no image.
        Image.DecompressionBombError: it has too many pixels.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("it is no regular file")
    with Image.open(path, formats=decoded_kinds()) as image:
        yield image


def shrink_for_canvas(image: Image.Image, longer: float) -> tuple[Image.Image, float]:
    """Shrink an image if the square canvas that it is to be put on would be too large.

    A strip of a few bytes may be so long that its square fills the memory.

    Args:
        image: of any size.
        longer: side of the canvas, pixels.

    Returns:
        The image, and by which factor its sides were multiplied: 1 if it was left alone.
    """
    if longer**2 <= LARGEST_CANVAS:
        return image, 1.0
    factor = math.sqrt(LARGEST_CANVAS) / longer
    size = [max(1, round(length * factor)) for length in image.size]
    return image.resize(size, Image.Resampling.BILINEAR), factor

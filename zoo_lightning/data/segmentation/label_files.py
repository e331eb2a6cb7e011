"""Masks in files: 8-bit label images whose values are class indices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from zoo_lightning.data.image_files import opened
from zoo_lightning.data.images import ORIENTATION
from zoo_lightning.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

IGNORED = 255
"""Label of pixels that count neither in training nor in metrics; the class indices lie below."""

VALUES = 256
"""Number of values that a pixel of a mask may have."""

MODES = ("L", "P", "1")
"""Pillow's modes of masks: grey, palette and black-and-white."""

STRETCHED = {"L;2": 85, "L;4": 17}
"""Factors by which Pillow multiplies the values of grey PNGs of 2 and 4 bits, by its raw modes."""

NAMED = 6
"""Largest number of colours that a message lists."""

SWAPPING = range(5, 9)
"""EXIF orientations that swap width and height."""


@dataclass(frozen=True)
class LabelFile:
    """Mask in a file.

    Attributes:
        path: an 8-bit grey or palette PNG of the size of its image.
    """

    path: Path

    def read(self, size: tuple[int, int]) -> np.ndarray:
        """Read the values of all pixels, ``(H, W)`` uint8.

        Args:
            size: width and height of the image as it is seen, pixels.

        Raises:
            DataError: the file is absent, damaged, no PNG, has colours or more than 8 bits, or
                another size than its image.
        """
        try:
            with opened(self.path) as mask:
                stored = getattr(getattr(mask, "png", None), "im_rawmode", "")
                factor = STRETCHED.get(stored, 1)
                mask.load()
                self._check(mask, size)
                return np.asarray(mask, dtype=np.uint8) // np.uint8(factor)
        except DataError:
            raise
        except Exception as error:  # decoders raise whatever a damaged file leads them to
            raise DataError(
                f"The mask {self.path} cannot be read ({str(error) or type(error).__name__}); "
                "replace it, or remove it and its image."
            ) from error

    def _check(self, mask: Image.Image, size: tuple[int, int]) -> None:
        if mask.format != "PNG":
            raise DataError(
                f"The mask {self.path} is a {mask.format} file, expected a PNG: class indices must "
                "be kept as they are, which JPEG does not do. Save masks as PNG."
            )
        if mask.mode in ("RGB", "RGBA"):
            raise DataError(f"The mask {self.path} {_colours(mask)}")
        if mask.mode not in MODES:
            raise DataError(
                f"The mask {self.path} has Pillow's mode {mask.mode}, expected 8 bits in one "
                "channel (L or P) whose values are class indices; save it as such."
            )
        check_size(f"The mask {self.path}", mask.size, size)


def check_size(name: str, found: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Check that a mask has the size of its image.

    Args:
        name: description of the mask, with which the message starts.
        found: width and height of the mask, pixels.
        wanted: width and height of the image as it is seen, pixels.

    Raises:
        DataError: the sizes differ.
    """
    if found != wanted:
        turned = found == wanted[::-1] and found != wanted
        hint = " They are swapped: masks belong to the image as it is seen, turned as its EXIF data"
        raise DataError(
            f"{name} has {found[0]}x{found[1]} pixels, its image {wanted[0]}x{wanted[1]}; expected "
            f"the same size.{hint + ' specify.' if turned else ''} Resize the mask with nearest "
            "neighbours, or export it again."
        )


def _colours(mask: Image.Image) -> str:
    """Rest of a message about a mask with colours: which ones, and how to get indices of them."""
    pixels = np.asarray(mask.convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    ordered = colours[np.argsort(-counts, kind="stable")].tolist()
    if all(len(set(colour)) == 1 for colour in ordered):
        return (
            "has grey values in three channels, expected one channel; save it with "
            "Image.open(file).convert('L')."
        )
    words = ", ".join("#{:02x}{:02x}{:02x}".format(*each) for each in ordered[:NAMED])
    more = f" and {len(ordered) - NAMED} more" if len(ordered) > NAMED else ""
    return (
        f"has colours, expected one channel of class indices. The colours are {words}{more}. Give "
        "each colour an index, from 0, and save the indices as an 8-bit PNG: for every colour, "
        "mask[(rgb == colour).all(-1)] = index."
    )


def seen_size(path: Path) -> tuple[int, int]:
    """Read the width and height of an image, turned as its EXIF data specify.

    Raises:
        Exception: of any kind, if the file is no image.
    """
    with opened(path) as image:
        try:
            turned = "exif" in image.info and image.getexif().get(ORIENTATION) in SWAPPING
        except Exception:  # damaged EXIF: the image stays as it is stored
            turned = False
        return image.size[::-1] if turned else image.size

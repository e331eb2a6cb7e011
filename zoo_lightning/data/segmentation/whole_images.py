"""Masks of whole images from maps of scores, and files of predicted masks."""

from __future__ import annotations

import colorsys
import os
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from zoo_lightning.data.images import escapes
from zoo_lightning.data.segmentation.label_files import IGNORED, VALUES
from zoo_lightning.files.atomic import atomic_file

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST_COLOURS = (
    (0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178),
    (213, 94, 0), (204, 121, 167),
)  # fmt: skip
"""Colours of classes 0 to 7: black, then those of Okabe and Ito, which the colour-blind can tell
apart."""

TURN = 0.618034
"""Share of the circle of hues between the colours of the classes after those: the golden ratio."""

UNKNOWN_COLOUR = (224, 224, 224)
"""Colour of pixels without a class."""

Box = tuple[float, float, float, float]


def mask_in_image(scores: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """Find the class of every pixel of an image from a map of scores of a part of it.

    Scores are resized bilinearly, and the largest one decides.

    Args:
        scores: scores of the classes, ``(C, h, w)``.
        box: part of the image that the map covers: left, top, right and bottom in pixels of the
            image; it may reach beyond the image.
        size: width and height of the image, pixels.

    Returns:
        ``(H, W)`` uint8, ``IGNORED`` outside of the box.
    """
    left, top, right, bottom = box
    (height, width), mask = scores.shape[1:], np.full(size[::-1], IGNORED, np.uint8)
    # Pixels whose centres the map covers.
    x0, x1 = (int(np.clip(np.ceil(x - 0.5), 0, size[0])) for x in (left, right))
    y0, y1 = (int(np.clip(np.ceil(y - 0.5), 0, size[1])) for y in (top, bottom))
    if x0 >= x1 or y0 >= y1:
        return mask
    cells_x, cells_y = width / (right - left), height / (bottom - top)
    part = (
        max((x0 - left) * cells_x, 0.0), max((y0 - top) * cells_y, 0.0),
        min((x1 - left) * cells_x, width), min((y1 - top) * cells_y, height),
    )  # fmt: skip
    best = np.full((y1 - y0, x1 - x0), -np.inf, np.float32)
    classes = np.zeros(best.shape, np.uint8)
    # Class by class: all maps of a large image would fill the memory.
    for label, each in enumerate(scores.astype(np.float32)):
        whole = Image.fromarray(each).resize(best.shape[::-1], Image.Resampling.BILINEAR, part)
        values = np.asarray(whole)
        larger = values > best
        classes[larger] = label
        best[larger] = values[larger]
    mask[y0:y1, x0:x1] = classes
    return mask


def square_box(size: tuple[int, int]) -> Box:
    """Square that :func:`~zoo_lightning.data.images.fit_square` makes of an image, in its pixels.

    Args:
        size: width and height of the image, pixels.
    """
    longer = max(size)
    left, top = ((longer - length) // 2 for length in size)
    return -left, -top, longer - left, longer - top


def palette() -> np.ndarray:
    """Colours of all values of a mask, ``(256, 3)`` uint8; distinct for classes that are near."""
    further = [
        [round(255 * part) for part in colorsys.hsv_to_rgb(number * TURN % 1, 0.65, 0.9)]
        for number in range(VALUES - len(FIRST_COLOURS))
    ]
    colours = np.array([*FIRST_COLOURS, *further], np.uint8)
    colours[IGNORED] = UNKNOWN_COLOUR
    return colours


def save_mask(mask: np.ndarray, path: Path) -> None:
    """Write a mask as a palette PNG, whose values are class indices.

    Args:
        mask: class of every pixel, ``(H, W)`` uint8.
        path: path of the ``.png`` file; its folder is created if it is absent.
    """
    image = Image.fromarray(mask)
    image.putpalette(palette().ravel().tolist())
    with atomic_file(path) as part:
        image.save(part, format="PNG")


def overlaid(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Colour an image by the classes of its pixels, half and half; class 0 stays as it is.

    Args:
        pixels: image ``(H, W, 3)`` uint8.
        mask: class of every pixel, ``(H, W)`` uint8.
    """
    mixed = (pixels.astype(np.uint16) + palette()[mask]) // 2
    return np.where((mask == 0)[..., None], pixels, mixed.astype(np.uint8))


def save_overlay(image: Image.Image, mask: np.ndarray, path: Path) -> None:
    """Write a picture of an image that is coloured by the classes of its pixels.

    Args:
        image: RGB image.
        mask: class of every pixel, ``(H, W)`` uint8.
        path: path of the ``.png`` file; its folder is created if it is absent.
    """
    with atomic_file(path) as part:
        Image.fromarray(overlaid(np.asarray(image), mask)).save(part, format="PNG")


def areas_of(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Share of the image that each class has, ``(C,)`` float64 in [0, 1]."""
    return np.bincount(mask.ravel(), minlength=VALUES)[:num_classes] / mask.size


def mask_names(names: Sequence[str]) -> list[str]:
    """Names of the files of masks for images: theirs with ``.png``, without the folder of all.

    Where two would be the same, or a name leads out of the folder, names are numbered.

    Args:
        names: names of the images, with forward slashes.
    """
    folders = {str(PurePosixPath(name).parent) for name in names}
    try:
        shared = os.path.commonpath(folders)
    except ValueError:  # absolute and relative ones
        shared = ""
    inside = [
        PurePosixPath(os.path.relpath(name, shared or ".")).with_suffix(".png").as_posix()
        for name in names
    ]
    counts = Counter(each.lower() for each in inside)
    return [
        f"{number:05d}-{PurePosixPath(each).name}"
        if counts[each.lower()] > 1 or escapes(each)
        else each
        for number, each in enumerate(inside)
    ]


def class_rows(classes: Sequence[str]) -> list[list[str]]:
    """Rows of ``classes.csv``: index, name and colour of every class in masks and overlays."""
    colours = palette()
    return [
        [str(label), name, "#{:02x}{:02x}{:02x}".format(*colours[label])]
        for label, name in enumerate(classes)
    ]


CLASSES_HEADER = ["index", "class", "colour"]
"""First line of ``classes.csv``."""

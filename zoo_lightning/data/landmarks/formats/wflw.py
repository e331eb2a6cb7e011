"""Reader of WFLW's lists: 98 points, a detected box, six attributes and a name per line.

Coordinates are taken as they are; a point of two ``nan`` is not annotated.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zoo_lightning.data.annotation_text import (
    image_name,
    text_lines,
    to_coordinates,
    to_numbers,
)
from zoo_lightning.data.landmarks.table import LandmarkTable
from zoo_lightning.errors import DataError

NUM_POINTS = 98
ATTRIBUTES = ("largepose", "expression", "illumination", "makeup", "occlusion", "blur")
"""Attributes in the order of their columns; a 1 puts a face into the subset of that name."""
EXPECTED = "lines of 196 coordinates, 4 numbers of a box, 6 attributes and an image's name"
_COLUMNS = [
    *(f"{axis}{k}" for k in range(NUM_POINTS) for axis in "xy"),
    *("x_min", "y_min", "x_max", "y_max"),
]


def read_wflw(path: str | Path) -> LandmarkTable:
    """Read a WFLW list, such as ``list_98pt_rect_attr_train.txt``.

    A face's square has the centre and the longer side of its box.

    Raises:
        DataError: naming the file and the line, for an absent or empty file, a line with more or
            fewer columns, a value that is no finite number, an attribute other than 0 and 1, or a
            box without width or height.
    """
    names, values, attributes = [], [], []
    count = len(_COLUMNS) + len(ATTRIBUTES) + 1
    for line, text in text_lines(Path(path), EXPECTED):
        place = f"{path}, line {line}"
        cells = text.split()
        if len(cells) != count:
            raise DataError(
                f"{place}: found {len(cells)} columns, expected {count} (196 coordinates, 4 of the "
                "box, 6 attributes, an image); correct or remove the line."
            )
        numbers = to_coordinates(cells[: 2 * NUM_POINTS], place, _COLUMNS)
        numbers += to_numbers(cells[2 * NUM_POINTS : len(_COLUMNS)], place, _COLUMNS[-4:])
        left, top, right, bottom = numbers[-4:]
        if right <= left or bottom <= top:
            raise DataError(
                f"{place}: the box {left:g} {top:g} {right:g} {bottom:g} (x_min y_min x_max y_max) "
                "is empty; correct or remove the line."
            )
        flags = cells[len(_COLUMNS) : -1]
        wrong = [i for i, flag in enumerate(flags) if flag not in ("0", "1")]
        if wrong:
            raise DataError(
                f"{place}: the attribute {ATTRIBUTES[wrong[0]]} is {flags[wrong[0]]!r}, expected 0 "
                "or 1."
            )
        names.append(image_name(cells[-1], place))
        values.append(np.array(numbers))  # a quarter of the memory
        attributes.append([flag == "1" for flag in flags])
    if not names:
        raise DataError(f"{path} is empty; expected {EXPECTED}.")
    table = np.array(values)
    corners = table[:, -4:].reshape(-1, 2, 2)
    regions = np.column_stack([corners.mean(1), np.ptp(corners, axis=1).max(-1)])
    points = table[:, :-4].reshape(len(names), NUM_POINTS, 2).astype(np.float32)
    subsets = dict(zip(ATTRIBUTES, np.array(attributes).T, strict=True))
    return LandmarkTable(names, points, regions=regions, subsets=subsets).without_nan()

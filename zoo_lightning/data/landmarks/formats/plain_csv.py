"""Reader of landmark CSV files: a header ``image,x0,y0,x1,y1,...``, then a line per image.

A point whose two fields are empty, or ``nan``, is not annotated.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from zoo_lightning.data.annotation_text import (
    LARGEST_NUMBER,
    csv_rows,
    image_name,
    to_coordinates,
)
from zoo_lightning.data.landmarks.table import LandmarkTable
from zoo_lightning.errors import DataError

EXPECTED = "a header `image,x0,y0,...` and a line per image"
ORDINARY = 1e20
"""Numbers with a hypotenuse below need no closer look: neither they nor their sum are too large."""


def read_num_points(path: str | Path) -> int:
    """Read the number of landmarks K from the header of a landmark CSV file.

    Raises:
        DataError: if the file is absent or its header is not ``image,x0,y0,...``.
    """
    rows = csv_rows(Path(path), EXPECTED)
    return _check_header(next(rows, (1, []))[1], path)


def read_landmark_csv(path: str | Path) -> LandmarkTable:
    """Read a landmark CSV file: a header ``image,x0,y0,x1,y1,...``, then a line per image.

    A byte order mark, Windows line ends and empty lines are allowed.

    Args:
        path: annotation file.

    Raises:
        DataError: naming the file and the line, if it is absent, empty, has another header, a line
            with more or fewer values, a value that is no finite number, or an image's name that
            leads out of the image folder.
    """
    rows = csv_rows(Path(path), EXPECTED)
    num_points = _check_header(next(rows, (1, []))[1], path)
    # Numbers as bytes, not as Python's objects, which take ten times the room; packing a row is
    # quicker than extending an array.
    names, values, pack = [], bytearray(), struct.Struct(f"{2 * num_points}f").pack
    for line, row in rows:
        if len(row) != 1 + 2 * num_points:
            raise DataError(
                f"{path}, line {line}: found {len(row)} values, expected {1 + 2 * num_points} "
                f"(an image and x, y of {num_points} points); correct or remove the line."
            )
        try:
            numbers = list(map(float, row[1:]))
        except ValueError:
            numbers = [float("nan")]
        if not _are_coordinates(numbers):
            numbers = to_coordinates(row[1:], f"{path}, line {line}", _column_names(num_points))
        names.append(image_name(row[0], f"{path}, line {line}"))
        values += pack(*numbers)
    if not names:
        raise DataError(f"{path} has a header but no images; add a line per image.")
    points = np.frombuffer(values, np.float32).reshape(len(names), num_points, 2)
    return LandmarkTable(names, points).without_nan()


def _check_header(header: list[str], path: str | Path) -> int:
    columns = [column.strip() for column in header]
    num_points = max((len(columns) - 1) // 2, 2)
    if columns[-1:] == [f"x{num_points}"]:  # its y is missing, rather than it too much
        num_points += 1
    expected = ["image", *(f"{axis}{k}" for k in range(num_points) for axis in "xy")]
    if columns != expected:
        pairs = enumerate(expected)
        place = next((i for i, name in pairs if columns[i : i + 1] != [name]), len(expected))
        found = f"{columns[place]!r:.100}" if place < len(columns) else "nothing"
        wanted = repr(expected[place]) if place < len(expected) else "nothing"
        raise DataError(
            f"{path}, line 1: column {place + 1} of the header is {found}, expected {wanted}; the "
            "header is `image,x0,y0,x1,y1,...` with x and y of at least two points, separated by "
            "commas."
        )
    return num_points


def _are_coordinates(numbers: list[float]) -> bool:
    # The hypotenuse is one quick look at all; that of NaN is not below anything.
    if math.hypot(*numbers) < ORDINARY:
        return True
    # The sum of infinite ones of both signs is NaN.
    return abs(sum(numbers)) <= LARGEST_NUMBER and max(map(abs, numbers)) <= LARGEST_NUMBER


def _column_names(num_points: int) -> list[str]:
    return [f"column {axis}{k}" for k in range(num_points) for axis in "xy"]

"""The landmark file: a header ``image,x0,y0,x1,y1,...``, then an image and its points per line.

Reading refuses whatever is not exactly that, and says where.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from zoo_lightning.data.formats.text import LARGEST_NUMBER, csv_rows, image_name
from zoo_lightning.data.landmark_table import LandmarkTable
from zoo_lightning.errors import DataError

EXPECTED = "a header `image,x0,y0,...` and a line per image"
ORDINARY = 1e20
"""Numbers with a hypotenuse below need no closer look: neither they nor their sum are too large."""


def read_num_points(path: str | Path) -> int:
    """Number of landmarks K that the header of a landmark file announces.

    Raises:
        DataError: if the file is absent or its header is not ``image,x0,y0,...``.
    """
    rows = csv_rows(Path(path), EXPECTED)
    return _check_header(next(rows, (1, []))[1], path)


def read_landmark_csv(path: str | Path) -> LandmarkTable:
    """Read a landmark file: a header ``image,x0,y0,x1,y1,...``, then a line per image.

    A byte order mark, Windows line ends and empty lines are allowed.

    Args:
        path: of the file.

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
                f"(an image and x, y of {num_points} points); mend or remove the line."
            )
        try:
            numbers = list(map(float, row[1:]))
        except ValueError:
            numbers = [float("nan")]
        if not _are_coordinates(numbers):
            raise DataError(_not_a_number(path, line, row))
        names.append(image_name(row[0], f"{path}, line {line}"))
        values += pack(*numbers)
    if not names:
        raise DataError(f"{path} has a header but no images; add a line per image.")
    points = np.frombuffer(values, np.float32).reshape(len(names), num_points, 2)
    return LandmarkTable(names, points)


def _check_header(header: list[str], path: str | Path) -> int:
    columns = [column.strip() for column in header]
    num_points = max((len(columns) - 1) // 2, 2)
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


def _not_a_number(path: str | Path, line: int, row: list[str]) -> str:
    def finite(text: str) -> bool:
        try:
            return abs(float(text)) <= LARGEST_NUMBER
        except ValueError:
            return False

    column = next((i for i, text in enumerate(row) if i and not finite(text)), 1)
    return (
        f"{path}, line {line}, column {'yx'[column % 2]}{(column - 1) // 2}: found "
        f"{row[column]!r:.100}, expected a number of pixels; annotate the point or remove the line."
    )

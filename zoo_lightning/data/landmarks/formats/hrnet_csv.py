"""Reader of the CSV files of HRNet's facial landmark detection, by column position.

``image_name,scale,center_w,center_h,original_0_x,original_0_y,...``; the files of AFLW have
``box_size`` after ``scale``, the distance that errors are divided by. A face's square has the side
``200 * scale`` around the centre. Coordinates are taken as they are: the authors' crops map 0 to a
square's left edge, as ours do. A point whose two fields are empty, or ``nan``, is not annotated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo_lightning.data.annotation_text import (
    csv_rows,
    image_name,
    to_coordinates,
    to_numbers,
)
from zoo_lightning.data.landmarks.table import LandmarkTable
from zoo_lightning.errors import DataError

EXPECTED = "a header `image_name,scale,center_w,center_h,original_0_x,...` and a line per face"
SIDE_PER_SCALE = 200.0


@dataclass(frozen=True)
class HRNetHeader:
    """Column layout of an HRNet CSV file, from its header line.

    Args:
        columns: names of all columns, stripped.
        sized: whether each face has a normalisation distance (column ``box_size``).
    """

    columns: list[str]
    sized: bool

    @property
    def first_point(self) -> int:
        """Index of the column that holds the first point's x."""
        return 5 if self.sized else 4

    @property
    def num_points(self) -> int:
        """Number of points K."""
        return (len(self.columns) - self.first_point) // 2


def read_hrnet_header(path: str | Path) -> HRNetHeader:
    """Read the column layout and the number of points from the first line.

    Raises:
        DataError: if the file is absent or its header is of another format.
    """
    return _header(next(csv_rows(Path(path), EXPECTED), (1, []))[1], path)


def _header(row: list[str], path: str | Path) -> HRNetHeader:
    columns = [cell.strip() for cell in row]
    sized = columns[2:3] == ["box_size"]
    header = HRNetHeader(columns, sized)
    wanted = ["image_name", "scale", *(["box_size"] if sized else []), "center_w", "center_h"]
    found = columns[: header.first_point]
    if found != wanted:
        place = next(i for i, name in enumerate(wanted) if found[i : i + 1] != [name])
        there = f"{found[place]!r:.100}" if place < len(found) else "nothing"
        raise DataError(
            f"{path}, line 1: column {place + 1} of the header is {there}, expected "
            f"{wanted[place]!r}; the header is `image_name,scale,center_w,center_h,original_0_x,"
            "original_0_y,...`, with `box_size` after `scale` in AFLW's files."
        )
    coordinates = len(columns) - header.first_point
    if coordinates < 4 or coordinates % 2:
        raise DataError(
            f"{path}, line 1: {coordinates} columns follow `center_h`, expected x and y of at "
            "least two points."
        )
    return header


def read_hrnet_csv(path: str | Path) -> LandmarkTable:
    """Read a HRNet CSV file: points, squares and, in AFLW's layout, distances.

    Args:
        path: annotation file.

    Raises:
        DataError: naming the file and the line, for an absent or empty file, another header, a line
            with more or fewer values, a value that is no finite number, a scale or box size of 0 or
            below, or an image's name that leads out of the image folder.
    """
    rows = csv_rows(Path(path), EXPECTED)
    header = _header(next(rows, (1, []))[1], path)
    names, values = [], []
    for line, row in rows:
        place = f"{path}, line {line}"
        if len(row) != len(header.columns):
            raise DataError(
                f"{place}: found {len(row)} values, expected {len(header.columns)} as in the "
                "header; correct or remove the line."
            )
        first, columns = header.first_point, header.columns
        numbers = to_numbers(row[1:first], place, columns[1:first])
        numbers += to_coordinates(row[first:], place, columns[first:])
        for position in range(2 if header.sized else 1):
            if numbers[position] <= 0:
                raise DataError(
                    f"{place}: `{header.columns[1 + position]}` is {numbers[position]:g}, expected "
                    "a number above 0; correct or remove the line."
                )
        names.append(image_name(row[0], place))
        values.append(np.array(numbers))  # a quarter of the memory
    if not names:
        raise DataError(f"{path} has a header but no images; add a line per face.")
    table = np.array(values)
    first = header.first_point - 1  # the name is no number
    regions = np.column_stack([table[:, first - 2 : first], SIDE_PER_SCALE * table[:, 0]])
    points = table[:, first:].reshape(len(names), -1, 2).astype(np.float32)
    sizes = table[:, 1] if header.sized else None
    return LandmarkTable(names, points, regions=regions, sizes=sizes).without_nan()


def rows_of_subset(table: LandmarkTable, subset: LandmarkTable, path: Path) -> np.ndarray:
    """Mark the faces of a table that a subset's file lists, ``(N,)`` bool.

    A face is recognised by its image's name and, since an image may show several, by its points.

    Args:
        table: all N faces.
        subset: faces of the subset.
        path: file of the subset, for messages.

    Raises:
        DataError: naming a face of the subset that is not in ``table``.
    """
    rows_by_name: dict[str, list[int]] = {}
    for row, name in enumerate(table.names):
        rows_by_name.setdefault(name, []).append(row)
    members = np.zeros(len(table), bool)
    for name, points in zip(subset.names, subset.points, strict=True):
        rows = rows_by_name.get(name, [])
        distances = [float(np.abs(table.points[row] - points).max()) for row in rows]
        if not rows or min(distances) > 1:
            raise DataError(
                f"{path} lists a face of {name!r} that the test file does not list within a "
                "pixel; a subset's file must list faces of the test file."
            )
        members[rows[int(np.argmin(distances))]] = True
    return members

"""The landmark file: a header ``image,x0,y0,x1,y1,...``, then an image and its points per line.

Reading refuses whatever is not exactly that, and says where.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo_lightning.data.images import escapes
from zoo_lightning.errors import DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class LandmarkTable:
    """Annotations of N images.

    Args:
        names: of the images, relative to their folder.
        points: ``(N, K, 2)`` float32, pixels of the original images.
    """

    names: list[str]
    points: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: np.ndarray) -> LandmarkTable:
        """The given rows, in the given order."""
        return LandmarkTable([self.names[row] for row in rows], self.points[rows])


def read_num_points(path: str | Path) -> int:
    """Number of landmarks K that the header of a landmark file announces.

    Raises:
        DataError: if the file is absent or its header is not ``image,x0,y0,...``.
    """
    rows = _rows(Path(path))
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
    rows = _rows(Path(path))
    num_points = _check_header(next(rows, (1, []))[1], path)
    names, values = [], []
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
        if not np.isfinite(sum(numbers)):
            raise DataError(_not_a_number(path, line, row))
        name = row[0].strip()
        if not name or escapes(name):
            raise DataError(
                f"{path}, line {line}: the image name {name!r} is empty or leads out of the image "
                "folder; give a path relative to that folder, without '..'."
            )
        names.append(name.replace("\\", "/"))
        values.append(numbers)
    if not names:
        raise DataError(f"{path} has a header but no images; add a line per image.")
    return LandmarkTable(names, np.array(values, np.float32).reshape(len(names), num_points, 2))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every line that is not empty."""
    if not path.is_file():
        raise DataError(_absent(path))
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for row in reader:
                if any(row):
                    yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read as comma-separated UTF-8 text ({error}); save it as such."
        ) from error


def _absent(path: Path) -> str:
    if not path.parent.is_dir():
        return f"The folder {path.parent} does not exist; set `root` to the data's folder."
    files = sorted(file.name for file in path.parent.glob("*.csv"))
    found = f"there are {', '.join(files[:5])}" if files else "there is no CSV file at all"
    return (
        f"{path} does not exist; in its folder {found}.{nearest(path.name, files)} "
        "Expected a header `image,x0,y0,...` and a line per image."
    )


def _check_header(header: list[str], path: str | Path) -> int:
    columns = [column.strip() for column in header]
    num_points = max((len(columns) - 1) // 2, 2)
    expected = ["image", *(f"{axis}{k}" for k in range(num_points) for axis in "xy")]
    if columns != expected:
        pairs = enumerate(expected)
        place = next((i for i, name in pairs if columns[i : i + 1] != [name]), len(expected))
        found = repr(columns[place]) if place < len(columns) else "nothing"
        wanted = repr(expected[place]) if place < len(expected) else "nothing"
        raise DataError(
            f"{path}, line 1: column {place + 1} of the header is {found}, expected {wanted}; the "
            "header is `image,x0,y0,x1,y1,...` with x and y of at least two points, separated by "
            "commas."
        )
    return num_points


def _not_a_number(path: str | Path, line: int, row: list[str]) -> str:
    def finite(text: str) -> bool:
        try:
            return bool(np.isfinite(float(text)))
        except ValueError:
            return False

    column = next((i for i, text in enumerate(row) if i and not finite(text)), 1)
    return (
        f"{path}, line {line}, column {'yx'[column % 2]}{(column - 1) // 2}: found "
        f"{row[column]!r}, expected a number of pixels; annotate the point or remove the line."
    )

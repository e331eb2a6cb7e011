"""Parse text annotation files: lines, numbers and image names, with errors that name the line."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING

from zoo_lightning.data.images import escapes
from zoo_lightning.errors import DataError, nearest
from zoo_lightning.files.text import ANNOTATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

LARGEST_NUMBER = 1e30
"""Anything beyond is no coordinate; products of a few of these would leave float32."""


def require_file(path: Path, expected: str) -> None:
    """Check that an annotation file exists.

    Args:
        path: annotation file.
        expected: description of the expected file, for the message.

    Raises:
        DataError: the file or its folder does not exist; names the files found instead.
    """
    if path.is_file():
        return
    if not path.parent.is_dir():
        raise DataError(
            f"The folder {path.parent} does not exist; set `root` to the data's folder."
        )
    kind = path.suffix
    files = sorted(file.name for file in path.parent.glob(f"*{kind}"))
    found = f"there are {', '.join(files[:5])}" if files else f"there is no {kind} file at all"
    raise DataError(
        f"{path} does not exist; in its folder {found}.{nearest(path.name, files)} "
        f"Expected {expected}."
    )


def csv_rows(path: Path, expected: str, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Read the non-empty lines of a CSV file, with their line numbers.

    Args:
        path: annotation file.
        expected: description of the expected file, for the message if it is absent.
        delimiter: character between cells.

    Raises:
        DataError: the file is absent or not such UTF-8 text.
    """
    require_file(path, expected)
    try:
        with path.open(newline="", **ANNOTATIONS) as file:
            reader = csv.reader(file, delimiter=delimiter)
            for row in reader:
                if any(row):
                    yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read as comma-separated UTF-8 text ({error}); save it as such."
        ) from error


def text_lines(path: Path, expected: str) -> list[tuple[int, str]]:
    """Read the non-empty lines of a text file, stripped, with their line numbers.

    Args:
        path: annotation file.
        expected: description of the expected file, for the message if it is absent.

    Raises:
        DataError: the file is absent or not UTF-8 text.
    """
    require_file(path, expected)
    try:
        lines = path.read_text(**ANNOTATIONS).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as UTF-8 text ({error}); expected {expected}."
        ) from error
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def to_numbers(cells: Sequence[str], place: str, names: Sequence[str] = ()) -> list[float]:
    """Parse the cells of a line as finite numbers.

    Args:
        cells: text of the cells.
        place: file and line for messages.
        names: names of the cells for messages; without them cells are numbered from 1.

    Raises:
        DataError: naming the first cell that is no finite number.
    """
    numbers = []
    for index, cell in enumerate(cells):
        try:
            number = float(cell)
        except ValueError:
            number = math.nan
        if not abs(number) <= LARGEST_NUMBER:  # so written, NaN is refused too
            name = names[index] if index < len(names) else f"number {index + 1}"
            raise DataError(
                f"{place}, {name}: found {cell!r:.100}, expected a number; correct or remove the "
                "line."
            )
        numbers.append(number)
    return numbers


NOT_ANNOTATED = ("", "nan", "+nan", "-nan", "na", "<na>", "n/a", "null", "none")
"""Lower-case cells that mark a point as not annotated, as pandas and R write them."""


def to_coordinates(cells: Sequence[str], place: str, names: Sequence[str]) -> list[float]:
    """Parse cells x, y, x, y, ... as coordinates; NaN for a point that is not annotated.

    Such a point has two cells of :data:`NOT_ANNOTATED`.

    Args:
        cells: text of the cells, two for each point.
        place: file and line for messages.
        names: names of the cells for messages.

    Raises:
        DataError: naming the first cell that is no finite number.
    """
    missing = [cell.strip().lower() in NOT_ANNOTATED for cell in cells]
    for first in range(0, len(cells), 2):
        if missing[first] != missing[first + 1]:
            index = first if missing[first] else first + 1
            raise DataError(
                f"{place}, {names[index]}: found {cells[index]!r:.100}, expected a number, as the "
                "point's other coordinate has; leave both empty if the point is not annotated."
            )
    kept = [index for index, absent in enumerate(missing) if not absent]
    numbers = to_numbers([cells[index] for index in kept], place, [names[index] for index in kept])
    found = dict(zip(kept, numbers, strict=True))
    return [found.get(index, math.nan) for index in range(len(cells))]


def image_name(cell: str, place: str) -> str:
    """Check an image's name and return it with forward slashes.

    Args:
        cell: text of the cell.
        place: file and line for messages.

    Raises:
        DataError: if it is empty, leads out of the image folder or has control characters.
    """
    name = cell.strip()
    if not name or escapes(name):
        raise DataError(
            f"{place}: the image name {name!r:.300} is empty or leads out of the image folder; "
            "give a path relative to that folder, without '..'."
        )
    if not name.isprintable() and any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise DataError(
            f"{place}: the image name {name!r:.300} has a control character; rename the image, or "
            "correct the line."
        )
    return name.replace("\\", "/")

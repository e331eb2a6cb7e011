"""Lines, numbers and image names of annotation files that are text, or an error that says where."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING

from zoo_lightning.data.images import escapes
from zoo_lightning.errors import DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

LARGEST_NUMBER = 1e30
"""Anything beyond is no coordinate; products of a few of these would leave float32."""


def require_file(path: Path, expected: str) -> None:
    """Check that an annotation file exists.

    Args:
        path: of the file.
        expected: what the file should be, for the message.

    Raises:
        DataError: naming the folder or the files that are there instead.
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


def csv_rows(path: Path, expected: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every line of a CSV file that is not empty.

    Args:
        path: of the file.
        expected: what the file should be, for the message if it is absent.

    Raises:
        DataError: if the file is absent or no comma-separated UTF-8 text.
    """
    require_file(path, expected)
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


def text_lines(path: Path, expected: str) -> list[tuple[int, str]]:
    """Line number and content of every line of a text file that is not empty, without its ends.

    Args:
        path: of the file.
        expected: what the file should be, for the message if it is absent.

    Raises:
        DataError: if the file is absent or no UTF-8 text.
    """
    require_file(path, expected)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as UTF-8 text ({error}); expected {expected}."
        ) from error
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def to_numbers(cells: Sequence[str], place: str, names: Sequence[str] = ()) -> list[float]:
    """Finite numbers of a line's cells.

    Args:
        cells: as read.
        place: file and line, for the message.
        names: of the cells, for the message; numbered from 1 without.

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
                f"{place}, {name}: found {cell!r:.100}, expected a number; mend or remove the line."
            )
        numbers.append(number)
    return numbers


def image_name(cell: str, place: str) -> str:
    """An image's name with forward slashes.

    Args:
        cell: as read.
        place: file and line, for the message.

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
            "mend the line."
        )
    return name.replace("\\", "/")

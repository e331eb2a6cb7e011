"""Table of images: a CSV file with an image's name and its annotations in every line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo_lightning.data.annotation_text import csv_rows, image_name, require_file
from zoo_lightning.data.image_files import one_form
from zoo_lightning.errors import DataError, nearest
from zoo_lightning.files.text import ANNOTATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DELIMITERS = ",;\t"
"""Characters that may separate cells; the one that the header has most of does."""

QUOTED = re.compile(r'"[^"]*"')
"""Quoted text, whose separators are part of a cell."""

IMAGE = "image"
"""Name of the column of image names; without such a column it is the first one."""

EXPECTED = "a CSV file whose first line names the columns, `image` and others"


@dataclass(frozen=True)
class TableRow:
    """Line of a table.

    Attributes:
        place: file and line, for messages.
        image: image name, with forward slashes, relative to the folder of images.
        cells: stripped text by column, the column of images left out.
    """

    place: str
    image: str
    cells: dict[str, str]


@dataclass(frozen=True)
class ImageTable:
    """Table of images.

    Attributes:
        path: the CSV file.
        columns: names of all columns but that of the images, in the file's order and in composed
            Unicode form.
        rows: its lines, at least one.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[TableRow]

    def chosen(self, names: Sequence[str] | None) -> list[str]:
        """Names of the given columns, or of all if ``None``.

        Raises:
            DataError: a column is absent or given twice, or there is none.
        """
        names = list(self.columns if names is None else map(one_form, names))
        for name in names:
            if name not in self.columns:
                raise DataError(
                    f"{self.path} has no column {name!r}.{nearest(name, self.columns)} It has "
                    f"{', '.join(self.columns)}."
                )
        if len(set(names)) < len(names) or not names:
            raise DataError(f"{self.path}: name columns once each, and at least one; got {names}.")
        return names


def read_image_table(path: Path) -> ImageTable:
    """Read a table of images, separated by commas, semicolons or tabs.

    Args:
        path: CSV file in UTF-8. The first line names the columns; ``image``, or else the first
            column, has the images' names.

    Raises:
        DataError: the file is absent or empty, has no annotations, or a line is malformed.
    """
    lines = csv_rows(path, EXPECTED, _delimiter(path))
    _, header = next(lines, (0, []))
    names = [one_form(cell.strip()) for cell in header]
    if len(names) < 2 or not all(names) or len(set(names)) < len(names):
        raise DataError(
            f"{path}: the first line is {','.join(header)!r:.300}, expected the names of at least "
            "two columns, each once: that of the images and those of the annotations."
        )
    lowered = [name.lower() for name in names]
    at = lowered.index(IMAGE) if IMAGE in lowered else 0
    columns = tuple(name for index, name in enumerate(names) if index != at)
    rows = []
    for number, cells in lines:
        place = f"{path}, line {number}"
        if len(cells) != len(names):
            raise DataError(
                f"{place}: found {len(cells)} cells, expected {len(names)} as in the first line: "
                f"{', '.join(names)}; quote cells that contain the separator."
            )
        stripped = dict(zip(names, (cell.strip() for cell in cells), strict=True))
        image = image_name(stripped.pop(names[at]), place)
        rows.append(TableRow(place, image, stripped))
    if not rows:
        raise DataError(f"{path} has column names but no images; add a line for each image.")
    return ImageTable(path, columns, rows)


def _delimiter(path: Path) -> str:
    """Character that separates the cells of a file, judged by its first line."""
    require_file(path, EXPECTED)
    try:
        with path.open(**ANNOTATIONS) as file:
            first = file.readline(1_000_000)
    except (OSError, UnicodeDecodeError):
        return DELIMITERS[0]  # read again, with an error that names the file
    return max(DELIMITERS, key=QUOTED.sub("", first).count)

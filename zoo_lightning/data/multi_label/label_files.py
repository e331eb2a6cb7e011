"""Readers of annotations of several labels an image: tables and COCO-style JSON.

A table either has a column for each label, with 0 or 1 in every line, or one column in which each
cell lists the labels of an image. Which of them it is follows from its content.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo_lightning.data.annotation_text import NOT_ANNOTATED, image_name, require_file
from zoo_lightning.data.image_files import one_form
from zoo_lightning.data.image_table import read_image_table
from zoo_lightning.errors import DataError, nearest
from zoo_lightning.files.text import ANNOTATIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from zoo_lightning.data.image_table import ImageTable, TableRow

PRESENT = ("1", "1.0", "true", "yes")
"""Lower-case cells of a label that is there."""

ABSENT = ("0", "0.0", "false", "no")
"""Lower-case cells of a label that is not there."""

LISTS = ("labels", "label", "tags", "classes")
"""Lower-case names of columns that may list labels beside other columns."""

MARKS = re.compile(r"[,;|]")
"""Characters that separate labels; in a file without any of them, white space does."""

BRACKETS = ("[]", "()", "{}")
"""First and last characters of cells into which a program has written its own lists."""

EXPECTED_JSON = "a JSON file of `images`, `annotations` and `categories`"


@dataclass(frozen=True)
class LabelRow:
    """Labels of an image.

    Attributes:
        place: file with line or id, for messages.
        image: image name, with forward slashes, relative to the folder of images.
        present: labels that are there.
        unknown: labels of which nothing is known.
    """

    place: str
    image: str
    present: frozenset[str]
    unknown: frozenset[str] = frozenset()


@dataclass(frozen=True)
class LabelFile:
    """Content of an annotation file.

    Attributes:
        path: the file.
        labels: names of its labels: columns and categories in the file's order, listed labels in
            the order of their names.
        rows: its images, at least one, each once.
        columns: whether the file has a column for each label, so that it must have all of them.
        marks: whether listed labels are separated by commas, semicolons or bars.
        notes: lines about what is assumed or left out.
    """

    path: Path
    labels: tuple[str, ...]
    rows: list[LabelRow]
    columns: bool = False
    marks: bool = False
    notes: tuple[str, ...] = ()


def read_label_file(
    path: Path, chosen: Sequence[str] | None = None, marks: bool = False
) -> LabelFile:
    """Read the labels of images from a table (``.csv``) or COCO-style JSON (``.json``).

    Args:
        path: annotation file.
        chosen: names of the labels; other columns of a table with a column for each label may then
            have any content. ``None``: all.
        marks: whether commas, semicolons or bars separate listed labels even if the file has
            none, as its training file is known to be.

    Raises:
        DataError: the file is absent or malformed, or lists an image twice.
    """
    if path.suffix.lower() == ".json":
        found = _read_json(path)
    else:
        table = read_image_table(path)
        column = _list_column(table, chosen)
        found = _of_columns(table, chosen) if column is None else _of_lists(table, column, marks)
    _refuse_repeated(found)
    return found


def _refuse_repeated(found: LabelFile) -> None:
    first: dict[str, LabelRow] = {}
    for row in found.rows:
        before = first.setdefault(one_form(row.image), row)
        if before is not row:
            alike = (before.present, before.unknown) == (row.present, row.unknown)
            how = "with the same labels" if alike else "with other labels"
            raise DataError(
                f"{row.place}: {row.image!r:.300} is there already, in {before.place}, {how}; "
                "leave one entry for each image."
            )


# Tables


def _list_column(table: ImageTable, chosen: Collection[str] | None) -> str | None:
    """Name of the column that lists labels; ``None`` if each label has a column."""
    if chosen is not None and set(chosen) <= set(table.columns):
        return None
    named = [name for name in table.columns if name.lower() in LISTS]
    for name in named or (table.columns if len(table.columns) == 1 else ()):
        if not all(_is_state(row.cells[name]) for row in table.rows):
            return name
    return None


def _is_state(cell: str) -> bool:
    return cell.lower() in (*PRESENT, *ABSENT, *NOT_ANNOTATED)


def _of_columns(table: ImageTable, chosen: Sequence[str] | None) -> LabelFile:
    """Read a table with a column of 0 and 1 for each label."""
    names = table.chosen(chosen)
    rows, unknown = [], 0
    for row in table.rows:
        states = {name: _state(row, name) for name in names}
        absent = frozenset(name for name, state in states.items() if state is None)
        unknown += len(absent)
        rows.append(LabelRow(row.place, row.image, frozenset(filter(states.get, names)), absent))
    notes = []
    if unknown:
        notes.append(
            f"{table.path}: {unknown} of {len(rows) * len(names)} cells are empty, so that these "
            "labels of an image are unknown; they are left out of loss and metrics"
        )
    labels = tuple(map(one_form, names))
    return LabelFile(table.path, labels, list(map(_composed, rows)), True, notes=tuple(notes))


def _state(row: TableRow, name: str) -> bool | None:
    cell = row.cells[name].lower()
    if cell in PRESENT:
        return True
    if cell in ABSENT:
        return False
    if cell in NOT_ANNOTATED:
        return None
    raise DataError(
        f"{row.place}, column {name!r}: found {row.cells[name]!r:.100}, expected 1 or 0 (true or "
        "false, yes or no), or nothing if the label is unknown. Columns that are no labels are "
        "left out by naming those that are: --data.labels '[NAME,NAME]'."
    )


def _composed(row: LabelRow) -> LabelRow:
    """Give the names of labels their composed Unicode form, in which files are compared."""
    present, unknown = (frozenset(map(one_form, each)) for each in (row.present, row.unknown))
    return LabelRow(row.place, row.image, present, unknown)


def _of_lists(table: ImageTable, column: str, marks: bool) -> LabelFile:
    """Read a table whose column lists the labels of an image."""
    marks = marks or any(MARKS.search(row.cells[column]) for row in table.rows)
    rows = []
    for row in table.rows:
        cell = one_form(row.cells[column])
        _check_list(cell, f"{row.place}, column {column!r}")
        parts = MARKS.split(cell) if marks else cell.split()
        present = frozenset(filter(None, (part.strip() for part in parts)))
        rows.append(LabelRow(row.place, row.image, present))
    notes = []
    if others := [name for name in table.columns if name != column]:
        notes.append(
            f"{table.path}: labels are listed in column {column!r}; not read: {', '.join(others)}"
        )
    if none := sum(not row.present for row in rows):
        notes.append(f"{table.path}: {none} of {len(rows)} images have no label at all")
    labels = tuple(sorted({label for row in rows for label in row.present}))
    if not labels:
        raise DataError(
            f"{table.path}: column {column!r} lists no labels; expected labels such as 'cat;dog', "
            "separated by spaces, commas, semicolons or bars."
        )
    return LabelFile(table.path, labels, rows, marks=marks, notes=tuple(notes))


def _check_list(cell: str, place: str) -> None:
    """Check that a cell lists labels, and is no program's note of a list or of an absent value.

    Raises:
        DataError: it is such a note.
    """
    if cell[:1] + cell[-1:] in BRACKETS:
        wanted = "labels without brackets and quotation marks, such as 'cat;dog'"
    elif cell and cell.lower() in NOT_ANNOTATED:
        wanted = "labels such as 'cat;dog', or an empty cell for an image without any"
    else:
        return
    raise DataError(f"{place}: found {cell!r:.100}, expected {wanted}; correct the cell.")


# COCO-style JSON


def _read_json(path: Path) -> LabelFile:
    """Read COCO-style JSON: an image has the labels of its annotations' categories."""
    content = _load(path)
    images: dict[Any, str] = {}
    for entry in content["images"]:
        known = isinstance(entry, dict) and isinstance(entry.get("id"), int | str)
        if not known or not isinstance(entry.get("file_name"), str):
            raise DataError(
                f"{path}: an entry of `images` lacks `id` or `file_name`: {entry!r:.60}; give it "
                "both."
            )
        if entry["id"] in images:
            raise DataError(f"{path}: two entries of `images` have the id {entry['id']!r:.60}.")
        images[entry["id"]] = image_name(entry["file_name"], f"{path}, image {entry['id']!r:.60}")
    if not images:
        raise DataError(f"{path} has no entry in `images`; add one for each image.")
    names = _categories(content, path)
    present: dict[Any, set[str]] = {image: set() for image in images}
    for entry in content["annotations"]:
        image, category = _annotation(entry, path)
        place = f"{path}, annotation {entry.get('id')!r:.60} of image {image!r:.60}"
        if image not in images:
            raise DataError(f"{place}: no entry of `images` has this id; add or remove it.")
        if category not in names:
            raise DataError(
                f"{place}: no entry of `categories` has the id {category!r:.60}; add it."
            )
        present[image].add(names[category])
    rows = [
        LabelRow(f"{path}, image {image!r:.60}", name, frozenset(present[image]))
        for image, name in images.items()
    ]
    notes = [f"{path}: boxes and masks are not read, but which categories an image shows"]
    if none := sum(not row.present for row in rows):
        notes.append(f"{path}: {none} of {len(rows)} images have no label at all")
    return LabelFile(path, tuple(dict.fromkeys(names.values())), rows, notes=tuple(notes))


def _load(path: Path) -> dict[str, Any]:
    require_file(path, EXPECTED_JSON)
    try:
        content = json.loads(path.read_text(**ANNOTATIONS))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON text ({error}); expected {EXPECTED_JSON}.") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{path} has no list `{key}`; expected {EXPECTED_JSON}.")
    return content


def _categories(content: dict[str, Any], path: Path) -> dict[Any, str]:
    """Names of the categories by their ids."""
    names: dict[Any, str] = {}
    for entry in content["categories"]:
        number = entry.get("id") if isinstance(entry, dict) else None
        name = entry.get("name", number) if isinstance(entry, dict) else None
        named = isinstance(name, int | str) and str(name).strip()
        if not isinstance(number, int | str) or not named:
            raise DataError(
                f"{path}: an entry of `categories` lacks `id` or `name`: {entry!r:.60}; give it an "
                "id and a name."
            )
        if number in names:
            raise DataError(
                f"{path}: two entries of `categories` have the id {number!r:.60}, {names[number]!r}"
                f" and {name!r:.60}; give each its own."
            )
        names[number] = one_form(str(name).strip())
    return names


def _annotation(entry: Any, path: Path) -> tuple[Any, Any]:
    """Ids of the image and the category of an annotation."""
    if isinstance(entry, dict):
        ids = entry.get("image_id"), entry.get("category_id")
        if all(isinstance(each, int | str) for each in ids):
            return ids
    raise DataError(
        f"{path}: an entry of `annotations` lacks `image_id` or `category_id`: {entry!r:.100}; "
        "correct or remove it."
    )


def refuse_unknown(found: LabelFile, labels: Sequence[str], training: Path) -> None:
    """Check that a file of validation or test images has the labels of training.

    Args:
        found: content of the file.
        labels: names of the labels in training.
        training: file of training images, for the message.

    Raises:
        DataError: the file has a label that training lacks, or has a column for each label and
            lacks one.
    """
    used = found.labels if found.columns else {name for row in found.rows for name in row.present}
    if extra := sorted(set(used) - set(labels)):
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise DataError(
            f"{found.path} has the label {extra[0]!r:.100}{more}, which {training} lacks."
            f"{nearest(extra[0], list(labels))} Correct the files, or name the labels to learn: "
            "--data.labels '[NAME,NAME]'."
        )
    if found.columns and (absent := [name for name in labels if name not in found.labels]):
        raise DataError(
            f"{found.path} has no column {absent[0]!r:.100}, which is a label in {training}."
            f"{nearest(absent[0], found.labels)} Add it, with empty cells where the label is "
            "unknown."
        )

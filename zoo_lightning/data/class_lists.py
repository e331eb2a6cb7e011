"""Images listed in text files, with their classes beside them or in the names of their folders."""

from __future__ import annotations

import string
from pathlib import Path, PurePosixPath
from typing import Any

from zoo_lightning.data.class_data import ClassData, Part
from zoo_lightning.data.class_set import Sample
from zoo_lightning.data.formats.text import image_name, text_lines
from zoo_lightning.errors import DataError, nearest

EXPECTED = "a list of images, each line `path label` or `CLASS/name`"

MOST_CLASSES = 1_000_000
"""A number of a class beyond this is a mistake, for every class has a name and an output."""


class ListFiles(ClassData):
    """Images that text files list, as COCO-70 and MIT-Indoors are published.

    A line is ``path label``, the label being the class's number counted from 0, or ``path`` alone,
    the class being the name of the folder that the image is in. All lines are of the same kind.

    Args:
        root: folder of the lists.
        train_list: file name inside ``root``; needed for training and validation only.
        test_list: file name inside ``root``; needed for testing only.
        val_list: file name inside ``root``; ``None`` splits validation images off the training
            images.
        images: folder inside ``root`` that paths are relative to; empty for ``root`` itself.
        options: of ``ClassData``.

    Raises:
        ConfigError: for options outside their range.
        DataError: for a list that is absent or wrong, a class that training lacks, or an image
            that is absent or cannot be read.
    """

    def __init__(
        self,
        root: str,
        train_list: str = "train.txt",
        test_list: str = "test.txt",
        val_list: str | None = None,
        images: str = "",
        **options: Any,
    ) -> None:
        self.root = Path(root)
        self.images = self.root / images
        lists: dict[Part, str | None] = {"train": train_list, "test": test_list, "val": val_list}
        self.named = {"train_list": train_list, "val_list": val_list}
        self.lists = {part: self.root / name for part, name in lists.items() if name}
        alone = self.lists["test"].is_file() and not self.lists["train"].is_file()
        entries = read_list(self.lists["test" if alone else "train"])
        self.labelled = entries[0][1] is not None
        self.classes = classes_of(entries)
        super().__init__(**options)

    def training_options(self) -> dict[str, Any]:
        """As ``ClassData`` has them, with the lists' names."""
        return super().training_options() | self.named

    def _read(self, part: Part) -> list[Sample] | None:
        if part not in self.lists:
            return None
        file = self.lists[part]
        entries = read_list(file)
        if (entries[0][1] is not None) != self.labelled:
            raise DataError(
                f"{file} and {self.lists['train']} differ in whether lines end with a label; "
                f"expected each to be {EXPECTED}."
            )
        index = {name: i for i, name in enumerate(self.classes)}
        samples: list[Sample] = []
        for name, label in entries:
            if label is None:
                label = index.get(folder_of(name), len(index))
            if label >= len(self.classes):
                given = label if self.labelled else folder_of(name)
                raise DataError(
                    f"{file} lists {name!r} of class {given!r}, which {self.lists['train']} lacks."
                    f"{nearest(str(given), self.classes)} Mend the lists."
                )
            samples.append((self.images / name, label))
        self._check_present(file, samples)
        return samples

    def _check_present(self, file: Path, samples: list[Sample]) -> None:
        absent = [path for path, _ in samples if not path.is_file()]  # type: ignore[union-attr]
        if absent and not self.skip_broken:
            raise DataError(
                f"{file} lists {absent[0]}, which does not exist ({len(absent)} of {len(samples)} "
                "images are absent). Add the images, or set `images` to the folder inside `root` "
                "that the paths are relative to."
            )


def read_list(file: Path) -> list[tuple[str, int | None]]:
    """Images of a list, as paths with forward slashes, with their labels if it has labels.

    Raises:
        DataError: the list is absent, empty or no text, or a line is wrong.
    """
    entries: list[tuple[str, int | None]] = []
    for number, line in text_lines(file, EXPECTED):
        place = f"{file}, line {number}"
        path, digits = split_label(line)
        name = image_name(path, place)
        label = int(digits[:20]) if digits else None
        if label is not None and not 0 <= label < MOST_CLASSES:
            raise DataError(
                f"{place}: label {digits:.20}, expected labels that count from 0, below "
                f"{MOST_CLASSES:,}."
            )
        if entries and (label is None) != (entries[0][1] is None):
            raise DataError(
                f"{place}: found {line!r:.300}, but the first line has "
                f"{'no ' * (label is not None)}label; expected {EXPECTED}, all lines alike."
            )
        if label is None and not folder_of(name):
            raise DataError(
                f"{place}: found {line!r:.300}, which has no label and no folder; expected "
                f"{EXPECTED}."
            )
        entries.append((name, label))
    if not entries:
        raise DataError(f"{file} is empty; expected {EXPECTED}.")
    return entries


def split_label(line: str) -> tuple[str, str]:
    """A path, which may have spaces in it, and the number of its class, empty if there is none."""
    # No regular expression: on a line of a million blanks it would look for hours.
    path = line.rstrip(string.digits)
    path = path.removesuffix("-") if path != line else path
    name = path.rstrip(string.whitespace + ",")
    return (name, line[len(path) :]) if name and name != path != line else (line, "")


def folder_of(name: str) -> str:
    """Name of the folder that an image lies in, empty if it lies in none."""
    return PurePosixPath(name).parent.name


def classes_of(entries: list[tuple[str, int | None]]) -> list[str]:
    """Names of the classes: of the folders, or the numbers where folders are not the classes."""
    if entries[0][1] is None:
        return sorted({folder_of(name) for name, _ in entries})
    count = max(label for _, label in entries if label is not None) + 1
    pairs = {(folder_of(name), label) for name, label in entries}
    names = {label: folder for folder, label in pairs}
    if len({folder for folder, _ in pairs}) == len(pairs) == len(names):
        return [names.get(label) or str(label) for label in range(count)]
    return [str(label) for label in range(count)]

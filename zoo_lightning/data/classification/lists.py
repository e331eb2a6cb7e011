"""Data module of images listed in text files, with labels or class folders."""

from __future__ import annotations

import os
import string
from pathlib import Path, PurePosixPath
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from zoo_lightning.data.annotation_text import image_name, text_lines
from zoo_lightning.data.classification.base import ClassData, in_class_order, say_order
from zoo_lightning.data.classification.dataset import Sample
from zoo_lightning.data.image_files import on_disk, one_form
from zoo_lightning.data.labelled import Part
from zoo_lightning.data.splitting import validation_files
from zoo_lightning.errors import DataError, nearest
from zoo_lightning.files.text import encoding_hint

EXPECTED = "a list of images, each line `path label` or `CLASS/name`"

MOST_CLASSES = 1_000_000
"""Upper limit of labels; a larger one is a mistake, for every class has an output."""


class ListFiles(ClassData):
    """Data module of images listed in text files, as published for COCO-70 and MIT-Indoors.

    A line is ``path label``, the label being the class's number counted from 0, or ``path`` alone,
    the class being the name of the folder that the image is in. All lines are of the same kind.

    Args:
        root: folder of the lists.
        train_list: list of training images, relative to ``root``; not needed for testing.
        test_list: list of test images, relative to ``root``; needed for testing only.
        val_list: list of validation images, relative to ``root``; ``None`` splits validation images
            off the training images.
        images: folder inside ``root`` that the listed paths are relative to; empty for ``root``
            itself.
        options: further options of ``ClassData``.

    Raises:
        ConfigError: an option is out of range.
        DataError: a list is missing or malformed, a class is not in training, or an image is
            missing or cannot be read.
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
        """Options of ``ClassData`` and the names of the lists."""
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
        labels = [label for _, label in entries if label is not None]
        if part == "train" and labels and (least := min(labels)):
            raise DataError(
                f"{file}: the labels begin at {least}, expected them to count from 0; subtract "
                f"{least} in all lists."
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
                    f"{nearest(str(given), self.classes)} Correct the lists."
                )
            samples.append((on_disk(self.images, name), label))
        if part != "val" and not self.labelled:
            say_order(self.root, self.classes)
        self._check_present(file, samples)
        self._warn_of_repeated(part, file, samples)
        return samples

    def _unread_validation(self) -> str:
        train, used = self.lists["train"], self.lists.values()
        unread = next((path for path in validation_files(train) if path not in used), None)
        if unread is None:
            return ""
        return (
            f"{unread} is not read, and validation images are split off {train}; give "
            f"--data.val_list {os.path.relpath(unread, self.root)} to validate on it"
        )

    def _warn_of_repeated(self, part: Part, file: Path, samples: list[Sample]) -> None:
        """Warn of images that a list has twice, and of those that are training images, too."""
        labels: dict[Any, set[int]] = {}
        for path, label in samples:
            labels.setdefault(path, set()).add(label)
        if twice := len(samples) - len(labels):
            torn = [path for path, found in labels.items() if len(found) > 1]
            more = f", {len(torn)} of them with different labels, first {torn[0]}" if torn else ""
            rank_zero_warn(f"{file} lists {twice} images again{more}.", category=UserWarning)
        train = self.lists["train"]
        if part == "train" or not train.is_file():
            return
        known = {on_disk(self.images, name) for name, _ in read_list(train)}
        if shared := [path for path in labels if path in known]:
            rank_zero_warn(
                f"{len(shared)} of {len(labels)} images of {file} are training images, too, first "
                f"{shared[0]}: its figures are too good.",
                category=UserWarning,
            )

    def _check_present(self, file: Path, samples: list[Sample]) -> None:
        absent = [path for path, _ in samples if not path.is_file()]  # type: ignore[union-attr]
        if absent and not self.skip_broken:
            name, _, label = str(absent[0]).rpartition(" ")
            if name and Path(name).is_file():
                raise DataError(
                    f"{file} lists {name} with {label!r} behind it, expected the number of its "
                    "class, counted from 0, or nothing if its folder is its class."
                )
            raise DataError(
                f"{file} lists {absent[0]}, which does not exist ({len(absent)} of {len(samples)} "
                f"images are absent).{encoding_hint(str(absent[0]))} Add the images, or set "
                "`images` to the folder inside `root` that the paths are relative to."
            )


def read_list(file: Path) -> list[tuple[str, int | None]]:
    """Read a list: paths with forward slashes, each with its label or ``None``.

    Raises:
        DataError: the list is absent, empty or not text, or a line is malformed.
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
    """Split a line into a path, which may contain spaces, and its label or an empty text."""
    # No regular expression: on a line of a million blanks it would look for hours.
    path = line.rstrip(string.digits)
    path = path.removesuffix("-") if path != line else path
    name = path.rstrip(string.whitespace + ",")
    return (name, line[len(path) :]) if name and name != path != line else (line, "")


def folder_of(name: str) -> str:
    """Name of the folder that contains an image, in one Unicode form; empty if there is none."""
    return one_form(PurePosixPath(name).parent.name)


def classes_of(entries: list[tuple[str, int | None]]) -> list[str]:
    """Class names: the folders' names, or the labels where folders are not the classes."""
    if entries[0][1] is None:
        return in_class_order({folder_of(name) for name, _ in entries})
    count = max(label for _, label in entries if label is not None) + 1
    pairs = {(folder_of(name), label) for name, label in entries}
    names = {label: folder for folder, label in pairs}
    if len({folder for folder, _ in pairs}) == len(pairs) == len(names):
        return [names.get(label) or str(label) for label in range(count)]
    return [str(label) for label in range(count)]

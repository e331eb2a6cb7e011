"""Data module of images with several labels each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from zoo_lightning.data.image_files import on_disk, one_form
from zoo_lightning.data.images import check_present
from zoo_lightning.data.labelled import LabelledImages, Part
from zoo_lightning.data.labelled_set import Source
from zoo_lightning.data.loading import sample_generator
from zoo_lightning.data.multi_label.label_files import (
    LabelFile,
    read_label_file,
    refuse_unknown,
)
from zoo_lightning.data.multi_label.splitting import split_by_labels
from zoo_lightning.data.splitting import (
    person_of,
    random_subset,
    refuse_several,
    validation_files,
)
from zoo_lightning.errors import DataError, nearest

UNKNOWN = -1
"""State of a label of an image of which nothing is known; 1 is there, 0 is not."""

Sample = tuple[Source, np.ndarray]
"""An image and the states of its labels, ``(L,)`` int8: 1, 0 or :data:`UNKNOWN`."""


class MultiLabelImages(LabelledImages[np.ndarray]):
    """Data module of images with several labels each: ``root/{train,test}.csv`` and ``images/``.

    Each part is a table (``train.csv``) or COCO-style JSON (``train.json``). A table has either a
    column for each label, ``image,cat,dog`` with 1 or 0 (true or false, yes or no; an empty cell is
    unknown and left out of loss and metrics), or a column that lists labels, ``image,labels`` with
    ``cat;dog``. Listed labels are separated by commas, semicolons or bars, or by spaces if the file
    has none. In JSON an image has the labels of the categories of its annotations.

    Without ``val.csv`` or ``val.json`` (or ``valid``, ``validation``, ``dev``), validation images
    are split off the training images, such that both have every label where that is possible.

    A batch's ``label`` is int8 ``(B, L)``: 1, 0, or -1 where a label is unknown.

    Args:
        root: folder of the annotation files and of the image folder.
        labels: names of the labels in the order of the network's outputs; others in the files are
            left out. ``None``: all of the training file, columns and categories in its order,
            listed labels by name.
        images: image folder inside ``root``, which the files' image names are relative to.
        image_size: side of the network's input, pixels.
        batch_size: samples per step and process.
        options: further options of :class:`~zoo_lightning.data.labelled.LabelledImages`.

    Raises:
        ConfigError: an option is out of range.
        DataError: files are missing or malformed, an image is listed twice or absent, a label of
            validation or test is not one of training, or no training image has it.
    """

    target_kind = "several labels for each image"
    """Kind of the targets, by which tasks know whether the data are for them."""

    def __init__(
        self,
        root: str,
        labels: list[str] | None = None,
        images: str = "images",
        image_size: int = 64,
        batch_size: int = 64,
        **options: Any,
    ) -> None:
        self.root = Path(root)
        self.image_folder = self.root / images
        self.chosen = None if labels is None else [one_form(str(name)) for name in labels]
        self._files: dict[Part, LabelFile] = {}
        self._logged: set[Part] = set()
        self.training_file = self._find("train") or self._find("test") or self.root / "train.csv"
        part: Part = "test" if self.training_file.stem == "test" else "train"
        self.classes = self._class_names(self._file(part, self.training_file))
        super().__init__(image_size, batch_size, **options)

    @property
    def num_classes(self) -> int:
        """Number of labels ``L``."""
        return len(self.classes)

    @property
    def class_names(self) -> list[str]:
        """Names of the labels, in the order of the network's outputs."""
        return self.classes

    def facts(self) -> dict[str, Any]:
        """Facts of :class:`LabelledImages`, and names of the labels in output order."""
        return super().facts() | {"classes": self.class_names}

    def training_options(self) -> dict[str, Any]:
        """Options of :class:`LabelledImages`, and ``labels``."""
        return super().training_options() | {"labels": self.chosen}

    def setup(self, stage: str) -> None:
        """Read and check the images of a stage; log labels that no validation image has.

        Raises:
            DataError: data or an image cannot be used.
        """
        began = hasattr(self, "val_set")
        super().setup(stage)
        if began or not hasattr(self, "val_set"):
            return
        present = np.stack(self.val_set.labels) == 1  # type: ignore[attr-defined]
        if lacking := [self.classes[column] for column in np.flatnonzero(~present.any(0))]:
            rank_zero_info(
                f"{self.root}: no validation image has the labels {', '.join(lacking[:10])}"
                f"{', ...' * (len(lacking) > 10)}; they do not count in validation, and their "
                "thresholds stay as they are"
            )

    def label_states(self) -> np.ndarray:
        """States of all labels of the training images, ``(n, L)`` int8; call ``setup`` first."""
        return np.stack(self.train_set.labels)  # type: ignore[attr-defined]

    def _find(self, part: Part) -> Path | None:
        files = [self.root / f"{part}.{kind}" for kind in ("csv", "json")]
        found = [path for path in files if path.is_file()]
        if part == "val":
            training = [self.root / f"train.{kind}" for kind in ("csv", "json")]
            found = [path for file in training for path in validation_files(file)]
        refuse_several(found, part)
        return found[0] if found else None

    def _file(self, part: Part, path: Path) -> LabelFile:
        """Content of a part's annotation file, read once."""
        if part not in self._files:
            marks = "train" in self._files and self._files["train"].marks
            self._files[part] = read_label_file(path, self.chosen, marks)
        return self._files[part]

    def _class_names(self, found: LabelFile) -> list[str]:
        """Names of the labels to learn."""
        if self.chosen is None:
            return list(found.labels)
        if len(set(self.chosen)) < len(self.chosen) or not self.chosen:
            raise DataError(
                f"`labels` must name labels once each, and at least one, got {self.chosen}."
            )
        if absent := [name for name in self.chosen if name not in found.labels]:
            raise DataError(
                f"{found.path} has no label {absent[0]!r}.{nearest(absent[0], found.labels)} It "
                f"has {', '.join(found.labels[:20])}{', ...' * (len(found.labels) > 20)}."
            )
        return self.chosen

    def _read(self, part: Part) -> list[Sample] | None:
        path = self._find(part)
        if path is None and part == "val":
            return None
        found = self._file(part, path or self.root / f"{part}.csv")
        if part != "train" and self.chosen is None:
            refuse_unknown(found, self.classes, self.training_file)
        check_present([row.image for row in found.rows], self.image_folder, found.path)
        if part not in self._logged:
            self._logged.add(part)
            self._log(part, found)
        place = {name: column for column, name in enumerate(self.classes)}
        samples: list[Sample] = []
        for row in found.rows:
            states = np.zeros(len(place), np.int8)
            states[[place[name] for name in row.present if name in place]] = 1
            states[[place[name] for name in row.unknown if name in place]] = UNKNOWN
            samples.append((on_disk(self.image_folder, row.image), states))
        return samples

    def _log(self, part: Part, found: LabelFile) -> None:
        """Log what is assumed or left out, and images that training has, too."""
        for note in found.notes:
            rank_zero_info(note)
        if others := [name for name in found.labels if name not in self.classes]:
            rank_zero_info(
                f"{found.path}: labels that are left out: {', '.join(others[:10])}"
                f"{', ...' * (len(others) > 10)}"
            )
        if part == "train" or "train" not in self._files:
            return
        training = {one_form(row.image) for row in self._files["train"].rows}
        if shared := [row.image for row in found.rows if one_form(row.image) in training]:
            rank_zero_warn(
                f"{len(shared)} of {len(found.rows)} images of {found.path} are training images, "
                f"too, first {shared[0]}: its figures are too good.",
                category=UserWarning,
            )

    def _check_training(self, train: list[Sample]) -> None:
        states = np.stack([label for _, label in train])
        positives, negatives = (states == 1).sum(0), (states == 0).sum(0)
        if without := [self.classes[i] for i in np.flatnonzero(positives == 0)]:
            more = f", nor have {len(without) - 1} others" if len(without) > 1 else ""
            raise DataError(
                f"{self.training_file}: no training image has the label {without[0]!r}{more}; add "
                "images that show it, remove it, or name the labels to learn: --data.labels "
                "'[NAME,NAME]'."
            )
        if always := [self.classes[i] for i in np.flatnonzero(negatives == 0)]:
            rank_zero_warn(
                f"{self.training_file}: every training image has the label {always[0]!r}"
                f"{f' and {len(always) - 1} more' if len(always) > 1 else ''}, so that nothing "
                "teaches when it is absent.",
                category=UserWarning,
            )

    def _name(self, source: object, index: int) -> str:
        """Name of an image as in the tables."""
        if isinstance(source, Path) and source.is_relative_to(self.image_folder):
            return source.relative_to(self.image_folder).as_posix()
        return super()._name(source, index)

    def _split(self, samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
        """Split groups of images such that both parts have every label where that is possible."""
        names = self._names(samples)
        groups = [
            person_of(name, self.group_pattern) if self.group_pattern else name for name in names
        ]
        present = np.stack([label == 1 for _, label in samples])
        train, val = split_by_labels(groups, present, self.val_fraction, self.seed)
        return [samples[i] for i in train], [samples[i] for i in val]

    def _subset(self, samples: list[Sample]) -> list[Sample]:
        """Draw ``train_fraction`` of the images, and the first one that is drawn of each label."""
        chosen = random_subset(np.arange(len(samples)), self.train_fraction, self.seed)
        if len(chosen) == len(samples):
            return samples
        generator = sample_generator(self.seed, 0, -3)
        order = torch.randperm(len(samples), generator=generator).numpy()
        present = np.stack([label == 1 for _, label in samples])[order]
        first = order[present.argmax(0)[present.any(0)]]
        return [samples[i] for i in np.union1d(chosen, first)]

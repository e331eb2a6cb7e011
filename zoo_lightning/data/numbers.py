"""Data module of images with numbers, such as ages, weights or angles, from CSV tables."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from zoo_lightning.data.annotation_text import LARGEST_NUMBER, NOT_ANNOTATED
from zoo_lightning.data.image_files import on_disk
from zoo_lightning.data.image_table import ImageTable, TableRow, read_image_table
from zoo_lightning.data.labelled import LabelledImages, Part
from zoo_lightning.data.labelled_set import LabelledSet, Source
from zoo_lightning.data.splitting import refuse_several, validation_files
from zoo_lightning.errors import ConfigError, DataError
from zoo_lightning.files.text import encoding_hint

if TYPE_CHECKING:
    from torchvision.transforms import v2

Sample = tuple[Source, Tensor]

LEAST_SPREAD = 1e-5
"""Smallest standard deviation of a target relative to its largest absolute value: float32, in which
networks compute, has seven digits."""


class NumberSet(LabelledSet[Tensor]):
    """Data set of images with ``numbers`` ``(T,)`` float32 each, in the table's units."""

    def __getitem__(self, position: tuple[int, int] | int) -> dict[str, Any]:
        found = super().__getitem__(position)
        found["numbers"] = found.pop("label")
        return found


class ImageNumbers(LabelledImages[Tensor]):
    """Data module of images with numbers, for :class:`~zoo_lightning.tasks.RegressionTask`.

    ``root`` has ``train.csv`` and ``test.csv``, optionally ``val.csv`` (or ``valid``,
    ``validation``, ``dev``), and the folder ``images``.
    The first line of a table names the columns: ``image``, or else the first one, has the images'
    names, the others have numbers with a decimal point. Columns are separated by commas, semicolons
    or tabs. Networks learn standardised numbers; everything that is read or written is in the
    tables' units.

    Images are not mirrored by default, because that changes numbers such as an angle or a position.
    Crops change sizes, counts and positions, and colour changes a brightness: set ``crop_scale: 1``
    or ``jitter: 0`` for those.

    Args:
        root: folder of the tables.
        targets: columns to predict, as a list or separated by commas; ``None`` for all of the
            training table.
        images: image folder inside ``root``, which the names in the tables are relative to.
        missing: what to do at empty cells (also ``nan``, ``NA``, ``null``): ``error`` refuses them;
            ``skip`` leaves them out of loss and metrics target by target, and images without any
            number altogether.
        image_size: side of the network's input, pixels.
        batch_size: samples per step and process.
        crop_scale: smallest share of the image's area that a training crop shows, in (0, 1].
        flip: probability of mirroring a training image; above 0 only if no target changes.
        options: further options of :class:`~zoo_lightning.data.labelled.LabelledImages`;
            ``test_crops: 10``, which includes mirror images, needs ``flip`` above 0.

    Raises:
        ConfigError: an option is out of range.
        DataError: a table or an image is absent, a cell has no finite number, an image is in a
            table twice, or a target is the same for all training images.
    """

    target_kind = "numbers"
    """Kind of the targets, by which tasks know whether the data are for them."""

    target_mean: list[float]
    """Mean of each target over the training images, without those of validation; after ``setup``
    for ``fit``."""
    target_std: list[float]
    """Standard deviation of each target over the same images."""

    def __init__(
        self,
        root: str,
        targets: list[str] | str | None = None,
        images: str = "images",
        missing: Literal["error", "skip"] = "error",
        image_size: int = 64,
        batch_size: int = 64,
        crop_scale: float = 0.7,
        flip: float = 0.0,
        **options: Any,
    ) -> None:
        self.root = Path(root)
        self.images, self.missing = images, missing
        self._logged: set[Part] = set()
        if missing not in ("error", "skip"):
            raise ConfigError(f"`missing` must be error or skip, got {missing!r}.")
        names = (
            [name.strip() for name in targets.split(",")] if isinstance(targets, str) else targets
        )
        # A test needs no training table.
        alone = self._file("test").is_file() and not self._file("train").is_file()
        table = read_image_table(self._file("test" if alone else "train"))
        self.target_names = table.chosen(names)
        """Names of the targets, in the order of the network's outputs."""
        if names is None:
            warn_of_line_numbers(table)
        super().__init__(image_size, batch_size, crop_scale=crop_scale, flip=flip, **options)
        if self.test_crops != 1 and not flip:
            raise ConfigError(
                f"`test_crops` {self.test_crops} averages with mirror images, got `flip` 0, which "
                "says that mirroring changes the targets; set `test_crops: 1`, or `flip` above 0."
            )

    def facts(self) -> dict[str, Any]:
        """Facts of :class:`LabelledImages`, and names of the targets in output order."""
        return super().facts() | {"targets": self.target_names}

    def training_options(self) -> dict[str, Any]:
        """Options of :class:`LabelledImages`, targets and what is done with absent numbers."""
        own = {"targets": self.target_names, "missing": self.missing}
        return super().training_options() | own

    def setup(self, stage: str) -> None:
        """Read and check the images of a stage, and compute the training targets' scale.

        Raises:
            DataError: data or an image cannot be used.
        """
        super().setup(stage)
        if hasattr(self, "train_set") and not hasattr(self, "target_mean"):
            assert isinstance(self.train_set, NumberSet)
            labels = self.train_set.labels
            used = f"the {len(labels)} images that are trained on"
            self.target_mean, self.target_std = scale_of(labels, self.target_names, used)

    def _file(self, part: Part) -> Path:
        found = validation_files(self.root / "train.csv") if part == "val" else []
        refuse_several(found, "validation")
        return found[0] if found else self.root / f"{part}.csv"

    def _read(self, part: Part) -> list[Sample] | None:
        if part == "val" and not self._file("val").is_file():
            return None
        table = read_image_table(self._file(part))
        table.chosen(self.target_names)
        samples: list[Sample] = []
        lines: dict[Path, str] = {}
        for row in table.rows:
            path = on_disk(self.root / self.images, row.image)
            if path in lines:
                raise DataError(
                    f"{row.place}: the image {row.image} has a line before, {lines[path]}; leave "
                    "one of them."
                )
            lines[path] = row.place.rpartition(", ")[2]
            samples.append((path, self._numbers(row)))
        self._check_present(table, samples)
        if part not in self._logged:  # read again where a test asks for the training images
            self._logged.add(part)
            self._warn_of_shared(part, list(lines))
            self._log_missing(table, samples)
        known = [sample for sample in samples if not sample[1].isnan().all()]
        if not known:
            raise DataError(f"{table.path} has no image with a number of a target; add some.")
        return known

    def _numbers(self, row: TableRow) -> Tensor:
        """Numbers of a line, ``(T,)`` float32; NaN for those that are skipped."""
        found = []
        for name in self.target_names:
            cell = row.cells[name]
            if cell.lower() not in NOT_ANNOTATED:
                found.append(to_number(cell, f"{row.place}, {name}"))
            elif self.missing == "skip":
                found.append(math.nan)
            else:
                raise DataError(
                    f"{row.place}, {name}: found {cell!r}, expected a number; fill it in, remove "
                    "the line, or set `missing: skip` to leave such numbers out."
                )
        return torch.tensor(found, dtype=torch.float32)

    def _check_present(self, table: ImageTable, samples: list[Sample]) -> None:
        absent = [
            (row, path)
            for row, (path, _) in zip(table.rows, samples, strict=True)
            if not path.is_file()  # type: ignore[union-attr]
        ]
        if absent and not self.skip_broken:
            row, path = absent[0]
            raise DataError(
                f"{row.place}: the image {path} does not exist ({len(absent)} of {len(samples)} "
                f"images are absent).{encoding_hint(str(path))} Add the images, correct the "
                "names, or set `images` to the folder inside `root` that they are relative to."
            )

    def _warn_of_shared(self, part: Part, paths: list[Path]) -> None:
        """Warn of images of a part that are training images, too."""
        if part == "train" or not self._file("train").is_file():
            return
        train = read_image_table(self._file("train")).rows
        known = {on_disk(self.root / self.images, row.image) for row in train}
        if shared := [path for path in paths if path in known]:
            rank_zero_warn(
                f"{len(shared)} of {len(paths)} images of {self._file(part)} are training images, "
                f"too, first {shared[0]}: its figures are too good.",
                category=UserWarning,
            )

    def _log_missing(self, table: ImageTable, samples: list[Sample]) -> None:
        absent = torch.stack([numbers for _, numbers in samples]).isnan()
        if counts := {
            name: count
            for name, count in zip(self.target_names, absent.sum(0).tolist(), strict=True)
            if count
        }:
            none = int(absent.all(dim=1).sum())
            rank_zero_info(
                f"{table.path}: absent numbers of {len(samples)} images are left out of loss and "
                f"metrics: {', '.join(f'{name} {count}' for name, count in counts.items())}"
                + (f"; {none} images have no number and are left out" if none else "")
            )

    def _name(self, source: object, index: int) -> str:
        """Name of an image as in the tables, so that predictions can be read as one."""
        folder = self.root / self.images
        if isinstance(source, Path) and source.is_relative_to(folder):
            return source.relative_to(folder).as_posix()
        return super()._name(source, index)

    def _check_training(self, train: list[Sample]) -> None:
        labels = [label for _, label in train]
        scale_of(labels, self.target_names, str(self._file("train")))

    def _set(self, samples: list[Sample], transform: v2.Transform) -> NumberSet:
        return NumberSet(samples, self._names(samples), transform, self.seed, self.value_range)


def warn_of_line_numbers(table: ImageTable) -> None:
    """Warn of columns that count the lines, from 0 or 1, as programs write them beside others."""
    for name in table.columns if len(table.columns) > 1 and len(table.rows) > 1 else ():
        cells = [row.cells[name] for row in table.rows]
        for first in (0, 1):
            if cells == [str(number) for number in range(first, first + len(cells))]:
                others = ",".join(other for other in table.columns if other != name)
                rank_zero_warn(
                    f"{table.path}: column {name!r} counts the lines from {first}, and is learned "
                    f"as a target; if it is none, name those that are: --data.targets {others}",
                    category=UserWarning,
                )


def to_number(cell: str, place: str) -> float:
    """Parse a cell as a finite number.

    Args:
        cell: stripped text of the cell, with a decimal point.
        place: file, line and column, for messages.

    Raises:
        DataError: it is no finite number, or of a size that float32 has no squares for.
    """
    number = _or_nan(cell)
    if abs(number) <= math.sqrt(LARGEST_NUMBER):
        return number
    if "," in cell and not math.isnan(_or_nan(cell.replace(",", "."))):
        more = "; write decimals with a point, " + cell.replace(",", ".")
    elif math.isinf(number) or abs(number) > 1:
        more = " between -1e15 and 1e15; correct or remove the line, or leave the cell empty"
    else:
        more = "; correct it, or leave the column out of `targets`"
    raise DataError(f"{place}: found {cell!r:.100}, expected a number{more}.")


def _or_nan(text: str) -> float:
    try:
        return math.nan if "_" in text else float(text)  # float() takes 1_5 for 15
    except ValueError:
        return math.nan


def scale_of(labels: list[Tensor], names: list[str], what: str) -> tuple[list[float], list[float]]:
    """Compute mean and standard deviation of each target over images in which it is known.

    Args:
        labels: numbers ``(T,)`` of each image; NaN where unknown.
        names: names of the targets.
        what: name of the images in messages.

    Returns:
        Means and standard deviations (of the population, above 0).

    Raises:
        DataError: a target is unknown, or practically the same, for all images.
    """
    means, stds = [], []
    for name, column in zip(names, torch.stack(labels).double().T, strict=True):
        known = column[~column.isnan()]
        if not len(known):
            raise DataError(
                f"{what}: no image has a number of {name!r}; leave it out of `targets`."
            )
        mean, std = float(known.mean()), float(known.std(correction=0))
        if std <= LEAST_SPREAD * float(known.abs().max()):
            raise DataError(
                f"{what}: {name!r} is {float(known[0]):g} for all images, or varies too little to "
                "be learned; leave it out of `targets`, add images, or subtract a constant from "
                "large numbers that differ in their last digits."
            )
        means.append(mean)
        stds.append(std)
    return means, stds

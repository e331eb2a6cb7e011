"""Data module of data sets of Hugging Face's ``datasets`` on disk: saved ones and Parquet files.

Nothing is looked up on the hub and no code of a data set is run. Images stay in the tables, which
are mapped into memory, and are decoded when they are needed.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lightning.pytorch.utilities import rank_zero_info

from zoo_lightning.data.classification.base import ClassData, in_class_order
from zoo_lightning.data.classification.dataset import Sample
from zoo_lightning.data.classification.lists import MOST_CLASSES
from zoo_lightning.data.image_files import is_hidden, one_form
from zoo_lightning.data.images import escapes
from zoo_lightning.data.labelled import Part
from zoo_lightning.data.splitting import VALIDATION
from zoo_lightning.data.stored_images import StoredImage
from zoo_lightning.errors import ConfigError, DataError, nearest

NUMBERING = re.compile(r"(-\d+-of-\d+.*|[-_.]?\d+)$")
"""End of a Parquet file's name that is not its split's: of ``train-00000-of-00002.parquet``."""

PARTS = re.compile(r"-\d+-of-(\d+)")
"""Number of a split's Parquet files, in the name of each."""


@dataclass(frozen=True, eq=False)
class Table:
    """Column of encoded images.

    Args:
        rows: data set of ``datasets`` with that column alone, not decoded.
        column: name of the column.
        split: name of the split.
        folder: folder that paths in the column are relative to.
    """

    rows: Any
    column: str
    split: str
    folder: Path


@dataclass(frozen=True)
class TableImage(StoredImage):
    """Image in a row of a table.

    Args:
        table: column of the image.
        row: number of the row, from 0.
    """

    table: Table
    row: int

    suffix = ""

    @property
    def name(self) -> str:  # type: ignore[override]  # derived, for there are many
        """Split and row."""
        return f"{self.table.split}/{self.row}"

    def open(self, mode: str = "rb") -> BinaryIO:
        """Open the encoded image for reading.

        Raises:
            OSError: the row has no bytes, and no path of a file inside the folder.
        """
        found = self.table.rows[self.row][self.table.column]
        content, path = (
            (found.get("bytes"), found.get("path")) if isinstance(found, dict) else (found, None)
        )
        if content:
            return io.BytesIO(content)
        if not path:
            raise OSError("the row has no image")
        inside = Path(path)
        if inside.is_absolute() and inside.is_relative_to(self.table.folder.absolute()):
            inside = inside.relative_to(self.table.folder.absolute())
        if escapes(inside.as_posix()):
            raise OSError(f"the row has no bytes, but the path {path} outside of the data's folder")
        return (self.table.folder / inside).open("rb")

    def __str__(self) -> str:
        return f"row {self.row} of {self.table.split} in {self.table.folder}"


class HuggingFaceData(ClassData):
    """Data module of a data set of Hugging Face's ``datasets`` on disk.

    ``root`` is a folder that ``save_to_disk`` wrote, of a ``DatasetDict`` or of one ``Dataset``, or
    a folder of Parquet files named after their split, or in a folder named so, with numbers behind:
    ``train-00000-of-00002.parquet``, ``test/0000.parquet``. It is never a name on the hub. Of
    Parquet files, ``datasets`` keeps a copy in its own cache (``HF_DATASETS_CACHE``).

    The column of images has the type ``Image``, or encoded images as bytes. Classes have the names
    of the labels' ``ClassLabel``; without it they are the numbers from 0, or labels that are texts
    in alphabetical order.

    Without a validation split (``val``, ``valid``, ``validation`` or ``dev``), validation images
    are split off the training images. Without a test split, the validation split is the test part,
    and validation images are split off the training images as well. Needs ``pip install
    'zoo-lightning[datasets]'``.

    Args:
        root: folder of the data set.
        image_size: side of the network's input, pixels.
        batch_size: samples per step and process.
        image_column: column of the images.
        label_column: column of the labels.
        train_split: name of the training split.
        val_split: name of the validation split; ``None`` for the usual names.
        test_split: name of the test split.
        options: further options of ``ClassData``; ``group_pattern`` is refused, for rows have no
            names.

    Raises:
        ConfigError: an option is out of range.
        DataError: ``datasets`` is not installed, or the folder, a split, a column, a label or an
            image cannot be used.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 64,
        batch_size: int = 64,
        image_column: str = "image",
        label_column: str = "label",
        train_split: str = "train",
        val_split: str | None = None,
        test_split: str = "test",
        **options: Any,
    ) -> None:
        if options.get("group_pattern"):
            raise ConfigError(
                "`group_pattern` looks at the names of files, which the rows of a table do not "
                "have; save a validation split of your own beside the training split."
            )
        self.root = Path(root)
        self.image_column, self.label_column = image_column, label_column
        self._tables = open_splits(self.root)
        self._splits: dict[Part, str] = {"train": train_split, "test": test_split}
        if val := self._val_split(val_split):
            self._splits["val"] = val
            if test_split not in self._tables:
                self._splits["test"] = val
        only_test = train_split not in self._tables and self._splits["test"] in self._tables
        self.classes = self._class_names("test" if only_test else "train")
        super().__init__(image_size, batch_size, **options)

    def training_options(self) -> dict[str, Any]:
        """Options of ``ClassData``, and the splits and columns."""
        splits = {f"{part}_split": self._splits.get(part) for part in ("train", "val")}
        columns = {"image_column": self.image_column, "label_column": self.label_column}
        return super().training_options() | splits | columns

    def _val_split(self, given: str | None) -> str | None:
        found = [name for name in self._tables if name.lower() in VALIDATION]
        if given is None and len(found) > 1:
            raise DataError(
                f"{self.root} has {' and '.join(found)}, each of which may be the validation "
                "images; set `val_split`."
            )
        if given is not None and given not in self._tables:
            raise DataError(self._lacks("val", given))
        return given or next(iter(found), None)

    def _lacks(self, part: str, split: str) -> str:
        return (
            f"{self.root} has no split {split!r}, it has {', '.join(map(repr, self._tables))}."
            f"{nearest(split, list(self._tables))} Set `{part}_split`, or save that split, too: "
            "dataset.train_test_split(0.2).save_to_disk(DIR) divides one."
        )

    def _table(self, part: Part) -> Any:
        split = self._splits[part]
        if split not in self._tables:
            raise DataError(self._lacks(part, split))
        return self._tables[split]

    def _feature(self, part: Part, column: str, option: str) -> Any:
        """Type of a column.

        Raises:
            DataError: the split has no such column.
        """
        features = self._table(part).features
        if column not in features:
            raise DataError(
                f"{self.root}, split {self._splits[part]!r}, has no column {column!r}, it has "
                f"{', '.join(map(repr, features))}.{nearest(column, list(features))} Set "
                f"`{option}`."
            )
        return features[column]

    def _labels(self, part: Part) -> list[str]:
        """Names of the classes of all rows of a part, in their order.

        Raises:
            DataError: labels are absent or of another type.
        """
        feature = self._feature(part, self.label_column, "label_column")
        names = getattr(feature, "names", None)
        rows = self._table(part).select_columns([self.label_column])
        labels = rows.with_format(None)[:][self.label_column]
        for row, label in enumerate(labels):
            known = type(label) in (int, str) and label != ""
            most = len(names) if names else MOST_CLASSES
            if not known or (isinstance(label, int) and not 0 <= label < most):
                wanted = f"0 to {len(names) - 1}" if names else "a number from 0, or a name"
                raise DataError(
                    f"{self.root}, split {self._splits[part]!r}, row {row}: column "
                    f"{self.label_column!r} has the label {label!r:.80}, expected {wanted}; "
                    "correct it, leave the row out, or set `label_column`."
                )
        return [one_form(names[label] if names else str(label)) for label in labels]

    def _class_names(self, part: Part) -> list[str]:
        feature = self._feature(part, self.label_column, "label_column")
        if names := getattr(feature, "names", None):
            name, count = Counter(map(one_form, names)).most_common(1)[0]
            if count > 1:
                raise DataError(f"{self.root} has {count} classes {name!r}; name them differently.")
            return [one_form(name) for name in names]
        labels = set(self._labels(part))
        if feature.dtype == "string":
            return in_class_order(labels)
        return [str(label) for label in range(max(map(int, labels)) + 1)]

    def _read(self, part: Part) -> list[Sample] | None:
        if part == "val" and self._splits.get("val") in (None, self._splits["test"]):
            return None
        labels, index = self._labels(part), {name: i for i, name in enumerate(self.classes)}
        for row, label in enumerate(labels):
            if label not in index:
                raise DataError(
                    f"{self.root}, split {self._splits[part]!r}, row {row} is of class {label!r}, "
                    f"which {self._splits['train']!r} lacks.{nearest(label, self.classes)} Correct "
                    "the label."
                )
        images = self._images(part)
        rank_zero_info(
            f"{self.root}: {len(labels)} {part} images in the split {self._splits[part]!r}"
        )
        return [(TableImage(images, row), index[label]) for row, label in enumerate(labels)]

    def _images(self, part: Part) -> Table:
        """Column of a part's encoded images.

        Raises:
            DataError: the column has another type.
        """
        column = self.image_column
        feature = self._feature(part, column, "image_column")
        rows = self._table(part).select_columns([column]).with_format(None)
        kind = type(feature).__name__
        if kind == "Image":
            rows = rows.cast_column(column, type(feature)(decode=False))
        elif not is_encoded(feature):
            raise DataError(
                f"{self.root}, split {self._splits[part]!r}: column {column!r} has the type "
                f"{feature}, expected images (datasets.Image) or encoded images as bytes; set "
                "`image_column`, or save the column as datasets.Image."
            )
        return Table(rows, column, self._splits[part], self.root)


def is_encoded(feature: Any) -> bool:
    """Whether a column of ``datasets`` has encoded images, as bytes or in a struct with them."""
    if isinstance(feature, Mapping):
        return "bytes" in feature and is_encoded(feature["bytes"])
    return getattr(feature, "dtype", None) in ("binary", "large_binary")


def open_splits(root: Path) -> dict[str, Any]:
    """Open all splits of a data set on disk, by their names.

    Raises:
        DataError: ``datasets`` is not installed, or there is no data set that it can read.
    """
    if not root.is_dir():
        raise DataError(
            f"The folder {root} does not exist; expected a folder that save_to_disk of datasets "
            "wrote, or one of Parquet files. Names on the hub are not looked up: "
            "datasets.load_dataset(NAME).save_to_disk(DIR) saves what they stand for."
        )
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{root} is read with datasets, which cannot be imported ({error}): "
            "pip install 'zoo-lightning[datasets]'."
        ) from error
    try:
        if (root / "dataset_dict.json").is_file():
            return {str(name): each for name, each in datasets.load_from_disk(str(root)).items()}
        if (root / "state.json").is_file():
            found = datasets.load_from_disk(str(root))
            return {str(found.split or "train"): found}
        found = parquet_files(root)
        for split, files in found.items():
            _check_parts(root, split, files)
        return {
            split: datasets.Dataset.from_parquet([str(file) for file in files])
            for split, files in found.items()
        }
    except DataError:
        raise
    except Exception as error:  # whatever a damaged file leads datasets and pyarrow to
        cause = error.__cause__ or error
        reason = str(cause).strip().split("\n")[0].rstrip(".")
        raise DataError(
            f"{root} cannot be read by datasets {datasets.__version__} ({reason}); save or copy it "
            "again."
        ) from error


def parquet_files(root: Path) -> dict[str, list[Path]]:
    """Find the Parquet files of each split in a folder, in the order of their names.

    Raises:
        DataError: there are none.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.parquet")):
        inside = path.relative_to(root)
        if not any(map(is_hidden, inside.parts)):
            found.setdefault(split_of(inside), []).append(path)
    if not found:
        there = sorted(path.name for path in root.iterdir())
        raise DataError(
            f"{root} has no dataset_dict.json or state.json, as save_to_disk of datasets writes, "
            f"and no Parquet files; it has {', '.join(there[:5]) or 'no files'}"
            f"{', ...' * (len(there) > 5)}."
        )
    return found


def _check_parts(root: Path, split: str, files: Sequence[Path]) -> None:
    """Check that the files of a split are all parts of one table.

    Raises:
        DataError: they lie in several folders, a part is absent, or the columns of one differ from
            those of the first, by which ``datasets`` names the classes of all.
    """
    folders = sorted({file.parent.relative_to(root).as_posix() for file in files})
    if len(folders) > 1:
        raise DataError(
            f"{root} has files of the split {split!r} in {len(folders)} folders, "
            f"{', '.join(folders[:5])}, which may be several data sets; set `root` to one of them."
        )
    first = _stated_features(files[0])
    for file in files:
        parts = PARTS.search(file.stem)
        if parts and int(parts.group(1)) != len(files):
            raise DataError(
                f"{file} is one of {int(parts.group(1))} parts by its name, and there are "
                f"{len(files)}; add the others, or rename the files."
            )
        if _stated_features(file) != first:
            raise DataError(
                f"{file} states other columns, types or class names than {files[0]}; save both "
                "with the same features."
            )


def _stated_features(file: Path) -> Any:
    """Types of the columns that ``datasets`` has noted in a Parquet file; ``None`` if it has not.

    Raises:
        Exception: of any kind, if the file is damaged.
    """
    from pyarrow import parquet  # type: ignore[import-untyped]

    noted = (parquet.read_schema(file).metadata or {}).get(b"huggingface")
    return None if noted is None else json.loads(noted).get("info", {}).get("features")


def split_of(path: Path) -> str:
    """Name of a Parquet file's split: of its name without numbers, or of its folder.

    Args:
        path: path in the data's folder.
    """
    return NUMBERING.sub("", path.stem) or path.parent.name or "train"

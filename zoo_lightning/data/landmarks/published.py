"""Data modules of annotated faces, one per format of annotation files.

All options beyond a format's own files are those of ``LandmarkData``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from zoo_lightning.data.landmarks.base import LandmarkData
from zoo_lightning.data.landmarks.formats.coco import read_coco, read_coco_category
from zoo_lightning.data.landmarks.formats.cofw import NUM_POINTS as COFW_POINTS
from zoo_lightning.data.landmarks.formats.cofw import read_cofw
from zoo_lightning.data.landmarks.formats.hrnet_csv import (
    read_hrnet_csv,
    read_hrnet_header,
    rows_of_subset,
)
from zoo_lightning.data.landmarks.formats.plain_csv import read_landmark_csv, read_num_points
from zoo_lightning.data.landmarks.formats.pts import TEST, TRAIN, read_pts_folders
from zoo_lightning.data.landmarks.formats.wflw import ATTRIBUTES, read_wflw
from zoo_lightning.data.landmarks.formats.wflw import NUM_POINTS as WFLW_POINTS
from zoo_lightning.data.landmarks.table import LandmarkTable
from zoo_lightning.errors import DataError

__all__ = ["COFW", "W300", "WFLW", "COCOKeypoints", "HRNetCSV", "LandmarkCSV"]

Part = Literal["train", "test"]


def first_of(files: dict[str, Path]) -> Path:
    """Return the training file, or the test file if only that exists."""
    train, test = files["train"], files["test"]
    return test if test.is_file() and not train.is_file() else train


class LandmarkCSV(LandmarkData):
    """Data module of landmark CSV files ``image,x0,y0,x1,y1,...``, in original pixels.

    Validation faces are split off ``train.csv`` by person; testing reads ``test.csv`` alone. Whole
    images are padded to squares, unless ``box`` is ``points``.

    Args:
        root: folder of the CSV files and of the image folder.
        train_csv: training file, relative to ``root``; not needed for testing.
        test_csv: test file, relative to ``root``; needed for testing only.
        images: image folder inside ``root``, which the names in the CSV files are relative to.
        image_size: side of the network's input, pixels.
        batch_size: samples per step and process.
        group_pattern: regular expression that is removed from file stems; the remainder identifies
            the person, whose images are never divided between training and validation. Empty: each
            image is a person of its own.
        kwargs: further options of ``LandmarkData``.

    Raises:
        ConfigError: an option is out of range or contradicts the data.
        DataError: files are missing or malformed; on construction only if no header is
            readable.
    """

    BOX_WITHOUT_GIVEN = "image"

    def __init__(
        self,
        root: str,
        train_csv: str = "train.csv",
        test_csv: str = "test.csv",
        images: str = "images",
        image_size: int = 64,
        batch_size: int = 32,
        group_pattern: str = r"_?\d+$",
        **kwargs: Any,
    ) -> None:
        self.named = (("train_csv", train_csv),)
        self.files = {"train": Path(root) / train_csv, "test": Path(root) / test_csv}
        self.image_folder = Path(root) / images
        self.num_points = read_num_points(first_of(self.files))
        super().__init__(
            image_size=image_size, batch_size=batch_size, group_pattern=group_pattern, **kwargs
        )

    def read(self, part: Part) -> LandmarkTable:
        """Read ``train_csv`` or ``test_csv``."""
        return read_landmark_csv(self.files[part])


class HRNetCSV(LandmarkData):
    """Data module of HRNet's CSV files of 300-W, WFLW and AFLW, and others in their layout.

    Args:
        root: folder of the CSV files and of the image folder.
        train_csv: training file, relative to ``root``; not needed for testing.
        test_csv: test file, relative to ``root``; needed for testing only.
        images: image folder inside ``root``, which the names in the CSV files are relative to.
        subsets: files inside ``root``, by name, that list the faces of subsets of the test set.
        kwargs: further options of ``LandmarkData``.

    Raises:
        ConfigError: an option is out of range or contradicts the data.
        DataError: files are missing or malformed; on construction only if no header is
            readable.
    """

    def __init__(
        self,
        root: str,
        train_csv: str = "train.csv",
        test_csv: str = "test.csv",
        images: str = "images",
        subsets: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.named = (("train_csv", train_csv),)
        self.files = {"train": Path(root) / train_csv, "test": Path(root) / test_csv}
        self.image_folder = Path(root) / images
        self.subset_files = {name: Path(root) / file for name, file in (subsets or {}).items()}
        header = read_hrnet_header(first_of(self.files))
        self.num_points, self.given_distance = header.num_points, header.sized
        self.subset_names = tuple(self.subset_files)
        super().__init__(**kwargs)

    def read(self, part: Part) -> LandmarkTable:
        """Read ``train_csv``, or ``test_csv`` with its subsets."""
        path = self.files[part]
        table = read_hrnet_csv(path)
        if "given" in self.normalizations and table.sizes is None:
            raise DataError(
                f"{path} has no column `box_size`, but {first_of(self.files)} has; both must be of "
                "the same layout."
            )
        if part == "train":
            return table
        subsets = {}
        for name, file in self.subset_files.items():
            listed = read_hrnet_csv(file)
            if listed.points.shape[1] != table.points.shape[1]:
                raise DataError(
                    f"{file} has {listed.points.shape[1]} points, but {path} has "
                    f"{table.points.shape[1]}; both must have the same."
                )
            subsets[name] = rows_of_subset(table, listed, file)
        return replace(table, subsets=subsets)

    def _further_files(self) -> Iterable[Path]:
        return self.subset_files.values()


class W300(LandmarkData):
    """Data module of 300-W as released: ``.pts`` files beside their images, 68 points.

    The training part is ``afw``, ``helen/trainset`` and ``lfpw/trainset``. The full test set has
    the subsets ``common`` (``helen/testset`` and ``lfpw/testset``) and ``challenge`` (``ibug``),
    the private one ``indoor`` (``300W/01_Indoor``) and ``outdoor`` (``300W/02_Outdoor``).

    Args:
        root: folder that contains these folders.
        test: test set to evaluate on, ``full`` or ``private``.
        kwargs: further options of ``LandmarkData``.

    Raises:
        ConfigError: an option is out of range or contradicts the data.
        DataError: files are missing or malformed.
    """

    num_points = 68

    def __init__(self, root: str, test: Literal["full", "private"] = "full", **kwargs: Any) -> None:
        self.files = {"train": Path(root), "test": Path(root)}
        self.image_folder = Path(root)
        self.test_folders = TEST[test]
        self.subset_names = tuple(self.test_folders)
        super().__init__(**kwargs)

    def read(self, part: Part) -> LandmarkTable:
        """Read the folders of the training part or of the chosen test set."""
        folders: dict[str, tuple[str, ...]] = self.test_folders
        if part == "train":
            folders = {"": TRAIN}
        return read_pts_folders(self.image_folder, folders)


class WFLW(LandmarkData):
    """Data module of WFLW as released: 98 points, six test subsets by attribute.

    Args:
        root: folder that contains ``WFLW_annotations`` and ``WFLW_images``.
        kwargs: further options of ``LandmarkData``.

    Raises:
        ConfigError: an option is out of range or contradicts the data.
        DataError: files are missing or malformed.
    """

    num_points = WFLW_POINTS
    subset_names = ATTRIBUTES

    def __init__(self, root: str, **kwargs: Any) -> None:
        lists = Path(root) / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
        self.files = {part: lists / f"list_98pt_rect_attr_{part}.txt" for part in ("train", "test")}
        self.image_folder = Path(root) / "WFLW_images"
        super().__init__(**kwargs)

    def read(self, part: Part) -> LandmarkTable:
        """Read the annotation list of one part."""
        return read_wflw(self.files[part])


class COFW(LandmarkData):
    """Data module of COFW as released: MATLAB files with images, 29 points with occlusion flags.

    Needs ``pip install 'zoo-lightning[cofw]'``.

    Args:
        root: folder of the two MATLAB files.
        train_mat: training file, relative to ``root``; not needed for testing.
        test_mat: test file, relative to ``root``; needed for testing only.
        kwargs: further options of ``LandmarkData``.

    Raises:
        ConfigError: an option is out of range or contradicts the data.
        DataError: files are missing or malformed, or a library is missing.
    """

    num_points = COFW_POINTS

    def __init__(
        self,
        root: str,
        train_mat: str = "COFW_train_color.mat",
        test_mat: str = "COFW_test_color.mat",
        **kwargs: Any,
    ) -> None:
        self.named = (("train_mat", train_mat),)
        self.files = {"train": Path(root) / train_mat, "test": Path(root) / test_mat}
        super().__init__(**kwargs)

    def read(self, part: Part) -> LandmarkTable:
        """Read images and points of one part."""
        return read_cofw(self.files[part], part)


class COCOKeypoints(LandmarkData):
    """Data module of faces annotated as COCO keypoints; an image may show several faces.

    Args:
        root: folder of the JSON files and of the image folder.
        train_json: training file, relative to ``root``; not needed for testing.
        test_json: test file, relative to ``root``; needed for testing only.
        images: image folder inside ``root``, which the files' ``file_name`` are relative to.
        category: name of the faces' category, needed where several categories have keypoints;
            annotations of the others are left out.
        kwargs: further options of ``LandmarkData``.

    Raises:
        ConfigError: an option is out of range or contradicts the data.
        DataError: files are missing or malformed; on construction only if the number of
            keypoints cannot be read.
    """

    def __init__(
        self,
        root: str,
        train_json: str = "train.json",
        test_json: str = "test.json",
        images: str = "images",
        category: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.files = {"train": Path(root) / train_json, "test": Path(root) / test_json}
        self.image_folder = Path(root) / images
        faces = read_coco_category(first_of(self.files), category)
        self.category, self.num_points, self.point_names = faces
        self.named = (("train_json", train_json), ("category", self.category))
        if self.category is not None:
            self.assumed = (f"faces are of the category {self.category!r}",)
        super().__init__(**kwargs)

    def read(self, part: Part) -> LandmarkTable:
        """Read ``train_json`` or ``test_json``, one face per annotation of the category."""
        table = read_coco(self.files[part], self.category)
        if self.check_annotations and table.point_names and self.point_names:
            pairs = zip(table.point_names, self.point_names, strict=False)
            for number, (name, first) in enumerate(pairs):
                if name != first:
                    raise DataError(
                        f"{self.files[part]}: keypoint {number} is {name!r}, but {first!r} in "
                        f"{first_of(self.files)}; both files must have the same keypoints in the "
                        "same order (--data.check_annotations=false takes them as they are)."
                    )
        return table

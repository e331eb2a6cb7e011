"""Data modules of annotated faces, one per format of annotation files.

All options beyond a format's own files are those of ``LandmarkData``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from zoo_lightning.data.formats.coco import read_coco, read_coco_num_points
from zoo_lightning.data.formats.cofw import NUM_POINTS as COFW_POINTS
from zoo_lightning.data.formats.cofw import read_cofw
from zoo_lightning.data.formats.hrnet_csv import read_hrnet_csv, read_hrnet_header, rows_of_subset
from zoo_lightning.data.formats.plain_csv import read_landmark_csv, read_num_points
from zoo_lightning.data.formats.pts import TEST, TRAIN, read_pts_folders
from zoo_lightning.data.formats.wflw import ATTRIBUTES, read_wflw
from zoo_lightning.data.formats.wflw import NUM_POINTS as WFLW_POINTS
from zoo_lightning.data.landmark_data import LandmarkData
from zoo_lightning.data.landmark_table import LandmarkTable
from zoo_lightning.errors import DataError

__all__ = ["COFW", "W300", "WFLW", "COCOKeypoints", "HRNetCSV", "LandmarkCSV"]

Part = Literal["train", "test"]


def first_of(files: dict[str, Path]) -> Path:
    """The training file, or the test file if that alone exists."""
    train, test = files["train"], files["test"]
    return test if test.is_file() and not train.is_file() else train


class LandmarkCSV(LandmarkData):
    """Landmarks annotated as ``image,x0,y0,x1,y1,...``, in pixels of the original images.

    ``train.csv`` is split by person for validation; ``test.csv`` is never trained on and alone is
    enough for testing. Whole images are padded to squares, unless ``box`` is ``points``.

    Args:
        root: folder of the CSV files and of the image folder.
        train_csv: file name inside ``root``; needed for training and validation only.
        test_csv: file name inside ``root``; needed for testing only.
        images: image folder inside ``root``, which the names in the CSV files are relative to.
        image_size: side of the network's input, pixels.
        batch_size: samples per step and process.
        group_pattern: regular expression; what remains of a file's stem after removing what it
            matches is the person, who is wholly trained on or wholly validated on. An empty
            pattern takes each image for a person of its own.
        kwargs: options of ``LandmarkData``.

    Raises:
        ConfigError: for options outside their range or against the data.
        DataError: for files that are absent or wrong; on construction only if no header is
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
    """The CSV files that HRNet's authors made of 300-W, WFLW and AFLW, and others in their layout.

    Args:
        root: folder of the CSV files and of the image folder.
        train_csv: file name inside ``root``; needed for training and validation only.
        test_csv: file name inside ``root``; needed for testing only.
        images: image folder inside ``root``, which the names in the CSV files are relative to.
        subsets: names of parts of the test set, and for each a file inside ``root`` that lists its
            faces.
        kwargs: options of ``LandmarkData``.

    Raises:
        ConfigError: for options outside their range or against the data.
        DataError: for files that are absent or wrong; on construction only if no header is
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
        """Read ``train_csv``, or ``test_csv`` and which of its faces the subsets list."""
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


class W300(LandmarkData):
    """300-W as released: ``.pts`` files beside their images, 68 points.

    Trained on is ``afw``, ``helen/trainset`` and ``lfpw/trainset``. The full test set is
    ``helen/testset`` and ``lfpw/testset`` (the subset ``common``) and ``ibug`` (``challenge``), the
    private one ``300W/01_Indoor`` and ``300W/02_Outdoor`` (``indoor`` and ``outdoor``).

    Args:
        root: folder of these folders.
        test: the test set.
        kwargs: options of ``LandmarkData``.

    Raises:
        ConfigError: for options outside their range or against the data.
        DataError: for files that are absent or wrong.
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
        folders = {"": TRAIN} if part == "train" else self.test_folders
        return read_pts_folders(self.image_folder, folders)


class WFLW(LandmarkData):
    """WFLW as released: ``WFLW_annotations`` and ``WFLW_images``, 98 points, six subsets.

    Args:
        root: folder of the two.
        kwargs: options of ``LandmarkData``.

    Raises:
        ConfigError: for options outside their range or against the data.
        DataError: for files that are absent or wrong.
    """

    num_points = WFLW_POINTS
    subset_names = ATTRIBUTES

    def __init__(self, root: str, **kwargs: Any) -> None:
        lists = Path(root) / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
        self.files = {part: lists / f"list_98pt_rect_attr_{part}.txt" for part in ("train", "test")}
        self.image_folder = Path(root) / "WFLW_images"
        super().__init__(**kwargs)

    def read(self, part: Part) -> LandmarkTable:
        """Read the list of one part."""
        return read_wflw(self.files[part])


class COFW(LandmarkData):
    """COFW as released: MATLAB files that hold the images, 29 points, some of them occluded.

    Needs ``pip install 'zoo-lightning[cofw]'``.

    Args:
        root: folder of the files.
        train_mat: file name inside ``root``; needed for training and validation only.
        test_mat: file name inside ``root``; needed for testing only.
        kwargs: options of ``LandmarkData``.

    Raises:
        ConfigError: for options outside their range or against the data.
        DataError: for files that are absent or wrong, or a missing library.
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
    """Faces annotated as COCO keypoints; an image may show several.

    Args:
        root: folder of the JSON files and of the image folder.
        train_json: file name inside ``root``; needed for training and validation only.
        test_json: file name inside ``root``; needed for testing only.
        images: image folder inside ``root``, which the files' ``file_name`` are relative to.
        kwargs: options of ``LandmarkData``.

    Raises:
        ConfigError: for options outside their range or against the data.
        DataError: for files that are absent or wrong; on construction only if the number of
            keypoints cannot be read.
    """

    def __init__(
        self,
        root: str,
        train_json: str = "train.json",
        test_json: str = "test.json",
        images: str = "images",
        **kwargs: Any,
    ) -> None:
        self.named = (("train_json", train_json),)
        self.files = {"train": Path(root) / train_json, "test": Path(root) / test_json}
        self.image_folder = Path(root) / images
        self.num_points = read_coco_num_points(first_of(self.files))
        super().__init__(**kwargs)

    def read(self, part: Part) -> LandmarkTable:
        """Read a face per annotation."""
        return read_coco(self.files[part])

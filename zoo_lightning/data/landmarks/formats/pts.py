"""Reader of the ``.pts`` files of 300-W and of its folders.

A file holds ``version: 1``, ``n_points: 68`` and, between braces, a line ``x y`` per point. They
count as MATLAB does: the centre of the first pixel is at 1, so 0.5 is subtracted. A point
``nan nan`` is not annotated.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from zoo_lightning.data.annotation_text import text_lines, to_coordinates
from zoo_lightning.data.landmarks.table import LandmarkTable
from zoo_lightning.errors import DataError

EXPECTED = "a file of `version: 1`, `n_points: K` and K lines `x y` between braces"

OFFSET = 0.5
"""Pixels by which the files' coordinates exceed the package's."""

TRAIN = ("afw", "helen/trainset", "lfpw/trainset")
TEST: dict[str, dict[str, tuple[str, ...]]] = {
    "full": {"common": ("helen/testset", "lfpw/testset"), "challenge": ("ibug",)},
    "private": {"indoor": ("300W/01_Indoor",), "outdoor": ("300W/02_Outdoor",)},
}
"""Folders of each test set, by subset name."""


def read_pts(path: str | Path) -> np.ndarray:
    """Read the points of a ``.pts`` file, ``(K, 2)`` float32, pixels with centres at 0.5.

    Points that are not annotated are NaN.

    Raises:
        DataError: naming the file and the line, if it is absent or of another format.
    """
    path = Path(path)
    lines = text_lines(path, EXPECTED)
    place = {index: f"{path}, line {number}" for index, (number, _) in enumerate(lines)}
    words = [line for _, line in lines]
    announced = -1
    for index, (key, wanted) in enumerate((("version", "version: 1"), ("n_points", "n_points: K"))):
        name, _, value = (words[index] if index < len(words) else "").partition(":")
        if name.strip() != key or not re.fullmatch("[0-9]{1,9}", value.strip()):
            raise DataError(
                f"{place.get(index, path)}: found {(words[index : index + 1] or [''])[0]!r:.100}, "
                f"expected `{wanted}`."
            )
        announced = int(value)
    if words[2:3] != ["{"] or words[-1] != "}":
        raise DataError(f"{path}: the points must stand between a line {{ and a last line }}.")
    points = []
    for index, line in enumerate(words[3:-1], 3):
        cells = line.split()
        if len(cells) != 2:
            raise DataError(f"{place[index]}: found {line!r:.100}, expected `x y`.")
        points.append(to_coordinates(cells, place[index], "xy"))
    if len(points) != announced:
        raise DataError(f"{path} announces {announced} points but holds {len(points)}.")
    return np.array(points, np.float32).reshape(-1, 2) - np.float32(OFFSET)


def read_pts_folders(root: str | Path, folders: dict[str, tuple[str, ...]]) -> LandmarkTable:
    """Read all ``.pts`` files of some folders, whose images lie beside them.

    Args:
        root: folder that ``folders`` are relative to.
        folders: folders by subset name; those under ``""`` belong to no subset.

    Returns:
        Table of the faces, with image names relative to ``root``, sorted within each folder.

    Raises:
        DataError: naming a folder that is absent or has no ``.pts`` file, a file of another format
            or number of points, or a file without an image.
    """
    root = Path(root)
    names, points, subset_of = [], [], []
    for subset, parts in folders.items():
        for part in parts:
            files = sorted((root / part).glob("*.pts"))
            if not files:
                what = "has no .pts file" if (root / part).is_dir() else "does not exist"
                raise DataError(
                    f"The folder {root / part} {what}; set `root` to the folder that holds "
                    f"{', '.join(folder for group in folders.values() for folder in group)}."
                )
            for file in files:
                names.append(_image_beside(file).relative_to(root).as_posix())
                points.append(read_pts(file))
                subset_of.append(subset)
                if len(points[-1]) != len(points[0]):
                    raise DataError(
                        f"{file} has {len(points[-1])} points, the files before it "
                        f"{len(points[0])}; all must have the same."
                    )
    members = {name: np.array([each == name for each in subset_of]) for name in folders if name}
    return LandmarkTable(names, np.stack(points), subsets=members, offset=OFFSET).without_nan()


def _image_beside(file: Path) -> Path:
    for suffix in (".jpg", ".png"):
        if file.with_suffix(suffix).is_file():
            return file.with_suffix(suffix)
    raise DataError(f"{file} has no image beside it; expected {file.stem}.jpg or {file.stem}.png.")

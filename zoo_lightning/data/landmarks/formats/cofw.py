"""Reader of COFW's MATLAB files, which contain the images: version 5 with SciPy, 7.3 with h5py.

``phisTr`` (training) or ``phisT`` (test) has 29 x, 29 y and 29 flags of occlusion per face,
``IsTr`` or ``IsT`` the images. Coordinates count as MATLAB does, the centre of the first pixel at
1, so 0.5 is subtracted. Occluded points are labelled; a point of two NaN is not.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from zoo_lightning.data.annotation_text import LARGEST_NUMBER, require_file
from zoo_lightning.data.landmarks.formats.pts import OFFSET
from zoo_lightning.data.landmarks.table import HIDDEN, VISIBLE, LandmarkTable
from zoo_lightning.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NUM_POINTS = 29
KEYS = {"train": ("IsTr", "phisTr"), "test": ("IsT", "phisT")}
_HDF5 = b"\x89HDF\r\n\x1a\n"


def read_cofw(path: str | Path, part: Literal["train", "test"]) -> LandmarkTable:
    """Read the images, points and occlusion flags of one part of COFW.

    Args:
        path: ``.mat`` file.
        part: part whose variables are read.

    Raises:
        DataError: the file is missing, of another MATLAB version or of the other part, a variable
            has another shape or type, or a library is missing.
    """
    path = Path(path)
    require_file(path, "COFW's annotations, such as COFW_train_color.mat and COFW_test_color.mat")
    images, phis = _apart(_READERS[_version(path)], path, part)
    phis = np.asarray(phis)
    if phis.ndim != 2 or phis.shape[1] != 3 * NUM_POINTS or phis.dtype.kind not in "fiu":
        raise DataError(
            f"{path}: {KEYS[part][1]} has the shape {phis.shape}, expected (faces, 87): 29 x, 29 "
            "y, 29 flags of occlusion."
        )
    if len(images) != len(phis) or not len(images):
        raise DataError(
            f"{path}: {KEYS[part][0]} has {len(images)} images, {KEYS[part][1]} {len(phis)} "
            "faces; there must be as many, and at least one."
        )
    phis = phis.astype(np.float64).reshape(-1, 3, NUM_POINTS)
    occluded = phis[:, 2]
    points = phis[:, :2].transpose(0, 2, 1)
    missing = np.isnan(phis[:, :2]).all(1, keepdims=True)
    numbers = np.where(missing, 0, phis)
    wrong = ~(np.abs(numbers) <= LARGEST_NUMBER).all((1, 2)) | ~np.isin(occluded, (0, 1)).all(-1)
    if wrong.any():
        raise DataError(
            f"{path}: row {int(np.argmax(wrong)) + 1} of {KEYS[part][1]} has a coordinate that is "
            "no finite number, or a flag other than 0 and 1; download the file again."
        )
    for number, image in enumerate(images, 1):
        shaped = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
        if image.dtype != np.uint8 or not shaped or not image.size:
            raise DataError(
                f"{path}: image {number} of {KEYS[part][0]} is {image.dtype} of shape "
                f"{image.shape}, expected uint8 (height, width) or (height, width, 3)."
            )
    return LandmarkTable(
        [f"{path.stem}-{number:04d}" for number in range(1, len(images) + 1)],
        (points - OFFSET).astype(np.float32),
        visible=np.where(occluded > 0, HIDDEN, VISIBLE).astype(np.uint8),
        pixels=images,
        offset=OFFSET,
    ).without_nan()


def _apart(
    read: Callable[[Path, str], tuple[list[np.ndarray], np.ndarray]], path: Path, part: str
) -> tuple[list[np.ndarray], np.ndarray]:
    """Read in a process of its own, because a damaged file may crash SciPy's and HDF5's C code."""
    if "fork" not in multiprocessing.get_all_start_methods():
        return read(path, part)
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        try:
            return pool.submit(read, path, part).result()
        except BrokenProcessPool as error:
            raise DataError(
                f"{path} cannot be read (its reader crashed); download it again."
            ) from error


def _version(path: Path) -> str:
    """``"5"`` or ``"7.3"``, from the first bytes."""
    with path.open("rb") as file:
        head = file.read(520)
    if head[512:] == _HDF5 or head[:8] == _HDF5:
        return "7.3"
    if head.startswith(b"MATLAB 5.0 MAT-file"):
        return "5"
    raise DataError(
        f"{path} is no MATLAB file of version 5 or 7.3; in MATLAB save it with "
        "`save(file, '-v7')`, or download it again."
    )


def _library(name: str, path: Path) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise DataError(
            f"Reading {path} needs {name.partition('.')[0]}, which is not installed: "
            "pip install 'zoo-lightning[cofw]'."
        ) from error


def _check_keys(found: Sequence[str], path: Path, part: str) -> None:
    other = "test" if part == "train" else "train"
    missing = [key for key in KEYS[part] if key not in found]
    if not missing:
        return
    swapped = all(key in found for key in KEYS[other])
    hint = (
        f"It is the {other} part; give it as `{other}_mat`."
        if swapped
        else "Download the file again."
    )
    there = ", ".join(sorted(key for key in found if not key.startswith(("__", "#")))) or "nothing"
    raise DataError(f"{path} has no variable {missing[0]!r}; it has {there}. {hint}")


def _read_version_5(path: Path, part: str) -> tuple[list[np.ndarray], np.ndarray]:
    scipy_io = _library("scipy.io", path)
    try:
        _check_keys([name for name, _, _ in scipy_io.whosmat(path)], path, part)
        content = scipy_io.loadmat(path, variable_names=KEYS[part])
    except DataError:
        raise
    except Exception as error:  # a damaged file leads SciPy to errors of all kinds
        raise DataError(f"{path} cannot be read ({error}); download it again.") from error
    images, phis = (content[key] for key in KEYS[part])
    if images.dtype != object:
        raise DataError(f"{path}: {KEYS[part][0]} is no cell array of images.")
    return list(images.ravel()), phis


def _read_version_73(path: Path, part: str) -> tuple[list[np.ndarray], np.ndarray]:
    h5py = _library("h5py", path)
    try:
        with h5py.File(path, "r") as file:
            _check_keys(list(file), path, part)
            cells, phis = (file[key] for key in KEYS[part])
            if cells.dtype != h5py.ref_dtype:
                raise DataError(f"{path}: {KEYS[part][0]} is no cell array of images.")
            # HDF5 counts dimensions from the other end, so every array comes transposed.
            images = [np.asarray(file[cell]).T for cell in np.asarray(cells).T.ravel(order="F")]
            return images, np.asarray(phis).T
    except DataError:
        raise
    except Exception as error:  # as above
        raise DataError(f"{path} cannot be read ({error}); download it again.") from error


_READERS = {"5": _read_version_5, "7.3": _read_version_73}

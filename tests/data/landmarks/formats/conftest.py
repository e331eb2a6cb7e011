"""Writers of COFW's MATLAB files, byte for byte as MATLAB lays them out."""

import numpy as np
import pytest

KEYS = {"train": ("IsTr", "phisTr", "bboxesTr"), "test": ("IsT", "phisT", "bboxesT")}


def write_version_5(path, part, images, phis):
    """Cell array (N, 1) of images, phis (N, 87), boxes (N, 4)."""
    savemat = pytest.importorskip("scipy.io").savemat
    cells = np.empty((len(images), 1), object)
    for i, image in enumerate(images):
        cells[i, 0] = image
    names = KEYS[part]
    savemat(path, {names[0]: cells, names[1]: phis, names[2]: np.ones((len(images), 4))})


def write_version_73(path, part, images, phis):
    """HDF5 with MATLAB's block of 512 bytes; dimensions reversed, cells as references."""
    h5py = pytest.importorskip("h5py")
    names = KEYS[part]
    with h5py.File(path, "w", userblock_size=512) as file:
        store = file.create_group("#refs#")
        cells = file.create_dataset(names[0], (1, len(images)), h5py.ref_dtype)
        cells.attrs["MATLAB_class"] = np.bytes_("cell")
        for i, image in enumerate(images):
            cells[0, i] = store.create_dataset(f"a{i}", data=image.T).ref
            store[f"a{i}"].attrs["MATLAB_class"] = np.bytes_("uint8")
        file.create_dataset(names[1], data=phis.T)
        file.create_dataset(names[2], data=np.ones((4, len(images))))
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Aug 19 16:04:35 2013 HDF5 "
    with path.open("r+b") as file:
        file.write(text.ljust(116) + bytes(8) + b"\x00\x02IM")


@pytest.fixture(params=["5", "7.3"])
def write_cofw(request):
    """Write a file of either version: ``(path, part, images, phis)``."""
    return write_version_5 if request.param == "5" else write_version_73

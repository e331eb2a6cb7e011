"""COFW's MATLAB files of version 5 and 7.3."""

import os
import sys

import numpy as np
import pytest

from zoo_lightning.data.landmarks.formats import cofw
from zoo_lightning.data.landmarks.formats.cofw import read_cofw
from zoo_lightning.errors import DataError


@pytest.fixture
def faces():
    """Two images, grey and in colour, none square, and their rows of 87 numbers."""
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 255, (20, 30), dtype=np.uint8),
        rng.integers(0, 255, (25, 15, 3), dtype=np.uint8),
        rng.integers(0, 255, (9, 12), dtype=np.uint8),
    ]
    phis = np.zeros((3, 87))
    phis[:, :58] = rng.uniform(1, 20, (3, 58))
    phis[:, 58:] = rng.integers(0, 2, (3, 29))
    return images, phis


@pytest.mark.parametrize("part", ["train", "test"])
def test_images_points_and_occlusion_are_read(tmp_path, write_cofw, faces, part):
    images, phis = faces
    path = tmp_path / "COFW_color.mat"
    write_cofw(path, part, images, phis)
    table = read_cofw(path, part)
    assert len(table) == 3
    assert table.names[0] == "COFW_color-0001"
    for found, image in zip(table.pixels, images, strict=True):
        assert found.dtype == np.uint8
        assert (found == image).all()
    assert np.allclose(table.points[..., 0], phis[:, :29] - 0.5)
    assert np.allclose(table.points[..., 1], phis[:, 29:58] - 0.5)
    assert (table.visible == np.where(phis[:, 58:] == 1, 1, 2)).all()
    assert table.labelled.all()
    assert (table.counted(False) == (phis[:, 58:] == 0)).all()


def test_the_other_parts_file_is_recognised(tmp_path, write_cofw, faces):
    path = tmp_path / "COFW_train.mat"
    write_cofw(path, "test", *faces)
    with pytest.raises(DataError, match=r"no variable 'IsTr'; it has IsT.* give it as `test_mat`"):
        read_cofw(path, "train")


def test_rows_of_another_length_are_refused(tmp_path, write_cofw, faces):
    images, phis = faces
    write_cofw(tmp_path / "a.mat", "train", images, phis[:, :58])
    with pytest.raises(DataError, match=r"phisTr has the shape \(3, 58\), expected \(faces, 87\)"):
        read_cofw(tmp_path / "a.mat", "train")


def test_flags_and_coordinates_are_checked(tmp_path, write_cofw, faces):
    images, phis = faces
    for column, value in ((60, 2), (3, np.nan)):
        wrong = phis.copy()
        wrong[1, column] = value
        write_cofw(tmp_path / "a.mat", "train", images, wrong)
        with pytest.raises(DataError, match="row 2 of phisTr"):
            read_cofw(tmp_path / "a.mat", "train")


def test_images_of_another_type_are_refused(tmp_path, write_cofw, faces):
    images, phis = faces
    write_cofw(tmp_path / "a.mat", "train", [*images[:2], images[2].astype(float)], phis)
    with pytest.raises(DataError, match="image 3 of IsTr is float64"):
        read_cofw(tmp_path / "a.mat", "train")


@pytest.mark.parametrize("content", [b"", b"\x00" * 600, b"image,x0,y0\n"])
def test_another_version_is_refused(tmp_path, content):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"no MATLAB file of version 5 or 7\.3"):
        read_cofw(tmp_path / "a.mat", "train")


def test_version_4_is_refused(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    scipy_io.savemat(tmp_path / "a.mat", {"phisTr": np.ones((2, 87))}, format="4")
    with pytest.raises(DataError, match=r"no MATLAB file of version 5 or 7\.3"):
        read_cofw(tmp_path / "a.mat", "train")


def test_a_broken_file_is_named(tmp_path, write_cofw, faces):
    path = tmp_path / "a.mat"
    write_cofw(path, "train", *faces)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match=r"a\.mat"):
        read_cofw(path, "train")


@pytest.mark.parametrize(
    ("library", "head"),
    [("scipy", b"MATLAB 5.0 MAT-file".ljust(600)), ("h5py", bytes(512) + b"\x89HDF\r\n\x1a\n")],
)
def test_a_missing_library_names_the_command(tmp_path, monkeypatch, library, head):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setitem(sys.modules, f"{library}.io", None)
    (tmp_path / "a.mat").write_bytes(head)
    with pytest.raises(DataError, match=rf"needs {library}.*pip install 'zoo-lightning\[cofw\]'"):
        read_cofw(tmp_path / "a.mat", "train")


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"there is no \.mat file at all"):
        read_cofw(tmp_path / "a.mat", "train")


def crash(path, part):
    """End the process as a fault in C code does."""
    os.abort()


def test_a_file_that_crashes_its_reader_is_refused(tmp_path, monkeypatch, write_cofw):
    path = tmp_path / "COFW_train_color.mat"
    images = [np.zeros((4, 5), np.uint8)]
    phis = np.concatenate([np.ones((1, 58)), np.zeros((1, 29))], axis=1)
    write_cofw(path, "train", images, phis)
    assert len(read_cofw(path, "train")) == 1
    monkeypatch.setattr(cofw, "_READERS", {"5": crash, "7.3": crash})
    with pytest.raises(DataError, match=r"train_color\.mat cannot be read \(its reader crashed"):
        read_cofw(path, "train")

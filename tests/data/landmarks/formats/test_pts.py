"""300-W's .pts files and folders."""

import numpy as np
import pytest
from PIL import Image

from zoo_lightning.data.landmarks.formats.pts import TEST, TRAIN, read_pts, read_pts_folders
from zoo_lightning.errors import DataError

GOOD = "version: 1\nn_points:  2\n{\n1.0 2.5\n30.25 40\n}\n"


@pytest.mark.parametrize("text", [GOOD, GOOD.replace("\n", "\r\n"), GOOD.replace(":  ", ": ")])
def test_the_first_pixels_centre_is_at_a_half(tmp_path, text):
    (tmp_path / "a.pts").write_bytes(text.encode())
    points = read_pts(tmp_path / "a.pts")
    assert points.tolist() == [[0.5, 2], [29.75, 39.5]]
    assert points.dtype == np.float32


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"a\.pts: found '', expected `version: 1`"),
        (GOOD.replace("version", "verzion"), "line 1: found 'verzion: 1'"),
        (GOOD.replace("n_points:  2", "n_points: two"), "line 2: .* expected `n_points: K`"),
        (GOOD.replace("  2", "  3"), "announces 3 points but holds 2"),
        (GOOD.replace("}\n", ""), "between a line { and a last line }"),
        (GOOD.replace("1.0 2.5", "1.0"), "line 4: found '1.0', expected `x y`"),
        (GOOD.replace("1.0 2.5", "1.0 nan"), "line 4, y: found 'nan'"),
    ],
)
def test_faults_name_file_and_line(tmp_path, text, words):
    (tmp_path / "a.pts").write_text(text)
    with pytest.raises(DataError, match=words):
        read_pts(tmp_path / "a.pts")


def fill(root, folder, stems, suffix=".jpg"):
    (root / folder).mkdir(parents=True)
    for stem in stems:
        (root / folder / f"{stem}.pts").write_text(GOOD)
        Image.new("RGB", (4, 4)).save(root / folder / f"{stem}{suffix}")


def test_folders_are_read_in_order_with_the_images_beside(tmp_path):
    for folder in TRAIN:
        fill(tmp_path, folder, "ba")
    table = read_pts_folders(tmp_path, {"": TRAIN})
    assert table.names[:3] == ["afw/a.jpg", "afw/b.jpg", "helen/trainset/a.jpg"]
    assert table.points.shape == (6, 2, 2)
    assert table.subsets == {}


def test_test_folders_make_subsets(tmp_path):
    fill(tmp_path, "helen/testset", "ab")
    fill(tmp_path, "lfpw/testset", "c", ".png")
    fill(tmp_path, "ibug", ["image_092 _01"])
    table = read_pts_folders(tmp_path, TEST["full"])
    assert table.names[2:] == ["lfpw/testset/c.png", "ibug/image_092 _01.jpg"]
    assert table.subsets["common"].tolist() == [True, True, True, False]
    assert table.subsets["challenge"].tolist() == [False, False, False, True]


def test_absent_folders_images_and_points_are_named(tmp_path):
    fill(tmp_path, "one", "a")
    with pytest.raises(DataError, match=r"two does not exist; set `root`.* one, two"):
        read_pts_folders(tmp_path, {"": ("one", "two")})
    (tmp_path / "two").mkdir()
    with pytest.raises(DataError, match=r"two has no \.pts file"):
        read_pts_folders(tmp_path, {"": ("one", "two")})
    (tmp_path / "two/b.pts").write_text(GOOD)
    with pytest.raises(DataError, match=r"b\.pts has no image beside it; expected b\.jpg"):
        read_pts_folders(tmp_path, {"": ("one", "two")})
    Image.new("RGB", (4, 4)).save(tmp_path / "two/b.png")
    (tmp_path / "two/b.pts").write_text(GOOD.replace("  2", "  1").replace("30.25 40\n", ""))
    with pytest.raises(DataError, match=r"b\.pts has 1 points, the files before it 2"):
        read_pts_folders(tmp_path, {"": ("one", "two")})

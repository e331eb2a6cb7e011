"""Readers of annotations on spoilt files: a sound table, or an error of ours naming the file."""

import json
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from zoo_lightning.data.classification.lists import classes_of, read_list
from zoo_lightning.data.landmarks.formats.coco import read_coco, read_coco_category
from zoo_lightning.data.landmarks.formats.cofw import read_cofw
from zoo_lightning.data.landmarks.formats.hrnet_csv import read_hrnet_csv, read_hrnet_header
from zoo_lightning.data.landmarks.formats.plain_csv import read_landmark_csv, read_num_points
from zoo_lightning.data.landmarks.formats.pts import read_pts
from zoo_lightning.data.landmarks.formats.wflw import read_wflw
from zoo_lightning.errors import ConfigError, DataError
from zoo_lightning.prediction.inputs import Item, with_boxes

PLAIN = "image,x0,y0,x1,y1\na.png,1,2,3.5,4\nsub/b.png,-1,2e1,3,4\n"
HRNET = (
    "image_name,scale,box_size,center_w,center_h,original_0_x,original_0_y,original_1_x,"
    "original_1_y\na.png,1.5,20,5,6,1,2,3,4\nb/c.png,0.1,20,5,6,1,2,3,4\n"
)
WFLW_BOX = "0 0 9 9 0 1 0 1 0 1 a/b.jpg"
WFLW = " ".join([*(f"{n / 4:.2f}" for n in range(196)), WFLW_BOX])
PTS = "version: 1\nn_points: 3\n{\n1.5 2\n3 4\n5 6.25\n}\n"
COCO = json.dumps(
    {
        "images": [{"id": 7, "file_name": "a/x.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 7, "keypoints": [1.5, 2, 2, 3, 4, 1], "bbox": [1, 2, 3, 4]},
            {"id": 2, "image_id": 7, "keypoints": [0, 0, 0, 5, 6, 2], "num_keypoints": 1},
        ],
        "categories": [{"id": 1, "keypoints": ["left", "right"]}],
    }
)
LIST = "ant/a b.png 0\nbee/c.png,1\ncat/d.png\t2\n"
BOXES = "image,x0,y0,x1,y1\na,1,2,3,4\na,5,6,7,8\n"


def assert_sound(table) -> None:
    """Everything of one length, finite, and no image outside its folder."""
    faces = len(table.names)
    assert faces
    assert table.points.shape[0] == faces
    assert table.points.shape[2] == 2
    assert np.isfinite(table.points).all()
    assert table.points.dtype == np.float32
    if table.regions is not None:
        assert table.regions.shape == (faces, 3)
        assert np.isfinite(table.regions).all()
        assert (table.regions[:, 2] > 0).all()
    if table.visible is not None:
        assert np.isin(table.visible, (0, 1, 2)).all()
    for name in table.names:
        assert ".." not in PurePosixPath(name).parts
        assert not PurePosixPath(name).is_absolute()
        assert name.isprintable() or all(ord(c) > 31 for c in name)


def write(path: Path, text: str) -> None:
    """As it is: surrogates and line ends included."""
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


def assert_named(said: str, path: Path) -> None:
    """The file is named, and the message is one that a person can read."""
    assert str(path) in said
    assert len(said) < 2000


@pytest.mark.cases(200, 10_000)
@pytest.mark.parametrize(
    ("read", "announced", "text"),
    [
        (read_landmark_csv, read_num_points, PLAIN),
        (read_hrnet_csv, lambda path: read_hrnet_header(path).num_points, HRNET),
        (read_wflw, lambda path: 98, WFLW),
        (read_coco, lambda path: read_coco_category(path)[1], COCO),
    ],
    ids=["plain", "hrnet", "wflw", "coco"],
)
def test_a_spoilt_table_is_sound_or_refused(
    try_all, spoilt, attempt, tmp_path, read, announced, text
):
    path = tmp_path / "train.csv"

    def check(content: str) -> None:
        write(path, content)
        table, said = attempt(DataError, read, path)
        if table is None:
            assert_named(said, path)
            return
        assert_sound(table)
        assert table.points.shape[1] == announced(path)

    try_all(check, content=spoilt(text))


@pytest.mark.cases(200, 10_000)
def test_spoilt_points_are_sound_or_refused(try_all, spoilt, attempt, tmp_path):
    path = tmp_path / "a.pts"

    def check(content: str) -> None:
        write(path, content)
        points, said = attempt(DataError, read_pts, path)
        if points is None:
            assert_named(said, path)
            return
        assert points.shape[1:] == (2,)
        assert np.isfinite(points).all()

    try_all(check, content=spoilt(PTS))


@pytest.mark.cases(200, 10_000)
def test_a_spoilt_list_of_classes_is_sound_or_refused(try_all, spoilt, attempt, tmp_path):
    path = tmp_path / "train.txt"

    def check(content: str) -> None:
        write(path, content)
        entries, said = attempt(DataError, read_list, path)
        if entries is None:
            assert_named(said, path)
            return
        classes = classes_of(entries)
        for name, label in entries:
            assert ".." not in PurePosixPath(name).parts
            assert label is None or 0 <= label < len(classes)

    try_all(check, content=spoilt(LIST))


@pytest.mark.cases(200, 10_000)
def test_spoilt_boxes_are_finite_or_refused(try_all, spoilt, attempt, tmp_path):
    path = tmp_path / "boxes.csv"

    def check(content: str) -> None:
        write(path, content)
        items, said = attempt(ConfigError, with_boxes, [Item(Path("a"), "a")], path)
        if items is None:
            assert_named(said, path)
            return
        for item in items:
            left, top, right, bottom = item.box
            assert left < right
            assert top < bottom
            assert np.isfinite(item.box).all()

    try_all(check, content=spoilt(BOXES))


@pytest.mark.cases(25, 500)
def test_a_damaged_matlab_file_is_sound_or_refused(try_all, damaged, attempt, tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    cells = np.empty((2, 1), object)
    cells[0, 0], cells[1, 0] = np.zeros((4, 5), np.uint8), np.ones((3, 3, 3), np.uint8)
    phis = np.concatenate([np.ones((2, 58)), np.zeros((2, 29))], axis=1)
    path = tmp_path / "COFW_train_color.mat"
    savemat(path, {"IsTr": cells, "phisTr": phis})
    whole = path.read_bytes()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        table, said = attempt(DataError, read_cofw, path, "train")
        if table is None:
            assert_named(said, path)
            return
        assert_sound(table)
        assert len(table.pixels) == len(table)

    try_all(check, content=damaged(whole))

"""COCO keypoints: several faces per image, flags, boxes, contradictions."""

import json

import pytest

from zoo_lightning.data.formats import coco
from zoo_lightning.data.formats.coco import read_coco, read_coco_num_points
from zoo_lightning.errors import DataError


def content(*annotations):
    return {
        "images": [{"id": 7, "file_name": "a/x.jpg", "width": 9, "height": 9}],
        "annotations": list(annotations),
        "categories": [{"id": 1, "name": "face", "keypoints": ["left", "right"]}],
    }


def face(number, keypoints=(1.5, 2, 2, 3, 4, 1), **others):
    return {"id": number, "image_id": 7, "category_id": 1, "keypoints": list(keypoints), **others}


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "train.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_each_annotation_is_a_face(write):
    path = write(
        content(
            face(1, bbox=[10, 20, 8, 6], num_keypoints=2),
            face(2, (0, 0, 0, 5, 6, 2), bbox=[1, 2, 3, 5], num_keypoints=1),
        )
    )
    assert read_coco_num_points(path) == 2
    table = read_coco(path)
    assert table.names == ["a/x.jpg", "a/x.jpg"]
    assert table.points.tolist() == [[[1.5, 2], [3, 4]], [[0, 0], [5, 6]]]
    assert table.visible.tolist() == [[2, 1], [0, 2]]
    assert table.regions.tolist() == [[14, 23, 8], [2.5, 4.5, 5]]


def test_without_boxes_and_categories(write):
    table = content(face(1))
    del table["categories"]
    path = write(table)
    assert read_coco_num_points(path) == 2
    assert read_coco(path).regions is None


def test_annotations_without_keypoints_are_left_out_and_counted(write, monkeypatch):
    lines = []
    monkeypatch.setattr(coco, "rank_zero_info", lines.append)
    unlabelled = face(3, [0] * 6, num_keypoints=0)
    crowd = {"id": 4, "image_id": 7, "num_keypoints": 0}
    table = read_coco(write(content(face(1), unlabelled, crowd)))
    assert len(table) == 1
    assert lines[0].startswith("2 of 3 annotations")


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (face(5, [0] * 6), "annotation 5 of image 7: no point is labelled"),
        (face(5, num_keypoints=0), "`num_keypoints` is 0, but 2 points"),
        (face(5, num_keypoints=1), "`num_keypoints` is 1, but 2 points"),
        (face(5, [1, 2, 2]), "`keypoints` is 3 values, expected x, y, v of 2 points"),
        (face(5, [1, 2, 3, 4, 5, 2]), "a visibility is not 0"),
        (face(5, [1, 2, 2, "x", 5, 2]), "expected x, y, v"),
        (face(5, bbox=[1, 2, 0, 4]), r"`bbox` is \[1, 2, 0, 4\]"),
        (face(5, bbox=[1, 2, 4]), r"`bbox` is \[1, 2, 4\]"),
        (face(5, bbox=[1, 2, 4, 5]), "1 of 2 annotations have no `bbox`"),
        ({**face(5), "image_id": 8}, "image 8: no entry of `images`"),
        ({"id": 5, "image_id": 7}, "`keypoints` is None"),
        ("x", "no object"),
    ],
)
def test_faults_name_the_annotation(write, annotation, words):
    path = write(content(face(1), annotation))
    with pytest.raises(DataError, match=words) as error:
        read_coco(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON text"),
        ("[]", "no list `images`"),
        (json.dumps({"images": []}), "no list `annotations`"),
        (json.dumps({"images": [], "annotations": []}), "no `keypoints`"),
        (json.dumps({**content(face(1)), "images": [{"id": 7}]}), "lacks `id` or `file_name`"),
        (
            json.dumps({**content(face(1)), "images": [{"id": 7, "file_name": "../x"}]}),
            "image 7: the image name",
        ),
        (json.dumps(content()), "no annotation with labelled points"),
    ],
)
def test_files_of_another_kind_are_refused(write, text, words):
    with pytest.raises(DataError, match=words):
        read_coco(write(text))

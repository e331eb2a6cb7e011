"""COCO keypoints: several faces per image, flags, boxes, contradictions."""

import json

import pytest

from zoo_lightning.data.landmarks.formats import coco
from zoo_lightning.data.landmarks.formats.coco import read_coco, read_coco_category
from zoo_lightning.errors import ConfigError, DataError


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
    assert read_coco_category(path)[1] == 2
    table = read_coco(path)
    assert table.names == ["a/x.jpg", "a/x.jpg"]
    assert table.points.tolist() == [[[1.5, 2], [3, 4]], [[0, 0], [5, 6]]]
    assert table.visible.tolist() == [[2, 1], [0, 2]]
    assert table.regions.tolist() == [[14, 23, 8], [2.5, 4.5, 5]]
    assert table.point_names == ("left", "right")
    assert table.image_sizes.tolist() == [[9, 9], [9, 9]]


def test_without_boxes_and_categories(write):
    table = content(face(1))
    del table["categories"]
    path = write(table)
    assert read_coco_category(path)[1] == 2
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


FACE = {"id": 1, "name": "face", "keypoints": ["left", "right"]}
PAW = {"id": 2, "name": "paw", "keypoints": ["a", "b"]}
CAR = {"id": 3, "name": "car"}


def of(category, number=9, **others):
    return {**face(number, (7, 7, 2, 8, 8, 2)), "category_id": category, **others}


def kinds(categories, *annotations):
    return {**content(*annotations), "categories": categories}


@pytest.mark.parametrize(
    ("categories", "others", "listed"),
    [
        ([FACE, PAW, CAR], [of(3), of(3)], "'car' 2"),
        ([CAR, FACE], [of(3, keypoints=None)], "'car' 1"),
        ([FACE], [of(4, keypoints=[])], "4 1"),
        ([{"id": 1, "name": "face"}, CAR], [of(3, keypoints=[])], "'car' 1"),
    ],
)
def test_annotations_of_other_categories_are_left_out_and_counted(
    write, monkeypatch, categories, others, listed
):
    lines = []
    monkeypatch.setattr(coco, "rank_zero_info", lines.append)
    others = [{k: v for k, v in each.items() if k != "keypoints"} if each["category_id"] == 3
              else each for each in others]  # fmt: skip
    path = write(kinds(categories, face(1), *others, face(2)))
    assert read_coco_category(path)[:2] == ("face", 2)
    assert read_coco(path).points.tolist() == 2 * [[[1.5, 2], [3, 4]]]
    (line,) = lines
    assert line.startswith(f"{len(others)} of {len(others) + 2} annotations of {path}")
    assert listed in line


def test_one_of_several_categories_is_named(write):
    path = write(kinds([PAW, FACE], of(2), face(1), of(2, 8)))
    for read in (read_coco, read_coco_category):
        with pytest.raises(DataError, match=r"'face', 'paw'.*--data\.category=face"):
            read(path)
        with pytest.raises(ConfigError, match=r"no category 'pow'.*'paw'.*Did you mean 'paw'"):
            read(path, "pow")
    assert read_coco(path, "face").points.tolist() == [[[1.5, 2], [3, 4]]]
    assert read_coco(path, "paw").points.tolist() == 2 * [[[7, 7], [8, 8]]]


def test_categories_differ_in_their_number_of_points(write):
    hand = {**PAW, "keypoints": ["a", "b", "c"]}
    path = write(kinds([hand, FACE], of(2, keypoints=[1, 1, 2] * 3), face(1)))
    assert read_coco_category(path, "paw")[:2] == ("paw", 3)
    assert read_coco(path, "paw").points.shape == (1, 3, 2)
    assert read_coco_category(path, "face")[:2] == ("face", 2)


def test_an_annotation_without_a_category_is_of_the_only_one(write):
    bare = face(2)
    del bare["category_id"]
    assert len(read_coco(write(content(face(1), bare)))) == 2


@pytest.mark.parametrize("side", [40, 45, 49])
def test_boxes_that_have_their_faces_in_the_middle_are_none_of_two_corners(write, side):
    def boxed(number):
        middle = 10 + side / 2
        points = (middle - 10, middle - 10, 2, middle + 10, middle + 10, 1)
        return face(number, points, bbox=[10, 10, side, side])

    # All points lie between (10, 10) and (side, side), too.
    assert len(read_coco(write(content(*map(boxed, range(12)))))) == 12


@pytest.mark.parametrize("place", [(30, 40), (200, 100), (5, 60)])
@pytest.mark.parametrize("corners", [True, False])
def test_boxes_of_two_corners_are_refused(write, place, corners):
    def boxed(number):
        x, y = place[0] + number, place[1] + 2 * number
        end = (x + 40, y + 50) if corners else (40, 50)
        return face(number, (x + 5, y + 6, 2, x + 36, y + 45, 2), bbox=[x, y, *end])

    path = write(content(*map(boxed, range(8))))
    if corners and place[0] > 5:
        with pytest.raises(
            DataError, match=r"left, top, right and bottom.*\[x, y, width, height\]"
        ):
            read_coco(path)
    else:  # near the corner both readings are alike
        assert len(read_coco(path)) == 8

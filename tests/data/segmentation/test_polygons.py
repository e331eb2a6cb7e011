"""COCO's polygons as masks: which pixels they cover, and what is refused."""

import json
import shutil

import numpy as np
import pytest

from zoo_lightning.data import ImageMasks
from zoo_lightning.data.segmentation.polygons import filled
from zoo_lightning.errors import DataError


def annotation(number, segmentation, image=0, category=3) -> dict:
    return {
        "id": number, "image_id": image, "category_id": category, "segmentation": segmentation,
        "bbox": [0, 0, 1, 1],
    }  # fmt: skip


@pytest.fixture
def polygon_root(mask_root):
    """The images of ``mask_root`` with rectangles as polygons; called with other annotations."""
    (mask_root / "classes.txt").unlink()

    def write(*annotations, sizes=(40, 30)):
        for part in ("train", "test"):
            shutil.rmtree(mask_root / part / "masks", ignore_errors=True)
            names = sorted(p.name for p in (mask_root / part / "images").iterdir())
            content = {
                "images": [
                    {"id": i, "file_name": name, "width": sizes[0], "height": sizes[1]}
                    for i, name in enumerate(names)
                ],
                "categories": [{"id": 3, "name": "red"}, {"id": 7, "name": "blue"}],
                "annotations": list(annotations) or [
                    annotation(1, [[2, 2, 12, 2, 12, 8, 2, 8]]),
                    annotation(2, [[8, 2, 20, 2, 20, 8, 8, 8]], category=7),
                ],
            }  # fmt: skip
            (mask_root / part / "annotations.json").write_text(json.dumps(content))
        return mask_root

    return write


def read(root) -> ImageMasks:
    data = ImageMasks(str(root), image_size=40, batch_size=4, num_workers=0)
    data.setup("test")
    return data


def test_a_polygon_covers_the_pixels_whose_centres_lie_inside():
    square = np.array([[2.0, 3.0], [6.0, 3.0], [6.0, 8.0], [2.0, 8.0]])
    mask = filled(square, 10, 12)
    assert mask[3:8, 2:6].all()
    assert mask.sum() == 20
    assert (filled(square + 0.4, 10, 12) == mask).all()
    assert (filled(square[::-1], 10, 12) == mask).all()
    triangle = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    assert filled(triangle, 10, 10).sum() == pytest.approx(50, abs=5)
    assert filled(square + 100, 10, 12).sum() == 0
    assert filled(square - 4, 10, 12).sum() == 8  # what is left of it in the image


def test_areas_of_polygons_agree_with_the_shoelace_formula():
    rng = np.random.default_rng(0)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 40))
    reach = rng.uniform(20, 45, 40)
    corners = 50 + np.stack([reach * np.cos(angles), reach * np.sin(angles)], -1)
    x, y = corners.T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    assert filled(corners, 100, 100).sum() == pytest.approx(area, rel=0.01)


def test_later_annotations_lie_above_and_the_rest_is_background(polygon_root):
    data = read(polygon_root())
    assert data.class_names == ["background", "red", "blue"]
    labels = data.test_set[0]["labels"][5:35]  # without the padding to 40x40
    assert (labels[2:8, 2:8] == 1).all()
    assert (labels[2:8, 8:20] == 2).all()
    assert (labels > 0).sum() == 6 * 18
    assert (data.test_set[1]["labels"][5:35] == 0).all()


def test_uncompressed_runs_are_read(polygon_root):
    runs = [30, 30, 30 * 38]  # the second column
    data = read(polygon_root(annotation(1, {"counts": runs, "size": [30, 40]})))
    labels = data.test_set[0]["labels"][5:35]
    assert (labels[:, 1] == 1).all()
    assert (labels > 0).sum() == 30


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (annotation(5, {"counts": "abc", "size": [30, 40]}), "annotation 5.*compressed RLE"),
        (annotation(5, {"counts": [3, 4], "size": [30, 40]}), "runs of 7 pixels.*has 1200"),
        (annotation(5, [[1, 2, 3, 4]]), "annotation 5.*three corners"),
        (annotation(5, [[1, 2, 3, 4, 5, "6"]]), "annotation 5.*three corners"),
        (annotation(5, []), "annotation 5 has no `segmentation`"),
        (annotation(5, [[0, 0, 5, 5, 0, 5]], image=99), "no entry of `images`.*99"),
        (annotation(5, [[0, 0, 5, 5, 0, 5]], category=9), "no entry of `categories`.*9"),
    ],
)
def test_malformed_annotations_are_named(polygon_root, broken, words):
    with pytest.raises(DataError, match=words):
        read(polygon_root(broken))


def test_other_sizes_and_images_are_named(polygon_root):
    with pytest.raises(DataError, match="has 41x30 pixels, its image 40x30"):
        read(polygon_root(sizes=(41, 30)))
    root = polygon_root()
    (root / "test" / "images" / "test0.jpg").rename(root / "test" / "images" / "other.jpg")
    with pytest.raises(DataError, match=r"other\.jpg is no entry of `images`"):
        read(root)
    (root / "test" / "images" / "other.jpg").unlink()
    with pytest.raises(DataError, match=r"lists 'test0\.jpg', which is not in"):
        read(root)
    (root / "train" / "annotations.json").write_text("[]")
    with pytest.raises(DataError, match="lacks one of the lists"):
        read(root)


def alter(root, change) -> None:
    """Change the content of the training annotations in place."""
    path = root / "train" / "annotations.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_no_category_is_what_lies_outside_of_all_annotations(polygon_root):
    root = polygon_root()
    (root / "classes.txt").write_text("red\nblue\n")
    with pytest.raises(DataError, match=r"category 'red' is class 0.*put background before"):
        read_all(root)
    (root / "classes.txt").write_text("background\nred\nblue\n")
    assert read_all(root).class_names == ["background", "red", "blue"]


def test_images_that_a_file_lists_twice_are_named(polygon_root):
    root = polygon_root()
    alter(root, lambda content: content["images"].append({**content["images"][0], "id": 99}))
    with pytest.raises(DataError, match=r"images 0 and 99 have the same file_name"):
        read_all(root)


def test_sizes_that_files_state_are_those_of_images(polygon_root):
    root = polygon_root()
    alter(root, lambda content: content["images"][0].update(width=41.0, height=30.0))
    with pytest.raises(DataError, match=r"has 41x30 pixels"):
        read_all(root)
    root = polygon_root(annotation(1, {"counts": [10, 1190], "size": [40, 30]}))
    with pytest.raises(DataError, match=r"`size` of an RLE is \[40, 30\], expected .*\[30, 40\]"):
        read_all(root)


def read_all(root) -> ImageMasks:
    data = ImageMasks(str(root), image_size=32, batch_size=4, num_workers=0)
    data.setup("fit")
    return data

"""Images on their way into a model: which ones, in which order, and what becomes of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo_lightning.data.images import transform_points
from zoo_lightning.errors import ConfigError
from zoo_lightning.files.text import TEXT
from zoo_lightning.prediction.inputs import (
    Images,
    Item,
    batches,
    crop_to_original,
    find_images,
    with_boxes,
)

SQUARE = {"size": [3, 8, 8], "preprocessing": {"kind": "square", "around": "image", "margin": 1.0}}


def save(path, size=(8, 8), colour=(10, 20, 30), **options):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)


def test_images_come_in_a_stable_order_each_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.png", "b/1.JPG", "b/deep/0.png", "a.png"):
        save(name)
    Path("b/notes.txt").write_text("no image")
    names = [item.name for item in find_images(["b"])]
    assert names == ["1.JPG", "2.png", "deep/0.png"]
    assert [item.name for item in find_images(["a.png"])] == ["a.png"]
    assert [item.name for item in find_images(["a.png", "b/*.png", "a.png"])] == [
        "a.png",
        "b/2.png",
    ]
    assert len(find_images(["b/**/*.png"])) == 2


def test_a_pattern_means_what_a_shell_would_make_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos/0.png", "photos/a/1.png", "photos/a/deep/2.png", "photos/b/3.png"):
        save(name)
    Path("photos/a/notes.txt").write_text("no image")
    Path("photos/.hidden").mkdir()
    said = []
    everything = {"photos/0.png", "photos/a/1.png", "photos/a/deep/2.png", "photos/b/3.png"}
    assert {item.name for item in find_images(["photos/*"], said.append)} == everything
    assert said == ["photos/a: 1 files are left out, which are no images: 1 .txt"]
    assert [item.name for item in find_images(["photos/**/deep"])] == ["photos/a/deep/2.png"]
    assert [item.name for item in find_images(["photos/[b]"])] == ["photos/b/3.png"]


def test_images_of_several_folders_have_names_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("day1/0.png", "day2/0.png", "day2/1.png"):
        save(name)
    found = find_images(["day1", "day2/"])
    names = ["day1/0.png", "day2/0.png", "day2/1.png"]
    assert [item.name for item in found] == names
    assert [item.name for item in find_images(["day2/0.png", "day2"])] == names[1:]
    lines = [f"{name},0,0,{side},{side}" for side, name in enumerate(names, 1)]
    Path("boxes.csv").write_text("\n".join(["image,x0,y0,x1,y1", *lines]))
    boxed = with_boxes(found, Path("boxes.csv"))
    assert [(item.name, item.box[2]) for item in boxed] == list(zip(names, (1, 2, 3), strict=True))


def test_an_image_without_room_in_memory_is_reported(tmp_path):
    def no_room(image):
        raise MemoryError

    save(tmp_path / "a.png")
    preprocessing = {"kind": "crop", "squeeze": None, "crops": 1}
    images = Images([Item(tmp_path / "a.png", "a")], SQUARE | {"preprocessing": preprocessing})
    images.crop = no_room
    assert images[0].pixels is None
    assert "a.png cannot be read (MemoryError)" in images[0].problem


def test_images_that_are_not_there_are_refused_with_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("faces/anna.png")
    Path("empty").mkdir()
    with pytest.raises(ConfigError, match=r"no such file or folder\. Did you mean 'faces'"):
        find_images(["face"])
    with pytest.raises(ConfigError, match="there are no images"):
        find_images(["empty"])
    with pytest.raises(ConfigError, match="there are no images"):
        find_images(["faces/*.jpg"])


def test_boxes_give_an_item_for_each_face(tmp_path):
    table = tmp_path / "boxes.csv"
    table.write_text("image,x0,y0,x1,y1\na,1,2,3,4\na,5,6,7,8\nb,0,0,2,2\n")
    items = [Item(Path("b"), "b"), Item(Path("a"), "a")]
    found = with_boxes(items, table)
    assert [(item.name, item.box) for item in found] == [
        ("b", (0, 0, 2, 2)),
        ("a", (1, 2, 3, 4)),
        ("a", (5, 6, 7, 8)),
    ]
    with pytest.raises(ConfigError, match=r"no box for 'c' \(1 of 1 images"):
        with_boxes([Item(Path("c"), "c")], table)


@pytest.mark.parametrize(
    ("disk", "table"),
    [
        ("caf\u00e9.png", "cafe\u0301.png"),
        ("cafe\u0301.png", "caf\u00e9.png"),
        ("\udce9.png", "\udce9.png"),
    ],
)
def test_boxes_find_names_of_the_other_form_and_names_that_are_no_utf_8(tmp_path, disk, table):
    path = tmp_path / "boxes.csv"
    path.write_text(f"image,x0,y0,x1,y1\n{table},1,2,3,4\n", **TEXT)
    assert with_boxes([Item(Path(disk), disk)], path) == [Item(Path(disk), disk, (1, 2, 3, 4))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,x,y\na,1,2\n", "no column 'x0'; expected a CSV"),
        ("image,x0,y0,x1,y1\na,1,2,3\n", "expected a CSV"),
        ("image,x0,y0,x1,y1\na,1,2,three,4\n", "could not convert"),
        ("image,x0,y0,x1,y1\na,3,2,1,4\n", "is empty"),
    ],
)
def test_boxes_that_cannot_be_read_are_refused(tmp_path, text, message):
    table = tmp_path / "boxes.csv"
    table.write_text(text)
    with pytest.raises(ConfigError, match=message):
        with_boxes([Item(Path("a"), "a")], table)


def test_a_square_is_padded_and_its_points_find_their_way_back(tmp_path):
    save(tmp_path / "wide.png", (16, 8))
    [prepared] = Images([Item(tmp_path / "wide.png", "wide")], SQUARE)
    assert prepared.pixels.shape == (1, 3, 8, 8)
    assert prepared.pixels[0, :, 0].sum() == 0  # black above
    assert prepared.pixels[0, :, 4, 4].tolist() == [10, 20, 30]
    corner = prepared.to_original @ np.array([8, 8, 1])
    assert corner.tolist() == [16, 12]


def test_a_box_is_cut_out_with_its_margin(tmp_path):
    given = {**SQUARE, "preprocessing": {"kind": "square", "around": "face", "margin": 2.0}}
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:20, 10:20] = 200
    Image.fromarray(image).save(tmp_path / "face.png")
    [prepared] = Images([Item(tmp_path / "face.png", "face", (10, 10, 20, 20))], given)
    assert (prepared.to_original @ np.array([4, 4, 1])).tolist() == pytest.approx([15, 15])
    assert (prepared.to_original @ np.array([0, 0, 1])).tolist() == pytest.approx([5, 5])
    assert prepared.pixels[0, 0, 3:5, 3:5].float().mean() > 150


def test_images_are_turned_as_exif_says(tmp_path):
    image = Image.new("RGB", (16, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    [prepared] = Images([Item(tmp_path / "turned.jpg", "turned")], SQUARE)
    assert (prepared.to_original @ np.array([8, 8, 1])).tolist() == [12, 16]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_reported_in_its_place(tmp_path, workers):
    save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    save(tmp_path / "c.png")
    found = list(batches(find_images([str(tmp_path)]), SQUARE, 2, workers))
    names = [[each.item.name for each in batch] for batch in found]
    assert names == [["a.png", "b.png"], ["c.png"]]
    assert found[0][1].pixels is None
    assert "b.png cannot be read" in found[0][1].problem


def test_ten_crops_of_an_image_are_made(tmp_path):
    crop = {"kind": "crop", "squeeze": 10, "crops": 10}
    save(tmp_path / "a.png", (16, 8))
    [prepared] = Images(find_images([str(tmp_path)]), {**SQUARE, "preprocessing": crop})
    assert prepared.pixels.shape == (10, 3, 8, 8)
    assert prepared.pixels.dtype == torch.uint8


@pytest.mark.parametrize("squeeze", [None, 40])
def test_the_map_of_a_centre_crop_leads_back_to_its_image(squeeze):
    size, side = (90, 60), 30
    (left, top), (right, bottom) = transform_points(
        np.array([[0.0, 0.0], [side, side]]), crop_to_original(size, side, squeeze)
    )
    if squeeze:  # the middle three quarters of the whole image
        assert (left, top, right, bottom) == pytest.approx((11.25, 7.5, 78.75, 52.5))
    else:  # the middle square
        assert (left, top, right, bottom) == pytest.approx((15, 0, 75, 60))

"""Training, testing and predicting read the same files, and say what they leave out."""

import logging
import shutil

import numpy as np
import pytest
from PIL import Image

from zoo_lightning.data import ImageFolders
from zoo_lightning.data.image_files import image_suffixes, left_out, list_images
from zoo_lightning.errors import DataError
from zoo_lightning.prediction.inputs import find_images

KINDS = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".JPG": "JPEG", ".jfif": "JPEG", ".jpe": "JPEG",
    ".png": "PNG", ".gif": "GIF", ".mpo": "MPO", ".webp": "WEBP", ".tif": "TIFF",
    ".bmp": "BMP", ".ppm": "PPM", ".avif": "AVIF", ".heic": "HEIF", "": "JPEG",
}  # fmt: skip
"""Suffixes that pictures come with, and what is in them."""


@pytest.fixture
def every_kind(tmp_path):
    """Two classes with an image of every kind that can be written here, and other files."""
    rng = np.random.default_rng(0)
    image_suffixes()  # has Pillow and its plugins register what they write
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number, (suffix, kind) in enumerate(KINDS.items()):
                if kind not in Image.SAVE:
                    continue
                pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}{suffix}", format=kind)
            (folder / "labels.txt").write_text("not an image")
            (folder / "README").write_text("nor this")
            (folder / "Thumbs.db").write_text("what systems leave")
            (folder / "._1.jpg").write_bytes(b"nor what macOS does")
            (folder / "__MACOSX").mkdir()
            shutil.copy(folder / "0.jpg", folder / "__MACOSX")
    return tmp_path


def written(root):
    """Numbers of the images of one class that could be written."""
    return {path.name for path in (root / "train" / "ant").iterdir() if path.name[0].isdigit()}


def test_every_kind_of_image_is_read_in_training_and_in_predicting(every_kind):
    names = written(every_kind)
    assert len(names) >= 12
    data = ImageFolders(str(every_kind), image_size=32, batch_size=4, num_workers=0)
    data.setup("fit")
    data.setup("test")
    assert len(data.train_set) + len(data.val_set) == 2 * len(names)
    assert len(data.test_set) == 2 * len(names)
    assert all(data.test_set[index]["image"].shape == (3, 32, 32) for index in range(len(names)))
    predicted = find_images([str(every_kind / "test")])
    assert {item.path for item in predicted} == {path for path, _ in data.test_set.samples}


def test_what_is_left_out_is_counted_by_suffix_in_one_line(every_kind, caplog):
    line = "4 files are left out, which are no images: 2 without a suffix, 2 .txt"
    with caplog.at_level(logging.INFO):
        data = ImageFolders(str(every_kind), image_size=32, num_workers=0)
        data.setup("fit")
    assert [r.message for r in caplog.records if "left out" in r.message] == [
        f"{every_kind / 'train'}: {line}"
    ]
    said = []
    find_images([str(every_kind / "test")], said.append)
    assert said == [f"{every_kind / 'test'}: {line}"]


def test_photographs_of_telephones_need_a_package_and_the_line_names_it(tmp_path, monkeypatch):
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0")
    monkeypatch.setattr(
        "zoo_lightning.data.image_files.image_suffixes", lambda: frozenset({".jpg"})
    )
    found = list_images(tmp_path)
    assert found.images == []
    assert "1 .heic (read with pip install pillow-heif)" in left_out([found.others])


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", "Val", "Validation", "DEV"])
def test_the_validation_folder_has_any_of_its_usual_names(class_root, name):
    shutil.copytree(class_root / "test", class_root / name)
    data = ImageFolders(str(class_root), image_size=32, batch_size=4, num_workers=0)
    data.setup("fit")
    assert {each.split("/")[0] for each in data.val_set.names} == {name}
    assert len(data.train_set) == 18
    shutil.rmtree(class_root / "test")  # then it is what is tested on
    data = ImageFolders(str(class_root), image_size=32, batch_size=4, num_workers=0)
    data.setup("fit")
    data.setup("test")
    assert {each.split("/")[0] for each in data.test_set.names} == {name}
    assert {each.split("/")[0] for each in data.val_set.names} == {"train"}


def test_two_validation_folders_are_not_chosen_between(class_root):
    for name in ("val", "valid"):
        shutil.copytree(class_root / "test", class_root / name)
    with pytest.raises(DataError, match="has val and valid"):
        ImageFolders(str(class_root))


@pytest.mark.parametrize("name", ["eval", "valid2", "extra", "unlabelled"])
def test_folders_of_images_beside_train_that_are_not_read_are_named(class_root, name, caplog):
    shutil.copytree(class_root / "test", class_root / name)
    (class_root / "notes").mkdir()
    (class_root / "notes/read.me").write_text("no image")
    with caplog.at_level(logging.INFO):
        ImageFolders(str(class_root), image_size=32, batch_size=4, num_workers=0).setup("fit")
    (line,) = [each for each in caplog.messages if "not read" in each]
    assert f"not read: {name} (" in line


@pytest.mark.parametrize(
    ("names", "said"),
    [(("1", "2", "10"), True), (("1", "2", "3"), False), (("a1", "a2", "a10"), False)],
)
def test_an_order_of_numbers_that_is_not_that_of_names_is_said(
    names, said, class_root, tmp_path, caplog
):
    for part in ("train", "test"):
        for name, new in zip(("ant", "bee", "cat"), names, strict=True):
            shutil.copytree(class_root / part / name, tmp_path / "numbered" / part / new)
    data = ImageFolders(str(tmp_path / "numbered"), image_size=32, batch_size=4, num_workers=0)
    with caplog.at_level(logging.INFO):
        data.setup("fit")
    assert any("order of the numbers: 1, 2, 10" in line for line in caplog.messages) is said


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (("0", "1", "10", "11", "2"), ["0", "1", "2", "10", "11"]),
        (("007", "10", "08"), ["007", "08", "10"]),
        (("1", "10", "2", "a"), ["1", "10", "2", "a"]),
        (("-1", "2", "10", "-2"), ["-2", "-1", "2", "10"]),
        (("+1", "2", "10"), ["+1", "10", "2"]),
        (("-", "2", "10"), ["-", "10", "2"]),
    ],
)
def test_folders_named_by_integers_are_in_the_order_of_the_numbers(tmp_path, names, order):
    for name in names:
        (tmp_path / "train" / name).mkdir(parents=True)
    assert ImageFolders(str(tmp_path)).classes == order

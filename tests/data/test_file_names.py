"""Names in composed and decomposed form mean the same files and classes, in every kind of data."""

import csv
import unicodedata

import numpy as np
import pytest
from PIL import Image

from zoo_lightning.data import ImageFolders, LandmarkCSV, ListFiles
from zoo_lightning.data.image_files import on_disk, one_form
from zoo_lightning.data.splitting import person_of
from zoo_lightning.errors import DataError
from zoo_lightning.tasks.compatibility import class_difference

FORMS = ("NFC", "NFD")
NAME = "caf\u00e9"
OTHER = {"NFC": "NFD", "NFD": "NFC"}


def form(name, which):
    return unicodedata.normalize(which, name)


def images(folder, count, shade):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.full((16, 16, 3), shade + number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.mark.parametrize("which", FORMS)
def test_folders_of_training_and_test_may_differ_in_form(tmp_path, which):
    for part, own in (("train", which), ("test", OTHER[which])):
        images(tmp_path / part / form(NAME, own), 4, 10)
        images(tmp_path / part / "zoo", 4, 100)
    data = ImageFolders(str(tmp_path), image_size=16, val_fraction=0.25)
    data.setup("fit")
    data.setup("test")
    assert data.classes == ["caf\u00e9", "zoo"]
    assert [int(sample["label"]) for sample in data.test_set] == [0] * 4 + [1] * 4


def test_two_folders_of_one_name_are_refused(tmp_path):
    for which in FORMS:
        images(tmp_path / "train" / form(NAME, which), 2, 10)
    if len(list((tmp_path / "train").iterdir())) < 2:
        pytest.skip("this file system keeps names in one form")
    with pytest.raises(DataError, match="two folders"):
        ImageFolders(str(tmp_path), image_size=16)


@pytest.mark.parametrize("which", FORMS)
def test_lists_find_images_in_the_other_form(tmp_path, which):
    for name in (NAME, "zoo"):
        images(tmp_path / form(name, which), 4, 10)
    lines = [f"{form(name, OTHER[which])}/{n}.png" for name in (NAME, "zoo") for n in range(4)]
    for part in ("train", "test"):
        (tmp_path / f"{part}.txt").write_text("\n".join(lines), encoding="utf-8")
    data = ListFiles(str(tmp_path), image_size=16, val_fraction=0.25)
    data.setup("test")
    assert data.classes == ["caf\u00e9", "zoo"]
    assert data.test_set[0]["image"].shape == (3, 16, 16)


@pytest.mark.parametrize("which", FORMS)
def test_landmark_tables_find_images_in_the_other_form(tmp_path, which):
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        with open(tmp_path / f"{part}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "x0", "y0", "x1", "y1"])
            for number in range(4):
                name = f"{NAME}{part}{number}.png"
                pixels = np.full((32, 32, 3), 10, np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / form(name, which))
                writer.writerow([form(name, OTHER[which]), *rng.uniform(8, 24, 4).round(2)])
    data = LandmarkCSV(str(tmp_path), image_size=16, val_fraction=0.25, margin=1.0)
    data.setup("test")
    assert data.test_set[0]["image"].shape == (3, 16, 16)


def test_what_is_nowhere_is_named_as_it_was_given(tmp_path):
    (tmp_path / form(NAME, "NFD")).mkdir()
    wanted = f"{form(NAME, 'NFC')}/absent.png"
    assert on_disk(tmp_path, wanted) == tmp_path / wanted


def test_a_folder_and_a_file_of_different_forms(tmp_path):
    path = tmp_path / form(NAME, "NFD") / form("\u00fc.png", "NFC")
    path.parent.mkdir()
    path.touch()
    named = form(NAME, "NFC") + "/u\u0308.png"
    assert on_disk(tmp_path, named) == path


def test_people_and_classes_are_compared_in_one_form():
    first, second = (person_of(f"{form(NAME, which)}/x_1.png", "_[0-9]+$") for which in FORMS)
    assert first == second
    assert class_difference([form(NAME, "NFC"), "b"], [form(NAME, "NFD"), "b"]) is None
    assert class_difference([form(NAME, "NFC"), "b"], ["cafe", "b"]) is not None


def test_bytes_that_are_no_text_stay_as_they_are():
    assert one_form("\udcff.png") == "\udcff.png"

"""Lists of images, in the manner of COCO-70 and of MIT-Indoors, and what is refused."""

import logging

import numpy as np
import pytest
from PIL import Image

from zoo_lightning.data.classification.lists import ListFiles, classes_of, read_list
from zoo_lightning.errors import DataError

OPTIONS = {"image_size": 16, "batch_size": 4, "num_workers": 0}


@pytest.fixture
def write(tmp_path):
    """Function that writes a list and its images."""

    def write(file, lines, images=""):
        for line in lines:
            words = line.rsplit(maxsplit=1)
            path = tmp_path / images / (words[0] if words[-1].isdigit() else line)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(path)
        (tmp_path / file).write_text("\n".join(lines) + "\n")

    return write


def test_labelled_lists_take_classes_names_from_folders(tmp_path, write):
    write("train.txt", [f"train/{c}/a b{i}.png {n}" for n, c in enumerate("xy") for i in range(4)])
    write("test.txt", ["test/y/0.png 1", "test/x/0.png 0"])
    module = ListFiles(str(tmp_path), val_fraction=0.25, **OPTIONS)
    assert module.classes == ["x", "y"]
    module.setup("fit")
    module.setup("test")
    assert (len(module.train_set), len(module.val_set)) == (6, 2)
    assert [label for _, label in module.test_set.samples] == [1, 0]
    assert module.test_set.names == ["test/y/0.png", "test/x/0.png"]


def test_unlabelled_lists_take_classes_from_folders(tmp_path, write):
    train = [f"{c}/{i}.png" for c in ("b room", "a") for i in range(3)]
    write("TrainImages.txt", train, "Images")
    write("TestImages.txt", ["b room/9.png"], "Images")
    lists = {"train_list": "TrainImages.txt", "test_list": "TestImages.txt", "images": "Images"}
    module = ListFiles(str(tmp_path), **lists, val_fraction=0.4, **OPTIONS)
    assert module.classes == ["a", "b room"]
    module.setup("fit")
    module.setup("test")
    assert [label for _, label in module.test_set.samples] == [1]
    assert module.test_set.names == ["Images/b room/9.png"]


def test_a_list_of_validation_images_is_taken(tmp_path, write):
    write("train.txt", ["x/0.png 0", "y/0.png 1"])
    write("val.txt", ["x/1.png 0"])
    module = ListFiles(str(tmp_path), val_list="val.txt", **OPTIONS)
    module.setup("fit")
    assert (len(module.train_set), len(module.val_set)) == (2, 1)


def test_testing_needs_the_test_list_alone(tmp_path, write):
    write("test.txt", ["x/0.png", "y/0.png"])
    module = ListFiles(str(tmp_path), **OPTIONS)
    module.setup("test")
    assert module.num_classes == 2
    with pytest.raises(DataError, match=r"train\.txt does not exist"):
        module.setup("fit")


@pytest.mark.parametrize(
    ("entries", "names"),
    [
        ([("a/0", 1), ("b/0", 0)], ["b", "a"]),
        ([("all/0", 1), ("all/1", 0)], ["0", "1"]),
        ([("a/0", 0), ("b/0", 0), ("c/0", 1)], ["0", "1"]),
        ([("0", 0), ("1", 1)], ["0", "1"]),
        ([("a/0", 0), ("c/0", 2)], ["a", "1", "c"]),
    ],
)
def test_names_of_classes(entries, names):
    assert classes_of(entries) == names


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([""], "is empty"),
        (["a.jpg 0", "b/a.jpg"], r"line 2: found 'b/a.jpg', but the first line has label"),
        (["b/a.jpg", "a.jpg 0"], r"line 2.*the first line has no label"),
        (["a.jpg"], r"line 1.*no label and no folder"),
        (["a.jpg -1"], r"line 1: label -1"),
        (["../a.jpg 0"], r"line 1.*leads out"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, lines, words):
    (tmp_path / "list.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match=words):
        read_list(tmp_path / "list.txt")


def test_a_class_that_training_lacks_is_named(tmp_path, write):
    write("train.txt", [f"{c}/{i}.png" for c in ("ant", "bee") for i in range(3)])
    write("test.txt", ["bees/0.png"])
    with pytest.raises(DataError, match=r"of class 'bees', which .* lacks\. Did you mean 'bee'"):
        ListFiles(str(tmp_path), **OPTIONS).setup("test")


def test_a_gap_in_the_labels_is_named(tmp_path, write):
    write("train.txt", [f"train/{i}.png {i % 2 * 2}" for i in range(8)])
    with pytest.raises(DataError, match=r"no training image of class '1'"):
        ListFiles(str(tmp_path), **OPTIONS).setup("fit")


def test_lists_of_different_kinds_are_refused(tmp_path, write):
    write("train.txt", ["x/0.png 0"])
    write("test.txt", ["x/1.png"])
    with pytest.raises(DataError, match="differ in whether lines end with a label"):
        ListFiles(str(tmp_path), **OPTIONS).setup("test")


def test_absent_images_are_named_or_skipped(tmp_path, write):
    write("test.txt", ["x/0.png", "x/1.png", "y/0.png"])
    (tmp_path / "x" / "1.png").unlink()
    with pytest.raises(DataError, match=r"x/1\.png, which does not exist \(1 of 3"):
        ListFiles(str(tmp_path), **OPTIONS).setup("test")
    module = ListFiles(str(tmp_path), skip_broken=True, **OPTIONS)
    with pytest.warns(UserWarning, match="1 of 3 test images are skipped"):
        module.setup("test")
    assert len(module.test_set) == 2


def test_unlabelled_folders_of_numbers_are_in_the_order_of_image_folders():
    entries = [(f"{name}/a.png", None) for name in ("10", "2", "0", "1")]
    assert classes_of(entries) == ["0", "1", "2", "10"]


@pytest.mark.parametrize("labelled", [False, True])
def test_an_order_of_folders_named_by_numbers_is_said(tmp_path, write, labelled, caplog):
    names = ["1", "2", "10"]
    lines = [f"{c}/{i}.png{f' {n}' * labelled}" for n, c in enumerate(names) for i in range(4)]
    write("train.txt", lines)
    with caplog.at_level(logging.INFO):
        ListFiles(str(tmp_path), val_fraction=0.25, **OPTIONS).setup("fit")
    said = [line for line in caplog.messages if "order of the numbers: 1, 2, 10" in line]
    assert len(said) == (not labelled)  # labels say the order themselves


@pytest.mark.parametrize("least", [1, 2])
def test_labels_that_do_not_count_from_0_are_named(tmp_path, write, least):
    write("train.txt", [f"{c}/{i}.png {n + least}" for n, c in enumerate("xy") for i in range(4)])
    with pytest.raises(DataError, match=f"labels begin at {least}.*subtract {least}"):
        ListFiles(str(tmp_path), **OPTIONS).setup("fit")


@pytest.mark.parametrize("label", ["x", "0.0", "cat", "nan", "1e0"])
def test_a_label_that_is_no_number_is_named(tmp_path, write, label):
    write("train.txt", [f"{c}/{i}.png {n}" for n, c in enumerate("xy") for i in range(4)])
    lines = [f"{c}/{i}.png {label}" for c in "xy" for i in range(4)]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match=f"with '{label}' behind it, expected the number"):
        ListFiles(str(tmp_path), **OPTIONS).setup("fit")


def test_repeated_images_are_said(tmp_path, write):
    lines = [f"{c}/{i}.png {n}" for n, c in enumerate("xy") for i in range(4)]
    write("train.txt", [*lines, lines[1], "x/0.png 1"])
    write("test.txt", [*lines[:2], "y/8.png 1"])
    module = ListFiles(str(tmp_path), **OPTIONS, val_fraction=0.3)
    with pytest.warns(UserWarning, match=r"2 images again, 1 of them .* first .*x/0\.png"):
        module.setup("fit")
    with pytest.warns(UserWarning, match=r"2 of 3 images of .*test\.txt are training images, too"):
        module.setup("test")

"""Classification from the command line: what a run leaves, and mistakes in the data."""

import csv
import json
import shutil
from pathlib import Path
from urllib.error import URLError

import pytest

FIT = ["fit", "--experiment", "tiny", "--run_dir", "run"]


@pytest.fixture
def classes(tiny, class_root):
    """Write the experiment ``tiny`` on the three classes; called with changes, write it again."""

    def write(**changes):
        data = {"root": str(class_root), "image_size": 16, "batch_size": 4, "num_workers": 0}
        described = {"class_path": "ImageFolders", "init_args": data}
        tiny(**{"model.class_path": "ClassificationTask", "data": described, **changes})

    write()
    return write


def read(file):
    with Path(file).open(newline="") as stream:
        return list(csv.reader(stream))


def assert_refused(result, *words):
    """Exit status 2, one line of error at the very end, nothing trained."""
    result.refused(*words)
    assert not list(Path("run").rglob("*.ckpt"))


def test_a_run_leaves_its_files_and_predicts(classes, command):
    classes(**{"pictures": True, "model.init_args.mixup": 0.2, "data.init_args.resize": 20,
               "data.init_args.test_crops": 10})  # fmt: skip
    done = command(*FIT)
    assert done.status == 0, done.err
    summary = json.loads(Path("run/summary.json").read_text())
    metrics = {f"test/{name}" for name in ("acc", "acc5", "acc_class", "loss")}
    assert set(summary["test"]) == metrics
    assert summary["test_images"] == 6
    assert Path("run/pictures/confusion.png").is_file()
    rows = read("run/test_errors.csv")
    right = sum(row[1] == row[2] for row in rows[1:]) / 6
    assert right == pytest.approx(summary["test"]["test/acc"])
    assert [row[0] for row in read("run/confusion.csv")] == ["true", "ant", "bee", "cat"]
    predicted = ["predict", "--experiment", "tiny", "--output", "other", "--ckpt_path", "run"]
    done = command(*predicted)
    assert done.status == 0, done.err
    assert len(read("other/predictions.csv")) == 7


def test_a_corrupt_test_image_stops_a_run_before_training(classes, command, class_root):
    (class_root / "test" / "bee" / "0.png").write_bytes(b"no image")
    assert_refused(command(*FIT), "test/bee/0.png cannot be read", "skip_broken")
    done = command(*FIT, "--data.skip_broken", "true")
    assert done.status == 0, done.err
    assert len(read("run/test_errors.csv")) == 6


def test_classes_of_the_test_folder_alone_and_empty_ones_are_named(classes, command, class_root):
    (class_root / "train" / "dog").mkdir()
    assert_refused(command(*FIT), "class folder without images", "dog")
    shutil.rmtree(class_root / "train" / "dog")
    (class_root / "test" / "cat").rename(class_root / "test" / "cats")
    assert_refused(command(*FIT), "lacks: cats", "'cat'")


def test_a_checkpoint_of_other_classes_is_refused(classes, command, class_root):
    assert command(*FIT).status == 0
    for part in ("train", "test"):
        shutil.rmtree(class_root / part / "cat")
    tested = command("test", "--experiment", "tiny", "--ckpt_path", "run", "--output", "other")
    assert tested.status == 2
    last = tested.err.strip().splitlines()[-1]
    assert "num_classes is 3 in the checkpoint, 2 here" in last


def test_a_checkpoint_of_other_class_names_is_refused(classes, command, class_root):
    assert command(*FIT).status == 0
    for part in ("train", "test"):
        # Capital letters come first: it would be the output that was an ant in training.
        (class_root / part / "cat").rename(class_root / part / "Cat")
    for word in ("test", "predict", "validate", "fit"):
        again = [word, "--experiment", "tiny", "--ckpt_path", "run", "--output", f"other/{word}"]
        command(*again).refused("output 0 is class 'ant' in the checkpoint, 'Cat' in the data")
    assert command(*FIT[:3], "--init_from", "run", "--run_dir", "anew").status == 0


def test_without_a_network_a_download_is_one_clear_error(tiny, command, monkeypatch):
    def refuse(*args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    options = {"name": "CIFAR10", "root": "data", "download": True}
    data = {"class_path": "TorchvisionData", "init_args": options}
    tiny(**{"model.class_path": "ClassificationTask", "data": data})
    assert_refused(command(*FIT), "CIFAR10 cannot be downloaded", "network")


def test_mistyped_names_get_suggestions(classes, command):
    assert_refused(command(*FIT, "--data.test_crop", "10"), "test_crop")
    assert_refused(command(*FIT, "--data.test_crops", "10"), "needs `resize`")
    assert_refused(command(*FIT, "--model.mixup", "-1"), "mixup must be at least 0")

"""What a classification run leaves for people to look at: which files, and what is in them."""

import csv
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.classification import MulticlassConfusionMatrix

from zoo_lightning.callbacks import classification_files
from zoo_lightning.callbacks.classification_files import ClassificationFiles, class_scores
from zoo_lightning.data.classification.folders import ImageFolders
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.tasks import ClassificationTask

CLASSES = ["ant", "bee", "cat"]
FILES = {"confusion.csv", "classes.csv", "test_errors.csv"}


class Samples(list):
    """Samples whose image i is of brightness i."""

    names = tuple(f"test/{i}.png" for i in range(9))


def read(file):
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


@pytest.fixture
def trainer():
    images = Samples({"image": torch.full((3, 8, 8), i, dtype=torch.uint8)} for i in range(9))
    data = SimpleNamespace(val_set=images, test_set=images, class_names=CLASSES)
    return SimpleNamespace(
        is_global_zero=True, sanity_checking=False, datamodule=data, loggers=[], global_step=0
    )


def run_test(callback, trainer, wrong):
    """A test of nine images of class i mod 3; the wrong ones are taken for the next class."""
    task = SimpleNamespace(confusion=MulticlassConfusionMatrix(3))
    callback.on_test_epoch_start(trainer, task)
    for indices in torch.arange(9).split(4):
        labels = indices % 3
        shifted = torch.tensor([int(i) in wrong for i in indices])
        pred = (labels + shifted) % 3
        sure = 0.5 + 0.05 * indices
        probabilities = ((1 - sure) / 2)[:, None].repeat(1, 3)
        probabilities[torch.arange(len(indices)), pred] = sure
        task.confusion.update(probabilities, labels)
        batch = {"label": labels, "index": indices}
        callback.on_test_batch_end(trainer, task, {"probabilities": probabilities}, batch, 0)
    callback.on_test_epoch_end(trainer, task)


def test_a_test_writes_tables_of_all_images_and_of_confusions(trainer, tmp_path):
    run_test(ClassificationFiles(str(tmp_path)), trainer, {1, 3})
    assert read(tmp_path / "confusion.csv") == [
        ["true", *CLASSES],
        ["ant", "2", "1", "0"],
        ["bee", "0", "2", "1"],
        ["cat", "0", "0", "3"],
    ]
    assert read(tmp_path / "classes.csv") == [
        ["class", "images", "precision", "recall", "f1"],
        ["ant", "3", "1.0000", "0.6667", "0.8000"],
        ["bee", "3", "0.6667", "0.6667", "0.6667"],
        ["cat", "3", "0.7500", "1.0000", "0.8571"],
    ]
    rows = read(tmp_path / "test_errors.csv")
    assert rows[0] == ["image", "true", "predicted", "probability"]
    assert rows[1] == ["test/0.png", "ant", "ant", "0.5000"]
    assert rows[4] == ["test/3.png", "ant", "bee", "0.6500"]
    assert len(rows) == 10


def test_scores_that_are_undefined_are_left_empty():
    matrix = np.array([[2, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    matrix[0, 1] = 1
    assert class_scores(matrix, list("abcd")) == [
        ["a", 3, "0.6667", "0.6667", "0.6667"],
        ["b", 0, "0.0000", "", "0.0000"],
        ["c", 1, "", "0.0000", "0.0000"],
        ["d", 0, "", "", ""],
    ]


def test_the_most_confident_mistakes_are_shown_first(trainer, tmp_path, monkeypatch):
    shown = []
    plot = classification_files.plot_mistakes
    monkeypatch.setattr(
        classification_files, "plot_mistakes", lambda *a: (shown.append(a), plot(*a))[1]
    )
    monkeypatch.setattr(classification_files, "MISTAKES", 2)
    run_test(ClassificationFiles(str(tmp_path)), trainer, {1, 3, 8})
    ((images, true, pred, probabilities),) = shown
    assert images[:, 0, 0, 0].tolist() == [8, 3]
    assert (true, pred) == (["cat", "ant"], ["ant", "bee"])
    assert probabilities == pytest.approx((0.9, 0.65))


def run_validation(callback, trainer):
    """A validation of nine images that are all taken for the second class."""
    task = SimpleNamespace(num_classes=3)
    callback.on_validation_epoch_start(trainer, task)
    for indices in torch.arange(9).split(4):
        batch = {"label": indices % 3, "index": indices}
        outputs = {"probabilities": torch.tensor([[0.1, 0.7, 0.2]]).expand(len(indices), 3)}
        callback.on_validation_batch_end(trainer, task, outputs, batch, 0)
    callback.on_validation_epoch_end(trainer, task)


def test_validation_shows_images_spread_over_the_data_set(trainer, tmp_path, monkeypatch):
    shown = []
    plot = classification_files.plot_mistakes
    monkeypatch.setattr(
        classification_files, "plot_mistakes", lambda *a: (shown.append(a), plot(*a))[1]
    )
    monkeypatch.setattr(classification_files, "VALIDATION_IMAGES", 3)
    callback = ClassificationFiles(str(tmp_path))
    for _ in range(2):
        run_validation(callback, trainer)
    assert {file.name for file in (tmp_path / "pictures").iterdir()} == {"val_images.png"}
    for images, true, pred, probabilities in shown:
        assert images[:, 0, 0, 0].tolist() == [0, 3, 6]
        assert (true, pred) == (["ant"] * 3, ["bee"] * 3)
        assert probabilities == pytest.approx((0.7,) * 3)


def test_a_sanity_check_and_other_processes_show_no_validation(trainer, tmp_path):
    trainer.sanity_checking = True
    run_validation(ClassificationFiles(str(tmp_path)), trainer)
    trainer.is_global_zero, trainer.sanity_checking = False, False
    run_validation(ClassificationFiles(str(tmp_path)), trainer)
    assert list(tmp_path.iterdir()) == []


def test_without_mistakes_there_is_no_picture_of_them_not_even_an_old_one(trainer, tmp_path):
    callback = ClassificationFiles(str(tmp_path))
    run_test(callback, trainer, {1})
    assert (tmp_path / "pictures" / "mistakes.png").is_file()
    run_test(callback, trainer, set())
    assert {file.name for file in (tmp_path / "pictures").iterdir()} == {"confusion.png"}
    assert len(read(tmp_path / "test_errors.csv")) == 10


def test_other_processes_write_nothing(trainer, tmp_path):
    trainer.is_global_zero = False
    run_test(ClassificationFiles(str(tmp_path)), trainer, {1})
    assert list(tmp_path.iterdir()) == []


def test_mistakes_that_are_not_numbers_come_last():
    results = classification_files._Results()
    probabilities = torch.tensor([[0.1, 0.9], [torch.nan, torch.nan], [0.2, 0.8]])
    results.add(probabilities, {"label": torch.tensor([0, 1, 0]), "index": torch.arange(3)})
    assert [row[0] for row in results.mistakes()] == [0, 2, 1]


def test_of_ten_crops_the_central_one_is_shown():
    crops = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 4, 4)
    assert (classification_files.central_crop(crops) == 4).all()


@pytest.mark.parametrize("crops", [1, 10])
def test_a_real_run_leaves_its_files(tmp_path, class_root, crops):
    options = {"resize": 40, "test_crops": 10} if crops == 10 else {}
    data = ImageFolders(str(class_root), 32, 4, num_workers=0, **options)
    task = ClassificationTask(PlainBackbone("test_resnet"), 3)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(tmp_path),
        callbacks=[ClassificationFiles(str(tmp_path / "run"))],
    )
    (logged,) = trainer.test(task, data, verbose=False)
    trainer.predict(task, data)
    run = tmp_path / "run"
    assert {file.name for file in run.glob("*.csv")} == {*FILES, "predictions.csv"}
    rows = read(run / "test_errors.csv")[1:]
    right = np.mean([true == pred for _, true, pred, _ in rows])
    assert right == pytest.approx(logged["test/acc"])
    assert rows[0][0] == "test/ant/0.png"
    predicted = read(run / "predictions.csv")
    header = [f"{word}_{k}" for k in (1, 2, 3) for word in ("class", "probability")]
    assert predicted[0] == ["image", *header]
    assert [row[:2] for row in predicted[1:]] == [[row[0], row[2]] for row in rows]
    shares = [float(row[2]) for row in predicted[1:]]
    assert shares == pytest.approx([float(row[3]) for row in rows], abs=6e-5)
    assert sum(float(value) for value in predicted[1][2::2]) == pytest.approx(1, abs=1e-3)
    for name in ("confusion.png", "mistakes.png"):
        assert min(Image.open(run / "pictures" / name).size) > 300

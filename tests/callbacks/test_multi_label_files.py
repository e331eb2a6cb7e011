"""What a multi-label run leaves for people to look at: which files, and what is in them."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from zoo_lightning.callbacks import MultiLabelFiles, multi_label_files
from zoo_lightning.plotting import plot_label_scores, plot_labels

CLASSES = ["ant", "bee", "cat"]


class Samples(list):
    """Samples whose image i is of brightness i."""

    names = tuple(f"test/{i}.png" for i in range(6))


def read(file):
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


@pytest.fixture
def trainer():
    images = Samples({"image": torch.full((3, 8, 8), i, dtype=torch.uint8)} for i in range(6))
    data = SimpleNamespace(val_set=images, test_set=images, class_names=CLASSES)
    return SimpleNamespace(
        is_global_zero=True, sanity_checking=False, datamodule=data, loggers=[], global_step=0
    )


LABELS = torch.tensor(
    [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, -1, 0], [1, 1, 0], [0, 0, 0]], dtype=torch.int8
)
PROBABILITIES = torch.tensor(
    [[0.9, 0.1, 0.0], [0.8, 0.3, 0.9], [0.1, 0.1, 0.0], [0.2, 0.9, 0.0], [0.3, 0.3, 0.0],
     [0.7, 0.1, 0.0]]
)  # fmt: skip
TASK = SimpleNamespace(thresholds=torch.tensor([0.5, 0.25, 0.5]))


def run(callback, trainer, part):
    getattr(callback, f"on_{part}_epoch_start")(trainer, TASK)
    for rows in torch.arange(6).split(4):
        batch = {"label": LABELS[rows], "index": rows}
        outputs = {"probabilities": PROBABILITIES[rows]}
        getattr(callback, f"on_{part}_batch_end")(trainer, TASK, outputs, batch, 0)
    end = "on_validation_end" if part == "validation" else f"on_{part}_epoch_end"
    getattr(callback, end)(trainer, TASK)


def test_a_test_writes_scores_of_each_label_and_the_labels_of_each_image(trainer, tmp_path):
    run(MultiLabelFiles(str(tmp_path)), trainer, "test")
    scores = read(tmp_path / "label_scores.csv")
    assert scores[0] == ["label", "images", "known", "average_precision", "threshold", "f1"]
    assert [row[:3] for row in scores[1:]] == [["ant", "3", "6"], ["bee", "2", "5"],
                                               ["cat", "0", "6"]]  # fmt: skip
    assert float(scores[1][5]) == pytest.approx(2 / 3, abs=1e-6)
    assert scores[2][3:] == ["1.000000", "0.250000", "1.000000"]
    assert scores[3][3::2] == ["", ""]
    rows = read(tmp_path / "test_errors.csv")
    assert rows[0] == ["image", "true", "predicted", "wrong"]
    assert rows[2] == ["test/1.png", "ant;bee", "ant;bee;cat", "1"]
    assert rows[4] == ["test/3.png", "", "bee", "0"]  # nothing is known of the bee
    pictures = {file.name for file in (tmp_path / "pictures").iterdir()}
    assert pictures == {"label_scores.png", "mistakes.png"}


def test_images_with_most_wrong_labels_are_shown_first(trainer, tmp_path, monkeypatch):
    shown = []
    plot = multi_label_files.plot_labels
    monkeypatch.setattr(multi_label_files, "plot_labels", lambda *a: (shown.append(a), plot(*a))[1])
    run(MultiLabelFiles(str(tmp_path)), trainer, "test")
    ((images, true, pred),) = shown
    assert images[:, 0, 0, 0].tolist() == [1, 4, 5]
    assert true == [["ant", "bee"], ["ant", "bee"], []]
    assert pred == [["ant", "bee", "cat"], ["bee"], ["ant"]]


def test_validation_shows_images_and_their_labels_at_the_thresholds(trainer, tmp_path):
    run(MultiLabelFiles(str(tmp_path)), trainer, "validation")
    assert (tmp_path / "pictures" / "val_images.png").is_file()
    run(MultiLabelFiles(str(tmp_path / "none"), pictures=False), trainer, "validation")
    assert not (tmp_path / "none").exists()


def test_predictions_have_labels_and_probabilities(trainer, tmp_path):
    callback = MultiLabelFiles(str(tmp_path))
    for rows in torch.arange(6).flip(0).split(4):
        callback.on_predict_batch_end(trainer, TASK, PROBABILITIES[rows], {"index": rows}, 0)
    callback.on_predict_end(trainer, TASK)
    rows = read(tmp_path / "predictions.csv")
    assert rows[0] == ["image", "labels", *(f"probability_{name}" for name in CLASSES)]
    assert rows[2] == ["test/1.png", "ant;bee;cat", "0.800000", "0.300000", "0.900000"]
    assert [row[0] for row in rows[1:]] == [*Samples.names]


def test_without_pictures_there_are_the_tables_alone(trainer, tmp_path):
    run(MultiLabelFiles(str(tmp_path), pictures=False), trainer, "test")
    assert {file.name for file in tmp_path.iterdir()} == {"label_scores.csv", "test_errors.csv"}


def test_charts_of_many_labels_show_those_found_worst():
    values = np.linspace(1, 0, 60)
    figure = plot_label_scores([f"label {i}" for i in range(60)], values, values, values)
    [axes] = figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()][-1] == "label 59"
    assert len(axes.patches) == 40
    assert "40 of 60" in axes.get_title()
    few = plot_label_scores(["a", "b"], [np.nan, 0.5], [np.nan, 0.4], [0, 0.2])
    assert len(few.axes[0].patches) == 1
    for wrong in ((["a"], [1, 1], [1], [1]), (["a"], [1], [1], [])):
        with pytest.raises(ValueError, match="three numbers"):
            plot_label_scores(*wrong)


def test_long_lists_of_labels_are_cut():
    figure = plot_labels(np.zeros((1, 8, 8, 3)), [[]], [[f"a long $label {i}" for i in range(30)]])
    title = figure.axes[0].get_title()
    assert title.startswith("is none\nfound ")
    assert title.endswith("...")
    assert title.count("\n") <= 4
    with pytest.raises(ValueError, match="lists of labels"):
        plot_labels(np.zeros((2, 8, 8, 3)), [[]], [[]])

"""What a landmark run leaves for people to look at: which files, and what is in them."""

import csv
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image

from zoo_lightning.callbacks import landmark_files
from zoo_lightning.callbacks.landmark_files import LandmarkFiles
from zoo_lightning.data.synthetic.drawn_faces import DrawnFaces
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.tasks import LandmarkTask

SIDE, POINTS, SUBSETS = 16, 4, ("frontal", "profile", "none")
PICTURED = {"test_faces.png", "error_curve.png", "point_errors.png"}


def make_set(count, generator):
    """Samples as a data set gives them; image i is of brightness i."""
    return [
        {
            "image": torch.full((3, SIDE, SIDE), i, dtype=torch.uint8),
            "points": torch.rand(POINTS, 2, generator=generator) * SIDE,
            "visible": torch.tensor([True, True, i % 2 == 0, False]),
            "index": i,
            "name": f"face{i}.jpg",
            "subsets": torch.tensor([i % 3 == 0, i % 3 != 0, False]),
        }
        for i in range(count)
    ]


def make_batches(samples, size, heatmaps=False):
    """Outputs and batches; the error of sample i is i pixels to the right, the distance is 100."""
    for first in range(0, len(samples), size):
        part = samples[first : first + size]
        points = torch.stack([sample["points"] for sample in part])
        index = torch.tensor([sample["index"] for sample in part])
        shift = torch.stack([index.float(), torch.zeros(len(part))], dim=-1)[:, None]
        batch = {
            "image": torch.zeros(len(part), 3, SIDE, SIDE),
            "points": points,
            "original": 2 * points,
            "index": index,
            "name": [sample["name"] for sample in part],
        }
        for key in ("visible", "subsets"):
            if key in part[0]:
                batch[key] = torch.stack([sample[key] for sample in part])
        outputs = {
            "input": points + shift / 2,
            "original": 2 * points + shift,
            "distance": torch.full((len(part),), 100.0),
        }
        if heatmaps:
            outputs["heatmaps"] = torch.rand(len(part), POINTS, 8, 8)
        yield outputs, batch


@pytest.fixture
def trainer():
    generator = torch.Generator().manual_seed(0)
    data = SimpleNamespace(
        val_set=make_set(26, generator),
        test_set=make_set(10, generator),
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        scheme=SimpleNamespace(name="own"),
        subset_names=SUBSETS,
    )
    return SimpleNamespace(
        is_global_zero=True, sanity_checking=False, datamodule=data, loggers=[], global_step=0
    )


TASK = SimpleNamespace(backbone=SimpleNamespace(method="lite"))


def run_test(callback, trainer, change=lambda outputs, batch: None, **options):
    """A whole test in batches of 4."""
    callback.on_test_epoch_start(trainer, TASK)
    for outputs, batch in make_batches(trainer.datamodule.test_set, 4, **options):
        change(outputs, batch)
        callback.on_test_batch_end(trainer, TASK, outputs, batch, 0)
    callback.on_test_epoch_end(trainer, TASK)


def run_validation(callback, trainer, **options):
    """A whole validation in batches of 4."""
    callback.on_validation_epoch_start(trainer, TASK)
    for outputs, batch in make_batches(trainer.datamodule.val_set, 4, **options):
        callback.on_validation_batch_end(trainer, TASK, outputs, batch, 0)
    callback.on_validation_epoch_end(trainer, TASK)


def read(path):
    with path.open(newline="") as stream:
        return list(csv.reader(stream))


def pictures(folder):
    return {file.name for file in (folder / "pictures").glob("*")}


def test_a_test_writes_pictures_and_tables(trainer, tmp_path):
    run_test(LandmarkFiles(str(tmp_path)), trainer)
    assert pictures(tmp_path) == PICTURED
    assert {file.name for file in tmp_path.glob("*.csv")} == {"test_errors.csv", "point_errors.csv"}
    rows = read(tmp_path / "test_errors.csv")
    assert rows[0] == ["image", "nme", *SUBSETS]
    assert rows[1] == ["face0.jpg", "0.0000", "1", "0", "0"]
    assert rows[10] == ["face9.jpg", "9.0000", "1", "0", "0"]
    assert [float(row[1]) for row in rows[1:]] == pytest.approx(range(10))
    points = read(tmp_path / "point_errors.csv")
    assert points[0] == ["point", "nme"]
    assert points[1] == ["0", "4.5000"]
    assert points[3] == ["2", "4.0000"]  # in images 0, 2, 4, 6, 8
    assert points[4] == ["3", "nan"]  # never counted


def test_best_median_and_worst_faces_are_read_anew(trainer, tmp_path, monkeypatch):
    drawn = {}

    def spy(best, median, worst):
        drawn.update(best=best, median=median, worst=worst)
        return plot(best, median, worst)

    plot = landmark_files.plot_ranked_faces
    monkeypatch.setattr(landmark_files, "plot_ranked_faces", spy)
    run_test(LandmarkFiles(str(tmp_path)), trainer)
    shown = {row: [int(image[0, 0, 0]) for image in faces.images] for row, faces in drawn.items()}
    assert shown == {"best": [0, 1, 2], "median": [3, 4, 5], "worst": [7, 8, 9]}
    for row, faces in drawn.items():
        assert list(faces.errors) == pytest.approx(shown[row])
        assert np.stack(faces.images).shape == (3, SIDE, SIDE, 3)
        right = [pred[0] - true[0] for pred, true in zip(faces.pred, faces.true, strict=True)]
        assert np.allclose(right, [[i / 2, 0] for i in shown[row]], atol=1e-5)
        assert [mask[2] for mask in faces.visible] == [i % 2 == 0 for i in shown[row]]


def test_each_subset_with_images_has_its_curve(trainer, tmp_path, monkeypatch):
    drawn = {}
    plot = landmark_files.plot_error_curve
    monkeypatch.setattr(
        landmark_files, "plot_error_curve", lambda e, t: (drawn.update(e), plot(e, t))[1]
    )
    run_test(LandmarkFiles(str(tmp_path)), trainer)
    assert list(drawn) == ["lite, all images", "frontal", "profile"]
    assert drawn["frontal"].tolist() == pytest.approx([0, 0.03, 0.06, 0.09])


def test_the_mean_face_has_every_face_in_the_same_box(trainer):
    results = landmark_files._TestResults()
    square = torch.tensor([[0.0, 0], [2, 0], [0, 1], [99, 99]])
    for scale, shift in ((1.0, 0.0), (50.0, 7.0)):
        points = (square * scale + shift)[None]
        batch = {
            "points": points,
            "original": points,
            "visible": torch.tensor([[True, True, True, False]]),
            "index": torch.tensor([0]),
            "name": ["a"],
        }
        outputs = {"input": points, "original": points, "distance": torch.ones(1)}
        results.add(outputs, batch)
    shape = results.mean_shape()
    assert np.allclose(shape[:3], [[-0.5, -0.25], [0.5, -0.25], [-0.5, 0.25]])
    assert np.isnan(shape[3]).all()


def test_data_without_masks_and_subsets_will_do(trainer, tmp_path):
    del trainer.datamodule.subset_names
    for sample in trainer.datamodule.test_set:
        del sample["visible"], sample["subsets"]
    run_test(LandmarkFiles(str(tmp_path)), trainer)
    assert read(tmp_path / "test_errors.csv")[2] == ["face1.jpg", "1.0000"]
    assert "nan" not in (tmp_path / "point_errors.csv").read_text()
    assert pictures(tmp_path) == PICTURED


def test_heat_maps_are_drawn_where_there_are_some(trainer, tmp_path):
    callback = LandmarkFiles(str(tmp_path))
    run_validation(callback, trainer, heatmaps=True)
    assert pictures(tmp_path) == {"val_faces.png", "val_heatmaps.png"}
    run_test(callback, trainer, heatmaps=True)
    expected = PICTURED | {"val_faces.png", "val_heatmaps.png", "heatmaps.png"}
    assert pictures(tmp_path) == expected


def test_validation_faces_are_spread_over_the_data_set(trainer, tmp_path):
    callback = LandmarkFiles(str(tmp_path))
    run_validation(callback, trainer)
    assert pictures(tmp_path) == {"val_faces.png"}
    true = torch.stack([torch.from_numpy(points) for points in callback._sample.true])
    expected = [trainer.datamodule.val_set[i]["points"] for i in range(0, 24, 2)]
    torch.testing.assert_close(true, torch.stack(expected))
    assert callback._sample.images[0][0, 0].tolist() == [128, 128, 128]  # the mean, put back


def test_a_sanity_check_and_other_processes_write_nothing(trainer, tmp_path):
    trainer.sanity_checking = True
    run_validation(LandmarkFiles(str(tmp_path)), trainer)
    trainer.sanity_checking, trainer.is_global_zero = False, False
    run_validation(LandmarkFiles(str(tmp_path)), trainer)
    run_test(LandmarkFiles(str(tmp_path)), trainer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_model_that_diverged_still_gets_its_files(trainer, tmp_path, value):
    def spoil(outputs, batch):
        outputs["input"].fill_(value)
        outputs["original"].fill_(value)

    run_test(LandmarkFiles(str(tmp_path)), trainer, spoil)
    assert {"test_faces.png", "error_curve.png"} <= pictures(tmp_path)
    assert len(read(tmp_path / "test_errors.csv")) == 11


@pytest.mark.parametrize("count", [1, 2])
def test_very_few_test_images_will_do(trainer, tmp_path, count):
    trainer.datamodule.test_set = trainer.datamodule.test_set[:count]
    run_test(LandmarkFiles(str(tmp_path)), trainer)
    assert pictures(tmp_path) == PICTURED


def test_a_second_test_forgets_the_first(trainer, tmp_path):
    callback = LandmarkFiles(str(tmp_path))
    for _ in range(2):
        run_test(callback, trainer)
    assert len(read(tmp_path / "test_errors.csv")) == 11


def test_a_real_run_leaves_its_files(tmp_path):
    task = LandmarkTask(ZooBackbone("test_resnet", ["random:1"], mode="lite"), 5)
    data = DrawnFaces(8, 4, 6, 32, 5, 4, num_workers=0)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=1,
        val_check_interval=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=str(tmp_path),
        callbacks=[LandmarkFiles(str(tmp_path))],
    )
    trainer.fit(task, data)
    assert pictures(tmp_path) == {"val_faces.png"}
    (logged,) = trainer.test(task, data, verbose=False)
    trainer.predict(task, data)
    assert pictures(tmp_path) == PICTURED | {"val_faces.png"}
    for name in pictures(tmp_path):
        assert min(Image.open(tmp_path / "pictures" / name).size) > 300
    errors = [float(row[1]) for row in read(tmp_path / "test_errors.csv")[1:]]
    assert np.mean(errors) == pytest.approx(logged["test/nme"], abs=1e-3)
    points = [float(row[1]) for row in read(tmp_path / "point_errors.csv")[1:]]
    assert np.mean(points) == pytest.approx(np.mean(errors), abs=1e-3)
    rows = read(tmp_path / "predictions.csv")
    assert rows[0] == ["image", *(f"{axis}{k}" for k in range(5) for axis in "xy")]
    assert len(rows) == 7

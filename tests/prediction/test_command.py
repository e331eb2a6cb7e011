"""``predict --images``: files of predictions for any images, and what it refuses."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from zoo_lightning import Predictor

FIT = ("fit", "--experiment", "tiny", "--run_dir", "run")
TWO_STEPS = {"trainer.max_steps": 2, "trainer.val_check_interval": 2}
PREDICT = ("predict", "--ckpt_path", "run", "--output", "out")


@pytest.fixture
def classes(tiny, class_root, command):
    """Train on three classes of small images, whose crops are ten."""
    data = {"root": str(class_root), "image_size": 16, "batch_size": 4, "num_workers": 0,
            "resize": 20, "test_crops": 10}  # fmt: skip
    described = {"class_path": "ImageFolders", "init_args": data}
    tiny(**TWO_STEPS, **{"model.class_path": "ClassificationTask", "data": described})
    done = command(*FIT)
    assert done.status == 0, done.err
    return class_root / "test"


@pytest.fixture
def points(tiny, landmark_root, command, monkeypatch):
    """Train on five points of small images; called with options of the data."""

    def train(**options):
        data = {"root": str(landmark_root), "image_size": 16, "batch_size": 4, "num_workers": 0}
        described = {"class_path": "LandmarkCSV", "init_args": data | options}
        tiny(**TWO_STEPS, data=described)
        done = command(*FIT)
        assert done.status == 0, done.err
        return landmark_root

    return train


def rows_of(path):
    with Path(path).open(newline="") as stream:
        return list(csv.reader(stream))


def test_classes_are_those_of_the_test_and_broken_images_are_counted(classes, command):
    (classes / "ant" / "9.png").write_bytes(b"no image")
    found = command(*PREDICT, "--images", classes, "--top", 2, "--batch_size", 4)
    assert found.status == 1
    assert "ant/9.png cannot be read" in found.err
    assert "1 of 7 images were left out, see out/skipped.csv" in found.err
    assert "classification: 6 predictions in out/predictions.csv" in found.out
    header, *rows = rows_of("out/predictions.csv")
    assert header == ["image", "class_1", "probability_1", "class_2", "probability_2"]
    tested = {row[0].removeprefix("test/"): row for row in rows_of("run/test_errors.csv")[1:]}
    assert [row[0] for row in rows] == sorted(tested)
    assert [row[1] for row in rows] == [tested[row[0]][2] for row in rows]
    assert [row[0] for row in rows_of("out/skipped.csv")] == ["image", "ant/9.png"]
    command(*PREDICT, "--images", classes).refused("--output out is not empty")


def test_an_export_predicts_what_the_run_does(classes, command):
    assert (
        command("export", "--ckpt_path", "run", "--format", "timm,onnx", "--output", "exp").status
        == 0
    )
    ours = [each.probabilities for each in Predictor("run")(sorted(classes.rglob("*.png")))]
    assert np.allclose(np.sum(ours, axis=1), 1)
    for model in ("exp", "exp/model.onnx"):
        words = ("predict", "--ckpt_path", model, "--images", classes, "--format", "jsonl")
        done = command(*words, "--output", "out", "--overwrite")
        assert done.status == 0, done.err
        lines = [
            json.loads(line) for line in Path("out/predictions.jsonl").read_text().splitlines()
        ]
        assert [line["image"] for line in lines][:2] == ["ant/0.png", "ant/1.png"]
        assert [len(line["classes"]) for line in lines] == [3] * 6
        best = [line["classes"][0]["probability"] for line in lines]
        assert best == pytest.approx([each.max() for each in ours], abs=1e-5)


def test_timm_prepares_images_as_the_run_did_where_they_are_squeezed(tiny, class_root, command):
    data = {"root": str(class_root), "image_size": 16, "batch_size": 4, "num_workers": 0,
            "resize": 21}  # fmt: skip
    described = {"class_path": "ImageFolders", "init_args": data}
    tiny(**TWO_STEPS, **{"model.class_path": "ClassificationTask", "data": described})
    assert command(*FIT).status == 0
    assert (
        command("export", "--ckpt_path", "run", "--format", "timm", "--output", "exp").status == 0
    )
    model = timm.create_model("local-dir:exp", pretrained=True).eval()
    config = timm.data.resolve_data_config(model=model)
    transform = timm.data.create_transform(**config, is_training=False)
    files = sorted(class_root.rglob("test/*/*.png"))
    batch = torch.stack([transform(Image.open(file)) for file in files])
    with torch.inference_mode():
        found = model(batch).softmax(dim=-1).numpy()
    wanted = np.stack([each.probabilities for each in Predictor("run")(files)])
    assert np.allclose(found, wanted, atol=1e-6)


def test_points_are_those_of_the_test_in_pixels_of_the_image(points, command):
    root = points()
    words = ("--data.root", root, "--ckpt_path", "run", "--output", "other")
    assert command("predict", "--experiment", "tiny", *words).status == 0
    wanted = {row[0]: row[1:] for row in rows_of("other/predictions.csv")[1:]}
    found = command(*PREDICT, "--images", root / "images", "--overlays", 3)
    assert found.status == 0, found.err
    rows = {row[0]: row[1:] for row in rows_of("out/predictions.csv")}
    assert rows["image"] == rows_of(root / "test.csv")[0][1:]
    for name, values in wanted.items():
        assert list(map(float, rows[name])) == pytest.approx(list(map(float, values)), abs=2e-3)
    pictures = sorted(Path("out/overlays").iterdir())
    assert len(pictures) == 3
    with Image.open(pictures[0]) as picture:
        marked = np.asarray(picture)
    assert marked.shape == (240, 240, 3)  # a small image is shown larger
    assert (marked == (255, 176, 0)).all(-1).any()


def test_a_model_of_faces_wants_their_boxes(points, command):
    root = points(box="points", margin=1.5)
    images = root / "images"
    command(*PREDICT, "--images", images).refused("give --boxes FILE", "--boxes image")
    names = sorted(path.name for path in images.iterdir())
    lines = [f"{name},5,5,35,35" for name in names]
    Path("boxes.csv").write_text("\n".join(["image,x0,y0,x1,y1", *lines]))
    done = command(*PREDICT, "--images", images, "--boxes", "boxes.csv", "--overlays", 0)
    assert done.status == 0, done.err
    assert len(rows_of("out/predictions.csv")) == len(names) + 1
    assert not Path("out/overlays").exists()
    words = (*PREDICT, "--overwrite", "--overlays", 0, "--images", images / names[0])
    assert command(*words, "--boxes", "image", "--format", "jsonl").status == 0
    [line] = Path("out/predictions.jsonl").read_text().splitlines()
    assert len(json.loads(line)["points"]) == 5


def test_what_cannot_be_predicted_from_is_refused(classes, command, tmp_path):
    images = ("--images", classes)
    others = ("predict", "--output", "out", *images, "--ckpt_path")
    command(*others, "nowhere").refused("nowhere")
    (tmp_path / "nothing").mkdir()
    command(*others, "nothing").refused("neither a run's folder nor an exported one")
    Path("model.pt2").write_bytes(b"")
    command(*others, "model.pt2").refused("is a program for torch.export.load")
    Path("model.onnx").write_bytes(b"nothing of the kind")
    command(*others, "model.onnx").refused("not an ONNX file that can be run")
    command(*others, "run", "--device", "cuda").refused("--device cuda cannot be used")
    command(*others, "run", "--top", 0).refused("--top must be at least 1")
    command(*others, "run", "--data.root", "x").refused("--data.root", "--images")
    assert (
        command("export", "--ckpt_path", "run", "--format", "timm", "--output", "exp").status == 0
    )
    command("predict", "--ckpt_path", "exp", "--output", "out").refused("give --images")
    config = json.loads(Path("exp/config.json").read_text())
    Path("exp/config.json").write_text(json.dumps({**config, "zoo_lightning": None}))
    command(*others, "exp").refused("was not exported by zoo_lightning")
    Path("exp/config.json").write_text(json.dumps(config))
    Path("exp/model.safetensors").rename("exp/pytorch_model.bin")
    command(*others, "exp").refused("has no model.safetensors")
    path = Path("run/checkpoints/best.ckpt")
    content = torch.load(path, weights_only=True)
    del content["zoo_lightning"]["data"]
    torch.save(content, path)
    command(*others, "run").refused("written by an earlier version", "zoo_lightning export")
    assert not Path("out").exists()

"""Several labels an image from the command line: runs, predictions, exports, methods, mistakes."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FIT = ["fit", "--experiment", "tiny", "--run_dir", "run"]
NAMES = ["blue", "green", "red"]


@pytest.fixture
def labels(tiny, label_root):
    """Write the experiment ``tiny`` on three labels; called with changes, write it again."""

    def write(**changes):
        data = {"root": str(label_root), "image_size": 32, "batch_size": 4, "num_workers": 0}
        described = {"class_path": "MultiLabelImages", "init_args": data}
        tiny(**{"model.class_path": "MultiLabelTask", "data": described, **changes})

    write()
    return write


def read(file):
    with Path(file).open(newline="") as stream:
        return list(csv.reader(stream))


def test_a_run_leaves_its_files_and_predicts_and_is_exported(labels, command, label_root):
    labels(**{"pictures": True, "average_weights": True, "data.init_args.resize": 40,
              "data.init_args.test_crops": 10, "model.init_args.loss": "asymmetric",
              "model.init_args.pos_weight": "auto",
              "model.init_args.head_init": "probe"})  # fmt: skip
    done = command(*FIT)
    assert done.status == 0, done.err
    summary = json.loads(Path("run/summary.json").read_text())
    names = ("map", "f1_macro", "f1_micro", "exact_match", "loss")
    assert set(summary["test"]) == {f"test/{name}" for name in names}
    assert list(summary["validation"]) == ["val/map"]
    scores = read("run/label_scores.csv")
    assert [row[0] for row in scores[1:]] == NAMES
    mean = np.mean([float(row[3]) for row in scores[1:]])
    assert mean == pytest.approx(summary["test"]["test/map"], abs=1e-5)
    thresholds = [float(row[4]) for row in scores[1:]]
    assert thresholds == pytest.approx(summary["thresholds"], abs=1e-5)
    assert "Average precision of each label" in Path("run/report.html").read_text()
    predicted = ["predict", "--experiment", "tiny", "--output", "of_test", "--ckpt_path", "run"]
    assert command(*predicted).status == 0
    done = command("export", "--ckpt_path", "run", "--format", "timm,onnx", "--output", "exported")
    assert done.status == 0, done.err
    card = Path("exported/README.md").read_text()
    assert "3 labels: `blue`, `green`, `red`" in card
    assert "type: mAP" in card
    assert "10 crops" in card
    # A run, a timm folder and an ONNX file have the same answers, without the test's crops.
    answers = {}
    images = ["--images", label_root / "images", "--format", "jsonl"]
    for name, path in (("run", "run"), ("timm", "exported"), ("onnx", "exported/model.onnx")):
        done = command("predict", "--ckpt_path", path, *images, "--output", f"of_{name}")
        assert done.status == 0, done.err
        lines = Path(f"of_{name}", "predictions.jsonl").read_text().splitlines()
        answers[name] = [json.loads(line) for line in lines]
    assert [each["labels"] for each in answers["run"]] == [e["labels"] for e in answers["onnx"]]
    assert [each["labels"] for each in answers["run"]] == [e["labels"] for e in answers["timm"]]
    first = answers["run"][0]
    assert list(first["probabilities"]) == NAMES
    reached = zip(NAMES, thresholds, strict=True)
    assert first["labels"] == [name for name, t in reached if first["probabilities"][name] >= t]
    done = command("predict", "--ckpt_path", "run", *images[:2], "--output", "as_csv")
    assert done.status == 0, done.err
    header, row = read("as_csv/predictions.csv")[:2]
    assert header == ["image", "labels", *(f"probability_{name}" for name in NAMES)]
    assert row[1] == ";".join(first["labels"])
    assert read("of_test/predictions.csv")[0] == header


def test_the_exports_answers_need_nothing_of_this_package(labels, command, label_root):
    onnxruntime = pytest.importorskip("onnxruntime")
    assert command(*FIT).status == 0
    assert command("export", "--ckpt_path", "run", "--format", "onnx", "--output", "x").status == 0
    session = onnxruntime.InferenceSession("x/model.onnx")
    noted = json.loads(session.get_modelmeta().custom_metadata_map["zoo_lightning"])
    assert noted["task"] == "multi-label"
    mean, std = (np.float32(noted["input"][key])[:, None, None] for key in ("mean", "std"))
    path = label_root / "images" / "testa_1.png"
    done = command("predict", "--ckpt_path", "run", "--images", path, "--output", "p")
    assert done.status == 0, done.err
    with Image.open(path) as image:
        pixels = np.float32(image.resize((43, 32), Image.Resampling.BILINEAR))[:, 5:37]
    images = ((pixels.transpose(2, 0, 1) / 255 - mean) / std)[None]
    [logits] = session.run(None, {"images": images})
    ours = [float(cell) for cell in read("p/predictions.csv")[1][2:]]
    assert 1 / (1 + np.exp(-logits[0])) == pytest.approx(ours, abs=0.02)
    assert len(noted["output"]["thresholds"]) == 3


@pytest.mark.parametrize("method", ["ensemble", "distillation", "greedy-soup"])
def test_methods_that_combine_finished_runs_take_labels(labels, command, method):
    labels(**{"trainer.max_steps": 2, "trainer.val_check_interval": 2})
    done = command(*FIT, "--method", method)
    assert done.status == 0, done.err
    summary = json.loads(Path("run/summary.json").read_text())
    assert 0 <= summary["validation"]["val/map"] <= 1
    assert 0 <= summary["test"]["test/map"] <= 1
    done = command("export", "--ckpt_path", "run", "--format", "onnx", "--output", "exported")
    assert done.status == 0, done.err


def test_sources_are_ranked_by_labels(labels, command):
    done = command("sources", "rank", "--experiment", "tiny")
    assert done.status == 0, done.err
    assert "labels that are there or not" in " ".join(done.out.split())


def test_a_comparison_is_by_mean_average_precision(labels, command):
    labels(**{"trainer.max_steps": 2, "trainer.val_check_interval": 2})
    done = command("compare", "--experiment", "tiny", "--methods", "soup,lite", "--seeds", "0",
                   "--run_dir", "both", "--no_costs")  # fmt: skip
    assert done.status == 0, done.err
    assert "test mAP, %" in done.out


def test_a_checkpoint_of_other_labels_is_refused(labels, command, label_root):
    assert command(*FIT).status == 0
    for part in ("train", "test"):
        file = label_root / f"{part}.csv"
        file.write_text(file.read_text().replace("blue", "azure"))
    tested = command("test", "--experiment", "tiny", "--ckpt_path", "run", "--output", "other")
    tested.refused("output 0 is class 'blue' in the checkpoint, 'azure' in the data")


def test_mistakes_in_the_test_file_stop_a_run_before_training(labels, command, label_root):
    with (label_root / "test.csv").open("a") as stream:
        stream.write("testa_0.png,red\n")
    command(*FIT).refused("test.csv, line 10", "is there already")
    file = label_root / "test.csv"
    file.write_text(file.read_text().replace("testa_0.png,red\n", "").replace("green", "grene"))
    command(*FIT).refused("'grene'", "Did you mean 'green'?")
    assert not list(Path("run").rglob("*.ckpt"))

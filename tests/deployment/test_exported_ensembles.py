"""Ensembles as one graph: it gives what the networks give together."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo_lightning import ClassificationTask, LandmarkTask, PlainBackbone, Predictor, ZooBackbone
from zoo_lightning.deployment.exporting import export
from zoo_lightning.methods.ensembles import joint_task
from zoo_lightning.methods.saving import save_ensemble
from zoo_lightning.prediction.models import open_model

IMAGES = {"image_size": 32, "mean": [0.5, 0.4, 0.5], "std": [0.2, 0.2, 0.3]}

CLASSES = {
    **IMAGES,
    "preprocessing": {"kind": "crop", "squeeze": None, "crops": 1},
    "classes": ["ant", "bee", "cat"],
}

POINTS = {
    **IMAGES,
    "preprocessing": {"kind": "square", "around": "image", "margin": 1.0},
    "num_points": 5,
    "scheme": "five",
    "flip": [1, 0, 2, 4, 3],
}

ZOO = ("test_resnet", ["random:1", "random:2"])


def saved(tasks, facts, folder):
    """An ensemble of tasks in ``folder``, by way of their runs' checkpoints."""
    for number, task in enumerate(tasks):
        content = {
            "zoo_lightning": {"task": type(task).__name__, "data": facts},
            "hyper_parameters": dict(task.hparams),
            "state_dict": task.state_dict(),
            "global_step": 7,
        }
        torch.save(content, f"run{number}.ckpt")
    save_ensemble([f"run{number}.ckpt" for number in range(len(tasks))], folder)
    return joint_task([task.eval() for task in tasks])


def run_program(folder, images):
    """What an exported program gives, and its manifest."""
    extra = {"zoo_lightning.json": ""}
    program = torch.export.load(f"{folder}/model.pt2", extra_files=extra)
    return program.module()(images), json.loads(extra["zoo_lightning.json"])


@pytest.fixture
def classes(tmp_path, monkeypatch):
    """Of a full zoo and an ordinary network, in ``both``."""
    monkeypatch.chdir(tmp_path)
    backbones = [ZooBackbone(*ZOO), PlainBackbone("test_resnet")]
    tasks = [ClassificationTask(backbone, num_classes=3) for backbone in backbones]
    for task in tasks:
        torch.nn.init.normal_(task.head.weight)
    return saved(tasks, CLASSES, "both")


@torch.no_grad()
def test_classes_of_networks_of_different_kinds_are_one_graph(classes, command):
    words = ("export", "--ckpt_path", "both", "--output", "out", "--format")
    command(*words, "timm").refused("an ensemble of 2 networks", "onnx or torch-export")
    command(*words, "onnx", "--fold").refused("--fold", "2 networks")
    done = command(*words, "onnx,torch-export")
    assert done.status == 0, done.err
    assert "note: one graph of 2 networks: zoo, scratch" in done.out
    images = torch.randn(5, 3, 32, 32)
    wanted = torch.stack([task(images).softmax(-1) for task in classes.networks()]).mean(0)
    [onnx] = open_model("out").run(images)
    program, manifest = run_program("out", images)
    assert torch.allclose(onnx.softmax(-1), wanted, atol=1e-5)
    assert torch.allclose(program.softmax(-1), wanted, atol=1e-5)
    assert manifest["method"] == "ensemble"
    methods = [each["method"] for each in manifest["members"]]
    assert methods == ["zoo", "scratch"]
    assert "- network 2: test_resnet, method scratch" in Path("out/README.md").read_text()
    files = [f"{number}.png" for number in range(3)]
    for number, file in enumerate(files):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    ours = [each.probabilities for each in Predictor("both")(files)]
    for model in ("both", "out/model.onnx"):
        words = (
            "predict",
            "--ckpt_path",
            model,
            "--images",
            *files,
            "--output",
            "found",
            "--overwrite",
        )
        done = command(*words)
        assert done.status == 0, done.err
        with Path("found/predictions.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        found = [float(row["probability_1"]) for row in rows]
        assert found == pytest.approx([each.max() for each in ours], abs=1e-4)


@pytest.mark.parametrize("head", ["coordinates", "heat maps"])
@torch.no_grad()
def test_points_are_averaged_and_so_are_their_mirror_images(head, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    maps = head == "heat maps"
    options = {"head": "heatmaps", "output": "stages"} if maps else {}
    output = options.pop("output", "pooled")
    tasks = []
    for _ in range(2):
        backbone = PlainBackbone("test_resnet", output=output)
        task = LandmarkTask(backbone, num_points=5, flip_test=True, **options)
        torch.nn.init.normal_((task.head.final if maps else task.head).weight, std=0.1)
        task.flip.copy_(torch.tensor(POINTS["flip"]))
        tasks.append(task)
    joint = saved(tasks, POINTS, "both")
    export("both", "onnx" if maps else "torch-export", "out", say=lambda line: None)
    images = torch.randn(3, 3, 32, 32)
    wanted = joint.points(images)
    assert not torch.allclose(wanted, joint.head.points(joint(images)), atol=1e-4)
    [exported] = open_model("out").run(images) if maps else run_program("out", images)[:1]
    [ours] = open_model("both").run(images)
    assert torch.allclose(exported, wanted, atol=1e-5)
    assert torch.allclose(ours, wanted, atol=1e-5)

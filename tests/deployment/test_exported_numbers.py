"""Exports of regression: numbers in the tables' units, without this package."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo_lightning import ImageNumbers, load_task, save_ensemble
from zoo_lightning.deployment.manifest import read_manifest
from zoo_lightning.errors import ConfigError

FIT = ("fit", "--experiment", "tiny")

FOREIGN = """
import json, sys
sys.modules["zoo_lightning"] = None
import numpy as np, onnxruntime, timm, torch
folder, images, result = sys.argv[1:]
images = np.load(images)
session = onnxruntime.InferenceSession(folder + "/model.onnx", providers=["CPUExecutionProvider"])
manifest = json.loads(session.get_modelmeta().custom_metadata_map["zoo_lightning"])
assert manifest["task"] == "regression" and manifest["output"]["targets"] == ["bright", "red"]
found = {"onnx": session.run(["numbers"], {"images": images})[0]}
program = torch.export.load(folder + "/model.pt2").module()
found["program"] = program(torch.from_numpy(images)).numpy()
if not manifest["members"]:
    model = timm.create_model("local-dir:" + folder, pretrained=True).eval()
    with torch.no_grad():
        found["timm"] = model(torch.from_numpy(images)).numpy()
np.savez(result, **found)
"""
"""What a user writes who has timm, torch and onnxruntime and not this package."""


@pytest.fixture
def fitted(tiny, number_root, command):
    """Train the experiment ``tiny`` on numbers with a seed, into a folder."""
    data = {"root": str(number_root), "image_size": 32, "batch_size": 4, "num_workers": 0}
    described = {"class_path": "ImageNumbers", "init_args": data}
    short = {"trainer.max_steps": 2, "trainer.val_check_interval": 2}
    tiny(**short, **{"model.class_path": "RegressionTask", "data": described})

    def fit(folder, seed=0):
        done = command(*FIT, "--run_dir", folder, "--seed_everything", seed, "--pictures", "false")
        assert done.status == 0, done.err
        return ImageNumbers(**data)

    return fit


def images_of(data):
    data.setup("test")
    batches = [data.on_after_batch_transfer(each, 0)["image"] for each in data.test_dataloader()]
    return torch.cat(batches)


def run_foreign(folder, images):
    np.save("images.npy", images.numpy())
    words = [sys.executable, "-c", FOREIGN, folder, "images.npy", "foreign.npz"]
    subprocess.run(words, check=True, capture_output=True, timeout=300)
    return np.load("foreign.npz")


def test_every_format_has_the_units_and_predicts_what_the_test_did(fitted, command, number_root):
    images = images_of(fitted("run"))
    done = command("export", "--ckpt_path", "run", "--format", "timm,onnx,torch-export",
                   "--output", "out")  # fmt: skip
    assert done.status == 0, done.err
    card = Path("out/README.md").read_text()
    assert "Targets: `bright`, `red`." in card
    assert "nmae" in card
    found = run_foreign("out", images)
    with torch.inference_mode():
        wanted = load_task("run")(images).numpy()
    assert set(found) == {"onnx", "program", "timm"}
    for name in found:
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-4)
    assert wanted[:, 1].mean() > 900  # in units
    folder = str(number_root / "images")
    tables = []
    for model in ("run", "out", "out/model.onnx"):
        output = f"predicted-{len(tables)}"
        done = command("predict", "--ckpt_path", model, "--images", folder, "--output", output)
        assert done.status == 0, done.err
        with Path(output, "predictions.csv").open(newline="") as stream:
            tables.append(list(csv.DictReader(stream)))
    assert [*tables[0][0]] == ["image", "bright", "red"]
    rows = {row["image"]: row for row in tables[0]}
    for index in range(4):
        given = rows[f"test{index:02d}.png"]
        assert float(given["red"]) == pytest.approx(wanted[index, 1], rel=1e-4)
    for table in tables[1:]:
        for ours, theirs in zip(tables[0], table, strict=True):
            assert float(ours["bright"]) == pytest.approx(float(theirs["bright"]), rel=1e-4)
    lines = command("predict", "--ckpt_path", "out", "--images", folder, "--output", "lines",
                    "--format", "jsonl")  # fmt: skip
    assert lines.status == 0, lines.err
    first = json.loads(Path("lines/predictions.jsonl").read_text().splitlines()[0])
    assert first["numbers"].keys() == {"bright", "red"}


def test_an_ensemble_of_runs_with_other_splits_is_one_graph(fitted, command):
    images = images_of(fitted("run"))
    fitted("other", seed=1)
    path = save_ensemble(["run", "other"], "joint.ckpt")
    done = command("export", "--ckpt_path", path, "--format", "onnx,torch-export",
                   "--output", "out")  # fmt: skip
    assert done.status == 0, done.err
    tasks = [load_task("run"), load_task("other")]
    assert not torch.equal(tasks[0].head.target_mean, tasks[1].head.target_mean)
    with torch.inference_mode():
        wanted = torch.stack([each(images) for each in tasks]).mean(0).numpy()
    found = run_foreign("out", images)
    for name in found:
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-4)


def test_a_manifest_without_targets_is_refused(fitted, command):
    fitted("run")
    assert (
        command("export", "--ckpt_path", "run", "--format", "timm", "--output", "out").status == 0
    )
    content = json.loads(Path("out/config.json").read_text())["zoo_lightning"]
    assert read_manifest(content, "config.json").task == "regression"
    for targets in ([], [1], None):
        content["output"]["targets"] = targets
        with pytest.raises(ConfigError, match="damaged"):
            read_manifest(content, "config.json")

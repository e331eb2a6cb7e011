"""``export``: what it writes computes what the run's own test judged by, without this package."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from zoo_lightning import ClassificationTask, ImageFolders, LandmarkCSV, load_task
from zoo_lightning.deployment import command as exporting
from zoo_lightning.deployment.formats import FORMATS, write_timm
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.prediction.models import open_model

FIT = ("fit", "--experiment", "tiny", "--run_dir", "run")
TWO_STEPS = {"trainer.max_steps": 2, "trainer.val_check_interval": 2}
BACKBONE = "model.init_args.backbone.init_args"

FOREIGN = """
import json, sys
sys.modules["zoo_lightning"] = None
import numpy as np, onnxruntime, timm, torch
from PIL import Image
kind, folder, result, *files = sys.argv[1:]
images = [Image.open(file).convert("RGB") for file in files]
session = onnxruntime.InferenceSession(folder + "/model.onnx", providers=["CPUExecutionProvider"])
manifest = json.loads(session.get_modelmeta().custom_metadata_map["zoo_lightning"])
side = manifest["input"]["size"][-1]
found = {}
if kind == "classes":
    model = timm.create_model("local-dir:" + folder, pretrained=True).eval()
    config = timm.data.resolve_data_config(model=model)
    transform = timm.data.create_transform(**config, is_training=False)
    batch = torch.stack([transform(image) for image in images])
    with torch.no_grad():
        found["timm"] = model(batch).numpy()
    batch = batch.numpy()
else:
    arrays = []
    for image in images:
        longer = max(image.size)
        square = Image.new("RGB", (longer, longer))
        square.paste(image, tuple((longer - length) // 2 for length in image.size))
        square = square.resize((side, side), Image.Resampling.BILINEAR)
        arrays.append(np.asarray(square, dtype=np.float32).transpose(2, 0, 1) / 255)
    mean, std = (np.array(manifest["input"][k], np.float32)[:, None, None] for k in ("mean", "std"))
    batch = (np.stack(arrays) - mean) / std
found["onnx"] = session.run(None, {"images": batch})[0]
np.savez(result, **found)
"""
"""What a user writes who has timm and onnxruntime and not this package."""


@pytest.fixture
def classes(tiny, class_root):
    """Write the experiment ``tiny`` on classes, changed."""

    def write(**changes):
        data = {"root": str(class_root), "image_size": 16, "batch_size": 4, "num_workers": 0}
        described = {"class_path": "ImageFolders", "init_args": data}
        tiny(
            **TWO_STEPS, **{"model.class_path": "ClassificationTask", "data": described}, **changes
        )

    return write


def run_foreign(kind, folder, files):
    """Outputs by those who do not have the package."""
    words = [sys.executable, "-c", FOREIGN, kind, str(folder), "foreign.npz", *map(str, files)]
    subprocess.run(words, check=True, capture_output=True, timeout=300)
    return np.load("foreign.npz")


def close(found, wanted):
    return float(np.abs(found - wanted).max()) <= 1e-5 * float(np.abs(wanted).max())


def refused(found, *words):
    found.refused(*words)
    assert not Path("out").exists()
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ["colours", pytest.param("flowers17", marks=pytest.mark.slow)])
def test_exported_classes_are_those_of_the_test_without_this_package(
    tiny, command, real_data, class_root, name
):
    root = class_root if name == "colours" else real_data(name)
    data = {"root": str(root), "image_size": 32, "batch_size": 64, "num_workers": 0}
    described = {"class_path": "ImageFolders", "init_args": data}
    tiny(**TWO_STEPS, **{"model.class_path": "ClassificationTask", "data": described})
    assert command(*FIT).status == 0
    done = command("export", "--ckpt_path", "run", "--format", "timm,onnx", "--output", "out")
    assert done.status == 0, done.err
    module = ImageFolders(**data)
    module.setup("test")
    files = [source for source, _ in module.test_set.samples]
    labels = np.array([label for _, label in module.test_set.samples])
    found = run_foreign("classes", "out", files)
    task = load_task("run")
    with torch.inference_mode():
        batches = (module.on_after_batch_transfer(b, 0) for b in module.test_dataloader())
        wanted = torch.cat([task(batch["image"]) for batch in batches]).numpy()
    assert close(found["timm"], wanted)
    assert close(found["onnx"], wanted)
    tested = json.loads(Path("run/summary.json").read_text())["test"]["test/acc"]
    assert float((found["onnx"].argmax(1) == labels).mean()) == pytest.approx(tested, abs=1e-6)
    assert json.loads(Path("out/config.json").read_text())["label_names"] == module.class_names


@pytest.mark.slow
def test_exported_points_are_those_of_the_test_without_this_package(tiny, command, real_data):
    root = real_data("faces68")
    data = {"root": str(root), "image_size": 32, "batch_size": 64, "num_workers": 0}
    described = {"class_path": "LandmarkCSV", "init_args": data}
    tiny(**TWO_STEPS, **{"data": described, "model.init_args.flip_test": True})
    assert command(*FIT).status == 0
    assert (
        command("export", "--ckpt_path", "run", "--format", "onnx", "--output", "out").status == 0
    )
    module = LandmarkCSV(**data)
    module.setup("test")
    truths = module.test_set.truths
    found = run_foreign("points", "out", [module.image_folder / t.name for t in truths])["onnx"]
    task = load_task("run")
    with torch.inference_mode():
        batches = (module.on_after_batch_transfer(b, 0) for b in module.test_dataloader())
        wanted = torch.cat([task.points(batch["image"]) for batch in batches]).numpy()
    assert close(found, wanted)
    inside = 32 * found.astype(np.float64)
    errors = []
    for points, truth in zip(inside, truths, strict=True):
        original = points @ truth.to_original[:, :2].T + truth.to_original[:, 2]
        away = np.linalg.norm(original - truth.original, axis=1).mean()
        errors.append(100 * away / truth.distances["interocular"])
    tested = json.loads(Path("run/summary.json").read_text())["test"]["test/nme"]
    assert np.mean(errors) == pytest.approx(tested, rel=1e-5)


KINDS = {
    "full coordinates": {f"{BACKBONE}.mode": "full"},
    "full heat maps, brightest cells": {
        f"{BACKBONE}.mode": "full",
        f"{BACKBONE}.output": "stages",
        "model.init_args.head": "heatmaps",
        "model.init_args.loss": "heatmap_mse",
        "model.init_args.decode": "taylor",
    },
    "lite heat maps and the mirror image": {
        f"{BACKBONE}.output": "map",
        "model.init_args.head": "heatmaps",
        "model.init_args.flip_test": True,
    },
    "an average": {"model.init_args.backbone": {
        "class_path": "PlainBackbone",
        "init_args": {"architecture": "test_resnet", "sources": ["random:1", "random:2"]},
    }},
}  # fmt: skip


QUICK = "full coordinates"


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[] if k == QUICK else [pytest.mark.slow]) for k in KINDS]
)
def test_points_of_every_kind_of_model_are_those_of_the_task(kind, tiny, command):
    tiny(**TWO_STEPS, **KINDS[kind])
    assert command(*FIT).status == 0
    done = command(
        "export", "--ckpt_path", "run", "--format", "onnx,torch-export", "--output", "out"
    )
    assert done.status == 0, done.err
    x = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        wanted = load_task("run").points(x)
    [found] = open_model("out").run(x)
    assert torch.allclose(found, wanted, atol=1e-5)
    extra = {"zoo_lightning.json": ""}
    program = torch.export.load("out/model.pt2", extra_files=extra)
    assert torch.allclose(program.module()(x), wanted, atol=1e-5)
    assert json.loads(extra["zoo_lightning.json"])["output"]["num_points"] == 68
    again = command("export", "--ckpt_path", "run", "--format", "onnx", "--output", "out")
    assert again.status == 2
    assert "--output out is not empty" in again.err


def test_a_full_zoo_is_folded_by_its_average_gates_and_the_cost_is_measured(classes, command):
    classes(**{f"{BACKBONE}.mode": "full"})
    assert command(*FIT).status == 0
    words = ("export", "--ckpt_path", "run", "--format", "timm", "--output", "out")
    refused(command(*words), "a full zoo has a kernel for each sample", "--fold")
    done = command(*words, "--fold")
    assert done.status == 0, done.err
    assert "val, accuracy (%): " in done.out
    assert "folded by its average gates" in done.out
    manifest = json.loads(Path("out/config.json").read_text())["zoo_lightning"]
    assert manifest["method"] == "zoo, folded by average gates"
    assert "weight" in "".join(load_task("run").fold().state_dict())


def test_what_timm_does_not_support_is_refused(tiny, command):
    tiny(**TWO_STEPS, **KINDS["lite heat maps and the mirror image"])
    assert command(*FIT).status == 0
    words = ("export", "--ckpt_path", "run", "--output", "out")
    refused(command(*words, "--format", "timm"), "HeatmapHead", "onnx")
    # Drawn faces say what swaps; classes and points of unknown order do not.
    path = Path("run/checkpoints/best.ckpt")
    content = torch.load(path, weights_only=True)
    content["state_dict"]["flip"].fill_(-1)
    torch.save(content, path)
    mirrored = command(*words, "--format", "onnx", "--mirrored", "true")
    refused(mirrored, "does not know which points swap")
    refused(command(*words, "--format", "onx"), "unknown format 'onx'", "Did you mean 'onnx'?")
    refused(command(*words, "--format", "onnx", "--ouput", "x"), "unknown options --ouput x")


def test_a_classifier_of_another_kind_takes_no_head(tmp_path):
    task = ClassificationTask(PlainBackbone("repvit_m0_9"), num_classes=3)
    with pytest.raises(ConfigError, match=r"Linear on pooled .* repvit_m0_9; use"):
        write_timm(task, None, None, tmp_path)


def test_checkpoints_that_cannot_be_exported_are_refused(classes, command, monkeypatch):
    classes()
    assert command(*FIT).status == 0
    path = Path("run/checkpoints/best.ckpt")
    words = ("export", "--ckpt_path", path, "--format", "timm", "--output", "out")
    content = torch.load(path, weights_only=True)
    torch.save(content | {"zoo_lightning": content["zoo_lightning"] | {"task": "Poetry"}}, path)
    refused(command(*words), "Poetry", "LandmarkTask")
    ours = {key: value for key, value in content["zoo_lightning"].items() if key != "data"}
    torch.save(content | {"zoo_lightning": ours}, path)
    done = command(*words)  # the run's configuration says what the checkpoint does not
    assert done.status == 0, done.err
    assert json.loads(Path("out/config.json").read_text())["label_names"] == ["ant", "bee", "cat"]
    options = content["hyper_parameters"] | {"phase": "waxing"}
    torch.save(content | {"hyper_parameters": options}, path)
    again = command("export", "--ckpt_path", path, "--format", "timm", "--output", "other")
    assert again.status == 2
    assert "does not fit this one" in again.err
    assert "'phase'; use the version that wrote it" in again.err
    torch.save(content | {"zoo_lightning": ours}, path)
    path.rename("alone.ckpt")
    again = command("export", "--ckpt_path", "alone.ckpt", "--format", "timm", "--output", "other")
    assert again.status == 2
    assert "alone.ckpt" in again.err
    assert "--experiment NAME" in again.err


def test_nothing_is_left_of_an_export_that_fails_and_the_old_one_stays(
    classes, command, monkeypatch
):
    classes()
    assert command(*FIT).status == 0
    words = ("export", "--ckpt_path", "run", "--output")
    Path("file").write_text("")
    assert "is a file" in command(*words, "file", "--format", "timm").err
    below = command(*words, "file/below", "--format", "timm")
    assert "cannot write file/below" in below.err

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setitem(FORMATS, "onnx", full_disk)
        refused(command(*words, "out", "--format", "timm,onnx"), "No space left on device")
        assert command(*words, "out", "--format", "timm").status == 0
        before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
        failed = command(*words, "out", "--format", "timm,onnx", "--overwrite")
        assert failed.status == 2
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before
    # Files of others stay, those of an earlier export go.
    Path("out/notes.txt").write_text("mine")
    words_again = (*words, "out", "--format", "torch-export", "--overwrite")
    assert command(*words_again).status == 0
    names = {path.name for path in Path("out").iterdir()}
    assert names == {"README.md", "model.pt2", "notes.txt"}
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    failed = command(*words, "other", "--format", "onnx")
    assert "pip install -e '.[export]'" in failed.err
    assert not Path("other").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_a_disk_that_takes_no_more_leaves_nothing(kind, classes, command, program):
    classes()
    assert command(*FIT).status == 0
    words = [*program.words, "export", "--ckpt_path", "run", "--output", "out", "--format", kind]
    # No file may become larger than 256 KiB, a fifth of what the weights need.
    limited = ["bash", "-c", 'ulimit -f 256; exec "$@"', "bash", *words]
    done = subprocess.run(
        limited, env=program.environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: cannot write out: ")
    assert "Traceback" not in done.stderr
    assert {path.name for path in Path().iterdir()} == {"classes", "experiments", "run"}


def test_an_export_that_computes_something_else_is_not_written(classes, command, monkeypatch):
    classes()
    assert command(*FIT).status == 0
    real = torch.export.load

    def damaged(*args, **options):
        program = real(*args, **options)
        with torch.no_grad():
            program.state_dict["head.weight"].mul_(1.5)
        return program

    monkeypatch.setattr(torch.export, "load", damaged)
    failed = command("export", "--ckpt_path", "run", "--output", "out", "--format", "torch-export")
    refused(failed, "outputs of the exported program differ")


def test_an_export_is_uploaded_to_the_hub_by_its_own_client(classes, command, monkeypatch):
    classes()
    assert command(*FIT).status == 0
    words = ("export", "--ckpt_path", "run", "--format", "timm", "--output", "out", "--push_to_hub")
    monkeypatch.setattr(exporting, "get_token", lambda: None)
    refused(command(*words, "me/flowers"), "needs a login")
    uploaded = {}

    class Api:
        def __init__(self, **options):
            pass

        def create_repo(self, name, private, exist_ok):
            return SimpleNamespace(repo_id=name, private=private, __str__=lambda: name)

        def upload_folder(self, repo_id, folder_path, commit_message):
            names = sorted(path.name for path in Path(folder_path).iterdir())
            uploaded[repo_id] = names

    monkeypatch.setattr(exporting, "get_token", lambda: "token")
    monkeypatch.setattr(exporting, "HfApi", Api)
    done = command(*words, "me/flowers", "--private")
    assert done.status == 0, done.err
    assert uploaded == {"me/flowers": ["README.md", "config.json", "model.safetensors"]}
    assert Path("out/README.md").read_text().startswith("---\nlibrary_name: timm\n")


def test_a_hub_that_refuses_leaves_the_export(monkeypatch, tmp_path):
    class Api:
        def __init__(self, **options):
            pass

        def create_repo(self, *args, **options):
            raise OSError("no route to host")

    monkeypatch.setattr(exporting, "HfApi", Api)
    with pytest.raises(ConfigError, match=f"no route to host. The export itself is in {tmp_path}"):
        exporting.push_to_hub(tmp_path, "me/flowers")

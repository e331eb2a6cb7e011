"""Tables and shards from the command line: fit, predict and export as with folders."""

import csv
import io
import json
import tarfile
from pathlib import Path

import pytest
import torch

import zoo_lightning
from zoo_lightning.sources.own_runs import SUMMARY

FIT = ["fit", "--experiment", "tiny", "--run_dir", "run"]


def write_shards(root: Path, classes: Path) -> dict:
    """Two shards of each part, of the images in folders."""
    root.mkdir()
    names = sorted(folder.name for folder in (classes / "train").iterdir())
    (root / "classes.txt").write_text("\n".join(names) + "\n")
    for part in ("train", "test"):
        for half in range(2):
            with tarfile.open(root / f"{part}-{half}.tar", "w") as archive:
                for path in sorted((classes / part).rglob("*.png"))[half::2]:
                    key = f"{path.parent.name}-{path.stem}"
                    label = str(names.index(path.parent.name)).encode()
                    for name, content in ((f"{key}.png", path.read_bytes()), (f"{key}.cls", label)):
                        entry = tarfile.TarInfo(name)
                        entry.size = len(content)
                        archive.addfile(entry, io.BytesIO(content))
    return {"class_path": "WebDatasetShards", "init_args": {"shuffle_buffer": 5}}


def write_table(root: Path, classes: Path) -> dict:
    """A data set that was saved, of the images in folders."""
    datasets = pytest.importorskip("datasets", reason="an extra: pip install -e '.[datasets]'")
    names = sorted(folder.name for folder in (classes / "train").iterdir())
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    splits = {}
    for part in ("train", "test"):
        paths = sorted((classes / part).rglob("*.png"))
        content = {
            "image": [{"bytes": path.read_bytes(), "path": None} for path in paths],
            "label": [path.parent.name for path in paths],
        }
        splits[part] = datasets.Dataset.from_dict(content, features=datasets.Features(kinds))
    datasets.DatasetDict(splits).save_to_disk(str(root))
    return {"class_path": "HuggingFaceData", "init_args": {}}


@pytest.mark.parametrize("write", [write_shards, write_table], ids=["shards", "table"])
def test_a_run_trains_predicts_and_is_exported(tiny, command, class_root, tmp_path, caplog, write):
    data = write(tmp_path / "stored", class_root)
    small = {"root": str(tmp_path / "stored"), "image_size": 32, "batch_size": 4, "num_workers": 0}
    data["init_args"] |= small
    changes = {
        "model.class_path": "ClassificationTask",
        "model.init_args.class_weights": "auto",
        "model.init_args.loss": "focal",
        "model.init_args.head_init": "probe",
        "average_weights": True,
        "data": data,
    }
    tiny(**changes)
    with caplog.at_level("INFO"):
        done = command(*FIT)
    assert done.status == 0, done.err
    assert "class_weights: auto weighs 3 classes" in caplog.text
    summary = json.loads(Path("run", SUMMARY).read_text())
    assert summary["test_images"] == 6
    with Path("run/classes.csv").open(newline="") as file:
        assert [row["class"] for row in csv.DictReader(file)] == ["ant", "bee", "cat"]

    content = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    options = content["zoo_lightning"]["data_options"]
    assert options["class_path"] == data["class_path"]
    assert options["balanced"] is False

    predicted = command("predict", "--experiment", "tiny", "--output", "out", "--ckpt_path", "run")
    assert predicted.status == 0, predicted.err
    with Path("out/predictions.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 7
    export = ["export", "--ckpt_path", "run", "--format", "timm", "--output", "exported"]
    exported = command(*export)
    assert exported.status == 0, exported.err


def test_a_resumed_run_keeps_what_says_how_classes_count(tiny, command, class_root, caplog):
    data = {"root": str(class_root), "image_size": 16, "batch_size": 4, "num_workers": 0}
    described = {"class_path": "ImageFolders", "init_args": data | {"balanced": True}}
    tiny(**{"model.class_path": "ClassificationTask", "data": described})
    with caplog.at_level("INFO"):
        done = command(*FIT)
    assert done.status == 0, done.err
    assert caplog.text.count("balanced: an epoch draws") == 1
    resumed = [*FIT, "--ckpt_path", "run"]
    command(*resumed, "--model.loss", "focal").refused("loss is 'cross_entropy'", "'focal'")
    command(*resumed, "--data.balanced", "false").refused("data.balanced is True")


def test_weighing_rare_classes_twice_is_refused_before_anything_is_computed(
    tiny, command, class_root, monkeypatch
):
    monkeypatch.setattr("zoo_lightning.cli.trainer.resolve_start", lambda *given: 1 / 0)
    data = {"root": str(class_root), "balanced": True}
    described = {"class_path": "ImageFolders", "init_args": data}
    tiny(**{"model.class_path": "ClassificationTask", "data": described})
    command(*FIT, "--model.class_weights", "auto").refused("data.balanced", "class_weights")
    assert not Path("run").exists()


@pytest.mark.parametrize("write", [write_shards, write_table], ids=["shards", "table"])
def test_grey_bands_of_stored_images_are_those_of_the_files(class_root, tmp_path, write):
    data = write(tmp_path / "stored", class_root)
    kind = getattr(zoo_lightning.data, data["class_path"])
    small = {"image_size": 16, "batch_size": 4, "num_workers": 0, "bands": "grey"}
    found = []
    for each in (kind(root=str(tmp_path / "stored"), **small),
                 zoo_lightning.data.ImageFolders(str(class_root), **small)):  # fmt: skip
        each.setup("test")
        pixels = torch.cat([batch["image"] for batch in each.test_dataloader()])
        assert pixels.shape[1] == 1
        found.append(sorted(pixels.flatten(1).float().mean(1).tolist()))
    assert found[0] == pytest.approx(found[1])

"""Artifacts of sources and checkpoints: what they hold, and that it is a reference where wanted."""

import hashlib
import json
from base64 import b64encode
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.loggers import WandbLogger
from safetensors.torch import load_file
from torch import nn

from zoo_lightning.loggers import selection as loggers
from zoo_lightning.loggers.lineage import (
    artifact_name,
    log_checkpoint,
    log_report,
    log_sources,
    log_start,
    source_artifact,
)
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.sources.spec import parse_source


def small_network() -> nn.Module:
    """A convolution and a norm layer."""
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


@pytest.fixture
def zoo(tmp_path):
    """A zoo of a file and of a seed."""
    torch.save(small_network().state_dict(), tmp_path / "mine.pth")
    return ZooBackbone(small_network, [str(tmp_path / "mine.pth"), "random:3"])


@pytest.fixture
def run(tmp_path):
    """A run that keeps its artifacts."""
    found = SimpleNamespace(id="a1", disabled=False, used=[], logged=[])
    found._log_artifact = lambda artifact, **options: found.used.append((artifact, options))
    found.log_artifact = lambda artifact, aliases: found.logged.append((artifact, aliases))
    found.loggers = [WandbLogger(save_dir=str(tmp_path), experiment=found)]
    return found


def entries(artifact):
    return dict(artifact.manifest.entries)


def test_sources_are_inputs_known_by_where_they_are_and_by_checksum(zoo, run, tmp_path):
    log_sources(run.loggers, zoo, tmp_path)
    (mine, options), (seeded, _) = run.used
    assert options["use_after_commit"]
    assert (mine.name, mine.type) == ("source-mine", "source")
    entry = entries(mine)["mine.pth"]
    content = (tmp_path / "mine.pth").read_bytes()
    assert entry.ref == (tmp_path / "mine.pth").resolve().as_uri()
    assert entry.digest == b64encode(hashlib.md5(content).digest()).decode()
    assert (entry.local_path, entry.size) == (None, len(content))
    assert mine.metadata["matched"] == "7 of 7 tensors matched"
    assert seeded.name == "source-random-3"
    assert list(entries(seeded)) == ["reference.txt"]


def test_sources_themselves_are_logged_on_request(zoo, run, tmp_path):
    log_sources(run.loggers, zoo, tmp_path, upload=True)
    (mine, _), (seeded, _) = run.used
    assert entries(mine)["mine.pth"].ref is None
    assert Path(entries(mine)["mine.pth"].local_path) == tmp_path / "mine.pth"  # not a copy
    file = entries(seeded)["random-3.safetensors"].local_path
    assert load_file(file).keys() == small_network().state_dict().keys()


@pytest.mark.parametrize(
    ("weights", "address"),
    [
        ("timm:resnet50.a1_in1k", "https://huggingface.co/timm/resnet50.a1_in1k"),
        ("hf-hub:org/repo@v2", "https://huggingface.co/org/repo"),
        ("https://example.org/a.pth#sha256=" + 64 * "0", "https://example.org/a.pth"),
    ],
)
def test_sources_on_the_web_are_referred_to_there_without_asking(weights, address):
    artifact = source_artifact(parse_source(weights), None)
    assert entries(artifact)["weights"].ref == address


def test_a_checkpoint_to_start_from_is_an_input(run, tmp_path):
    file = tmp_path / "earlier" / "checkpoints" / "best.ckpt"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    log_start(run.loggers, file)
    ((artifact, _),) = run.used
    assert (artifact.name, artifact.type) == ("start-earlier", "model")
    assert entries(artifact)["best.ckpt"].ref == file.as_uri()


def test_the_checkpoint_comes_out_with_the_summary(run, tmp_path):
    file = tmp_path / "best.ckpt"
    file.write_bytes(b"weights")
    diverged = {"test": {"nme": float("nan"), "loss": float("inf")}, "sizes": [1, 2]}
    log_checkpoint(run.loggers, file, diverged)
    ((artifact, aliases),) = run.logged
    assert (artifact.name, artifact.type, aliases) == ("model-a1", "model", ["best"])
    assert Path(entries(artifact)["best.ckpt"].local_path) == file
    assert artifact.metadata["test"]["loss"] == "inf"
    json.dumps(artifact.metadata, allow_nan=False)


def test_the_report_comes_out_as_an_artifact(run, tmp_path):
    file = tmp_path / "report.html"
    file.write_text("<!DOCTYPE html>")
    log_report(run.loggers, file)
    ((artifact, _),) = run.logged
    assert (artifact.name, artifact.type) == ("report-a1", "report")
    assert Path(entries(artifact)["report.html"].local_path) == file


def test_names_have_no_signs_that_are_refused():
    assert artifact_name("a+b/c d:é") == "a-b-c-d-"
    assert len(artifact_name("x" * 500)) == 128


def test_a_missing_file_stops_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "_failed", set())
    log_checkpoint(run.loggers, tmp_path / "absent.ckpt", {})
    assert loggers._failed == {"the best checkpoint"}

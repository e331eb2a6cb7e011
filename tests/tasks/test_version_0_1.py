"""Runs of version 0.1, see version_0_1/README.md, are opened, tested and exported."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from zoo_lightning import load_task

RUNS = Path(__file__).with_name("version_0_1")
NETWORKS = {
    "landmarks": "small_network.SmallNetwork",
    "classification": "small_network.SmallNetwork",
    "policy": "small_network.SmallPolicy",
}


@pytest.fixture(params=NETWORKS)
def run(request, tmp_path, monkeypatch):
    """Name of a run, a copy of which lies in the working folder."""
    if request.param == "policy":
        pytest.importorskip("ale_py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(RUNS))
    shutil.copytree(RUNS / request.param, request.param)
    return request.param


def test_its_test_gives_the_figures_that_it_had(run, command):
    done = command("test", "--ckpt_path", run, "--output", "out")
    assert done.status == 0, done.err
    before, now = (json.loads(Path(at, "summary.json").read_text())["test"] for at in (run, "out"))
    if run == "policy":  # its games are chosen otherwise since
        assert now["test/human_return"] == before["test/human_return"]
        assert now["test/episodic_length"] > 0
    else:
        assert {name: now[name] for name in before} == pytest.approx(before, rel=1e-4)


def test_it_is_exported(run, command):
    network = NETWORKS[run]
    words = ("export", "--ckpt_path", run, "--format", "torch-export", "--output", "out")
    done = command(*words, "--architecture", network)
    assert done.status == 0, done.err
    task = load_task(run, architecture=network)
    shape = (4, 84, 84) if run == "policy" else (3, 32, 32)
    images = torch.randint(256, (2, *shape), dtype=torch.uint8)
    if run != "policy":
        images = images / 255
    with torch.no_grad():
        exported = torch.export.load("out/model.pt2").module()(images)
        own = task.eval().fold()(images)
    own = own[0] if run == "policy" else own
    exported = exported[0] if isinstance(exported, (tuple, list)) else exported
    torch.testing.assert_close(exported.flatten(), own.flatten(), rtol=1e-3, atol=1e-4)

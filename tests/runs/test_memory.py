"""Peak memory is that of the device that a run computed on, whatever else the machine has."""

import json
from pathlib import Path

import pytest
import torch

from zoo_lightning.runs.length import peak_memory_mb


@pytest.fixture
def _with_gpu(monkeypatch):
    """A machine with a GPU, of which nothing is used."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device=None: 3 * 2**20)


@pytest.mark.usefixtures("_with_gpu")
def test_memory_is_measured_where_the_run_computed():
    assert peak_memory_mb(torch.device("cuda", 0)) == 3
    assert peak_memory_mb(torch.device("cpu")) > 50


@pytest.mark.usefixtures("tiny")
def test_a_run_on_the_cpu_of_a_machine_with_a_gpu_has_its_own_memory(command, monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device=None: 0)
    options = {"accelerator": "cpu", "max_steps": 2, "val_check_interval": 2}
    words = [word for name, value in options.items() for word in (f"--trainer.{name}", value)]
    done = command("fit", "--experiment", "tiny", "--run_dir", "run", *words)
    assert done.status == 0, done.err
    assert json.loads(Path("run/summary.json").read_text())["peak_memory_mb"] > 50

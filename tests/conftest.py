"""Fixtures of all tests: no network, no files left behind, the same random numbers every time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]
REAL_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory, monkeypatch):
    """Caches and Weights & Biases kept away from the user's own; a fixed seed."""
    home = tmp_path_factory.getbasetemp() / "home"
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    torch.manual_seed(0)


@pytest.fixture
def real_data():
    """Folder of a real data set by name; skips where the data sets are not beside the project."""

    def folder(name: str) -> Path:
        path = REAL_DATA / name
        if not path.is_dir():
            pytest.skip(f"the real data set {name} is not beside this checkout")
        return path

    return folder

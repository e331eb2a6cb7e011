"""The benchmark of PPO: every figure is there, and the variants really take turns."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import ppo  # noqa: E402


@pytest.mark.usefixtures("one_thread")
def test_every_figure_is_written(tmp_path, monkeypatch, one_thread):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ppo, "ENVS", 2)
    variants = ["plain", "lite", "least"]
    if all(map(importlib.util.find_spec, ("stable_baselines3", "cv2"))):
        variants.append("sb3")
    ppo.main(["--game", "pong", "--turns", "2", "--steps", "8", "--json", "speed.json",
          "--threads", "1", "--variants", *variants])  # fmt: skip
    found = json.loads(Path("speed.json").read_text())
    assert set(found["steps_per_second"]) == set(variants)
    assert all(len(found["seconds"][name]) == 2 for name in variants)
    if "sb3" in variants:
        assert found["plain_vs_sb3"] > 0
        assert found["lite_vs_sb3"] > 0

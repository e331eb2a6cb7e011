"""A zoo of twenty sources trains, evaluates, is saved and, where that is possible, folded."""

import json
from pathlib import Path

import pytest
import torch

from zoo_lightning import load_task

SOURCES = [f"random:{seed}" for seed in range(20)]


@pytest.mark.parametrize("mode", ["lite", pytest.param("full", marks=pytest.mark.slow)])
def test_twenty_sources_train_and_test(tiny, command, mode):
    options = "model.init_args.backbone.init_args"
    tiny(**{
        "trainer.max_steps": 2, "trainer.val_check_interval": 2, "data.init_args.num_points": 5,
        f"{options}.sources": SOURCES, f"{options}.mode": mode,
    })  # fmt: skip
    done = command("fit", "--experiment", "tiny", "--run_dir", "run")
    assert done.status == 0, done.err
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["parameters"]["training"] > 19 * summary["parameters"]["folded"]
    assert summary["test"]["test/nme"] > 0
    task = load_task("run").eval()
    assert {len(each.weight) for each in task.backbone.aggregated_layers().values()} == {20}
    if mode == "lite":
        images = torch.rand(2, 3, 32, 32)
        with torch.inference_mode():
            torch.testing.assert_close(task.fold()(images), task(images), rtol=1e-3, atol=1e-4)

"""Models that are made of finished runs: what they leave is a model to keep."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from zoo_lightning import load_task
from zoo_lightning.experiments.resolving import run_data
from zoo_lightning.methods.recipe import FinishedRun
from zoo_lightning.methods.recipes import RECIPES
from zoo_lightning.pipelines.deriving import derive
from zoo_lightning.prediction.predictor import Predictor
from zoo_lightning.runs.run_folder import write_summary


@pytest.fixture
def runs(finished):
    """Two finished runs of ``tiny``, whose heads differ."""
    other = shutil.copytree(finished, Path("other"))
    path = other / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    content["state_dict"]["head.bias"] += 0.01
    torch.save(content, path)
    return [FinishedRun(finished, "random-1", 5.0), FinishedRun(other, "random-2", 6.0)]


def made(recipe, runs, folder, run_test=True):
    """Make a model, and write its summary as those do that have it made."""
    data = run_data(runs[0].folder / "checkpoints" / "best.ckpt")
    found = derive(recipe, runs, data, False, folder, run_test)
    write_summary(folder, found)
    return json.loads((folder / "summary.json").read_text())


def test_an_ensemble_is_kept_and_predicts_tests_and_trains_nothing(runs, command):
    folder = Path("ensemble")
    summary = made(RECIPES["ensemble"], runs, folder)
    assert summary["checkpoint"] == "checkpoints/best.ckpt"
    assert summary["members"] == ["random-1", "random-2"]
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        both = [load_task(run.folder).points(images) for run in runs]
        points = load_task(folder).points(images)
    assert torch.allclose(points, torch.stack(both).mean(0), atol=1e-6)
    ones = [sum(p.numel() for p in load_task(run.folder).parameters()) for run in runs]
    assert summary["parameters"]["training"] == sum(ones)
    assert Predictor(folder).manifest.method == "ensemble"
    tested = command(
        "test", "--experiment", "tiny", "--ckpt_path", folder, "--output", "tested"
    )  # fmt: skip
    assert tested.status == 0, tested.err
    found = json.loads(Path("tested/summary.json").read_text())["test"]
    assert found["test/nme"] == pytest.approx(summary["test"]["test/nme"], rel=1e-5)
    fit = ("fit", "--experiment", "tiny", "--run_dir", "next")
    words = ("an ensemble of 2 networks", "done, other", "give the run of one of them")
    command(*fit, "--init_from", folder).refused(*words)
    command(*fit, "--ckpt_path", folder).refused("--ckpt_path", *words)
    command(*fit, "--sources", folder).refused("an ensemble of 2 networks", "one of them")


def test_a_soup_is_kept_while_test_data_are_held_out_and_can_be_trained_on(runs, command):
    folder = Path("soup")
    summary = made(RECIPES["greedy-soup"], runs, folder, run_test=False)
    assert (summary["checkpoint"], summary["test"]) == ("checkpoints/best.ckpt", {})
    assert load_task(folder).method == "greedy-soup"
    assert summary["preprocessing"].keys() == {"mean", "std"}
    fit = ("fit", "--experiment", "tiny", "--run_dir", "next", "--trainer.max_steps", 1)
    resumed = command(*fit, "--ckpt_path", folder)
    resumed.refused("made of finished runs (method greedy-soup)", "--init_from")
    done = command(*fit, "--trainer.val_check_interval", 1, "--init_from", folder)
    assert done.status == 0, done.err
    assert load_task("next").method == "lite"

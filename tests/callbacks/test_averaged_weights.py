"""Averaged weights: the average itself, norm statistics, checkpoints, tests, resuming."""

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from torch import nn
from typing_extensions import override

from zoo_lightning import load_task
from zoo_lightning.callbacks.averaged_weights import AveragedWeights
from zoo_lightning.data import DrawnFaces
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.runs.run_folder import read_checkpoint
from zoo_lightning.tasks import LandmarkTask

FIT = ("fit", "--experiment", "tiny", "--run_dir", "run", "--average_weights", "true")
KEY = "backbone.net.conv1.0.weight"


class Keep(Callback):
    """Keeps the weight after every step, and the one that is validated."""

    def __init__(self):
        super().__init__()
        self.steps, self.validated, self.norms = [], [], []

    @override
    def on_train_batch_end(self, trainer, pl_module, *args):
        self.steps.append(pl_module.state_dict()[KEY].clone())

    @override
    def on_validation_batch_start(self, trainer, pl_module, *args):
        self.validated.append(pl_module.state_dict()[KEY].clone())
        norm = next(each for each in pl_module.modules() if isinstance(each, nn.BatchNorm2d))
        self.norms.append(norm.running_mean.clone())


def fit(callbacks, backbone=None, **options):
    import lightning.pytorch as pl

    data = DrawnFaces(
        train_size=24, val_size=4, test_size=4, image_size=32, batch_size=8, num_workers=0
    )
    backbone = backbone or PlainBackbone("test_resnet")
    task = LandmarkTask(backbone, schedule="constant", lr=0.01)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks,
        **{"max_steps": 6, "val_check_interval": 3, "check_val_every_n_epoch": None, **options},
    )  # fmt: skip
    trainer.fit(task, data)
    return task, trainer, data


def test_the_average_looks_back_over_a_quarter_of_the_steps_so_far():
    keep = Keep()
    task, _, _ = fit([AveragedWeights(), keep])
    expected = []
    for k in range(len(keep.steps)):  # each step's weight is that of t (t + 1) (t + 2)
        shares = torch.tensor([float((t + 1) * (t + 2) * (t + 3)) for t in range(k + 1)])
        steps = torch.stack(keep.steps[: k + 1])
        expected.append(torch.einsum("t,t...->...", shares / shares.sum(), steps))
    torch.testing.assert_close(keep.validated[0], expected[2])
    torch.testing.assert_close(keep.validated[-1], expected[5])
    # Training went on from the weights themselves, and ends with the average.
    assert not torch.allclose(keep.steps[3], expected[2], atol=1e-4)
    torch.testing.assert_close(task.state_dict()[KEY], expected[5])


def test_norm_statistics_are_those_of_training_images_under_the_average():
    keep = Keep()
    task, _, data = fit([AveragedWeights(norm_images=16), keep])
    outputs = []
    stem = task.backbone.net.conv1[0]
    hook = stem.register_forward_hook(lambda m, i, y: outputs.append(y.detach().mean((0, 2, 3))))
    from zoo_lightning.transfer.ranking import training_batches

    for batch in training_batches(data, 16):
        task(data.on_after_batch_transfer(dict(batch), 0)["image"])
    hook.remove()
    torch.testing.assert_close(keep.norms[-1], torch.stack(outputs).mean(0), rtol=1e-4, atol=1e-5)


def test_the_gates_moving_average_is_that_of_the_newest_step():
    gates, validated = [], []

    class Gates(Callback):
        """Keeps the first layer's average after every step, and when it is validated."""

        @override
        def on_train_batch_end(self, trainer, pl_module, *args):
            gates.append(pl_module.state_dict()[key].clone())

        @override
        def on_validation_batch_start(self, trainer, pl_module, *args):
            validated.append(pl_module.state_dict()[key].clone())

    backbone = ZooBackbone("test_resnet", ["random:1", "random:2"], "lite", gate_init="released")
    key = f"backbone.net.{next(iter(backbone.aggregated_layers()))}.gate_ema"
    fit([AveragedWeights(), Gates()], backbone)
    assert not torch.equal(gates[1], gates[2])
    torch.testing.assert_close(validated[0], gates[2], rtol=0, atol=0)
    torch.testing.assert_close(validated[-1], gates[5], rtol=0, atol=0)


def test_training_is_the_same_with_and_without_an_average():
    plain, averaged = Keep(), Keep()
    torch.manual_seed(0)
    fit([plain])
    after = torch.rand(3)
    torch.manual_seed(0)
    fit([AveragedWeights(), averaged])
    torch.testing.assert_close(torch.rand(3), after, rtol=0, atol=0)
    for ours, theirs in zip(averaged.steps, plain.steps, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_resumed_run_that_had_no_step_left_keeps_its_validation(tiny, command):
    assert command(*FIT).status == 0
    summary = json.loads(Path("run/summary.json").read_text())
    Path("run/summary.json").unlink()  # stopped in its test
    assert command(*FIT, "--ckpt_path", "last").status == 0
    again = json.loads(Path("run/summary.json").read_text())
    assert again["validation"] == pytest.approx(summary["validation"])


def test_an_average_in_a_users_list_takes_the_place_of_ours(tiny, command):
    ours = [{"class_path": "zoo_lightning.callbacks.averaged_weights.AveragedWeights",
             "init_args": {"norm_images": 8}}]  # fmt: skip
    tiny(**{"trainer.callbacks": ours})
    assert command(*FIT).status == 0
    content = read_checkpoint(Path("run/checkpoints/last.ckpt"))
    assert [key for key in content["callbacks"] if "Averag" in key] == ["AveragedWeights"]
    going_on = ("fit", "--experiment", "tiny", "--run_dir", "run", "--ckpt_path", "last")
    assert command(*going_on).status == 0  # it is none of ours that is missing


def test_without_validations_weights_are_not_averaged(tiny, command):
    command(*FIT, "--trainer.limit_val_batches", "0").refused("limit_val_batches 0")


def test_an_average_needs_images_for_its_norm_statistics():
    with pytest.raises(ConfigError, match="norm_images must be at least 2"):
        AveragedWeights(norm_images=1)


def test_a_run_saves_tests_and_exports_the_average(tiny, command):
    done = command(*FIT, "--select", "final")
    assert done.status == 0, done.err
    best, last = (read_checkpoint(Path("run/checkpoints", f"{n}.ckpt")) for n in ("best", "last"))
    assert best["global_step"] == last["global_step"] == 8
    average, current = best["state_dict"][KEY], best["current_model_state"][KEY]
    assert not torch.allclose(average, current, atol=1e-5)
    torch.testing.assert_close(load_task("run").state_dict()[KEY], average)
    summary = json.loads(Path("run/summary.json").read_text())
    again = command(
        "test", "--experiment", "tiny", "--ckpt_path", "run", "--output", "tested",
    )  # fmt: skip
    assert again.status == 0, again.err
    tested = json.loads(Path("tested/summary.json").read_text())["test"]
    # What a fit tests is the average, too, and not the weights that training resumes from.
    assert tested == pytest.approx(summary["test"])
    assert summary["validation"].keys() == {"val/nme"}
    assert math.isfinite(summary["validation"]["val/nme"])


@pytest.mark.parametrize(
    ("options", "final"),
    [
        ((), True),  # few validation images
        (("--select", "auto"), False),  # enough of them
        pytest.param(("--select", "best"), False, marks=pytest.mark.slow),
        (("--average_weights", "false"), False),
        (("--average_weights", "false", "--select", "final"), True),
    ],
)
def test_few_validation_images_do_not_choose_among_averages(
    tiny, command, monkeypatch, options, final
):
    if options == ("--select", "auto"):
        monkeypatch.setattr("zoo_lightning.cli.trainer.FEW_IMAGES", 6)  # as many as there are
    assert command(*FIT, *options).status == 0
    content = read_checkpoint(Path("run/checkpoints/best.ckpt"))
    [keeper] = [v for k, v in content["callbacks"].items() if k.startswith("ModelCheckpoint")]
    assert (keeper["monitor"] == "step") is final


TASKS = {
    "ClassificationTask": {
        "experiment": "classification", "data.train_fraction": 0.02, "data.num_workers": 0,
        "trainer.max_steps": 6, "trainer.val_check_interval": 6, "trainer.limit_val_batches": 1,
        "trainer.limit_test_batches": 1,
    },
    "PPOTask": {
        "experiment": "rl", "data.num_envs": 2, "data.num_steps": 8, "data.total_steps": 96,
        "data.val_games": 1, "data.test_games": 1, "data.max_frames": 80,
    },
}  # fmt: skip
"""Small runs of other tasks than landmarks, by their options."""


@pytest.mark.parametrize("task", TASKS)
def test_other_tasks_average_their_weights_and_know_their_costs(
    task, tmp_path, monkeypatch, command
):
    if task == "PPOTask":
        pytest.importorskip("ale_py")
    monkeypatch.chdir(tmp_path)
    options = TASKS[task] | {
        "sources": "random:1,random:2", "run_dir": "run", "average_weights": "true",
        "trainer.accelerator": "cpu",
    }  # fmt: skip
    done = command("fit", *(f"--{name}={value}" for name, value in options.items()))
    assert done.status == 0, done.err
    content = read_checkpoint(Path("run/checkpoints/last.ckpt"))
    assert content["zoo_lightning"]["task"] == task
    average, current = content["state_dict"], content["current_model_state"]
    heads = [key for key in average if key.startswith("head.")]
    assert not all(torch.equal(average[key], current[key]) for key in heads)
    compute = json.loads(Path("run/summary.json").read_text())["compute"]
    assert compute["parts"]["training"] > 0
    assert compute["parts"]["validation"] > 0


def test_a_run_resumes_with_or_without_averages_as_it_began(tiny, command):
    assert command(*FIT).status == 0
    without = ("fit", "--experiment", "tiny", "--run_dir", "run", "--ckpt_path", "last")
    command(*without).refused("average_weights is False", "had True")
    # Its average is a start for others, and a source.
    assert command(*FIT[:3], "--run_dir", "new", "--init_from", "run").status == 0
    with_it = ("--run_dir", "new", "--ckpt_path", "last", "--average_weights", "true")
    command(*FIT[:3], *with_it).refused("average_weights is True", "had False")


def test_a_run_resumes_with_the_selection_that_it_began_with(tiny, command):
    alone = (*FIT[:5], "--average_weights", "false")
    assert command(*alone, "--select", "final").status == 0
    command(*alone, "--ckpt_path", "last", "--select", "best").refused(
        "select is best", "had final"
    )
    assert command(*alone, "--ckpt_path", "last").status == 0
    assert yaml.safe_load(Path("run/config.yaml").read_text())["select"] == "final"

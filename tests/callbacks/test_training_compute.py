"""What a training has cost, counted against formulas."""

import json
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from zoo_lightning.callbacks.training_compute import TrainingCompute
from zoo_lightning.cli.run_summary import total_compute
from zoo_lightning.data import DrawnFaces
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.nn.multiply_adds import (
    counting,
    known_multiply_adds,
    step_multiply_adds,
)
from zoo_lightning.tasks import LandmarkTask
from zoo_lightning.transfer import head_start
from zoo_lightning.transfer.head_start import logistic


def test_multiply_adds_of_layers_are_those_of_their_formulas():
    conv, linear = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Linear(8, 5)
    with counting() as found, torch.no_grad():
        linear(conv(torch.zeros(2, 3, 6, 6)).mean((2, 3)))
    assert found.multiply_adds == 2 * (8 * 3 * 9 * 36 + 8 * 5)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))
    # Forward, and the gradient of the weight; images need none.
    assert step_multiply_adds(network, (4, 3, 2, 2)) == 2 * 4 * 12 * 5
    assert all(parameter.grad is None for parameter in network.parameters())


def test_what_a_block_says_of_itself_counts_in_all_surrounding_blocks():
    matrix = torch.rand(3, 4)

    with counting() as outer:
        matrix @ matrix.T
        with counting() as inner:
            matrix @ matrix.T
            with known_multiply_adds() as known, counting() as within:
                matrix @ matrix.T
                known.multiply_adds = 5
            matrix @ matrix.T
    with pytest.raises(ZeroDivisionError), counting() as failed, known_multiply_adds():
        raise ZeroDivisionError

    assert within.multiply_adds == 36
    assert inner.multiply_adds == 36 + 5 + 36
    assert outer.multiply_adds == 36 + inner.multiply_adds
    assert failed.multiply_adds == 0


def test_the_solution_of_a_head_counts_as_if_each_operation_were_watched(monkeypatch):
    features, labels = torch.randn(40, 6).double(), torch.arange(40) % 3
    with counting() as found:
        weights, bias = logistic(features, labels, 3, 1e-2)
    with monkeypatch.context() as patch, counting() as watched:
        patch.setattr(head_start, "known_multiply_adds", counting)
        again = logistic(features, labels, 3, 1e-2)

    one_evaluation = 2 * 40 * 6 * 3  # forward, and backward to the weights
    assert found.multiply_adds == watched.multiply_adds - one_evaluation  # the one that is counted
    assert found.multiply_adds % one_evaluation == 0
    assert found.multiply_adds > 3 * one_evaluation
    torch.testing.assert_close((weights, bias), again, rtol=0, atol=0)


def fit(task, **options):
    data = DrawnFaces(
        train_size=24, val_size=6, test_size=4, image_size=32, batch_size=8, num_workers=0
    )
    compute = TrainingCompute()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[compute],
        **{"max_steps": 6, "val_check_interval": 3, "check_val_every_n_epoch": None, **options},
    )  # fmt: skip
    trainer.fit(task, data)
    return compute.parts


def test_steps_validations_and_preparation_are_counted():
    task = LandmarkTask(PlainBackbone("test_resnet"), head_init="probe")
    one = step_multiply_adds(task, (8, 3, 32, 32))
    with counting() as image, torch.no_grad():
        task.eval()(torch.zeros(1, 3, 32, 32))
    parts = fit(task)
    assert parts["training"] == 6 * one
    # One validation of six images after each third step; the sanity check is none of them.
    assert parts["validation"] == 2 * 6 * image.multiply_adds
    # The probe looks twice at the 24 images: for norm statistics and for features.
    assert parts["preparation"] == pytest.approx(2 * 24 * image.multiply_adds, rel=0.1)
    assert fit(LandmarkTask(PlainBackbone("test_resnet")))["preparation"] == 0


def test_micro_batches_of_a_step_are_all_counted():
    task = LandmarkTask(PlainBackbone("test_resnet"))
    one = step_multiply_adds(task, (8, 3, 32, 32))
    assert fit(task, max_steps=2, accumulate_grad_batches=3)["training"] == 6 * one


def test_ways_that_a_layer_tries_first_are_not_counted():
    backbone = ZooBackbone("test_resnet", ["random:1", "random:2"], plan="benchmark", align="none")
    task = LandmarkTask(backbone)
    one = step_multiply_adds(task, (8, 3, 32, 32))
    planned = ZooBackbone("test_resnet", ["random:1", "random:2"], plan="grouped", align="none")
    assert one < 2 * step_multiply_adds(LandmarkTask(planned), (8, 3, 32, 32))
    assert fit(task)["training"] == 6 * one


def test_the_cost_of_a_compiled_training_is_unknown_rather_than_nothing():
    task = LandmarkTask(PlainBackbone("test_resnet"))
    task.compiled_backbone = task.backbone
    compute, resumed = TrainingCompute(), TrainingCompute()
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    compute.on_train_start(trainer, task)
    assert compute.uncounted
    resumed.load_state_dict(compute.state_dict())
    found = total_compute(resumed, 1.0, {"multiply_adds": 5, "seconds": 1.0}, {}, 1)
    assert found["parts"] == {"preparation": None, "training": None, "validation": None, "start": 5}
    assert found["multiply_adds"] is None
    resumed.load_state_dict({"parts": dict.fromkeys(("training",), 7)})  # of an older version
    assert total_compute(resumed, 1.0, {}, {}, 1)["multiply_adds"] == 7


def test_counting_changes_nothing_and_ends_with_an_error(monkeypatch):
    def run(callbacks):
        pl.seed_everything(0)
        task = LandmarkTask(PlainBackbone("test_resnet"))
        if callbacks:
            fit(task)
        else:
            monkeypatch.setattr(TrainingCompute, "_begin", lambda self, module: None)
            fit(task)
            monkeypatch.undo()
        return task.state_dict()

    for ours, theirs in zip(run(True).values(), run(False).values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    task = LandmarkTask(PlainBackbone("test_resnet"))
    monkeypatch.setattr(task, "training_step", lambda *batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit(task)
    assert torch._C._len_torch_dispatch_stack() == 0


def test_a_run_reports_all_that_it_needed_and_a_resumed_one_likewise(tiny, command):
    tiny(**{"model.init_args.backbone.init_args.gate_init": "greedy"})
    words = ("fit", "--experiment", "tiny", "--run_dir")
    assert command(*words, "run").status == 0
    compute = json.loads(Path("run/summary.json").read_text())["compute"]
    assert compute["parts"].keys() == {"preparation", "training", "validation", "start"}
    assert all(compute["parts"][name] > 0 for name in ("training", "validation", "start"))
    assert compute["multiply_adds"] == sum(compute["parts"].values())
    again = command(*words, "run", "--ckpt_path", "last")
    assert again.status == 0, again.err
    resumed = json.loads(Path("run/summary.json").read_text())["compute"]
    assert resumed["parts"] == compute["parts"]  # of the whole training, though no step was left
    # A student's cost contains its teacher's.
    taught = command(
        *words, "taught", "--model.teachers", "[run]",
        "--model.init_args.backbone.init_args.gate_init", "sum_to_one",
    )  # fmt: skip
    assert taught.status == 0, taught.err
    parts = json.loads(Path("taught/summary.json").read_text())["compute"]["parts"]
    assert parts["teachers"] == compute["multiply_adds"]
    assert parts["training"] > compute["parts"]["training"]

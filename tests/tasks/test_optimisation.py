"""Optimisation of a task: parameter groups with rates of their own, schedules, optimisers."""

import math
from types import SimpleNamespace

import pytest
from torch import nn

from zoo_lightning import __version__
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.tasks import LandmarkTask
from zoo_lightning.tasks.optimisation import parameter_groups, part_of


def zoo(**options) -> ZooBackbone:
    """A small lite zoo of two random sources."""
    return ZooBackbone("test_resnet", ["random:1", "random:2"], **{"mode": "lite", **options})


def small_network() -> nn.Sequential:
    """A convolution with a bias, whose features are the channels' averages."""
    pooled = (nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(nn.Conv2d(3, 4, 3), *pooled)
    network.input_size = (3, 16, 16)
    return network


def landmarks(backbone=None, **options) -> LandmarkTask:
    """A task of five points."""
    return LandmarkTask(backbone or PlainBackbone("test_resnet"), 5, **options)


def groups_of(task) -> list[dict]:
    """Parameter groups of a task's optimiser."""
    return parameter_groups(task.named_parameters(), task.hparams)


def test_parameters_are_grouped_by_part_with_their_rates():
    task = landmarks(zoo(), lr=0.1, head_lr_factor=2, gate_lr_factor=3, alignment_lr_factor=5)
    groups = {group["name"]: group for group in groups_of(task)}
    rates = {name: group["lr"] for name, group in groups.items()}
    assert rates == pytest.approx(
        {
            "backbone": 0.1,
            "backbone_no_decay": 0.1,
            "head": 0.2,
            "head_no_decay": 0.2,
            "gates_no_decay": 0.3,
            "alignment_no_decay": 0.5,
        }
    )
    grouped = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in task.parameters())


def test_only_kernels_and_the_heads_matrix_decay():
    task = landmarks(zoo(), weight_decay=0.25)
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    decaying = set()
    for group in groups_of(task):
        assert group["weight_decay"] in (0.0, 0.25)
        if group["weight_decay"]:
            decaying |= {names[id(parameter)] for parameter in group["params"]}
    assert "head.weight" in decaying
    assert "backbone.net.conv1.0.weight" in decaying
    kernels = {f"backbone.net.{name}.weight" for name in task.backbone.aggregated_layers()}
    assert decaying == kernels | {"head.weight"}


def test_biases_of_a_zoo_are_no_matrices_and_do_not_decay():
    task = LandmarkTask(ZooBackbone(small_network, ["random:1", "random:2"]), 5, weight_decay=0.25)
    biases = [layer.bias for layer in task.backbone.aggregated_layers().values()]
    assert biases[0].shape == (2, 4)
    (group,) = [g for g in groups_of(task) if any(p is biases[0] for p in g["params"])]
    assert group["weight_decay"] == 0


def test_everything_decays_as_in_the_authors_code_if_asked():
    groups = groups_of(landmarks(zoo(), weight_decay=0.25, decay_all=True))
    assert {group["weight_decay"] for group in groups} == {0.25}
    assert {group["name"] for group in groups} == {"backbone", "head", "gates", "alignment"}


def test_plain_networks_have_neither_gates_nor_alignment():
    groups = groups_of(landmarks(weight_decay=0.1))
    assert {group["name"] for group in groups} == {
        "backbone",
        "backbone_no_decay",
        "head",
        "head_no_decay",
    }


def test_frozen_parameters_are_left_to_themselves():
    task = landmarks(zoo())
    task.head.requires_grad_(False)
    assert not any(group["name"].startswith("head") for group in groups_of(task))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("head.weight", "head"),
        ("backbone.net.layer1.0.conv1.gate.reduce.weight", "gates"),
        ("backbone.net.layer1.0.conv1.alignment", "alignment"),
        ("backbone.net.layer1.0.conv1.weight", "backbone"),
        ("backbone.net.se.gate.weight", "gates"),
        ("backbone.net.head.weight", "backbone"),
    ],
)
def test_a_parameters_part_is_told_by_its_name(name, part):
    assert part_of(name) == part


def rates_over(task, steps: int) -> list[float]:
    """Learning rate of the backbone before each step, and after the last."""
    task._trainer = SimpleNamespace(estimated_stepping_batches=steps)
    optimization = task.configure_optimizers()
    optimizer = optimization["optimizer"]
    scheduler = optimization["lr_scheduler"]["scheduler"]
    assert optimization["lr_scheduler"]["interval"] == "step"
    rates = [optimizer.param_groups[0]["lr"]]
    for step in range(steps):
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
            rates.append(optimizer.param_groups[0]["lr"])
    task._trainer = None
    return rates


def test_one_cycle_rises_over_the_warmup_and_falls_to_nothing():
    rates = rates_over(landmarks(schedule="onecycle", lr=0.1, warmup=0.25), 20)
    assert rates.index(max(rates)) == 4
    assert max(rates) == pytest.approx(0.1)
    assert rates[0] == pytest.approx(0.004)
    assert rates[-1] < 1e-5
    assert rates[:5] == sorted(rates[:5])
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_the_cosine_the_steps_and_the_constant_rate():
    cosine = rates_over(landmarks(schedule="cosine", lr=0.1), 10)
    expected = [0.05 * (1 + math.cos(math.pi * step / 10)) for step in range(10)]
    assert cosine == pytest.approx(expected)
    steps = rates_over(landmarks(schedule="step", milestones=[2, 4], lr=0.1), 6)
    assert steps == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    shares = rates_over(landmarks(schedule="step", milestones=[0.5, 0.75], lr=0.1), 8)
    assert shares == pytest.approx([0.1] * 4 + [0.01] * 2 + [0.001] * 2)
    mixed = rates_over(landmarks(schedule="step", milestones=[1, 0.5], lr=0.1), 6)
    assert mixed == pytest.approx([0.1, 0.01, 0.01, 0.001, 0.001, 0.001])
    linear = rates_over(landmarks(schedule="linear", lr=0.1), 5)
    assert linear == pytest.approx([0.1, 0.08, 0.06, 0.04, 0.02])
    assert rates_over(landmarks(schedule="constant", lr=0.1), 4) == [0.1] * 4


def test_parts_keep_their_ratio_over_one_cycle():
    task = landmarks(zoo(), lr=0.1, gate_lr_factor=10.0)
    task._trainer = SimpleNamespace(estimated_stepping_batches=8)
    optimization = task.configure_optimizers()
    groups = {group["name"]: group for group in optimization["optimizer"].param_groups}
    for _ in range(7):
        optimization["optimizer"].step()
        optimization["lr_scheduler"]["scheduler"].step()
        assert groups["gates_no_decay"]["lr"] == pytest.approx(10 * groups["backbone"]["lr"])


def test_a_schedule_needs_an_end_but_a_constant_rate_does_not():
    for schedule in ("onecycle", "cosine"):
        task = landmarks(schedule=schedule)
        task._trainer = SimpleNamespace(estimated_stepping_batches=math.inf)
        with pytest.raises(ConfigError, match="needs the training's length"):
            task.configure_optimizers()
    task = landmarks(schedule="constant")
    task._trainer = SimpleNamespace(estimated_stepping_batches=math.inf)
    task.configure_optimizers()
    checkpoint = {}
    task.on_save_checkpoint(checkpoint)
    ours = checkpoint["zoo_lightning"]
    assert ours["task"] == "LandmarkTask"
    assert ours["total_steps"] is None
    assert ours["version"] == __version__
    assert ours["data"] == {}
    data = SimpleNamespace(facts=lambda: {"image_size": 32})
    task._trainer = SimpleNamespace(estimated_stepping_batches=math.inf, datamodule=data)
    task.on_save_checkpoint(checkpoint)
    assert checkpoint["zoo_lightning"]["data"] == {"image_size": 32}


def test_the_backbone_is_told_how_far_the_training_is():
    task = landmarks()
    for steps, progress in ((8, 0.25), (math.inf, 1.0)):
        task._trainer = SimpleNamespace(global_step=2, estimated_stepping_batches=steps)
        task.on_train_batch_start(None, 0)
        assert task.backbone.progress == progress


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lamb"])
def test_optimisers_are_timms(optimizer):
    task = landmarks(optimizer=optimizer, momentum=0.8, schedule="constant")
    found = task.configure_optimizers()["optimizer"]
    assert type(found).__name__.lower() == optimizer
    if optimizer == "sgd":
        assert found.defaults["momentum"] == 0.8
        assert found.defaults["nesterov"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": "adamv"}, "Did you mean 'adam"),
        ({"schedule": "step"}, "milestones"),
        ({"schedule": "step", "milestones": [0.0, 2]}, "milestones"),
        ({"lr": -1.0}, "lr must be"),
        ({"warmup": 1.0}, "warmup"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        landmarks(**options)

"""Tasks: losses, parameter groups, schedules, the head's start, and that they learn."""

import math
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

from zoo_lightning.backbone import ZooBackbone
from zoo_lightning.callbacks.gate_ema import GateEMA
from zoo_lightning.data.classification import ImageFolders
from zoo_lightning.data.drawn_faces import DrawnFaces
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.tasks import ClassificationTask, LandmarkTask
from zoo_lightning.tasks.base import part_of
from zoo_lightning.tasks.losses import LOSSES, l1, smooth_l1, wing


def zoo(**options) -> ZooBackbone:
    """A small lite zoo of two random sources."""
    return ZooBackbone("test_resnet", ["random:1", "random:2"], **{"mode": "lite", **options})


def landmarks(backbone=None, **options) -> LandmarkTask:
    """A task of five points."""
    return LandmarkTask(backbone or PlainBackbone("test_resnet"), 5, **options)


def trainer_for(folder, **options) -> pl.Trainer:
    """A quiet Trainer that keeps nothing."""
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": str(folder),
    }
    return pl.Trainer(**(quiet | options))


# Losses


def fractions(*pixels: float) -> torch.Tensor:
    """Fractions of the image ``(1, K, 2)`` from coordinates in a 256-pixel image."""
    return torch.tensor(pixels).view(1, -1, 2) / 256


def test_wing_is_logarithmic_below_its_width_and_linear_above():
    # By hand: 10 ln(1 + 1/2) = 4.0547; at 10 pixels both branches give 10 ln 6 = 17.9176.
    zero = fractions(0, 0)
    assert wing(fractions(1, -1), zero).item() == pytest.approx(10 * math.log(1.5), rel=1e-5)
    assert wing(fractions(9.9999, 9.9999), zero).item() == pytest.approx(17.9176, abs=1e-3)
    assert wing(fractions(10.0001, 10.0001), zero).item() == pytest.approx(17.9176, abs=1e-3)
    assert wing(fractions(30, 30), zero).item() == pytest.approx(20 + 17.9176, abs=1e-3)
    assert wing(fractions(30, 0), zero).item() == pytest.approx((20 + 17.9176) / 2, abs=1e-3)


def test_l1_and_smooth_l1_count_in_pixels_of_a_256_pixel_image():
    zero = fractions(0, 0)
    assert l1(fractions(3, -1), zero).item() == pytest.approx(2)
    assert smooth_l1(fractions(0.5, 3), zero).item() == pytest.approx((0.125 + 2.5) / 2)


def reference(name: str, error: np.ndarray) -> np.ndarray:
    """The losses as their papers write them, of errors in pixels."""
    size = np.abs(error)
    if name == "l1":
        return size
    if name == "smooth_l1":
        return np.where(size < 1, 0.5 * size**2, size - 0.5)
    constant = 10 - 10 * np.log(1 + 10 / 2)
    return np.where(size < 10, 10 * np.log(1 + size / 2), size - constant)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_agree_with_numpy(name):
    rng = np.random.default_rng(0)
    pred, target = rng.uniform(0, 1, (2, 4, 7, 2))
    expected = reference(name, 256 * (pred - target)).mean()
    found = LOSSES[name](torch.from_numpy(pred), torch.from_numpy(target))
    assert found.item() == pytest.approx(expected, rel=1e-12)
    assert LOSSES[name](torch.from_numpy(pred), torch.from_numpy(pred)).item() == 0


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_have_finite_gradients_everywhere(name):
    pred = torch.linspace(-0.1, 0.1, 42, dtype=torch.float64).view(1, 21, 2).requires_grad_()
    LOSSES[name](pred, torch.zeros_like(pred)).backward()
    assert torch.isfinite(pred.grad).all()
    assert (pred.grad * pred.detach() >= 0).all()  # towards the target


# Optimisation


def test_parameters_are_grouped_by_part_with_their_rates():
    task = landmarks(zoo(), lr=0.1, head_lr_factor=2, gate_lr_factor=3, alignment_lr_factor=5)
    groups = {group["name"]: group for group in task.parameter_groups()}
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
    for group in task.parameter_groups():
        assert group["weight_decay"] in (0.0, 0.25)
        if group["weight_decay"]:
            decaying |= {names[id(parameter)] for parameter in group["params"]}
    assert "head.weight" in decaying
    assert "backbone.net.conv1.0.weight" in decaying
    kernels = {f"backbone.net.{name}.weight" for name in task.backbone.aggregated_layers()}
    assert decaying == kernels | {"head.weight"}


def test_everything_decays_as_in_the_authors_code_if_asked():
    groups = landmarks(zoo(), weight_decay=0.25, decay_all=True).parameter_groups()
    assert {group["weight_decay"] for group in groups} == {0.25}
    assert {group["name"] for group in groups} == {"backbone", "head", "gates", "alignment"}


def test_plain_networks_have_neither_gates_nor_alignment():
    groups = landmarks(weight_decay=0.1).parameter_groups()
    assert {group["name"] for group in groups} == {
        "backbone",
        "backbone_no_decay",
        "head",
        "head_no_decay",
    }


def test_frozen_parameters_are_left_to_themselves():
    task = landmarks(zoo())
    task.head.requires_grad_(False)
    assert not any(group["name"].startswith("head") for group in task.parameter_groups())


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
    assert checkpoint["zoo_lightning"] == {"task": "LandmarkTask", "total_steps": None}


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
        ({"lr": -1.0}, "lr must be"),
        ({"warmup": 1.0}, "warmup"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        landmarks(**options)


# Landmarks


def test_a_new_head_starts_from_the_training_sets_mean_shape(tmp_path):
    task = landmarks(lr=0.0, schedule="constant")
    data = DrawnFaces(30, 4, 4, 32, 5, 4, num_workers=0)
    trainer_for(tmp_path, max_steps=1, limit_val_batches=0).fit(task, datamodule=data)
    points = torch.stack([data.train_set[0, index]["points"] for index in range(30)])
    torch.testing.assert_close(task.head.bias.view(5, 2), points.mean(dim=0) / 32)


def test_given_weights_keep_their_head(tmp_path):
    task = landmarks(lr=0.0, schedule="constant")
    task.weights_given = True
    data = DrawnFaces(8, 4, 4, 32, 5, 4, num_workers=0)
    trainer_for(tmp_path, max_steps=1, limit_val_batches=0).fit(task, datamodule=data)
    assert (task.head.bias == 0.5).all()


def test_outputs_are_fractions_and_predictions_pixels():
    task = landmarks().eval()
    data = DrawnFaces(4, 4, 4, 32, 5, 4, num_workers=0)
    data.setup("test")
    batch = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    with torch.no_grad():
        fractions, found = task(batch["image"]), task.predict_step(batch)
    assert fractions.shape == (4, 5, 2)
    torch.testing.assert_close(found["input"], 32 * fractions)
    torch.testing.assert_close(found["original"], found["input"])  # drawn at the input's size


def test_a_head_for_other_points_than_the_data_have_is_refused(tmp_path):
    task = landmarks()
    with pytest.raises(ConfigError, match=r"5 points, the data have 68.*num_points"):
        trainer_for(tmp_path, max_steps=1).fit(task, datamodule=DrawnFaces(8, 4, 4, 32, 68, 4, 0))


def test_coordinates_need_pooled_features():
    with pytest.raises(ConfigError, match="pooled"):
        LandmarkTask(PlainBackbone("test_resnet", output="map"))


def test_zoos_alone_get_the_gates_average():
    assert any(isinstance(each, GateEMA) for each in landmarks(zoo()).configure_callbacks())
    assert landmarks().configure_callbacks() == []


def test_folding_a_task_gives_its_own_output():
    task = landmarks(zoo()).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = task(images).flatten(1)
        torch.testing.assert_close(task.fold()(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["lite", "full"])
def test_a_landmark_task_learns_more_than_the_mean_shape(tmp_path, mode):
    torch.manual_seed(0)
    data = DrawnFaces(256, 64, 4, 64, 68, 16, num_workers=0)
    start = {"gate_init": [0.9, 0.1], "norm_weights": "gates"}
    sources = ["builtin:faces5", "builtin:rotation"]
    task = LandmarkTask(ZooBackbone("test_resnet", sources, mode=mode, **start), 68)
    data.setup("fit")
    nn.init.zeros_(task.head.weight)
    shapes = torch.stack([data.train_set[0, index]["points"] for index in range(256)]) / 64
    with torch.no_grad():
        task.head.bias.copy_(shapes.mean(dim=0).flatten())
    trainer = trainer_for(
        tmp_path, max_steps=80, max_epochs=-1, check_val_every_n_epoch=None, val_check_interval=80
    )
    mean_shape = trainer.validate(task, datamodule=data, verbose=False)[0]["val/nme"]
    trainer.fit(task, datamodule=data)
    assert trainer.callback_metrics["val/nme"] < 0.7 * mean_shape


# Classification


def test_a_classification_task_learns_colours_and_logs_its_metrics(tmp_path, class_root):
    torch.manual_seed(0)
    data = ImageFolders(str(class_root), 32, 6, num_workers=0, jitter=0.0, val_fraction=0.2)
    task = ClassificationTask(zoo(), 3, lr=3e-3)
    trainer = trainer_for(tmp_path, max_steps=25, limit_val_batches=0)
    trainer.fit(task, datamodule=data)
    found = trainer.test(task, datamodule=data, verbose=False)[0]
    assert set(found) == {"test/acc", "test/acc5", "test/loss"}
    assert found["test/acc"] == 1
    assert found["test/acc5"] == 1
    batch = {"image": torch.randn(2, 3, 32, 32)}
    torch.testing.assert_close(task.predict_step(batch).sum(dim=1), torch.ones(2))


def test_a_head_for_other_classes_than_the_data_have_is_refused(tmp_path, class_root):
    task = ClassificationTask(PlainBackbone("test_resnet"), 10)
    data = ImageFolders(str(class_root), 32, 6, num_workers=0)
    with pytest.raises(ConfigError, match=r"10 classes, the data have 3.*num_classes"):
        trainer_for(tmp_path, max_steps=1).fit(task, datamodule=data)

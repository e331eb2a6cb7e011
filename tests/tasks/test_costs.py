"""Options that change time and memory only: compiling, checkpointing, fused optimisers."""

import copy
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch

from zoo_lightning import ClassificationTask, ImageFolders, PlainBackbone, PPOTask, ZooBackbone
from zoo_lightning.callbacks.training_compute import is_compiled
from zoo_lightning.errors import ConfigError
from zoo_lightning.tasks.compatibility import check_resumed
from zoo_lightning.tasks.optimisation import choose_fused

SOURCES = ["random:1", "random:2"]


def trained(class_root, architecture="test_resnet", gating="sigmoid", size=32, **options):
    torch.manual_seed(0)
    backbone = ZooBackbone(architecture, SOURCES, mode="lite", gating=gating)
    task = ClassificationTask(backbone, num_classes=3, lr=1e-3, schedule="constant", **options)
    data = ImageFolders(root=str(class_root), image_size=size, batch_size=6, num_workers=0)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=3, max_epochs=-1, limit_val_batches=0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, data)
    return task


@pytest.mark.parametrize("gating", ["sigmoid", "shared"])
def test_activations_computed_again_change_nothing(class_root, gating):
    expected = trained(class_root, gating=gating).state_dict()
    task = trained(class_root, gating=gating, checkpoint_activations=True)
    assert task.backbone.net.grad_checkpointing
    for key, value in task.state_dict().items():  # norm statistics and gate averages, too
        assert torch.equal(value, expected[key]), key
    norms = [m for m in task.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(norm.momentum == 0.1 for norm in norms)


def test_activations_are_really_computed_again(class_root):
    backbone = ZooBackbone("test_resnet", SOURCES, mode="full")
    ClassificationTask(backbone, num_classes=3, checkpoint_activations=True)
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    x = torch.randn(2, 3, 32, 32)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        backbone(x)
    with_stages, kept = sum(kept), []
    backbone.net.set_grad_checkpointing(False)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        backbone(x)
    assert with_stages < sum(kept) / 2


@pytest.mark.parametrize(
    ("backbone", "options", "reason"),
    [
        ("nature_cnn", {}, "has no stages"),
        ("test_resnet", {"compile": True}, "leave one of them out"),
    ],
)
def test_what_cannot_be_checkpointed_is_refused(backbone, options, reason):
    kind, more = (PPOTask, {}) if backbone == "nature_cnn" else (ClassificationTask, {})
    with pytest.raises(ConfigError, match=reason) as caught:
        kind(PlainBackbone(backbone), checkpoint_activations=True, **options, **more)
    assert "checkpoint_activations" in str(caught.value)


def test_a_compiled_training_learns_what_an_ordinary_one_learns(class_root, monkeypatch):
    expected = trained(class_root).state_dict()
    compiler, graphs = torch.compile, []

    def quickly(function, **options):
        return compiler(function, backend="aot_eager", fullgraph=True, **options)

    monkeypatch.setattr(torch, "compile", lambda f, **o: graphs.append(f) or quickly(f, **o))
    task = trained(class_root, compile=True)
    assert len(graphs) == 1
    assert is_compiled(task)
    assert task.state_dict().keys() == expected.keys()
    for key, value in task.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-4, msg=key)
    copy.deepcopy(task)  # as averaged weights do


def test_fused_optimisers_are_taken_on_gpus_where_nothing_speaks_against_it():
    assert choose_fused(None, "adamw", "cuda", scaled=False) is True
    assert choose_fused(None, "adamw", "cuda", scaled=True) is None
    assert choose_fused(None, "lamb", "cuda", scaled=False) is None
    assert choose_fused(None, "adamw", "cpu", scaled=False) is None
    assert choose_fused(True, "sgd", "cpu", scaled=False) is True
    assert choose_fused(False, "adamw", "cuda", scaled=False) is False
    assert choose_fused(False, "lamb", "cuda", scaled=False) is None


@pytest.mark.parametrize(("name", "scaled"), [("lamb", False), ("adamw", True)])
def test_a_fused_optimiser_that_cannot_be_is_refused(name, scaled):
    with pytest.raises(ConfigError, match="fused is true"):
        choose_fused(True, name, "cuda", scaled)


def test_the_optimiser_has_the_option(class_root):
    [optimizer] = trained(class_root, fused=True).trainer.optimizers
    assert optimizer.defaults["fused"] is True
    [optimizer] = trained(class_root).trainer.optimizers
    assert not optimizer.defaults["fused"]


def test_a_run_may_be_resumed_at_another_cost():
    backbone = {"class_path": "PlainBackbone", "init_args": {}}
    before = {"backbone": backbone, "lr": 1.0, "schedule": "constant"}
    now = SimpleNamespace(**before, compile=True, fused=True, checkpoint_activations=True)
    check_resumed(before, vars(now))
    with pytest.raises(ConfigError, match="lr is"):
        check_resumed(before, {**vars(now), "lr": 2.0})

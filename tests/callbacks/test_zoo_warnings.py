"""Warnings about zoos that train into a corner."""

import pytest
import torch
from lightning.pytorch import Trainer

from zoo_lightning import ClassificationTask, ImageFolders, ZooBackbone
from zoo_lightning.callbacks.gates import diagnose


def zoo(num_classes=3):
    backbone = ZooBackbone("test_resnet", ["random:1", "random:2"], mode="lite", align="all")
    return ClassificationTask(backbone, num_classes=num_classes, lr=0.0)


def first_layer(task):
    return next(iter(task.backbone.aggregated_layers().values()))


@pytest.mark.parametrize(
    ("gates", "word"),
    [([0.01, 0.001], "near 0"), ([0.99, 0.995], "near 1"), ([0.99, 0.01], ""), ([0.5, 0.4], "")],
)
def test_gates_that_are_all_shut_or_all_open_are_trouble(gates, word):
    layer = first_layer(zoo())
    layer.gate_ema.copy_(torch.tensor(gates))
    found = diagnose(layer)
    assert word in found
    assert bool(found) == bool(word)


def test_an_alignment_far_from_the_identity_is_trouble():
    layer = first_layer(zoo())
    assert diagnose(layer) == ""
    with torch.no_grad():
        layer.alignment.view(-1)[3] = -50.0
    assert "alignment has an element of 50" in diagnose(layer)


def test_a_layer_is_named_once_in_a_training(class_root):
    task = zoo()
    name, layer = next(iter(task.backbone.aggregated_layers().items()))
    with torch.no_grad():
        layer.alignment.view(-1)[3] = 50.0
    data = ImageFolders(root=str(class_root), image_size=32, batch_size=4, num_workers=0)
    trainer = Trainer(
        accelerator="cpu", max_steps=2, max_epochs=-1, val_check_interval=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="alignment has") as seen:
        trainer.fit(task, data)
    told = [str(each.message) for each in seen if "alignment has" in str(each.message)]
    assert len(told) == 1
    assert told[0].startswith(f"layer {name}: ")

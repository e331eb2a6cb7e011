"""Norm statistics estimated before the first step."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from zoo_lightning.backbone import ZooBackbone
from zoo_lightning.callbacks.norm_recalibration import NormRecalibration
from zoo_lightning.data import DrawnFaces
from zoo_lightning.errors import ConfigError
from zoo_lightning.tasks import LandmarkTask


class _Look(pl.Callback):
    """Keeps the statistics as they are just before the first batch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 0:
            norm = next(m for m in pl_module.modules() if isinstance(m, nn.BatchNorm2d))
            self.mean, self.momentum = norm.running_mean.clone(), norm.momentum
            self.layer = next(iter(pl_module.backbone.aggregated_layers().values()))
            self.gates_counted = self.layer.gate_count


def test_statistics_are_those_of_training_images_before_the_first_step(tmp_path):
    data = DrawnFaces(
        train_size=24, val_size=4, test_size=4, image_size=32, batch_size=8, num_workers=0
    )
    task = LandmarkTask(ZooBackbone("test_resnet", ["random:1", "random:2"], mode="lite"))
    look = _Look()
    trainer = pl.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        callbacks=[NormRecalibration(batches=3), look], default_root_dir=tmp_path,
    )  # fmt: skip
    first: list[torch.Tensor] = []
    stem = task.backbone.net.conv1[0]
    hook = stem.register_forward_hook(lambda m, i, y: first.append(y.detach().mean((0, 2, 3))))
    trainer.fit(task, data)
    hook.remove()
    torch.testing.assert_close(look.mean, torch.stack(first[:3]).mean(0), rtol=1e-4, atol=1e-5)
    assert look.momentum == 0.1
    assert look.gates_counted == 0


def test_fewer_than_one_batch_is_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        NormRecalibration(batches=0)

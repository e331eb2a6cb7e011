"""Norm statistics estimated before the first step."""

from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from zoo_lightning.callbacks import norm_recalibration
from zoo_lightning.callbacks.norm_recalibration import NormRecalibration
from zoo_lightning.data import DrawnFaces, ImageFolders
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.tasks import LandmarkTask


class _Look(pl.Callback):
    """Keeps the statistics as they are just before the first batch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 0:
            norm = next(m for m in pl_module.modules() if isinstance(m, nn.BatchNorm2d))
            self.mean, self.momentum = norm.running_mean.clone(), norm.momentum
            self.layer = next(iter(pl_module.backbone.aggregated_layers().values()))
            self.gates_counted = self.layer.gate_count


def quick(folder, **options):
    return pl.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        default_root_dir=folder, **options,
    )  # fmt: skip


def test_statistics_are_those_of_training_images_before_the_first_step(tmp_path):
    data = DrawnFaces(
        train_size=24, val_size=4, test_size=4, image_size=32, batch_size=8, num_workers=0
    )
    task = LandmarkTask(ZooBackbone("test_resnet", ["random:1", "random:2"], mode="lite"))
    look = _Look()
    trainer = quick(tmp_path, callbacks=[NormRecalibration(batches=3), look])
    first: list[torch.Tensor] = []
    stem = task.backbone.net.conv1[0]
    hook = stem.register_forward_hook(lambda m, i, y: first.append(y.detach().mean((0, 2, 3))))
    trainer.fit(task, data)
    hook.remove()
    torch.testing.assert_close(look.mean, torch.stack(first[:3]).mean(0), rtol=1e-4, atol=1e-5)
    assert look.momentum == 0.1
    assert look.gates_counted == 0


def test_the_images_are_of_all_classes_and_leave_random_numbers_alone(
    class_root, tmp_path, monkeypatch
):
    data = ImageFolders(
        root=str(class_root), image_size=16, val_fraction=0.2, batch_size=6, num_workers=0
    )
    seen = []

    def look(network, batches):
        torch.rand(1)
        seen.append(list(batches))

    monkeypatch.setattr(norm_recalibration, "estimate_norms", look)
    data.prepare_data()
    data.setup("fit")
    for _ in range(2):
        trainer = SimpleNamespace(datamodule=data, global_step=0)
        before = torch.get_rng_state()
        NormRecalibration(batches=1).on_train_start(trainer, SimpleNamespace(device="cpu"))
        assert torch.equal(torch.get_rng_state(), before)
    first, second = seen
    assert [len(images) for images in first] == [6]
    assert torch.equal(first[0], second[0])
    colours = first[0].mean((2, 3)).argmax(1)  # which tell the classes apart
    assert colours.unique().tolist() == [0, 1, 2]


def test_a_run_that_is_resumed_keeps_its_statistics():
    trainer = SimpleNamespace(datamodule=None, global_step=3)
    NormRecalibration().on_train_start(trainer, SimpleNamespace(device="cpu"))  # looks at no data


def test_loaders_without_a_data_module_are_refused(tmp_path):
    task = LandmarkTask(PlainBackbone("test_resnet"))
    loader = DataLoader([{"image": torch.zeros(3, 32, 32)}])
    with pytest.raises(ConfigError, match=r"NormRecalibration .* got loaders alone; give"):
        quick(tmp_path, callbacks=[NormRecalibration()]).fit(task, loader)


def test_data_without_a_training_set_of_images_are_refused(tmp_path):
    task = LandmarkTask(PlainBackbone("test_resnet"))
    loader = DataLoader([{"image": torch.zeros(3, 32, 32)}])
    data = pl.LightningDataModule.from_datasets(loader.dataset)
    with pytest.raises(ConfigError, match=r"data must be a data module .* no unvaried_batches"):
        quick(tmp_path, callbacks=[NormRecalibration()]).fit(task, data)


def test_fewer_than_one_batch_is_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        NormRecalibration(batches=0)

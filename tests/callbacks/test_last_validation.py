"""A training validates at its end, whatever the interval."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader

from zoo_lightning.callbacks.checkpoints import LastValidation


class Line(pl.LightningModule):
    """A line through five batches an epoch."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        """Squared output."""
        return self.line(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        """Nothing to measure."""

    def configure_optimizers(self):
        """Plain gradient descent."""
        return torch.optim.SGD(self.parameters(), 0.1)

    def train_dataloader(self):
        """Five batches."""
        return DataLoader(torch.ones(10, 1), batch_size=2)

    val_dataloader = train_dataloader


class Seen(Callback):
    """Notes the steps after which it was validated."""

    def __init__(self):
        self.steps = []

    def on_validation_end(self, trainer, module):
        """Note one."""
        self.steps.append(trainer.global_step)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_steps": 7, "val_check_interval": 3}, [3, 6, 7]),
        ({"max_steps": 6, "val_check_interval": 3}, [3, 6]),
        ({"max_steps": 4, "val_check_interval": 100}, [4]),
        ({"max_epochs": 2, "val_check_interval": 4}, [4, 8, 10]),
        ({"max_epochs": 2, "val_check_interval": 0.4, "check_val_every_n_epoch": 1},
         [2, 4, 7, 9, 10]),
        ({"max_steps": 3, "val_check_interval": 3, "accumulate_grad_batches": 2}, [1, 3]),
        ({"max_steps": 4, "val_check_interval": 100, "limit_val_batches": 0}, []),
    ],
)  # fmt: skip
def test_the_last_step_is_validated_once(tmp_path, options, steps):
    seen = Seen()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=tmp_path,
        callbacks=[seen, LastValidation()], **{"check_val_every_n_epoch": None, **options},
    )  # fmt: skip
    trainer.fit(Line())
    assert seen.steps == steps
    expected = options.get("max_steps", 10)
    assert trainer.global_step == expected

"""What is asked of a Trainer beyond what Lightning declares."""

import lightning.pytorch as pl
import pytest
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

from zoo_lightning.callbacks.trainer_access import (
    callbacks_of,
    data_module,
    gathered,
    may_stop_early,
)

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "limit_val_batches": 0,
}


class Asked(pl.Callback):
    """Compares, after every batch, with what Lightning's own loop decides by."""

    def __init__(self):
        self.found, self.wanted = [], []

    def on_train_batch_end(self, trainer, *_):
        """Ask both."""
        self.found.append(may_stop_early(trainer))
        self.wanted.append(trainer.fit_loop._can_stop_early)


@pytest.mark.parametrize("least", [{"min_steps": 3}, {"min_epochs": 2}, {}])
def test_a_training_may_stop_when_lightnings_loop_says_so(least, tmp_path):
    asked = Asked()
    options = {**QUIET, "default_root_dir": tmp_path, "callbacks": [asked]}
    trainer = pl.Trainer(max_epochs=3, limit_train_batches=2, **least, **options)
    trainer.fit(BoringModel(), datamodule=BoringDataModule())
    assert asked.found == asked.wanted
    assert len(asked.found) == 6


def test_a_trainer_has_the_data_module_and_the_callbacks_that_it_was_given(tmp_path):
    asked = Asked()
    trainer = pl.Trainer(
        max_steps=1, **{**QUIET, "default_root_dir": tmp_path, "callbacks": [asked]}
    )
    assert data_module(trainer) is None
    assert asked in callbacks_of(trainer)
    data = BoringDataModule()
    trainer.fit(BoringModel(), datamodule=data)
    assert data_module(trainer) is data


def test_a_single_process_gathers_its_own_part():
    assert gathered({"a": 1}) == [{"a": 1}]

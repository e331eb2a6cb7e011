"""Strategies that a zoo cannot be trained with are refused before anything is read."""

from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
from lightning.pytorch.strategies import DDPStrategy

from zoo_lightning.callbacks.gates import GateEMA
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.strategies import check_strategy, check_strategy_option


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("fsdp", "cuts every parameter into pieces"),
        ("fsdp_cpu_offload", "cuts every parameter into pieces"),
        ("deepspeed_stage_2", "cuts every parameter into pieces"),
        ("lightning.pytorch.strategies.FSDPStrategy", "cuts every parameter into pieces"),
        ("ModelParallelStrategy", "cuts every parameter into pieces"),
        ("ddp_spawn", "a signal to save and stop does not reach them"),
        ("ddp_notebook_find_unused_parameters_true", "a signal to save and stop"),
    ],
)
def test_strategies_that_cannot_be_right_are_refused_by_name(name, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        check_strategy_option(name)
    assert name in str(caught.value)
    assert "use trainer.strategy: ddp" in str(caught.value)


@pytest.mark.parametrize("name", ["auto", "ddp", "ddp_find_unused_parameters_true"])
def test_whole_copies_are_allowed(name):
    check_strategy_option(name)


@pytest.mark.parametrize("words", ["fsdp", "lightning.pytorch.strategies.DeepSpeedStrategy"])
def test_the_command_line_refuses_them_before_training(tiny, command, tmp_path, words):
    refused = command("fit", "--experiment", "tiny", f"--trainer.strategy={words}")
    assert refused.status == 2
    last = refused.err.strip().splitlines()[-1]
    assert last.startswith("error: trainer.strategy")
    assert "Traceback" not in refused.err
    assert not (tmp_path / "runs").exists()


def test_batch_norm_is_not_synchronised_without_gpus(tiny, command):
    words = ("--trainer.sync_batchnorm", "true", "--trainer.devices", "2")
    refused = command("fit", "--experiment", "tiny", *words)
    assert refused.status == 2
    last = refused.err.strip().splitlines()[-1]
    assert last.startswith("error: trainer.sync_batchnorm: PyTorch synchronises batch norm on GPUs")


def test_a_trainer_of_ones_own_refuses_them_too():
    class Pieces:
        """Neither of the two kinds."""

    with pytest.raises(ConfigError, match="Pieces: neither one device nor a whole copy"):
        check_strategy(Pieces())
    trainer = SimpleNamespace(strategy=Pieces())
    with pytest.raises(ConfigError, match=r"use trainer\.strategy: ddp"):
        GateEMA().setup(trainer, None, "fit")
    check_strategy(pl.Trainer(accelerator="cpu", logger=False).strategy)
    check_strategy(DDPStrategy())

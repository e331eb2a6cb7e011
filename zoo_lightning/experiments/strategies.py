"""Check Lightning's strategies for those that zoos cannot be trained with.

A zoo trains on one device, or with ``ddp``, where every process has all kernels of all sources and
the gates are averaged over the batches of all processes, so that several devices give the same
result as one. Strategies that shard parameters would not.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from zoo_lightning.errors import ConfigError

SHARDED = (
    "it cuts every parameter into pieces, but alignment and mixing, the gates' moving average, "
    "folding and checkpoints need each layer's kernels of all sources whole"
)

OTHER_PROCESSES = (
    "its processes are not started by a command line of their own: a signal to save and stop does "
    "not reach them, and their state at the end of a training is lost"
)

REFUSED = {
    "fsdp": SHARDED,
    "deepspeed": SHARDED,
    "modelparallel": SHARDED,
    "model_parallel": SHARDED,
    "ddp_spawn": OTHER_PROCESSES,
    "ddp_fork": OTHER_PROCESSES,
    "ddp_notebook": OTHER_PROCESSES,
}
"""Refused strategies, by prefix of their option or class name, with the reason."""

INSTEAD = "use trainer.strategy: ddp, where every process has a whole copy, or one device"


def check_sync(wanted: bool, accelerator: str) -> None:
    """Refuse synchronised batch norm without GPUs.

    Args:
        wanted: option ``trainer.sync_batchnorm``.
        accelerator: option ``trainer.accelerator``.

    Raises:
        ConfigError: there is no GPU.
    """
    if wanted and (accelerator == "cpu" or not torch.cuda.is_available()):
        raise ConfigError(
            "trainer.sync_batchnorm: PyTorch synchronises batch norm on GPUs only; leave it out, "
            "and each process takes the statistics of its own part of the batch, or take an "
            "architecture without batch norm"
        )


def check_strategy_option(given: Any) -> None:
    """Refuse a strategy by its name, before Lightning imports its dependencies.

    Args:
        given: option ``trainer.strategy``: a name, or a configuration with a ``class_path``.

    Raises:
        ConfigError: with the reason.
    """
    name = given if isinstance(given, str) else getattr(given, "class_path", "")
    plain = str(name).rpartition(".")[2].lower()
    for beginning, reason in REFUSED.items():
        if plain.startswith(beginning):
            raise ConfigError(f"trainer.strategy {name}: {reason}; {INSTEAD}")


def check_strategy(strategy: Strategy) -> None:
    """Refuse a strategy object that is neither for one device nor DDP.

    Args:
        strategy: strategy of a Trainer, of Lightning or of the user.

    Raises:
        ConfigError: with the reason.
    """
    if not isinstance(strategy, (DDPStrategy, SingleDeviceStrategy)):
        raise ConfigError(
            f"trainer.strategy {type(strategy).__name__}: neither one device nor a whole copy of "
            f"the zoo in every process, and not known to compute the same; {INSTEAD}"
        )

"""Which of Lightning's strategies a zoo can be trained with: one device, or a whole copy on each.

With ``ddp`` every process has all kernels of all sources and the gates are averaged over the joint
batch, so that several devices train as one would. What cuts the parameters up does something else.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from zoo_lightning.errors import ConfigError

CUT_UP = (
    "it cuts every parameter into pieces, but alignment and mixing, the gates' moving average, "
    "folding and checkpoints need each layer's kernels of all sources whole"
)

OTHER_PROCESSES = (
    "its processes are not started by a command line of their own: a signal to save and stop does "
    "not reach them, and what they know at the end of a training is lost"
)

REFUSED = {
    "fsdp": CUT_UP,
    "deepspeed": CUT_UP,
    "modelparallel": CUT_UP,
    "model_parallel": CUT_UP,
    "ddp_spawn": OTHER_PROCESSES,
    "ddp_fork": OTHER_PROCESSES,
    "ddp_notebook": OTHER_PROCESSES,
}
"""Beginnings of names, as options and as classes, and why."""

MEND = "use trainer.strategy: ddp, where every process has a whole copy, or one device"


def check_sync(wanted: bool, accelerator: str) -> None:
    """Refuse to synchronise batch norm where PyTorch does not.

    Args:
        wanted: ``trainer.sync_batchnorm``.
        accelerator: ``trainer.accelerator``.

    Raises:
        ConfigError: without a GPU.
    """
    if wanted and (accelerator == "cpu" or not torch.cuda.is_available()):
        raise ConfigError(
            "trainer.sync_batchnorm: PyTorch synchronises batch norm on GPUs only; leave it out, "
            "and each process takes the statistics of its own part of the batch, or take an "
            "architecture without batch norm"
        )


def check_strategy_option(given: Any) -> None:
    """Refuse a strategy by its name, before Lightning looks for what it needs.

    Args:
        given: ``trainer.strategy``: a name, or a configuration with a ``class_path``.

    Raises:
        ConfigError: with the reason.
    """
    name = given if isinstance(given, str) else getattr(given, "class_path", "")
    plain = str(name).rpartition(".")[2].lower()
    for beginning, reason in REFUSED.items():
        if plain.startswith(beginning):
            raise ConfigError(f"trainer.strategy {name}: {reason}; {MEND}")


def check_strategy(strategy: Strategy) -> None:
    """Refuse a strategy that Lightning has made of options, a class of the user's included.

    Raises:
        ConfigError: with the reason.
    """
    if not isinstance(strategy, (DDPStrategy, SingleDeviceStrategy)):
        raise ConfigError(
            f"trainer.strategy {type(strategy).__name__}: neither one device nor a whole copy of "
            f"the zoo in every process, and not known to compute the same; {MEND}"
        )

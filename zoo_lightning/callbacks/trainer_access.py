"""Access to a Trainer's undeclared attributes, and gathering over processes."""

from __future__ import annotations

from typing import Any, TypeVar

import lightning.pytorch as pl
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def data_module(trainer: pl.Trainer) -> Any:
    """Data module of the Trainer, or ``None`` if it was given loaders or nothing.

    Lightning attaches it without declaring it. Its type is not known here: a user's data module may
    lack what those of this package have.
    """
    return getattr(trainer, "datamodule", None)


def callbacks_of(trainer: pl.Trainer) -> list[pl.Callback]:
    """All callbacks of the Trainer, which Lightning attaches without declaring them."""
    return getattr(trainer, "callbacks", [])


def may_stop_early(trainer: pl.Trainer) -> bool:
    """Whether training has reached ``min_epochs`` and ``min_steps``, so that it may stop."""
    epochs, steps = trainer.min_epochs or 0, trainer.min_steps or 0
    return trainer.current_epoch >= epochs and trainer.global_step >= steps


def gathered(part: T) -> list[T]:
    """Gather a value from all processes of a run; all of them must call this.

    Args:
        part: value of this process; anything that can be pickled.

    Returns:
        One value for each process, in order of rank.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return [part]
    parts: list[T] = [part] * dist.get_world_size()
    dist.all_gather_object(parts, part)
    return parts


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes of a run, in place; all of them must call this.

    One message, for which the host does not wait, unlike that of a strategy's ``reduce``, which
    meets the other processes at a barrier first.
    """
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(tensor)
    return tensor

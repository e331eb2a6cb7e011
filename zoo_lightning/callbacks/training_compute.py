"""Count the multiply-adds of a training, for the compute in ``summary.json``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from typing_extensions import override

from zoo_lightning.nn.multiply_adds import Count, counting

PARTS = ("preparation", "training", "validation")
"""Parts of a training: before the first step (head probe, norm statistics), steps, validations."""

COUNTED = 2
"""Number of steps, and of validations, that are counted operation by operation."""


class TrainingCompute(Callback):
    """Count the multiply-adds of a training: its preparation, its steps and its validations.

    The first two steps and validations are counted operation by operation, as
    :mod:`zoo_lightning.nn.multiply_adds` does; all others are assumed to cost as much as the
    cheaper of the two, because layers may try several plans in the first. Counts are of this
    process. Compiled models are not counted, because torch hides their operations from the counter.
    Put this callback before callbacks that compute in ``on_train_start``.

    Hooks: from ``on_train_start`` to the first epoch for the preparation; then each batch, and each
    validation but the sanity check. State: the multiply-adds so far and the unit, so that a resumed
    run has its total cost and the unit of its budget.

    Args:
        unit: multiply-adds of one unit of the run's budget, for this process; ``None`` without a
            budget.

    Attributes:
        parts: multiply-adds of this process so far, by the names in :data:`PARTS`.
        unit: the given unit, or that of the checkpoint that the run is resumed from.
        uncounted: whether a part of the training ran compiled, whose operations are not seen.
    """

    def __init__(self, unit: int | None = None) -> None:
        super().__init__()
        self.unit = unit
        self.parts: dict[str, int] = dict.fromkeys(PARTS, 0)
        self.uncounted = False
        self._each: dict[str, list[int]] = {"training": [], "validation": []}
        self._counter: AbstractContextManager[Count] | None = None
        self._count = Count()

    def _begin(self, pl_module: pl.LightningModule) -> None:
        if is_compiled(pl_module):
            self.uncounted = True
        elif self._counter is None:
            self._counter = counting()
            self._count = self._counter.__enter__()

    def _end(self) -> int:
        """Multiply-adds since :meth:`_begin`; 0 if nothing was counted."""
        if self._counter is None:
            return 0
        self._counter.__exit__(None, None, None)
        self._counter = None
        return self._count.multiply_adds

    def _begin_one(self, part: str, pl_module: pl.LightningModule) -> None:
        if len(self._each[part]) < COUNTED:
            self._begin(pl_module)

    def _end_one(self, part: str) -> None:
        counts = self._each[part]
        if len(counts) < COUNTED:
            self.parts[part] -= len(counts) * min(counts, default=0)
            counts.append(self._end())
            self.parts[part] += len(counts) * min(counts)
        else:
            self.parts[part] += min(counts)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            self._begin(pl_module)

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.parts["preparation"] += self._end()

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._begin_one("training", pl_module)

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._end_one("training")

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._begin_one("validation", pl_module)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._end_one("validation")

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._end()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"parts": dict(self.parts), "unit": self.unit, "uncounted": self.uncounted}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.parts = dict(state_dict["parts"])
        self.uncounted = state_dict.get("uncounted", False)  # which older versions did not keep
        if self.unit is None:
            self.unit = state_dict.get("unit")  # the same


def is_compiled(module: nn.Module) -> bool:
    """Whether ``torch.compile`` was applied to a module or a submodule, or a task does so.

    torch has no public attribute for this; if its private ones change, multiply-adds of compiled
    models are counted as 0 without a word.
    """
    if getattr(module, "compiled_backbone", None) is not None:
        return True
    return any(
        getattr(each, "_compiled_call_impl", None) is not None or hasattr(each, "_orig_mod")
        for each in module.modules()
    )

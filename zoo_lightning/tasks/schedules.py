"""Learning rates over a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
)

from zoo_lightning.errors import ConfigError

Schedule = Literal["onecycle", "cosine", "linear", "step", "constant"]


def make_scheduler(
    optimizer: Optimizer, options: Mapping[str, Any], steps: int | None
) -> LRScheduler:
    """The schedule that a task's options describe, to be stepped once per optimiser step.

    Args:
        optimizer: whose groups have their own rates.
        options: ``schedule``, ``warmup`` and ``milestones`` of
            :class:`~zoo_lightning.tasks.base.BaseTask`.
        steps: of the whole training, ``None`` if it has no end or does not matter.

    Raises:
        ConfigError: the schedule needs an end.
    """
    schedule, places = options["schedule"], options["milestones"] or []
    if schedule == "constant":
        return LambdaLR(optimizer, lambda step: 1.0)
    if steps is None and depends_on_length(options):
        raise ConfigError(
            f"schedule {schedule!r} needs the training's length; set trainer.max_steps or "
            "trainer.max_epochs, or schedule: constant"
        )
    if schedule == "step":
        return MultiStepLR(optimizer, [int(p if p >= 1 else p * steps) for p in places])
    if schedule == "cosine":
        return CosineAnnealingLR(optimizer, steps)
    if schedule == "linear":
        return LambdaLR(optimizer, lambda step: max(1 - step / steps, 0.0))
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=steps,
        # A rise of exactly one step is a division by zero in torch; so very short runs rise over a
        # little more.
        pct_start=min(max(options["warmup"], 1.5 / steps), 0.9),
        cycle_momentum=False,
    )


def depends_on_length(options: Mapping[str, Any]) -> bool:
    """Whether another length of the training is another learning rate at each step."""
    if options["schedule"] == "step":
        return any(place < 1 for place in options["milestones"])
    return options["schedule"] != "constant"

"""Parameter groups and learning-rate schedules from a task's options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import timm.optim
import torch
from torch import nn
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


FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
"""Optimisers that have a fused form on CPUs and GPUs alike."""


def part_of(name: str) -> str:
    """Find the part of the model that a parameter belongs to.

    Args:
        name: name of the parameter in the task, such as ``backbone.net.conv1.gate.fc1.weight``.

    Returns:
        ``head``, ``gates``, ``alignment`` or ``backbone``.
    """
    if name.startswith("head."):
        return "head"
    words = name.split(".")
    if "gate" in words[:-1]:
        return "gates"
    return "alignment" if words[-1] == "alignment" else "backbone"


def parameter_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]], options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Group trainable parameters by part of the model and by whether weight decay applies.

    Args:
        named_parameters: parameters of the task with their names.
        options: ``lr``, ``head_lr_factor``, ``gate_lr_factor``, ``alignment_lr_factor``,
            ``weight_decay`` and ``decay_all`` of :class:`~zoo_lightning.tasks.base.BaseTask`.

    Returns:
        Groups for an optimiser, each with ``name``, ``params``, ``lr`` and ``weight_decay``.
    """
    factors = {
        "head": options["head_lr_factor"],
        "gates": options["gate_lr_factor"],
        "alignment": options["alignment_lr_factor"],
        "backbone": 1.0,
    }
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        part = part_of(name)
        # Kernels of a zoo have one dimension more than ordinary ones; so have its biases.
        matrix = parameter.dim() > 1 and not name.endswith("bias")
        decays = options["decay_all"] or (matrix and part in ("head", "backbone"))
        group = groups.setdefault(
            (part, decays),
            {
                "name": f"{part}{'' if decays else '_no_decay'}",
                "params": [],
                "lr": options["lr"] * factors[part],
                "weight_decay": options["weight_decay"] if decays else 0.0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def make_scheduler(
    optimizer: Optimizer, options: Mapping[str, Any], steps: int | None
) -> LRScheduler:
    """Create the learning-rate scheduler of a task's options.

    Args:
        optimizer: optimiser whose groups have their own learning rates.
        options: ``schedule``, ``warmup`` and ``milestones`` of
            :class:`~zoo_lightning.tasks.base.BaseTask`.
        steps: number of scheduler steps in the whole training; ``None`` if the training has no end
            or the schedule does not depend on it.

    Raises:
        ConfigError: the schedule depends on the training's length, and ``steps`` is ``None``.
    """
    schedule, places = options["schedule"], options["milestones"] or []
    if schedule == "constant":
        return LambdaLR(optimizer, lambda step: 1.0)
    if steps is None:
        if depends_on_length(options):
            raise ConfigError(
                f"schedule {schedule!r} needs the training's length; set trainer.max_steps or "
                "trainer.max_epochs, or schedule: constant"
            )
        steps = 0  # milestones in steps do not need it
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
        # torch divides by zero where the rate rises in exactly one step, so very short trainings
        # rise over a little more.
        pct_start=min(max(options["warmup"], 1.5 / steps), 0.9),
        cycle_momentum=False,
    )


def depends_on_length(options: Mapping[str, Any]) -> bool:
    """Whether the learning rate at a given step changes with the training's length."""
    if options["schedule"] == "step":
        return any(place < 1 for place in options["milestones"])
    return options["schedule"] != "constant"


def choose_fused(wanted: bool | None, name: str, device: str, scaled: bool) -> bool | None:
    """Choose whether the optimiser is to be a fused one.

    Args:
        wanted: option ``fused``.
        name: name of the optimiser in timm.
        device: type of the weights' device.
        scaled: whether gradients are scaled. A fused optimiser would divide them by their scale
            itself, after they were checked and clipped.

    Returns:
        Value of the optimiser's argument ``fused``; ``None`` leaves it out.

    Raises:
        ConfigError: it is wanted, but the optimiser has none, or gradients are scaled.
    """
    known = timm.optim.get_optimizer_class(name, bind_defaults=False) in FUSED
    if wanted and not known:
        raise ConfigError(
            f"fused is true, and optimizer {name!r} has no fused form; take adamw, adam or "
            "sgd, or leave it out"
        )
    if wanted and scaled:
        raise ConfigError(
            "fused is true, and precision 16-mixed scales gradients, which a fused optimiser "
            "would scale back only after they were checked and clipped; leave it out, or take "
            "bf16-mixed"
        )
    if wanted is None:
        return True if known and device == "cuda" and not scaled else None
    return wanted if known else None

"""Measure the inference cost of trained models: multiply-adds, time and parameters."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import NamedTuple

import torch

from zoo_lightning.nn.multiply_adds import counting
from zoo_lightning.tasks import BaseTask

ROUNDS = 15


class Cost(NamedTuple):
    """Inference cost of a model.

    Attributes:
        multiply_adds: multiply-adds for one image, in millions.
        milliseconds: time for a batch of images, median over the rounds.
        relative: time relative to the first model's.
        parameters: number of stored parameters, folded if the method folds.
    """

    multiply_adds: float
    milliseconds: float
    relative: float
    parameters: int


@torch.inference_mode()
def measure_costs(
    tasks: Mapping[str, BaseTask], size: tuple[int, ...], batch: int = 32
) -> dict[str, Cost]:
    """Measure inference costs; models are timed alternately, so that load affects all equally.

    Args:
        tasks: tasks by name, in evaluation mode; times are relative to the first.
        size: shape of an image, ``(C, H, W)``.
        batch: number of images in a batch.
    """
    images = torch.randn(batch, *size)
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(ROUNDS + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task(images)
            if number:  # the first round is a warm-up
                times[name].append(time.perf_counter() - start)
    base = next(iter(times.values()))
    return {
        name: Cost(
            multiply_adds(task, size),
            1000 * statistics.median(times[name]),
            statistics.median(t / b for t, b in zip(times[name], base, strict=True)),
            stored_parameters(task),
        )
        for name, task in tasks.items()
    }


@torch.no_grad()
def multiply_adds(task: BaseTask, size: tuple[int, ...]) -> float:
    """Count the multiply-adds of a task for one image, in millions."""
    with counting() as found:
        task(torch.randn(1, *size))
    return found.multiply_adds / 1e6


def stored_parameters(task: BaseTask) -> int:
    """Number of parameters needed for inference, after folding unless the model is a full zoo."""
    head = sum(p.numel() for p in task.head.parameters())
    if task.ensemble is not None:
        return sum(p.numel() for p in task.ensemble.parameters())
    full = task.backbone.method == "zoo"
    return head + task.backbone.parameter_counts()["training" if full else "folded"]

"""What a trained model costs to run and to keep, beside how good it is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import NamedTuple

import torch

from zoo_lightning.layers.multiply_adds import counting
from zoo_lightning.tasks import BaseTask

ROUNDS = 15


class Cost(NamedTuple):
    """Of a model in evaluation.

    Attributes:
        multiply_adds: for one image, millions.
        milliseconds: for a batch of images, median of the rounds.
        relative: the time as a multiple of the first model's.
        parameters: to be stored, folded if the method folds.
    """

    multiply_adds: float
    milliseconds: float
    relative: float
    parameters: int


@torch.inference_mode()
def measure_costs(
    tasks: Mapping[str, BaseTask], size: tuple[int, ...], batch: int = 32
) -> dict[str, Cost]:
    """Time models alternately, so that all see the same moods of the machine.

    Args:
        tasks: by name, in evaluation mode; the first is what the others are compared with.
        size: of an image, ``(C, H, W)``.
        batch: images at a time.
    """
    images = torch.randn(batch, *size)
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(ROUNDS + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task(images)
            if number:  # the first round warms up
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
    """Of one image through a task, millions; as torch counts the operations of products."""
    with counting() as found:
        task(torch.randn(1, *size))
    return found.multiply_adds / 1e6


def stored_parameters(task: BaseTask) -> int:
    """Parameters that a task needs for evaluation: of a lite zoo those of the folded network."""
    head = sum(p.numel() for p in task.head.parameters())
    if task.ensemble is not None:
        return sum(p.numel() for p in task.ensemble.parameters())
    full = task.backbone.method == "zoo"
    return head + task.backbone.parameter_counts()["training" if full else "folded"]

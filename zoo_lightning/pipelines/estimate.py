"""How long a pipeline will take here, from a few steps of the ordinary network."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule

from zoo_lightning.experiment_parts import architecture_of, plain_data
from zoo_lightning.runs.length import usual_steps

ROUNDS = 3
"""Steps that are timed, after one that is not."""


@dataclass(frozen=True)
class Estimate:
    """What one training of the experiment's length takes.

    Attributes:
        steps: of it.
        step_seconds: of one step, loading included.
    """

    steps: int
    step_seconds: float

    def line(self, trainings: float) -> str:
        """A line that says how long so many trainings take."""
        minutes = trainings * self.steps * self.step_seconds / 60
        time_left = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
        return (
            f"estimate      about {time_left} here: {trainings:.3g} times {self.steps:,} steps of "
            f"one network, {1000 * self.step_seconds:.0f} ms each; validations and the test come "
            "on top"
        )


def estimate(options: Any) -> Estimate:
    """Time a few steps of the ordinary network on the device that training would take.

    Args:
        options: the parsed options of ``fit``, of images.

    Raises:
        ConfigError: the experiment has no length.
        DataError: as the data raise it.
    """
    data = plain_data(options.data)
    steps = usual_steps(options, data)
    architecture = architecture_of(options.model.init_args.backbone.init_args)
    shape = (data.batch_size, architecture.in_chans, data.image_size, data.image_size)
    loading, training = _loading(data), _training(architecture.build(), shape)
    each = max(loading / data.num_workers, training) if data.num_workers else loading + training
    return Estimate(steps, each * (options.trainer.accumulate_grad_batches or 1))


def _loading(data: LightningDataModule) -> float:
    """Seconds in which one process loads a batch."""
    images = data.train_set
    _ = images[(0, 0)]  # a first one opens what is opened once
    count = min(len(images), data.batch_size)
    start = time.perf_counter()
    _ = [images[(0, index)] for index in range(count)]
    return (time.perf_counter() - start) * data.batch_size / count


def _training(network: torch.nn.Module, shape: tuple[int, ...]) -> float:
    """Seconds of a step: forward, backward and update, median of the rounds."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6)
    images = torch.randn(shape, device=device)
    seconds = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        found = network(images)
        outputs = found if isinstance(found, (list, tuple)) else [found]
        sum(each.square().mean() for each in outputs).backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds[1:])[ROUNDS // 2]

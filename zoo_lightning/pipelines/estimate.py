"""Estimate a pipeline's duration on this machine from a few steps of the ordinary network."""

from __future__ import annotations

import math
import time
from collections.abc import Sized
from dataclasses import dataclass
from typing import Any

import torch

from zoo_lightning.data.loading import ImageDataModule
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.parts import architecture_of, plain_data, resolve_bands
from zoo_lightning.runs.length import experiment_steps

ROUNDS = 3
"""Number of timed steps, after one warm-up step."""


@dataclass(frozen=True)
class TimeEstimate:
    """Estimated duration of one training of the experiment's length.

    Attributes:
        steps: number of optimiser steps of the training.
        step_seconds: seconds per step, including data loading.
    """

    steps: int
    step_seconds: float

    def check(self, share: float, budget: float, name: str) -> None:
        """Check that a training has at least one step of the ordinary network.

        Args:
            share: its fraction of the budget, above 0.
            budget: budget of the method, in trainings of the experiment's length.
            name: name of the training, for the message.

        Raises:
            ConfigError: it has not.
        """
        if share * budget * self.steps < 1:
            raise ConfigError(
                f"budget {budget:g} leaves {share * budget * self.steps:.2g} steps of one network "
                f"to {name}; give at least {math.ceil(100 / share / self.steps) / 100:g}"
            )

    def line(self, trainings: float) -> str:
        """Format a line with the estimated duration of a number of trainings."""
        minutes = trainings * self.steps * self.step_seconds / 60
        time_left = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
        if minutes < 0.5:
            time_left = f"{60 * minutes:.0f} s"
        return (
            f"estimate      about {time_left} here: {trainings:.3g} times {self.steps:,} steps of "
            f"one network, {1000 * self.step_seconds:.0f} ms each; the beginning of each training, "
            "validations and the test come on top"
        )


def estimate(options: Any) -> TimeEstimate | None:
    """Time a few training steps of the ordinary network on the device of training.

    All data that will be read are set up, those of the test too.

    Args:
        options: parsed options of ``fit``; ``run_test`` tells whether there will be a test.

    Returns:
        The estimate; ``None`` if the data module is not an
        :class:`~zoo_lightning.data.loading.ImageDataModule`.

    Raises:
        ConfigError: the experiment has no length.
        DataError: the data cannot be read.
    """
    resolve_bands(options)
    data = plain_data(options.data)
    if not isinstance(data, ImageDataModule):
        return None
    steps = experiment_steps(options, data)
    if options.run_test:
        data.setup("test")
    architecture = architecture_of(options.model.init_args.backbone.init_args)
    images = data.train_set
    assert isinstance(images, Sized)
    batch = min(data.batch_size, len(images))
    shape = (batch, architecture.in_chans, data.image_size, data.image_size)
    loading, training = _loading(data), _training(architecture.build(), shape)
    each = max(loading / data.num_workers, training) if data.num_workers else loading + training
    return TimeEstimate(steps, each * (options.trainer.accumulate_grad_batches or 1))


def _loading(data: ImageDataModule) -> float:
    """Seconds that one process takes to load a batch."""
    images = data.train_set
    _ = images[(0, 0)]  # the first one also opens files
    assert isinstance(images, Sized)
    count = min(len(images), data.batch_size)
    start = time.perf_counter()
    _ = [images[(0, index)] for index in range(count)]
    return (time.perf_counter() - start) * data.batch_size / count


def _training(network: torch.nn.Module, shape: tuple[int, ...]) -> float:
    """Seconds of a training step, as the median of the rounds."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device).train(shape[0] > 1)  # norm layers need more; runs say so
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

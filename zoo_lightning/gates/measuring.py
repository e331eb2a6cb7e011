"""A trained zoo before the same samples, with all of its sources or some of them.

Removing kernels shifts activations, and batch norms go on subtracting what used to be their mean:
measured so, every source seems worth much. So norm statistics are estimated anew from training
images, for the network with all sources as well as for that with fewer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoo_lightning.backbone import ZooBackbone
from zoo_lightning.data.loading import SignalsToParent, sample_generator
from zoo_lightning.errors import ConfigError
from zoo_lightning.gates.removing import (
    has_batch_norms,
    keeping,
    norms_restored,
    recorded_gates,
)
from zoo_lightning.layers.norm_statistics import estimate_norms, mixed
from zoo_lightning.metrics.functional import per_image_nme
from zoo_lightning.ranking import training_batches
from zoo_lightning.tasks import BaseTask, ClassificationTask, LandmarkTask


@dataclass(frozen=True)
class Scores:
    """How wrong each of ``N`` samples is.

    Attributes:
        error: ``(N,)`` float64, percent: 0 or 100 of a class, the normalised error of points.
        loss: ``(N,)`` float64, the same in a finer measure: the cross-entropy of a class; of
            points, which are fine enough, the error.
    """

    error: Tensor
    loss: Tensor


@dataclass(frozen=True)
class Measure:
    """What a task is judged by.

    Attributes:
        name: of the metric, ``acc`` or ``nme``.
        label: what it is, for people to read.
        rises: whether higher is better; the metric is then 100 minus the error.
        loss: what the finer measure is; the label itself where there is no finer one.
    """

    name: str
    label: str
    rises: bool
    loss: str

    def of(self, scores: Scores) -> float:
        """The metric over the samples, percent."""
        error = float(scores.error.mean())
        return 100 - error if self.rises else error


def measure_of(task: BaseTask) -> Measure:
    """What a task is judged by.

    Raises:
        ConfigError: neither classification nor landmarks.
    """
    if isinstance(task, ClassificationTask):
        return Measure("acc", "accuracy (%)", True, "cross-entropy")
    if isinstance(task, LandmarkTask):
        label = f"NME, {task.normalization} (%)"
        return Measure("nme", label, False, label)
    raise ConfigError(
        f"gates are reported for ClassificationTask and LandmarkTask, not for {type(task).__name__}"
    )


@torch.no_grad()
def score_batch(task: BaseTask, batch: dict[str, Any]) -> Scores:
    """How wrong the samples of a normalised batch are, on the CPU."""
    if isinstance(task, LandmarkTask):
        points = task.predict_step(batch)["original"]
        distance = batch["distances"][task.normalization]
        error = 100 * per_image_nme(points, batch["original"], distance, batch["visible"])
        return Scores(error.double().cpu(), error.double().cpu())
    probabilities = task.predict_step(batch).double().cpu()
    labels = batch["label"].cpu()
    wrong = probabilities.argmax(dim=1) != labels
    right = probabilities.gather(1, labels[:, None])[:, 0]
    return Scores(100 * wrong.double(), -right.clamp_min(1e-30).log())


def some_batches(
    data: LightningDataModule, dataset: Dataset, samples: int
) -> Iterator[dict[str, Any]]:
    """Batches of some samples of an evaluation set, not yet normalised, by chance.

    Args:
        data: whose set it is; its seed and batch size count.
        dataset: indexed by numbers.
        samples: how many, or all if there are fewer.
    """
    generator = sample_generator(getattr(data, "seed", 0), 0, -4)
    chosen = torch.randperm(len(dataset), generator=generator)[:samples].tolist()
    yield from DataLoader(
        dataset,
        batch_size=data.batch_size,
        sampler=chosen,
        num_workers=data.num_workers,
        worker_init_fn=SignalsToParent(),
    )


@dataclass
class Trial:
    """A trained zoo, samples to judge it by, and images to estimate norm statistics from.

    Images are held in memory as the data give them, so that nothing is read twice.

    Args:
        task: in evaluation mode, with its head; on the device to compute on.
        data: for the images' normalisation.
        batches: of the samples, not yet normalised.
        images: training images ``(B, 3, H, W)``, not yet normalised.
    """

    task: BaseTask
    data: LightningDataModule
    batches: Sequence[dict[str, Any]]
    images: Sequence[Tensor]
    gates: dict[str, Tensor] = field(default_factory=dict)
    """Of full layers, ``(samples, m)`` by name; known after :meth:`scores` with all sources."""

    def __post_init__(self) -> None:
        if not isinstance(self.task.backbone, ZooBackbone):
            raise ConfigError(
                f"{type(self.task.backbone).__name__} has no gates; expected a ZooBackbone"
            )
        self.layers = self.task.backbone.aggregated_layers()
        self.num_sources = len(self.task.backbone.sources)
        self.estimates = has_batch_norms(self.task)
        """Whether estimating norm statistics makes a difference."""

    @torch.no_grad()
    def scores(
        self,
        kept: Sequence[int] | None = None,
        layer: str | None = None,
        estimate: bool = True,
        batches: int | None = None,
    ) -> Scores:
        """How wrong the samples are with some of the sources; the task is left as it was.

        Args:
            kept: indices of the sources that stay; ``None`` keeps all.
            layer: the only layer that loses the others; ``None`` means every layer.
            estimate: estimate norm statistics anew first.
            batches: judge and estimate by so many batches only; ``None`` takes all.
        """
        mask = torch.tensor([kept is None or i in kept for i in range(self.num_sources)])
        layers = self.layers if layer is None else {layer: self.layers[layer]}
        everything = kept is None and batches is None and not estimate
        with norms_restored(self.task), keeping(layers.values(), mask):
            if estimate and self.estimates:
                estimate_norms(self.task, self._images(batches))
            with recorded_gates(self.layers) if everything else nullcontext({}) as rows:
                parts = [score_batch(self.task, each) for each in self._batches(batches)]
        if everything:
            self.gates = {name: torch.cat(each) for name, each in rows.items()}
        return Scores(
            torch.cat([each.error for each in parts]), torch.cat([each.loss for each in parts])
        )

    def _batches(self, number: int | None) -> Iterator[dict[str, Any]]:
        for batch in self.batches[:number]:
            yield _on_device(self.task, self.data, batch)

    def _images(self, number: int | None) -> Iterator[Tensor]:
        for images in self.images[:number]:
            batch: Mapping[str, Any] = {"image": images.to(self.task.device)}
            yield self.data.on_after_batch_transfer(batch, 0)["image"]


def trial_of(
    task: BaseTask, data: LightningDataModule, split: str, samples: int, calibration: int
) -> Trial:
    """A trained task with samples of its data.

    Args:
        task: trained; moved to the GPU if there is one.
        data: set up for ``fit`` and for the split.
        split: ``val`` or ``test``.
        samples: to judge by, or all if there are fewer.
        calibration: training images to estimate norm statistics from, or all.
    """
    task = task.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    batches = list(some_batches(data, getattr(data, f"{split}_set"), samples))
    images = mixed([batch["image"] for batch in training_batches(data, calibration)])
    return Trial(task, data, batches, images)


CALIBRATION = 1000
"""Training images to estimate norm statistics from."""


def recalibrate(task: BaseTask, data: LightningDataModule) -> None:
    """Estimate a task's norm statistics anew from training images.

    Args:
        task: on any device.
        data: set up for ``fit``.
    """
    images = mixed([batch["image"] for batch in training_batches(data, CALIBRATION)])
    batches = (_on_device(task, data, {"image": each}) for each in images)
    estimate_norms(task, (batch["image"] for batch in batches))


@torch.no_grad()
def validation_scores(task: BaseTask, data: LightningDataModule) -> Scores:
    """How wrong a task is on each validation image, in the same order for every task.

    Args:
        task: in evaluation mode, on any device.
        data: set up for ``fit``.
    """
    batches = some_batches(data, data.val_set, len(data.val_set))
    scores = [score_batch(task, _on_device(task, data, batch)) for batch in batches]
    return Scores(*(torch.cat([getattr(s, k) for s in scores]) for k in ("error", "loss")))


def judge(task: BaseTask, data: LightningDataModule) -> float:
    """A task's metric on the validation data, percent.

    Args:
        task: in evaluation mode, on any device.
        data: set up for ``fit``.
    """
    return measure_of(task).of(validation_scores(task, data))


def _on_device(task: BaseTask, data: LightningDataModule, batch: dict[str, Any]) -> dict[str, Any]:
    """A batch, moved and normalised."""
    return data.on_after_batch_transfer(move_data_to_device(batch, task.device), 0)

"""Errors of a trained zoo on the same samples, with all or some of its sources.

Removing kernels shifts activations, while batch norms still subtract their former mean: without
correction, every source seems important. Therefore norm statistics are re-estimated from training
images, for the network with all sources as well as for those with fewer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoo_lightning.analysis.removing import (
    has_batch_norms,
    keeping,
    norms_restored,
    recorded_gates,
)
from zoo_lightning.data.loading import ImageDataModule, SignalsToParent, sample_generator
from zoo_lightning.errors import ConfigError
from zoo_lightning.metrics.functional import per_image_nme
from zoo_lightning.metrics.multi_label import LabelOutputs, average_precisions
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.nn.heads.losses import label_cross_entropy
from zoo_lightning.nn.norm_statistics import estimate_norms, interleaved
from zoo_lightning.tasks import (
    BaseTask,
    ClassificationTask,
    LandmarkTask,
    MultiLabelTask,
    RegressionTask,
    SegmentationTask,
)
from zoo_lightning.transfer.ranking import training_batches

MeasuredTask = ClassificationTask | LandmarkTask | RegressionTask
"""Tasks whose errors can be measured sample by sample."""


@dataclass(frozen=True)
class Scores:
    """Errors of ``N`` samples.

    Attributes:
        error: error of each sample in percent, ``(N,)`` float64: 0 or 100 for a class, the
            normalised error for points, that of standardised targets for numbers, the share of
            wrong labels.
        loss: loss of each sample, ``(N,)`` float64: the cross-entropy for a class or for labels,
            the same as ``error`` for points and numbers.
        outputs: probabilities of several labels a sample, of which the metric is no mean over
            samples; else ``None``.
    """

    error: Tensor
    loss: Tensor
    outputs: LabelOutputs | None = None

    @classmethod
    def joined(cls, parts: Sequence[Scores]) -> Scores:
        """Concatenate the errors of several batches."""
        outputs = [each.outputs for each in parts if each.outputs is not None]
        joint = LabelOutputs(*map(torch.cat, zip(*outputs, strict=True))) if outputs else None
        error, loss = torch.cat([each.error for each in parts]), torch.cat([s.loss for s in parts])
        return cls(error, loss, joint)


@dataclass(frozen=True)
class Measure:
    """Description of a task's metric and loss.

    Attributes:
        name: name of the metric, ``acc``, ``nme``, ``nmae`` or ``map``.
        label: description of the metric with its unit.
        rises: whether higher is better; the metric is then 100 minus the error, or the mean
            average precision of labels.
        loss: description of the loss; the same as ``label`` if it is the error itself.
    """

    name: str
    label: str
    rises: bool
    loss: str

    def of(self, scores: Scores) -> float:
        """Compute the metric over samples, in percent."""
        if scores.outputs is not None:
            return 100 * float(average_precisions(scores.outputs).nanmean())
        error = float(scores.error.mean())
        return 100 - error if self.rises else error


def measured_task(task: BaseTask) -> MeasuredTask:
    """Check that a task is one whose gates can be reported, and return it.

    Raises:
        ConfigError: the task is another one.
    """
    if isinstance(task, (ClassificationTask, LandmarkTask, RegressionTask)):
        return task
    raise ConfigError(no_report_for(type(task).__name__))


def no_report_for(task: str) -> str:
    """Format the refusal of a task whose gates cannot be reported, by the name of its class."""
    return (
        "gates are reported of classifiers, landmarks and numbers (ClassificationTask, "
        f"LandmarkTask, RegressionTask), not for {task}; the report of a run has the mean gates "
        "of any zoo: python -m zoo_lightning report RUN_DIR"
    )


def image_data(data: LightningDataModule) -> ImageDataModule:
    """Check that a data module is one of this package's for images, and return it.

    Raises:
        ConfigError: the data module is not one of this package's for images.
    """
    if isinstance(data, ImageDataModule):
        return data
    raise ConfigError(
        "data must be a data module of zoo_lightning, such as DrawnFaces or ImageFolders, got "
        f"{type(data).__name__}"
    )


def measure_of(task: BaseTask) -> Measure:
    """Metric of a task of classes, labels, landmarks, numbers or masks.

    Raises:
        ConfigError: the task is none of these.
    """
    if isinstance(task, MultiLabelTask):
        return Measure("map", "mAP (%)", True, "binary cross-entropy")
    if isinstance(task, SegmentationTask):
        return Measure("miou", "mIoU (%)", True, "cross-entropy")
    measured = measured_task(task)
    if isinstance(measured, ClassificationTask):
        return Measure("acc", "accuracy (%)", True, "cross-entropy")
    if isinstance(measured, RegressionTask):
        label = "mean absolute error (% of a standard deviation)"
        return Measure("nmae", label, False, label)
    label = f"NME, {measured.normalization} (%)"
    return Measure("nme", label, False, label)


@torch.no_grad()
def score_batch(task: BaseTask, batch: dict[str, Any]) -> Scores:
    """Compute the errors of the samples of a normalised batch, on the CPU.

    Faces that lack the points of the normalising distance are left out.

    Raises:
        ConfigError: the task is none of classes, labels, landmarks or numbers.
    """
    if isinstance(task, MultiLabelTask):
        return _label_scores(task, batch)
    task = measured_task(task)
    if isinstance(task, RegressionTask):
        error = 100 * task.absolute_errors(batch).double().cpu()
        return Scores(error, error)
    if isinstance(task, LandmarkTask):
        points = task.predict_step(batch)["original"]
        distance = batch["distances"][task.normalization]
        known = ~distance.isnan()  # a face without its points has no error
        given = points, batch["original"], distance, batch["visible"]
        error = 100 * per_image_nme(*(each[known] for each in given))
        return Scores(error.double().cpu(), error.double().cpu())
    probabilities = task.predict_step(batch).double().cpu()
    labels = batch["label"].cpu()
    wrong = probabilities.argmax(dim=1) != labels
    right = probabilities.gather(1, labels[:, None])[:, 0]
    return Scores(100 * wrong.double(), -right.clamp_min(1e-30).log())


def _label_scores(task: MultiLabelTask, batch: dict[str, Any]) -> Scores:
    """Share of the known labels that are wrong, and mean cross-entropy, of each sample."""
    probabilities, labels = task.predict_step(batch).double(), batch["label"]
    known = labels >= 0
    wrong = ((probabilities >= task.thresholds) != (labels == 1)) & known
    error = 100 * wrong.sum(1) / known.sum(1).clamp(min=1)
    rows = zip(torch.logit(probabilities, eps=1e-12), labels, strict=True)
    loss = torch.stack([label_cross_entropy(*(each[None] for each in row)) for row in rows])
    outputs = LabelOutputs(probabilities.cpu(), labels.cpu())
    return Scores(error.double().cpu(), loss.cpu(), outputs)


def some_batches(data: ImageDataModule, dataset: Dataset, samples: int) -> Iterator[dict[str, Any]]:
    """Iterate over randomly chosen samples of an evaluation set, not yet normalised.

    Args:
        data: data module of the set, with seed and batch size.
        dataset: evaluation set.
        samples: largest number of samples.
    """
    generator = sample_generator(getattr(data, "seed", 0), 0, -4)
    chosen = torch.randperm(length(dataset), generator=generator)[:samples].tolist()
    yield from DataLoader(
        dataset,
        batch_size=data.batch_size,
        sampler=chosen,
        num_workers=data.num_workers,
        worker_init_fn=SignalsToParent(),
    )


def length(dataset: Dataset) -> int:
    """Number of samples of a map-style dataset.

    Raises:
        TypeError: the dataset has no length.
    """
    if not isinstance(dataset, Sized):
        raise TypeError(f"dataset must have a length, got {type(dataset).__name__}")
    return len(dataset)


@dataclass
class RemovalStudy:
    """Evaluation of a trained zoo with some of its sources, on samples held in memory.

    Images are held in memory as loaded, so that nothing is read twice.

    Args:
        task: task in evaluation mode, on the device to compute on.
        data: data module that normalises the images.
        batches: batches of the samples, not yet normalised.
        images: batches of training images ``(B, 3, H, W)``, not yet normalised.

    Attributes:
        gates: gates of full layers by name, ``(samples, m)``; set by :meth:`scores` with all
            sources and batches, and norm statistics as trained.
        layers: aggregated layers by name.
        num_sources: number of sources ``m``.
        estimates: whether the network has norm statistics to estimate.

    Raises:
        ConfigError: the task's backbone is not a zoo.
    """

    task: MeasuredTask
    data: ImageDataModule
    batches: Sequence[dict[str, Any]]
    images: Sequence[Tensor]
    gates: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.task.backbone, ZooBackbone):
            raise ConfigError(
                f"backbone must be a ZooBackbone to have gates, got "
                f"{type(self.task.backbone).__name__}"
            )
        self.backbone = self.task.backbone
        self.layers = self.backbone.aggregated_layers()
        self.num_sources = len(self.backbone.sources)
        self.estimates = has_batch_norms(self.task)

    @torch.no_grad()
    def scores(
        self,
        kept: Sequence[int] | None = None,
        layer: str | None = None,
        estimate: bool = True,
        batches: int | None = None,
    ) -> Scores:
        """Compute the errors of the samples with some of the sources; the task is unchanged.

        Args:
            kept: indices of the sources to keep; ``None`` keeps all.
            layer: name of the only layer from which sources are removed; ``None`` for all layers.
            estimate: whether to re-estimate norm statistics first.
            batches: number of batches to evaluate, and of batches of images to estimate from;
                ``None`` takes all.
        """
        mask = torch.tensor([kept is None or i in kept for i in range(self.num_sources)])
        layers = self.layers if layer is None else {layer: self.layers[layer]}
        everything = kept is None and batches is None and not estimate
        with norms_restored(self.task), keeping(layers.values(), mask):
            if estimate and self.estimates:
                estimate_norms(self.task, self._images(batches))
            recording: AbstractContextManager[dict[str, list[Tensor]]] = nullcontext({})
            if everything:
                recording = recorded_gates(self.layers)
            with recording as rows:
                parts = [score_batch(self.task, each) for each in self._batches(batches)]
        if everything:
            self.gates = {name: torch.cat(each) for name, each in rows.items()}
        return Scores.joined(parts)

    def _batches(self, number: int | None) -> Iterator[dict[str, Any]]:
        for batch in self.batches[:number]:
            yield _on_device(self.task, self.data, batch)

    def _images(self, number: int | None) -> Iterator[Tensor]:
        for images in self.images[:number]:
            batch: dict[str, Any] = {"image": images.to(self.task.device)}
            yield self.data.on_after_batch_transfer(batch, 0)["image"]


def removal_study(
    task: BaseTask, data: LightningDataModule, split: str, samples: int, calibration: int
) -> RemovalStudy:
    """Load samples of a trained task's data to study the removal of its sources.

    Args:
        task: trained task; it is moved to the GPU if there is one.
        data: data module, set up for ``fit`` and for the split.
        split: ``val`` or ``test``.
        samples: largest number of samples to evaluate.
        calibration: largest number of training images to estimate norm statistics from.

    Raises:
        ConfigError: the task or the data module is not supported, or the backbone is not a zoo.
    """
    task = task.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    data = image_data(data)
    batches = list(some_batches(data, getattr(data, f"{split}_set"), samples))
    images = interleaved([batch["image"] for batch in training_batches(data, calibration)])
    return RemovalStudy(measured_task(task), data, batches, images)


CALIBRATION = 1000
"""Largest number of training images to estimate norm statistics from."""


def recalibrate(task: BaseTask, data: LightningDataModule) -> None:
    """Re-estimate a task's norm statistics from training images.

    Args:
        task: task on any device.
        data: data module, set up for ``fit``.
    """
    data = image_data(data)
    images = interleaved([batch["image"] for batch in training_batches(data, CALIBRATION)])
    batches = (_on_device(task, data, {"image": each}) for each in images)
    estimate_norms(task, (batch["image"] for batch in batches))


@torch.no_grad()
def validation_scores(task: BaseTask, data: LightningDataModule) -> Scores:
    """Compute the errors of a task on each validation image, in the same order for every task.

    Args:
        task: task in evaluation mode, on any device.
        data: data module, set up for ``fit``.
    """
    data = image_data(data)
    batches = some_batches(data, data.val_set, length(data.val_set))
    return Scores.joined([score_batch(task, _on_device(task, data, each)) for each in batches])


def judge(task: BaseTask, data: LightningDataModule) -> float:
    """Compute the metric of a task on the validation data, in percent.

    Args:
        task: task in evaluation mode, on any device.
        data: data module, set up for ``fit``.
    """
    if isinstance(task, SegmentationTask):
        return _mean_iou(task, image_data(data))
    return measure_of(task).of(validation_scores(task, data))


@torch.no_grad()
def _mean_iou(task: SegmentationTask, data: ImageDataModule) -> float:
    """Mean intersection over union of all validation images together, in percent."""
    metric = task.val_metrics["miou"].clone().to(task.device)
    metric.reset()
    for batch in some_batches(data, data.val_set, length(data.val_set)):
        batch = _on_device(task, data, batch)
        metric.update(task.classified(batch), batch["labels"])
    return 100 * float(metric.compute())


def _on_device(task: BaseTask, data: ImageDataModule, batch: dict[str, Any]) -> dict[str, Any]:
    """Move a batch to the task's device and normalise it."""
    return data.on_after_batch_transfer(move_data_to_device(batch, task.device), 0)

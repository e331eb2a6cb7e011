"""Ranking of sources for a data set by scores of their features on some training samples.

Nothing is trained; each source's network runs once over the samples, in evaluation mode and with
its own norm statistics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from zoo_lightning.errors import ConfigError
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.sources.adapting import Adapted
from zoo_lightning.transfer.transferability import decompose, h_score, linear_fit, log_evidence

MEANING = {
    "points": "logme: log evidence, per sample and coordinate, of a linear model from features to "
    "landmarks; higher suits the data better. negative_linear_mse: minus the mean squared error of "
    "a ridge regression, which also depends on the features' scale.",
    "numbers": "logme: log evidence, per sample and target, of a linear model from features to "
    "standardised targets; higher suits the data better. negative_linear_mse: minus the mean "
    "squared error of a ridge regression, which also depends on the features' scale.",
    "classes": "logme: log evidence, per sample and class, of a linear model from features to "
    "one-hot classes; higher suits the data better. h_score: how far apart the classes are, "
    "measured by the features' spread.",
    "labels": "logme: log evidence, per sample and label, of a linear model from features to "
    "labels that are there or not; higher suits the data better. negative_linear_mse: minus the "
    "mean squared error of a ridge regression, which also depends on the features' scale.",
    "areas": "logme: log evidence, per sample and class, of a linear model from features to the "
    "shares of the image that the classes have; higher suits the data better. "
    "negative_linear_mse: minus the mean squared error of a ridge regression, which also depends "
    "on the features' scale.",
}
"""Explanation of the scores for each kind of targets; sources are sorted by the first score."""


@dataclass(frozen=True)
class Targets:
    """Targets of ``n`` samples: coordinates of ``K`` points, classes, labels, numbers or areas.

    Attributes:
        kind: ``points``, ``classes``, ``labels``, ``numbers`` or ``areas``.
        values: coordinates as fractions of the image, ``(n, 2K)`` float64; classes, ``(n,)``;
            labels, ``(n, L)`` float64, 1 for those that are there; standardised numbers,
            ``(n, T)`` float64, so that no unit outweighs the others; or shares of the labelled
            cells that each class has, ``(n, C)`` float64.
        counted: mask of the values that count, of the shape of ``values``; all true for classes,
            ``(n, 1)``, and for areas.
        mean: mean of the numbers that count, ``(T,)``; 0 for other kinds.
        std: their standard deviation, ``(T,)``, or 1 where it is 0; 1 for other kinds.
    """

    kind: str
    values: Tensor
    counted: Tensor
    mean: Tensor | float = 0.0
    std: Tensor | float = 1.0


@dataclass(frozen=True)
class Ranking:
    """Sources, sorted by their transferability scores.

    Attributes:
        architecture: name of the sources' architecture.
        samples: number of training samples.
        num_features: number of pooled features.
        scores: names of the scores; sources are sorted by the first one.
        rows: ``name``, ``weights`` and the scores of each source, best first.
        remarks: explanations to print below the table.
    """

    architecture: str
    samples: int
    num_features: int
    scores: list[str]
    rows: list[dict[str, Any]]
    remarks: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain types, for JSON."""
        return asdict(self)


def rank_sources(
    architecture: Architecture,
    sources: Sequence[Adapted],
    data: LightningDataModule,
    samples: int,
) -> Ranking:
    """Rank sources by transferability scores of their features on training samples.

    Args:
        architecture: architecture of the sources. Feature maps are pooled; ``stages`` are pooled
            and concatenated.
        sources: sources whose weights are fitted to the architecture.
        data: data module, set up for ``fit``.
        samples: largest number of training samples.

    Raises:
        ConfigError: the samples have neither ``points`` nor ``label`` nor maps of ``labels``, their
            targets are all the same, or the data module is not one of this package.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    networks = [architecture.build(each.state).to(device).eval() for each in sources]
    features: list[list[Tensor]] = [[] for _ in networks]
    batches = []
    for batch in training_batches(data, samples):
        batches.append(targets_of(batch))
        images = data.on_after_batch_transfer(batch, 0)["image"].to(device)
        for each, network in zip(features, networks, strict=True):
            each.append(pooled(architecture, network, images).cpu())
    targets = join_targets(batches)
    rows: list[dict[str, Any]] = []
    for each, source in zip(features, sources, strict=True):
        scores = score(torch.cat(each), targets)
        rows.append({"name": source.source.name, "weights": source.source.weights, **scores})
    rows.sort(key=lambda row: -row["logme"])
    lacking = [each.source.name for each in sources if each.report.missing]
    remarks = [MEANING[targets.kind]]
    if lacking:
        remarks.append(f"without norm statistics of their own: {', '.join(lacking)}")
    return Ranking(
        architecture.label,
        len(targets.values),
        features[0][0].shape[1],
        list(rows[0])[2:],
        rows,
        remarks,
    )


def training_batches(data: LightningDataModule, samples: int) -> Iterator[dict[str, Any]]:
    """Iterate over some training samples without augmentation, the same for the same seed.

    Args:
        data: data module, set up for ``fit``. The images are not yet normalised, which
            ``on_after_batch_transfer`` does.
        samples: largest number of samples.

    Raises:
        ConfigError: the data module is not one of this package.
    """
    if not hasattr(data, "unvaried_batches"):
        raise ConfigError(
            f"data must be a data module of zoo_lightning, such as DrawnFaces or ImageFolders, got "
            f"{type(data).__name__}, which has no unvaried_batches"
        )
    return data.unvaried_batches(samples)


TARGETS = ("points", "visible", "label", "numbers")
"""Keys of a batch that hold targets as they are; maps of ``labels`` become areas."""


def targets_of(batch: dict[str, Any]) -> dict[str, Tensor]:
    """Extract the targets of a batch; points become fractions of the image, label maps areas."""
    targets = {k: v for k, v in batch.items() if k in TARGETS}
    if "labels" in batch:
        targets["areas"] = areas_of(batch["labels"])
    if "points" in targets:
        height, width = batch["image"].shape[-2:]
        targets["points"] = batch["points"].double() / torch.tensor([width, height])
    return targets


LABELS = 256
"""Number of labels of cells that are counted; the last one marks those that do not count."""


def areas_of(labels: Tensor) -> Tensor:
    """Shares of an image's labelled cells that the classes have, ``(B, 255)`` float64.

    Args:
        labels: maps of labels ``(B, h, w)`` int64; those below 0 or above 254 do not count.
    """
    known = torch.where((labels >= 0) & (labels < LABELS), labels, LABELS - 1).flatten(1).cpu()
    counts = torch.zeros(len(labels), LABELS, dtype=torch.float64)
    counts.scatter_add_(1, known, torch.ones(known.shape, dtype=torch.float64))
    counts = counts[:, :-1]
    return counts / counts.sum(dim=1, keepdim=True).clamp(min=1)


@torch.no_grad()
def pooled(architecture: Architecture, network: nn.Module, images: Tensor) -> Tensor:
    """Compute features ``(B, F)`` of images, averaged over positions and concatenated over stages.

    Args:
        architecture: architecture of the network.
        network: network in evaluation mode, on the images' device.
        images: normalised images, ``(B, C, H, W)``.
    """
    images = images.contiguous(memory_format=torch.channels_last)  # faster, on CPUs by far
    y = architecture.features(network, images)
    parts = y if isinstance(y, (list, tuple)) else [y]
    return torch.cat([part.mean(dim=(2, 3)) if part.dim() == 4 else part for part in parts], dim=1)


def join_targets(batches: Sequence[dict[str, Tensor]]) -> Targets:
    """Concatenate the targets of batches.

    Raises:
        ConfigError: the samples have neither ``points``, ``label``, ``numbers`` nor maps of
            ``labels``.
    """
    if "numbers" in batches[0]:
        return _standardised(torch.cat([batch["numbers"] for batch in batches]).double())
    if "points" in batches[0]:
        points = torch.cat([batch["points"] for batch in batches])
        visible = torch.cat([batch["visible"] for batch in batches])
        return Targets("points", points.flatten(1), visible.repeat_interleave(2, dim=1))
    if "label" in batches[0]:
        labels = torch.cat([batch["label"] for batch in batches])
        if labels.dim() == 2:  # several labels a sample, of which some may be unknown
            return Targets("labels", (labels == 1).double(), labels >= 0)
        return Targets("classes", labels, torch.ones(len(labels), 1, dtype=torch.bool))
    if "areas" in batches[0]:
        areas = torch.cat([batch["areas"] for batch in batches])
        areas = areas[:, : int(areas.sum(0).nonzero().max()) + 1] if areas.any() else areas[:, :1]
        return Targets("areas", areas, torch.ones(areas.shape, dtype=torch.bool))
    found = ", ".join(batches[0]) or "images only"
    raise ConfigError(
        "the data's samples must have points with visible, label, numbers, or maps of labels, got "
        f"{found}"
    )


def _standardised(values: Tensor) -> Targets:
    """Targets of numbers ``(n, T)``, NaN where unknown."""
    counted = ~values.isnan()
    number = counted.sum(0).clamp_min(1)
    mean = torch.where(counted, values, 0).sum(0) / number
    away = torch.where(counted, values - mean, 0)
    std = (away.square().sum(0) / number).sqrt()
    std = torch.where(std > 0, std, 1)
    return Targets("numbers", away / std, counted, mean, std)


def combinations(targets: Targets) -> Tensor:
    """Number of the combination of labels that each sample has, ``(n,)``, for folds."""
    return targets.values.unique(dim=0, return_inverse=True)[1]


def score(features: Tensor, targets: Targets) -> dict[str, float]:
    """Compute all transferability scores of one source's features.

    For classes these are LogME, averaged over the one-hot targets, and the H-score. For points and
    labels, numbers and areas they are LogME, averaged over them, and the linear MSE, summed over
    them; both use deviations from the mean targets and the mean features, because a head has an
    intercept. Invisible points, unknown labels and unknown numbers are ignored.

    Args:
        features: features of ``n`` samples, ``(n, F)``.
        targets: targets of the samples.

    Returns:
        Scores by name: ``logme``, and ``h_score`` or ``negative_linear_mse``; higher is better.

    Raises:
        ConfigError: the targets are the same for all samples.
    """
    if targets.kind == "classes":
        present = targets.values.unique()
        if len(present) < 2:
            raise ConfigError("all samples have one class; give more --samples or more classes")
        one_hot = (targets.values[:, None] == present).double()
        evidence = log_evidence(decompose(features, one_hot)).mean()
        return {"logme": float(evidence), "h_score": h_score(features, targets.values)}
    evidences, errors = [], []
    patterns, column_pattern = targets.counted.unique(dim=1, return_inverse=True)
    for index, rows in enumerate(patterns.T):
        values = targets.values[rows][:, column_pattern == index]
        if len(values) < 2:
            continue
        values, own = values - values.mean(0), features[rows].double()
        values = values[:, values.abs().amax(0) > 1e-9]
        if values.shape[1]:
            problem = decompose(own - own.mean(0), values)
            evidences.append(log_evidence(problem))
            errors.append(linear_fit(problem))
    if not evidences:
        what = {"labels": "label", "numbers": "number", "areas": "area"}
        raise ConfigError(
            f"no {what.get(targets.kind, 'visible point')} varies between the samples; give more "
            "--samples"
        )
    logme, error = torch.cat(evidences).mean(), torch.cat(errors).sum()
    return {"logme": float(logme), "negative_linear_mse": float(error)}

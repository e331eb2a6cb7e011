"""Rank sources for a data set: each one's features of some training samples, scored.

Nothing is trained; a source's network runs once over the samples, in evaluation mode and with its
own norm statistics.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from zoo_lightning.architecture import Architecture
from zoo_lightning.data.augmentation import NO_AUGMENTATION, Augmentation
from zoo_lightning.data.loading import SignalsToParent, sample_generator
from zoo_lightning.errors import ConfigError
from zoo_lightning.sources.adapting import Adapted
from zoo_lightning.sources.transferability import decompose, h_score, linear_fit, log_evidence

MEANING = {
    "points": "logme: log evidence, per sample and coordinate, of a linear model from features to "
    "landmarks; higher suits the data better. linear_mse: minus the error of a ridge regression, "
    "which also depends on the features' scale.",
    "classes": "logme: log evidence, per sample and class, of a linear model from features to "
    "one-hot classes; higher suits the data better. h_score: how far apart the classes are, "
    "measured by the features' spread.",
}
"""What the scores mean, for each kind of targets; sources are sorted by the first."""


@dataclass(frozen=True)
class Targets:
    """What is to be predicted of each sample.

    Attributes:
        kind: ``points`` or ``classes``.
        values: ``(n, 2K)`` float64 coordinates as fractions of the image, or ``(n,)`` classes.
        counted: ``(n, 2K)`` bool, the coordinates of points that count; all true for classes.
    """

    kind: str
    values: Tensor
    counted: Tensor


@dataclass(frozen=True)
class Ranking:
    """Sources and their scores.

    Attributes:
        architecture: of all sources.
        samples: that were looked at.
        num_features: of the pooled features.
        scores: names of the scores; the first one decides.
        rows: ``name``, ``weights`` and the scores of each source, best first.
        remarks: for people to read.
    """

    architecture: str
    samples: int
    num_features: int
    scores: list[str]
    rows: list[dict[str, Any]]
    remarks: list[str]

    def as_dict(self) -> dict[str, Any]:
        """In plain types, for JSON."""
        return asdict(self)


def rank_sources(
    architecture: Architecture,
    sources: Sequence[Adapted],
    data: LightningDataModule,
    samples: int,
) -> Ranking:
    """Score sources by their features of training samples.

    Args:
        architecture: of the sources. Feature maps are pooled; of ``stages`` each one is, and all
            are taken together.
        sources: fitted to it.
        data: set up for ``fit``, without random variations.
        samples: how many training samples to take, or all if there are fewer.

    Raises:
        ConfigError: data with neither ``points`` nor ``label``, or of which nothing varies.
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
    rows = []
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
    """Batches of some training samples, unvaried, the same ones for the same seed.

    Args:
        data: set up for ``fit``; its images are not yet normalised, which
            ``on_after_batch_transfer`` does.
        samples: how many.

    Raises:
        ConfigError: no such data module as this package has.
    """
    dataset = getattr(data, "train_set", None)
    if dataset is None:
        raise ConfigError(
            f"{type(data).__name__} has no train_set; expected a data module of zoo_lightning, "
            "such as DrawnFaces or ImageFolders"
        )
    dataset = unvaried(dataset, getattr(data, "val_set", None))
    generator = sample_generator(getattr(data, "seed", 0), 0, -3)
    chosen = torch.randperm(len(dataset), generator=generator)[:samples].sort().values
    yield from DataLoader(
        dataset,
        batch_size=data.batch_size,
        sampler=[(0, index) for index in chosen.tolist()],
        num_workers=data.num_workers,
        worker_init_fn=SignalsToParent(),
    )


def unvaried(train_set: Dataset, val_set: Dataset) -> Dataset:
    """The same samples without random variations; the training's own set stays as it is.

    Args:
        train_set: varied by a transform, by an augmentation, or in the photographs it is made of.
        val_set: whose transform takes the place of the training set's.
    """
    plain = copy.copy(train_set)
    if hasattr(plain, "transform") and hasattr(val_set, "transform"):
        plain.transform = val_set.transform
    if isinstance(getattr(plain, "options", None), Augmentation):
        plain.options = NO_AUGMENTATION
    if hasattr(plain, "photos") and hasattr(val_set, "photos"):
        plain.photos = unvaried(plain.photos, val_set.photos)
    return plain


def targets_of(batch: dict[str, Any]) -> dict[str, Tensor]:
    """What is to be predicted of a batch's samples; points as fractions of the image."""
    targets = {k: v for k, v in batch.items() if k in ("points", "visible", "label", "labels")}
    if "points" in targets:
        height, width = batch["image"].shape[-2:]
        targets["points"] = batch["points"].double() / torch.tensor([width, height])
    return targets


@torch.no_grad()
def pooled(architecture: Architecture, network: nn.Module, images: Tensor) -> Tensor:
    """Features ``(B, F)`` of normalised images, averaged over the image."""
    images = images.contiguous(memory_format=torch.channels_last)  # faster, on CPUs by far
    y = architecture.features(network, images)
    parts = y if isinstance(y, (list, tuple)) else [y]
    return torch.cat([part.mean(dim=(2, 3)) if part.dim() == 4 else part for part in parts], dim=1)


def join_targets(batches: Sequence[dict[str, Tensor]]) -> Targets:
    """Targets of all batches.

    Raises:
        ConfigError: samples with neither ``points`` nor ``label``.
    """
    if "points" in batches[0]:
        points = torch.cat([batch["points"] for batch in batches])
        visible = torch.cat([batch["visible"] for batch in batches])
        return Targets("points", points.flatten(1), visible.repeat_interleave(2, dim=1))
    if "label" in batches[0]:
        labels = torch.cat([batch["label"] for batch in batches])
        return Targets("classes", labels, torch.ones(len(labels), 1, dtype=torch.bool))
    found = "a map of labels" if "labels" in batches[0] else ", ".join(batches[0]) or "images only"
    raise ConfigError(f"the data's samples have {found}; expected points with visible, or label")


def score(features: Tensor, targets: Targets) -> dict[str, float]:
    """All scores of one source's features.

    For classes LogME is averaged over the one-hot targets and comes with the H-score. For points it
    is averaged over the coordinates and comes with the linear MSE, summed over them; both see
    deviations from the mean face and from the mean features, because a head has an intercept. A
    point counts in the samples in which it is visible.

    Args:
        features: ``(n, F)``.
        targets: of as many samples.

    Raises:
        ConfigError: targets that are the same everywhere.
    """
    if targets.kind == "classes":
        present = targets.values.unique()
        if len(present) < 2:
            raise ConfigError("all samples are of one class; give more --samples or more classes")
        one_hot = (targets.values[:, None] == present).double()
        evidence = log_evidence(decompose(features, one_hot)).mean()
        return {"logme": float(evidence), "h_score": h_score(features, targets.values)}
    evidence, errors = [], []
    patterns, column_pattern = targets.counted.unique(dim=1, return_inverse=True)
    for index, rows in enumerate(patterns.T):
        values = targets.values[rows][:, column_pattern == index]
        if len(values) < 2:
            continue
        values, own = values - values.mean(0), features[rows].double()
        values = values[:, values.abs().amax(0) > 1e-9]
        if values.shape[1]:
            problem = decompose(own - own.mean(0), values)
            evidence.append(log_evidence(problem))
            errors.append(linear_fit(problem))
    if not evidence:
        raise ConfigError("no visible point varies between the samples; give more --samples")
    logme, error = torch.cat(evidence).mean(), torch.cat(errors).sum()
    return {"logme": float(logme), "linear_mse": float(error)}

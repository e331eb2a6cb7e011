"""Linear probe of frozen features: the fraction of held-out targets that ridge regression explains.

Like the scores of :mod:`~zoo_lightning.transfer.transferability` it needs only features and
targets, computes in float64 and does not change with a rotation of whitened features; unlike them
it is fitted on some samples and evaluated on others. scikit-learn's ``RidgeCV`` supports neither
targets that are missing in some samples nor weights of features, and is not in the core install.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

FOLDS = 4
"""Number of cross-validation folds."""

PENALTIES = tuple(10.0 ** (power / 2) for power in range(-8, 7))
"""Ridge penalties that are tried, relative to the sum of squares of a standardised feature: from
almost none to so much that predictions are close to the mean."""

LEAST_DEVIATION = 1e-6
"""Smallest standard deviation that a feature is divided by, relative to the largest one: a feature
that is constant in the fitted folds would otherwise amplify rounding errors."""


@dataclass(frozen=True)
class Probe:
    """Result of a linear probe.

    Attributes:
        explained: held-out R²: fraction of the held-out targets' squared deviations from the fitted
            targets' mean that the predictions explain, at most 1; below 0 if the mean predicts
            better.
        penalty: ridge penalty of :data:`PENALTIES` that explains most.
        missed: squared error of each sample at that penalty, as a fraction of all squared
            deviations, ``(n,)`` float64; its sum is ``1 - explained``.
    """

    explained: float
    penalty: float
    missed: Tensor = field(compare=False, repr=False)


def linear_probe(
    features: Tensor,
    values: Tensor,
    counted: Tensor,
    folds: Tensor,
    scales: Tensor | None = None,
) -> Probe:
    """Cross-validate a ridge regression with an intercept, and choose the best penalty.

    A target that does not count in a sample is replaced by its mean in fitting and left out in
    evaluation.

    Args:
        features: features of ``n`` samples, ``(n, D)``; they are standardised by the fitted folds.
        values: targets ``(n, K)``; those that do not count may have any value.
        counted: mask of the targets that count, ``(n, K)``, or ``(n, 1)`` for whole samples.
        folds: fold of each sample, ``(n,)``, at least two different ones.
        scales: factors of at least 0 for the standardised features, ``(D,)``: the penalty shrinks
            features with a small factor more; ``None`` for 1.

    Returns:
        Result of the probe; ``explained`` is NaN if no target varies.
    """
    features, counted = features.double(), counted.expand_as(values)
    values = torch.where(counted, values, 0).double()
    squares = torch.zeros(len(PENALTIES), len(values), dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for fold in folds.unique():
        held = folds == fold
        fitted, here = features[~held], counted[~held]
        middle = values[~held].sum(0) / here.sum(0).clamp_min(1)
        deviation = torch.where(here, values[~held] - middle, 0)
        mean, std = fitted.mean(0), fitted.std(0, correction=0)
        std = std.clamp_min(LEAST_DEVIATION * std.max()).clamp_min(torch.finfo(std.dtype).tiny)
        unit = std if scales is None else std / scales
        predicted = ridge((fitted - mean) / unit, deviation, (features[held] - mean) / unit)
        wanted = torch.where(counted[held], values[held] - middle, 0)
        missed = torch.where(counted[held], wanted - predicted, 0)
        squares[:, held] = (missed**2).sum(2)
        total += (wanted**2).sum()
    error = squares.sum(1)
    best = int(error.argmin())
    return Probe(float(1 - error[best] / total), PENALTIES[best], squares[best] / total)


def ridge(fitted: Tensor, targets: Tensor, held: Tensor) -> Tensor:
    """Predict ``X_h (XᵀX + λ n)⁻¹ Xᵀ Y`` for every penalty ``λ`` of :data:`PENALTIES`.

    Computed once for all ``λ`` from the eigenvectors of the smaller of ``XᵀX`` and ``X Xᵀ``.

    Args:
        fitted: centred features ``X`` of the fitted samples, ``(n, D)``.
        targets: centred targets ``Y`` of the fitted samples, ``(n, K)``.
        held: features ``X_h`` of the held-out samples, ``(h, D)``.

    Returns:
        Predictions ``(len(PENALTIES), h, K)``.
    """
    samples, num_features = fitted.shape
    narrow = num_features <= samples
    squares, axes = torch.linalg.eigh(fitted.T @ fitted if narrow else fitted @ fitted.T)
    left = held @ axes if narrow else held @ (fitted.T @ axes)
    right = axes.T @ (fitted.T @ targets) if narrow else axes.T @ targets
    penalties = torch.tensor(PENALTIES, dtype=torch.float64)[:, None, None] * samples
    return (left / (squares.clamp_min(0) + penalties)) @ right


def spread_folds(labels: Tensor, folds: int = FOLDS) -> Tensor:
    """Stratified folds ``(n,)``: each class of ``labels`` ``(n,)`` is spread evenly over them."""
    order = labels.argsort(stable=True)
    parts = torch.empty_like(order)
    parts[order] = torch.arange(len(labels)) % folds
    return parts


def block_folds(samples: int, folds: int = FOLDS) -> Tensor:
    """Folds ``(n,)`` of consecutive samples, since consecutive images are often similar."""
    return torch.arange(samples) * folds // samples

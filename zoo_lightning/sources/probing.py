"""A linear probe of frozen features: how much of unseen targets a ridge regression explains.

Nothing is trained by gradients. Like :mod:`~zoo_lightning.sources.transferability` it takes
features and targets alone, computes in float64 and is unchanged by a rotation of whitened features;
unlike those scores it fits on some samples and looks at others.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

FOLDS = 4
"""Parts of the samples; each is predicted once by a fit on the others."""

PENALTIES = tuple(10.0 ** (power / 2) for power in range(-8, 7))
"""Strengths of the ridge that are tried, relative to the square of a standardised feature summed
over the samples: from next to none to so much that little but the mean remains."""

LEAST_DEVIATION = 1e-6
"""Smallest standard deviation that a feature is divided by, relative to the largest one: a unit
that never fires in the fitted part would otherwise blow up a rounding error."""


@dataclass(frozen=True)
class Probe:
    """Result of a linear probe.

    Attributes:
        explained: share of the held-out targets' squared deviations from the mean of the fitted
            ones that the predictions explain, at most 1; below 0 if the mean predicts better.
        penalty: the strength of the ridge, one of :data:`PENALTIES`, that explains most.
        missed: ``(n,)`` float64, each sample's squared error at that penalty as a share of all
            squared deviations; they sum to ``1 - explained``.
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
    """Cross-validated ridge regression with an intercept, the ridge chosen on the held-out parts.

    A target that does not count in a sample is taken to be at its mean while fitting and is left
    out when predictions are compared.

    Args:
        features: ``(n, D)``; standardised by the fitted part.
        values: ``(n, K)`` targets; what does not count may be anything.
        counted: ``(n, K)`` bool, or ``(n, 1)`` for whole samples.
        folds: ``(n,)``, the part that each sample belongs to; at least two parts.
        scales: ``(D,)`` at least 0, that the standardised features are multiplied by: the ridge
            shrinks those of a small scale more; ``None`` for 1.

    Returns:
        The probe; ``explained`` is not a number if no target varies.
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
    """Predictions ``X_h (XᵀX + λ n)⁻¹ Xᵀ Y`` for every ``λ`` of :data:`PENALTIES`.

    By the eigenvectors of the smaller one of ``XᵀX`` and ``X Xᵀ``, once for all ``λ``.

    Args:
        fitted: ``X``, ``(n, D)``, centred.
        targets: ``Y``, ``(n, K)``, centred.
        held: ``X_h``, ``(h, D)``.

    Returns:
        ``(len(PENALTIES), h, K)``.
    """
    samples, num_features = fitted.shape
    narrow = num_features <= samples
    squares, axes = torch.linalg.eigh(fitted.T @ fitted if narrow else fitted @ fitted.T)
    left = held @ axes if narrow else held @ (fitted.T @ axes)
    right = axes.T @ (fitted.T @ targets) if narrow else axes.T @ targets
    penalties = torch.tensor(PENALTIES, dtype=torch.float64)[:, None, None] * samples
    return (left / (squares.clamp_min(0) + penalties)) @ right


def spread_folds(labels: Tensor, folds: int = FOLDS) -> Tensor:
    """Parts ``(n,)`` into which every class of ``labels`` ``(n,)`` is dealt out evenly."""
    order = labels.argsort(stable=True)
    parts = torch.empty_like(order)
    parts[order] = torch.arange(len(labels)) % folds
    return parts


def block_folds(samples: int, folds: int = FOLDS) -> Tensor:
    """Parts ``(n,)`` of samples that follow one another, for similar images mostly do."""
    return torch.arange(samples) * folds // samples

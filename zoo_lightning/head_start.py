"""A head's start: the linear probe of the backbone's features, in place of random weights.

A random head's first gradients spoil the features that a backbone comes with (Kumar et al.,
*Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution*, ICLR 2022, who
train the head by itself first). Here the head is solved for, on features of some training samples
without variations: ridge regression for points, penalised logistic regression for classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule
from torch import Tensor

from zoo_lightning.backbone import Backbone
from zoo_lightning.ranking import Targets
from zoo_lightning.sources.probing import (
    LEAST_DEVIATION,
    block_folds,
    linear_probe,
    spread_folds,
)
from zoo_lightning.starts import SampleScores

LOGISTIC_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Weights of the squared norm that are tried, beside the mean cross-entropy of standardised
features; the one whose held-out cross-entropy is smallest is taken."""

ITERATIONS = 60
"""Of L-BFGS at most. Measured on 918 features of 96 channels it ends after about 40."""


def solve_head(
    backbone: Backbone,
    data: LightningDataModule,
    num_outputs: int,
    device: torch.device,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Linear head of a backbone's pooled features; its norm statistics become the samples'.

    Args:
        backbone: comes back in the mode, training or evaluation, that it was in.
        data: set up for ``fit``.
        num_outputs: classes, or twice the number of points.
        device: that the backbone is on.
        label_smoothing: of classes, in [0, 1).

    Returns:
        Weight ``(num_outputs, F)`` and bias ``(num_outputs,)``, float32 on the CPU.

    Raises:
        ConfigError: data without training samples, or without points or labels.
    """
    training = backbone.training
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        samples = SampleScores(backbone.architecture, data, device=device)
        features = samples.features(backbone.net, norms=True)
    backbone.train(training)
    weight, bias = linear_head(features.double(), samples.targets, num_outputs, label_smoothing)
    return weight.float(), bias.float()


def linear_head(
    features: Tensor, targets: Targets, num_outputs: int, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Weight ``(num_outputs, F)`` and bias ``(num_outputs,)`` fitted to samples.

    Args:
        features: ``(n, F)`` in float64.
        targets: of as many samples; a point counts in the samples in which it is visible, and the
            bias of one that never is remains at the image's middle.
        num_outputs: as in :func:`solve_head`.
        label_smoothing: of classes.
    """
    mean, std = features.mean(0), features.std(0, correction=0)
    std = std.clamp_min(LEAST_DEVIATION * std.max()).clamp_min(torch.finfo(std.dtype).tiny)
    standard = (features - mean) / std
    if targets.kind == "classes":
        weight, bias = _logistic_head(standard, targets.values, num_outputs, label_smoothing)
    else:
        weight, bias = _ridge_head(standard, targets)
    weight = weight / std[:, None]
    return weight.T.contiguous(), bias - mean @ weight


def _ridge_head(features: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """Ridge regression of the strength that a cross-validated probe finds: ``(F, K)``, ``(K,)``."""
    values, counted = targets.values.double(), targets.counted.expand_as(targets.values)
    values = torch.where(counted, values, 0)
    number = counted.sum(0)
    middle = torch.where(number > 0, values.sum(0) / number.clamp_min(1), 0.5)
    deviation = torch.where(counted, values - middle, 0)
    samples, num_features = features.shape
    penalty = linear_probe(features, values, counted, block_folds(samples)).penalty
    ridge = penalty * samples * torch.eye(num_features, dtype=features.dtype)
    return torch.linalg.solve(features.T @ features + ridge, features.T @ deviation), middle


def _logistic_head(
    features: Tensor, labels: Tensor, num_classes: int, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    folds = spread_folds(labels)

    def held_out(penalty: float) -> float:
        total = 0.0
        for fold in folds.unique():
            held = folds == fold
            weight, bias = logistic(
                features[~held], labels[~held], num_classes, penalty, label_smoothing
            )
            logits = features[held] @ weight + bias
            total += float(F.cross_entropy(logits, labels[held], reduction="sum"))
        return total

    best = min(LOGISTIC_PENALTIES, key=held_out)
    return logistic(features, labels, num_classes, best, label_smoothing)


def logistic(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    penalty: float,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Minimise ``cross-entropy + penalty ‖W‖²`` by L-BFGS from zero.

    Args:
        features: ``(n, F)``.
        labels: ``(n,)``.
        num_classes: ``C``; classes that do not occur become unlikely.
        penalty: of the weights, not of the bias.
        label_smoothing: in [0, 1).

    Returns:
        ``(F, C)`` and ``(C,)``.
    """
    weight = features.new_zeros(features.shape[1], num_classes, requires_grad=True)
    bias = features.new_zeros(num_classes, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def evaluate() -> Tensor:
        solver.zero_grad()
        logits = features @ weight + bias
        loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        loss = loss + penalty * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(evaluate)
    return weight.detach(), bias.detach()

"""Initialisation of a head by fitting it to the backbone's features.

The first gradients of a random head distort pretrained features (Kumar et al., *Fine-Tuning can
Distort Pretrained Features and Underperform Out-of-Distribution*, ICLR 2022, who train the head
alone first). Here the head is fitted to the features of some training samples without augmentation:
by ridge regression for points and numbers, by penalised logistic regression for classes and labels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule
from torch import Tensor

from zoo_lightning.models.backbone import Backbone
from zoo_lightning.nn.heads.losses import label_cross_entropy
from zoo_lightning.nn.multiply_adds import counting, known_multiply_adds
from zoo_lightning.nn.random_numbers import private_random_numbers
from zoo_lightning.transfer.probing import (
    LEAST_DEVIATION,
    block_folds,
    linear_probe,
    spread_folds,
)
from zoo_lightning.transfer.ranking import Targets, combinations
from zoo_lightning.transfer.starts import SampleScores

LOGISTIC_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Weights of the penalty ``‖W‖²`` relative to the mean cross-entropy; cross-validation chooses."""

ITERATIONS = 60
"""Largest number of iterations of L-BFGS; measured on 918 samples of 96 features it takes 40."""


def solve_head(
    backbone: Backbone,
    data: LightningDataModule,
    num_outputs: int,
    device: torch.device,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Fit a linear head to a backbone's pooled features of some training samples.

    Args:
        backbone: backbone of the head; its norm statistics are replaced by those of the samples.
        data: data module, set up for ``fit``.
        num_outputs: number of classes, labels or numbers, or twice the number of points.
        device: device of the backbone.
        label_smoothing: label smoothing of classes or labels, in [0, 1).

    Returns:
        Weight ``(num_outputs, F)`` and bias ``(num_outputs,)``, float32 on the CPU; for numbers
        those of a map to their units.

    Raises:
        ConfigError: there are fewer than two training samples, they have no targets, or
            their images have another number of channels than the architecture.
    """
    training = backbone.training
    with private_random_numbers(), torch.no_grad():
        samples = SampleScores(backbone.architecture, data, device=device)
        features = samples.features(backbone.net, norms=True)
    backbone.train(training)
    weight, bias = linear_head(features.double(), samples.targets, num_outputs, label_smoothing)
    return weight.float(), bias.float()


def linear_head(
    features: Tensor, targets: Targets, num_outputs: int, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Fit a linear head to features and targets.

    Args:
        features: features of ``n`` samples, ``(n, F)`` float64.
        targets: targets of the samples. Invisible points, unknown numbers and unknown labels are
            ignored; the bias of a point that is never visible is the image's centre.
        num_outputs: number of classes, labels or numbers, or twice the number of points.
        label_smoothing: label smoothing of classes or labels, in [0, 1).

    Returns:
        Weight ``(num_outputs, F)`` and bias ``(num_outputs,)``, float64.
    """
    mean, std = features.mean(0), features.std(0, correction=0)
    std = std.clamp_min(LEAST_DEVIATION * std.max()).clamp_min(torch.finfo(std.dtype).tiny)
    standard = (features - mean) / std
    if targets.kind == "classes":
        weight, bias = _logistic_head(standard, targets.values, num_outputs, label_smoothing)
    elif targets.kind == "labels":
        weight, bias = _labels_head(standard, targets, label_smoothing)
    else:
        weight, bias = _ridge_head(standard, targets)
    weight = weight / std[:, None]
    weight, bias = weight * targets.std, bias * targets.std + targets.mean
    return weight.T.contiguous(), bias - mean @ weight


def _ridge_head(features: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """Ridge regression with the penalty of a cross-validated probe: ``(F, K)`` and ``(K,)``."""
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
    """Logistic regression with a cross-validated penalty: ``(F, C)`` and ``(C,)``."""
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


def _labels_head(
    features: Tensor, targets: Targets, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """A logistic regression for each label, with one cross-validated penalty: as classes."""
    labels = torch.where(targets.counted, targets.values, -1.0)
    folds = spread_folds(combinations(targets))

    def held_out(penalty: float) -> float:
        total = 0.0
        for fold in folds.unique():
            held = folds == fold
            weight, bias = label_logistic(features[~held], labels[~held], penalty, label_smoothing)
            loss = label_cross_entropy(features[held] @ weight + bias, labels[held])
            total += float(loss) * float((labels[held] >= 0).sum())
        return total

    best = min(LOGISTIC_PENALTIES, key=held_out)
    return label_logistic(features, labels, best, label_smoothing)


def label_logistic(
    features: Tensor, labels: Tensor, penalty: float, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Minimise ``binary cross-entropy + penalty ‖W‖² / L`` by L-BFGS from zero.

    Args:
        features: features of ``n`` samples, ``(n, F)``.
        labels: 1 for a label that is there, 0 for one that is not, -1 for one that is unknown,
            ``(n, L)``.
        penalty: weight of the squared norm of a label's weights; biases are not penalised.
        label_smoothing: label smoothing, in [0, 1).

    Returns:
        Weights ``(F, L)`` and bias ``(L,)``.
    """

    def loss_of(weight: Tensor, bias: Tensor) -> Tensor:
        loss = label_cross_entropy(features @ weight + bias, labels, label_smoothing)
        return loss + penalty * weight.square().sum() / labels.shape[1]

    return _minimise(loss_of, features, labels.shape[1])


def logistic(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    penalty: float,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Minimise ``cross-entropy + penalty ‖W‖²`` by L-BFGS from zero.

    Args:
        features: features of ``n`` samples, ``(n, F)``.
        labels: class indices, ``(n,)``.
        num_classes: number of classes ``C``; classes that do not occur become unlikely.
        penalty: weight of the squared norm of the weights; the bias is not penalised.
        label_smoothing: label smoothing, in [0, 1).

    Returns:
        Weights ``(F, C)`` and bias ``(C,)``.
    """

    def loss_of(weight: Tensor, bias: Tensor) -> Tensor:
        logits = features @ weight + bias
        loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        return loss + penalty * weight.square().sum()

    return _minimise(loss_of, features, num_classes)


def _minimise(
    loss_of: Callable[[Tensor, Tensor], Tensor], features: Tensor, num_outputs: int
) -> tuple[Tensor, Tensor]:
    """Weights ``(F, K)`` and bias ``(K,)`` of the least loss, by L-BFGS from zero."""
    weight = features.new_zeros(features.shape[1], num_outputs, requires_grad=True)
    bias = features.new_zeros(num_outputs, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")
    evaluations = 0

    def evaluate() -> Tensor:
        nonlocal evaluations
        evaluations += 1
        solver.zero_grad()
        loss = loss_of(weight, bias)
        loss.backward()
        return loss

    with torch.enable_grad(), known_multiply_adds() as cost:
        with counting() as once:
            evaluate()
        evaluations = 0
        solver.step(evaluate)
        cost.multiply_adds = evaluations * once.multiply_adds
    return weight.detach(), bias.detach()

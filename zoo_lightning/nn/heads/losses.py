"""Losses as pure functions: of coordinates, heat maps, labels, cells, and for distillation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LOSS_SCALE = 256.0
"""Width in pixels of the image that coordinate losses are computed for, because the literature's
constants (Wing's w and ε, smooth L1's β) are meant for inputs of 256 pixels."""


def masked_mean(values: Tensor, visible: Tensor | None) -> Tensor:
    """Average over the points that count; 0, with a gradient of 0, if there is none.

    Args:
        values: values of all points, ``(B, K, ...)``.
        visible: mask ``(B, K)`` of the points that count; ``None`` counts all.
    """
    if visible is None:
        return values.mean()
    mask = visible.view(*visible.shape, *[1] * (values.dim() - 2)).expand_as(values)
    # Not a product: what does not count may be NaN.
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def l1(pred: Tensor, target: Tensor, visible: Tensor | None = None) -> Tensor:
    """Mean absolute difference of fractions ``(B, K, 2)``, in pixels of a 256-pixel image.

    Args:
        pred: predicted points ``(B, K, 2)``, fractions of the image.
        target: true points ``(B, K, 2)``, fractions of the image.
        visible: mask ``(B, K)`` of the points that count; ``None`` counts all.
    """
    return masked_mean(LOSS_SCALE * (pred - target).abs(), visible)


def smooth_l1(pred: Tensor, target: Tensor, visible: Tensor | None = None) -> Tensor:
    """Smooth L1 loss of fractions ``(B, K, 2)``, quadratic below a pixel of a 256-pixel image.

    Args:
        pred: predicted points ``(B, K, 2)``, fractions of the image.
        target: true points ``(B, K, 2)``, fractions of the image.
        visible: mask ``(B, K)`` of the points that count; ``None`` counts all.
    """
    values = F.smooth_l1_loss(LOSS_SCALE * pred, LOSS_SCALE * target, reduction="none")
    return masked_mean(values, visible)


def mse(pred: Tensor, target: Tensor, visible: Tensor | None = None) -> Tensor:
    """Mean squared difference of fractions ``(B, K, 2)``, in pixels² of a 256-pixel image.

    Args:
        pred: predicted points ``(B, K, 2)``, fractions of the image.
        target: true points ``(B, K, 2)``, fractions of the image.
        visible: mask ``(B, K)`` of the points that count; ``None`` counts all.
    """
    return masked_mean((LOSS_SCALE * (pred - target)).square(), visible)


def wing(
    pred: Tensor,
    target: Tensor,
    visible: Tensor | None = None,
    width: float = 10.0,
    curvature: float = 2.0,
) -> Tensor:
    """Wing loss (Feng et al., CVPR 2018, equation 5): steep for small errors, linear for large.

    Args:
        pred: predicted points ``(B, K, 2)``, fractions of the image.
        target: true points ``(B, K, 2)``, fractions of the image.
        visible: mask ``(B, K)`` of the points that count; ``None`` counts all.
        width: ``w``, error below which the loss is logarithmic, in pixels of a 256-pixel image.
        curvature: ``ε``, curvature of the logarithmic part, in pixels of a 256-pixel image.

    Returns:
        Average over all coordinates that count, a scalar.
    """
    error = LOSS_SCALE * (pred - target).abs()
    offset = width - width * math.log1p(width / curvature)
    inner = width * torch.log1p(error / curvature)
    return masked_mean(torch.where(error < width, inner, error - offset), visible)


def heatmap_mse(pred: Tensor, target: Tensor, visible: Tensor | None = None) -> Tensor:
    """Mean squared difference of heat maps ``(B, K, h, w)`` whose peaks are 1.

    Args:
        pred: predicted heat maps ``(B, K, h, w)``.
        target: true heat maps ``(B, K, h, w)``, in [0, 1].
        visible: mask ``(B, K)`` of the points that count; ``None`` counts all.
    """
    return masked_mean((pred - target).square(), visible)


def adaptive_wing(
    pred: Tensor,
    target: Tensor,
    visible: Tensor | None = None,
    omega: float = 14.0,
    theta: float = 0.5,
    epsilon: float = 1.0,
    alpha: float = 2.1,
    foreground: float = 10.0,
) -> Tensor:
    """Adaptive Wing loss of heat maps, weighted (Wang et al., ICCV 2019, equations 4 and 7).

    Wing-like where the true map is bright, quadratic where it is dark; pixels in and beside a
    bright area count ``foreground + 1`` times.

    Args:
        pred: predicted heat maps ``(B, K, h, w)``.
        target: true heat maps ``(B, K, h, w)``, in [0, 1].
        visible: mask ``(B, K)`` of the points that count; ``None`` counts all.
        omega: ``ω``, height of the logarithmic part.
        theta: ``θ``, difference at which the linear part begins.
        epsilon: ``ε``, curvature of the logarithmic part.
        alpha: ``α``, exponent at a target of 0, above 2.
        foreground: ``W``, additional weight of bright pixels; 0 for none.
    """
    difference = (pred - target).abs()
    power = alpha - target
    ratio = theta / epsilon
    # The slope A and the offset C join both parts smoothly at the difference θ.
    slope = omega / (1 + ratio**power) * power * ratio ** (power - 1) / epsilon
    offset = theta * slope - omega * torch.log1p(ratio**power)
    # Where the linear part is taken, a huge power would still make a NaN gradient.
    near = difference.clamp(min=1e-12, max=theta) / epsilon
    values = torch.where(
        difference < theta, omega * torch.log1p(near**power), slope * difference - offset
    )
    bright = F.max_pool2d(target, 3, stride=1, padding=1) > 0.2
    return masked_mean(values * (1 + foreground * bright), visible)


def focal_cross_entropy(logits: Tensor, targets: Tensor, gamma: float = 0.0) -> Tensor:
    """Focal loss ``-Σ_c t_c (1 - p_c)^γ log p_c`` of each sample; with ``γ`` 0, cross-entropy.

    Lin et al., *Focal loss for dense object detection*, ICCV 2017, equation 4, for any number of
    classes, and for targets that label smoothing or mixup made of several classes.

    Args:
        logits: logits ``(B, C)``.
        targets: class probabilities ``(B, C)``.
        gamma: ``γ``, at least 0, by which samples that are already classified well count less.

    Returns:
        Losses ``(B,)``.
    """
    log_p = F.log_softmax(logits, dim=-1)
    if gamma:
        # Below 1, a power of 0 would have an infinite gradient.
        log_p = log_p * (1 - log_p.exp()).clamp(min=1e-6) ** gamma
    return -(targets * log_p).sum(dim=-1)


def smoothed_targets(labels: Tensor, num_classes: int, label_smoothing: float) -> Tensor:
    """Class probabilities ``(B, C)`` of labels ``(B,)``, of which a share is spread over all."""
    targets = F.one_hot(labels, num_classes).float()
    return targets * (1 - label_smoothing) + label_smoothing / num_classes


def sample_weights(targets: Tensor, class_weights: Tensor, label_smoothing: float) -> Tensor:
    """Weights ``(B,)`` of samples: those of their classes, in the proportions they were mixed in.

    The share that label smoothing spreads over all classes has no part in them: else a sample of a
    common class would count as many rare ones.

    Args:
        targets: class probabilities ``(B, C)``, smoothed.
        class_weights: weight of each class ``(C,)``.
        label_smoothing: label smoothing of the targets, in [0, 1).
    """
    mixed = (targets - label_smoothing / targets.shape[1]) / (1 - label_smoothing)
    return mixed @ class_weights


COORDINATE_LOSSES = {"l1": l1, "smooth_l1": smooth_l1, "wing": wing, "mse": mse}
"""Losses that compare coordinates, by the names of the option ``loss``."""

HEATMAP_LOSSES = {"heatmap_mse": heatmap_mse, "adaptive_wing": adaptive_wing}
"""Losses that compare heat maps, by the names of the option ``loss``."""


def cell_cross_entropy(
    scores: Tensor, labels: Tensor, ignored: int, weights: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy of the cells that count; 0, with a gradient of 0, if there is none.

    Args:
        scores: scores of the classes, ``(B, C, h, w)``.
        labels: true classes ``(B, h, w)`` int64.
        ignored: label of cells that do not count.
        weights: weights of the classes ``(C,)``; the mean is weighted by those of the labels.
    """
    loss = F.cross_entropy(scores, labels, weights, ignore_index=ignored)
    # The mean over no cells would be NaN.
    return torch.where((labels != ignored).any(), loss, 0.0 * scores.sum())


def dice_loss(scores: Tensor, labels: Tensor, ignored: int) -> Tensor:
    """Soft Dice loss ``1 - 2 Σ p t / (Σ p + Σ t)``, averaged over the classes that occur.

    Milletari et al., *V-Net*, 3DV 2016, equation 2, without their squares; the sums go over all
    cells of the batch that count. 0, with a gradient of 0, if no cell counts.

    Args:
        scores: scores of the classes, ``(B, C, h, w)``.
        labels: true classes ``(B, h, w)`` int64.
        ignored: label of cells that do not count.
    """
    known = labels != ignored
    true = F.one_hot(torch.where(known, labels, 0), scores.shape[1]).movedim(-1, 1) * known[:, None]
    found = scores.softmax(dim=1) * known[:, None]
    size = true.sum(dim=(0, 2, 3))
    dice = 2 * (found * true).sum(dim=(0, 2, 3)) / (found.sum(dim=(0, 2, 3)) + size).clamp(min=1e-6)
    present = size > 0
    return torch.where(present, 1 - dice, 0.0).sum() / present.sum().clamp(min=1)


def distillation_loss(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Distillation loss ``T² KL(softmax(z_teacher / T) ‖ softmax(z_student / T))``, batch average.

    Hinton, Vinyals and Dean, *Distilling the Knowledge in a Neural Network*, 2015, section 2; as in
    timm's ``LogitDistillationTask``.

    Args:
        logits: logits of the student, ``(B, C)``.
        taught: logits of the teacher, ``(B, C)``, without gradient.
        temperature: temperature ``T``, above 0.
    """
    student = F.log_softmax(logits / temperature, dim=-1)
    teacher = F.log_softmax(taught / temperature, dim=-1)
    divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def label_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    label_smoothing: float = 0.0,
    positive_weight: Tensor | None = None,
) -> Tensor:
    """Binary cross-entropy of independent labels, averaged over those that are known.

    Args:
        logits: logits ``(B, L)``.
        labels: 1 for a label that is there, 0 for one that is not, -1 for one that is unknown.
        label_smoothing: ``ε`` in [0, 1); targets become ``(1 - ε) y + ε / 2``.
        positive_weight: factor of each label's loss where it is there, ``(L,)``; ``None`` for 1.

    Returns:
        A scalar; 0, with a gradient of 0, if nothing is known.
    """
    known = labels >= 0
    targets = labels.clamp(min=0).to(logits) * (1 - label_smoothing) + label_smoothing / 2
    values = F.binary_cross_entropy_with_logits(
        logits, targets, reduction="none", pos_weight=positive_weight
    )
    return masked_mean(values, known)


def label_distillation_loss(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Distillation loss of independent labels: ``T² KL(σ(z_teacher / T) ‖ σ(z_student / T))``.

    The divergence of two Bernoulli distributions, averaged over labels and batch; for each label
    as :func:`distillation_loss` for two classes.

    Args:
        logits: logits of the student, ``(B, L)``.
        taught: logits of the teacher, ``(B, L)``, without gradient.
        temperature: temperature ``T``, above 0.
    """
    student, teacher = logits / temperature, taught / temperature
    chance = teacher.sigmoid()
    there = chance * (F.logsigmoid(teacher) - F.logsigmoid(student))
    absent = (1 - chance) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return (there + absent).mean() * temperature**2

"""Scores of masks from counts of cells: intersection over union, Dice, precision, recall."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ClassScores(NamedTuple):
    """Scores of ``C`` classes, each ``(C,)`` float64 in [0, 1].

    Attributes:
        iou: cells that have the class in truth and prediction, divided by those that have it in
            either; NaN for a class that occurs in neither, as all scores without a denominator.
        dice: twice those cells, divided by the sum of the cells in truth and in prediction.
        precision: share of the cells predicted to have the class that have it.
        recall: share of the cells with the class that are predicted to have it.
    """

    iou: Tensor
    dice: Tensor
    precision: Tensor
    recall: Tensor


def class_scores(confusion: Tensor) -> ClassScores:
    """Compute the scores of all classes from a confusion matrix.

    Args:
        confusion: counts of cells ``(C, C)``, true classes in rows, predicted ones in columns.
    """
    counts = confusion.double()
    both, true, found = counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)
    return ClassScores(both / (true + found - both), 2 * both / (true + found), both / found,
                       both / true)  # fmt: skip


def per_image_iou(predicted: Tensor, labels: Tensor, num_classes: int, ignored: int) -> Tensor:
    """Mean intersection over union of each image, over the classes that occur in it.

    Args:
        predicted: predicted classes ``(B, h, w)``.
        labels: true classes ``(B, h, w)``.
        num_classes: number ``C`` of classes.
        ignored: label of cells that do not count.

    Returns:
        ``(B,)`` float64 in [0, 1]; NaN for an image without cells that count.
    """
    known = labels != ignored
    pairs = [
        torch.bincount(num_classes * true[k] + found[k], minlength=num_classes**2)
        for true, found, k in zip(labels.long(), predicted.long(), known, strict=True)
    ]
    scores = [class_scores(each.view(num_classes, num_classes)).iou for each in pairs]
    return torch.stack([each.nanmean() for each in scores])

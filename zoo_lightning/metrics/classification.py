"""Accuracy per class, averaged over the classes that occur."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class ClassAccuracy(Metric):
    """Top-1 accuracy of each class that occurs, averaged over these classes, in [0, 1].

    Classes without images are left out even if they are predicted, unlike in torchmetrics' macro
    average.

    Args:
        num_classes: number ``C`` of classes.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    correct: Tensor
    total: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        zeros = torch.zeros(num_classes, dtype=torch.long)
        self.add_state("correct", zeros.clone(), dist_reduce_fx="sum")
        self.add_state("total", zeros, dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch of predictions.

        Args:
            preds: class scores ``(B, C)``.
            target: true classes ``(B,)``.
        """
        count = len(self.total)
        hits = target[preds.argmax(dim=1) == target]
        self.correct += torch.bincount(hits, minlength=count)
        self.total += torch.bincount(target, minlength=count)

    def compute(self) -> Tensor:
        """Compute the averaged accuracy over all processes; NaN without images."""
        present = self.total > 0
        return (self.correct[present] / self.total[present]).mean()

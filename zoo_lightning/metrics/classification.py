"""Accuracy of each class, averaged over the classes that occur."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class ClassAccuracy(Metric):
    """Mean over the classes of the share of their images that is recognised, in [0, 1].

    Classes without images do not count, also if they are predicted, in which torchmetrics' macro
    average differs.

    Args:
        num_classes: ``C``.
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
        """Take in scores ``(B, C)`` and classes ``(B,)``."""
        count = len(self.total)
        hits = target[preds.argmax(dim=1) == target]
        self.correct += torch.bincount(hits, minlength=count)
        self.total += torch.bincount(target, minlength=count)

    def compute(self) -> Tensor:
        """The mean; NaN before any image."""
        present = self.total > 0
        return (self.correct[present] / self.total[present]).mean()

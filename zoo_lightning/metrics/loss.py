"""The mean of a loss over all samples of all processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class MeanLoss(Metric):
    """Mean over samples of losses that are means over batches, however samples are shared out.

    Lightning's own average over processes counts samples in whole numbers, which gloo halves and
    rounds down, and torchmetrics' mean leaves out what is not a number.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, loss: Tensor, size: int) -> None:
        """Take in the mean loss ``()`` of a batch of so many samples."""
        self.total += loss.detach() * size
        self.count += size

    def compute(self) -> Tensor:
        """The mean; NaN before any sample."""
        return self.total / self.count

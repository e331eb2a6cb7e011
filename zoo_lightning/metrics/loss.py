"""Mean of a loss over all samples of all processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class MeanLoss(Metric):
    """Sample-weighted mean of batch losses, exact for batches of different sizes and under DDP.

    Lightning's own reduction averages integer sample counts over processes, which gloo rounds down,
    and torchmetrics' mean ignores NaN.
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

    def update(self, loss: Tensor, size: int | Tensor) -> None:
        """Add the loss of a batch.

        Args:
            loss: mean loss of the batch, a scalar.
            size: number of samples in the batch, or of what else has the same weight in the mean.
        """
        self.total += loss.detach() * size
        self.count += size

    def compute(self) -> Tensor:
        """Compute the mean over all processes; NaN without samples."""
        return self.total / self.count

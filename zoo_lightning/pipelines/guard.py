"""Which of two trained models is better, by their losses on the same validation images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DRAWS = 2000
"""Of the bootstrap."""

SURE = 0.8
"""Share of the draws that have to be in a candidate's favour before it replaces another model."""


@dataclass(frozen=True)
class Gain:
    """How much smaller a candidate's mean loss is than an incumbent's, on the same images.

    Attributes:
        mean: incumbent's minus candidate's; above 0 the candidate is better.
        low: 2.5 % quantile of the bootstrap over images.
        high: 97.5 % quantile.
        share: of the bootstrap's draws in which the candidate is better, in [0, 1].
    """

    mean: float
    low: float
    high: float
    share: float

    @property
    def is_sure(self) -> bool:
        """Whether the candidate may replace the incumbent."""
        return self.share >= SURE

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ({self.low:+.4f} to {self.high:+.4f})"


def gain(candidate: Tensor, incumbent: Tensor) -> Gain:
    """Compare two models by a paired bootstrap (Efron and Tibshirani 1993, section 6).

    Args:
        candidate: ``(N,)`` losses, one an image.
        incumbent: ``(N,)``, of the same images in the same order.
    """
    better = (incumbent - candidate).double()
    generator = torch.Generator().manual_seed(0)  # the same verdict every time
    chosen = torch.randint(len(better), (DRAWS, len(better)), generator=generator)
    means = better[chosen].mean(dim=1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
    return Gain(float(better.mean()), low, high, float((means > 0).double().mean()))

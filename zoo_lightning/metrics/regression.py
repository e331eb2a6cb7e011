"""Errors of predicted numbers, target by target and averaged over the targets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional import (
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    spearman_corrcoef,
)
from torchmetrics.utilities import dim_zero_cat

OF_TARGETS = ("mae", "rmse", "r2", "spearman")
"""Names of the metrics that each target has."""


class NumberErrors(Metric):
    """Errors of ``T`` predicted numbers, by torchmetrics' functions, over all processes.

    ``compute`` returns, by name:

    - ``nmae``: mean absolute error of each target divided by the target's standard deviation in
      training, averaged over the targets, percent. It has no unit, so it can be averaged over
      targets of different units; always predicting the mean of normally distributed numbers gives
      80.
    - ``mae`` and ``rmse`` in the targets' units, ``r2`` (at most 1) and ``spearman`` (in [-1, 1]),
      each averaged over the targets;
    - ``mae/NAME``, ``rmse/NAME``, ``r2/NAME``, ``spearman/NAME`` of each target, if there are
      several.

    Unknown numbers are left out target by target. ``r2`` and ``spearman`` of fewer than two
    different numbers are NaN and are left out of averages, as are all metrics of a target of which
    no number is known.

    Args:
        names: names of the ``T`` targets.
    """

    higher_is_better = None
    is_differentiable = False
    full_state_update = False
    found: list[Tensor]
    wanted: list[Tensor]

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = list(names)
        # All numbers, which Spearman's correlation has to sort.
        self.add_state("found", [], dist_reduce_fx="cat")
        self.add_state("wanted", [], dist_reduce_fx="cat")
        self.std = torch.ones(len(self.names))

    def set_scale(self, std: Tensor) -> None:
        """Set the standard deviation ``(T,)`` of each target, for ``nmae``."""
        self.std = std.detach().cpu()

    def update(self, found: Tensor, wanted: Tensor) -> None:
        """Add a batch.

        Args:
            found: predicted numbers ``(B, T)`` in the targets' units.
            wanted: true numbers ``(B, T)``; NaN where unknown.
        """
        self.found.append(found.detach().float())
        self.wanted.append(wanted.detach().float())

    def compute(self) -> dict[str, Tensor]:
        """Compute all metrics over the images of all processes, by name."""
        found, wanted = dim_zero_cat(self.found), dim_zero_cat(self.wanted)
        rows = []
        for column, deviation in enumerate(self.std.tolist()):
            known = ~wanted[:, column].isnan()
            rows.append(_errors(found[known, column], wanted[known, column], deviation))
        table = torch.stack(rows)
        means = table.nanmean(dim=0)
        result = dict(zip(("nmae", *OF_TARGETS), means, strict=True))
        if len(self.names) > 1:
            for name, row in zip(self.names, table, strict=True):
                own = zip(OF_TARGETS, row[1:], strict=True)
                result |= {f"{metric}/{name}": value for metric, value in own}
        return result


def _errors(found: Tensor, wanted: Tensor, std: float) -> Tensor:
    """``nmae`` and :data:`OF_TARGETS` of one target, ``(5,)``."""
    values = torch.full((1 + len(OF_TARGETS),), torch.nan, device=found.device)
    if len(wanted):
        values[1] = mean_absolute_error(found, wanted)
        values[0] = 100 * values[1] / std
        values[2] = mean_squared_error(found, wanted, squared=False)
    if len(wanted.unique()) > 1:
        # About the mean, since float32 squares of large numbers leave nothing of small deviations.
        middle = wanted.double().mean()
        values[3] = r2_score((found - middle).float(), (wanted - middle).float())
        if len(found.unique()) > 1:  # a constant has no order
            values[4] = spearman_corrcoef(found, wanted)
    return values

"""Agreement of gates with the effects of removing sources: rank correlations and a verdict.

The rank correlation is written in torch because ``gates`` runs in the core install, which has no
SciPy; a test compares it with ``scipy.stats.spearmanr``. The permutation test shuffles within
layers, which ``scipy.stats.permutation_test`` does not. Letters: ``L`` layers, ``m`` sources, ``N``
samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ENOUGH = 0.5
"""Smallest rank correlation over layer and source at which gates may be read as sources' worth."""

CHANCE = 0.05
"""Largest p-value at which a correlation is not attributed to chance."""

BEYOND_NOISE = 2.0
"""Number of standard errors that a difference must exceed to count."""

SHUFFLES = 5000
"""Number of random orders in the permutation test."""


def ranks(values: Tensor) -> Tensor:
    """Rank values from 1, with the mean rank for equal values: ``(n,)`` float64."""
    _, inverse, counts = values.double().unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[inverse]


def spearman(a: Tensor, b: Tensor) -> float | None:
    """Spearman's rank correlation of two tensors of ``n`` values; ``None`` if one is constant."""
    first, second = (each - each.mean() for each in (ranks(a.flatten()), ranks(b.flatten())))
    scale = float(first.norm() * second.norm())
    return float(first @ second) / scale if scale > 0 else None


def chance_of(shares: Tensor, effects: Tensor, shuffles: int = SHUFFLES) -> float:
    """Compute the p-value of the rank correlation of gate shares and effects, by permutation.

    Gate shares are shuffled among the sources within each layer, since those of a layer sum to 1
    and layers differ in the size of effects. The test is one-sided, for correlations at least as
    high as the observed one.

    Args:
        shares: gate shares, ``(L, m)``.
        effects: effects of removal, ``(L, m)``.
        shuffles: number of random orders.

    Returns:
        Probability in [``1 / (shuffles + 1)``, 1].
    """
    first, second = (ranks(each.flatten()).view(each.shape) for each in (shares, effects))
    second = second - second.mean()
    generator = torch.Generator().manual_seed(0)
    orders = torch.rand(shuffles, *shares.shape, generator=generator).argsort(dim=-1)
    shuffled = first.expand(shuffles, -1, -1).gather(-1, orders)
    found = (shuffled * second).sum(dim=(1, 2))
    observed = (first * second).sum()
    return float(((found >= observed - 1e-9).sum() + 1) / (shuffles + 1))


@dataclass(frozen=True)
class Pairs:
    """Numbers of pairs of sources whose order by gates and by removal is the same or opposite.

    Attributes:
        same: number of pairs in which removing the source with the larger gates costs more.
        opposite: number of pairs in which removing the source with the larger gates costs less.
        within_noise: number of pairs whose removals differ by no more than :data:`BEYOND_NOISE`
            standard errors, or whose gates are equal.
    """

    same: int
    opposite: int
    within_noise: int

    @property
    def total(self) -> int:
        """Number of all pairs of sources."""
        return self.same + self.opposite + self.within_noise


def compare_pairs(shares: Tensor, errors: Tensor) -> Pairs:
    """Compare the sources' order by gate shares with that by the effects of removal.

    Args:
        shares: gate share of each source, ``(m,)``.
        errors: error of each sample without each source, ``(m, N)``; the samples are the same, so
            that their common part cancels in differences.
    """
    counts = {"same": 0, "opposite": 0, "within_noise": 0}
    for i in range(len(shares)):
        for j in range(i):
            mean, deviation = mean_and_error(errors[i] - errors[j])
            clear = abs(mean) > BEYOND_NOISE * deviation and shares[i] != shares[j]
            alike = (mean > 0) == bool(shares[i] > shares[j])
            counts[("same" if alike else "opposite") if clear else "within_noise"] += 1
    return Pairs(**counts)


def mean_and_error(differences: Tensor) -> tuple[float, float]:
    """Mean of differences ``(N,)`` and its standard error, which is 0 for one sample."""
    differences = differences.double()
    if len(differences) < 2:
        return float(differences.mean()), 0.0
    return float(differences.mean()), float(differences.std() / len(differences) ** 0.5)


@dataclass(frozen=True)
class Agreement:
    """Agreement of gates with the effects of removal.

    Attributes:
        pairs: comparison of all pairs of sources, over all layers together.
        rank_correlation: Spearman's correlation of gate shares and effects over layer and source;
            ``None`` if effects by layer were not measured or are constant.
        kernel_correlation: Spearman's correlation of the shares of ``‖a_i T_i W_i‖`` and effects
            over layer and source.
        within_layers: mean over the layers of the correlation of gate shares and effects within
            each layer.
        values: number of values in the correlations over layer and source.
        chance: p-value of the rank correlation, see :func:`chance_of`.
    """

    pairs: Pairs
    rank_correlation: float | None = None
    kernel_correlation: float | None = None
    within_layers: float | None = None
    values: int = 0
    chance: float | None = None

    @property
    def trusted(self) -> bool:
        """Whether gates may be read as the sources' worth: significant, and no opposite pair."""
        if self.rank_correlation is None or self.chance is None:
            return False
        by_layer = self.rank_correlation >= ENOUGH and self.chance <= CHANCE
        return by_layer and self.pairs.opposite == 0 and self.pairs.same > 0

    def correlation_words(self) -> str:
        """Describe the rank correlation over layer and source in a phrase."""
        if not self.values:
            return "effects by layer were not measured"
        if self.rank_correlation is None:
            return "by layer either gates or effects do not vary"
        return (
            f"rank correlation over layer and source {self.rank_correlation:+.2f} "
            f"({self.values} pairs, probability by chance {self.chance:.4f})"
        )

    def verdict(self) -> str:
        """Sum up in one sentence whether gates may be read as the sources' worth."""
        orders = (
            f"of {self.pairs.total} pairs of sources {self.pairs.same} in the same order, "
            f"{self.pairs.opposite} in the opposite one, {self.pairs.within_noise} within noise"
        )
        reasons = f"{orders}; {self.correlation_words()}"
        if self.trusted:
            return f"Here the gates order the sources as removal does: {reasons}."
        return f"Do not read the gates as worth; read the removal column: {reasons}."


def agree(
    shares: Tensor, kernel_shares: Tensor, errors: Tensor, effects: Tensor | None
) -> Agreement:
    """Compare gates with the effects of removal.

    Args:
        shares: share of each source in the sum of a layer's gates, ``(L, m)``.
        kernel_shares: share of each source in the sum of a layer's ``‖a_i T_i W_i‖``, ``(L, m)``.
        errors: loss of each sample without each source, ``(m, N)``.
        effects: increase of the loss by removing a source from one layer, ``(L, m)``; ``None`` if
            not measured.
    """
    pairs = compare_pairs(shares.mean(dim=0), errors)
    if effects is None:
        return Agreement(pairs)
    inside = [spearman(*rows) for rows in zip(shares, effects, strict=True)]
    known = [value for value in inside if value is not None]
    correlation = spearman(shares, effects)
    return Agreement(
        pairs,
        correlation,
        spearman(kernel_shares, effects),
        sum(known) / len(known) if known else None,
        effects.numel(),
        None if correlation is None else chance_of(shares, effects),
    )

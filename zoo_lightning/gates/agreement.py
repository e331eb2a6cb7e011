"""Do gates order sources as removal does? Rank correlations, and a verdict in plain words.

Letters: ``L`` layers, ``m`` sources, ``N`` samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ENOUGH = 0.5
"""Rank correlation over layer and source from which on gates may be called a measure of worth."""

CHANCE = 0.05
"""Probability up to which a correlation is not put down to chance."""

BEYOND_NOISE = 2.0
"""Standard errors that a difference must exceed to count as one."""

SHUFFLES = 5000


def ranks(values: Tensor) -> Tensor:
    """Ranks from 1, equal values sharing their mean rank: ``(n,)`` float64."""
    _, inverse, counts = values.double().unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[inverse]


def spearman(a: Tensor, b: Tensor) -> float | None:
    """Spearman's rank correlation of two sets of ``n`` values; ``None`` if one does not vary."""
    first, second = (each - each.mean() for each in (ranks(a.flatten()), ranks(b.flatten())))
    scale = float(first.norm() * second.norm())
    return float(first @ second) / scale if scale > 0 else None


def chance_of(shares: Tensor, effects: Tensor, shuffles: int = SHUFFLES) -> float:
    """Probability of a rank correlation as high if gates knew nothing of sources.

    Shares are shuffled among the sources within each layer, since those of a layer sum to 1 and
    layers differ in how much anything does.

    Args:
        shares: ``(L, m)``.
        effects: ``(L, m)``.
        shuffles: how many; the probability is at least ``1 / (shuffles + 1)``.
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
    """How the two orders of the sources compare, pair by pair.

    Attributes:
        same: pairs in which the source with the larger gates is also the costlier to remove.
        opposite: pairs in which it is the cheaper one.
        within_noise: pairs whose removals differ by no more than :data:`BEYOND_NOISE` standard
            errors, or whose gates are equal.
    """

    same: int
    opposite: int
    within_noise: int

    @property
    def total(self) -> int:
        """All pairs of sources."""
        return self.same + self.opposite + self.within_noise


def compare_pairs(shares: Tensor, errors: Tensor) -> Pairs:
    """Compare the order of shares with the order of removals' effects.

    Args:
        shares: ``(m,)``.
        errors: ``(m, N)``, each sample's error without each source; the same samples for all, so
            that what is common to two removals cancels.
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
    """Mean of the samples' differences ``(N,)`` and its standard error; 0 for one sample."""
    differences = differences.double()
    if len(differences) < 2:
        return float(differences.mean()), 0.0
    return float(differences.mean()), float(differences.std() / len(differences) ** 0.5)


@dataclass(frozen=True)
class Agreement:
    """Gates beside removals.

    Attributes:
        pairs: of sources, over all layers together.
        rank_correlation: Spearman's, of gate shares and effects over layer and source, if the
            effects by layer were measured and vary.
        kernel_correlation: likewise of the shares of ``‖a_i T_i W_i‖``.
        within_layers: of the gates' shares, mean over the layers of the correlation within each.
        values: number of pairs of values that the correlations over layer and source are of.
        chance: see :func:`chance_of`.
    """

    pairs: Pairs
    rank_correlation: float | None = None
    kernel_correlation: float | None = None
    within_layers: float | None = None
    values: int = 0
    chance: float | None = None

    @property
    def trusted(self) -> bool:
        """Whether the gates may be read as worth: no pair against it, and no mere chance."""
        if self.rank_correlation is None or self.chance is None:
            return False
        by_layer = self.rank_correlation >= ENOUGH and self.chance <= CHANCE
        return by_layer and self.pairs.opposite == 0 and self.pairs.same > 0

    def correlation_words(self) -> str:
        """The rank correlation over layer and source, for people to read."""
        if not self.values:
            return "effects by layer were not measured"
        if self.rank_correlation is None:
            return "by layer either gates or effects do not vary"
        return (
            f"rank correlation over layer and source {self.rank_correlation:+.2f} "
            f"({self.values} pairs, probability by chance {self.chance:.4f})"
        )

    def verdict(self) -> str:
        """One sentence for users."""
        orders = (
            f"of {self.pairs.total} pairs of sources {self.pairs.same} in the same order, "
            f"{self.pairs.opposite} in the opposite one, {self.pairs.within_noise} not told apart"
        )
        told = f"{orders}; {self.correlation_words()}"
        if self.trusted:
            return f"Here the gates order the sources as removal does: {told}."
        return f"Do not read the gates as worth; read the removal column: {told}."


def agree(
    shares: Tensor, kernel_shares: Tensor, errors: Tensor, effects: Tensor | None
) -> Agreement:
    """Compare gates with removals.

    Args:
        shares: ``(L, m)``, each source's share of a layer's gates.
        kernel_shares: ``(L, m)``, of ``‖a_i T_i W_i‖``.
        errors: ``(m, N)``, samples' losses without each source.
        effects: ``(L, m)``, of removing a source from one layer, if they were measured.
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

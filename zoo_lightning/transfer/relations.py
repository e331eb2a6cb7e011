"""How the sources of a zoo are related on a data set: should they be merged, and how?

Nothing is trained. Networks run over some training samples with norm statistics of these samples,
and are scored by the linear probe of :mod:`zoo_lightning.starts`: the share of the held-out
targets' squared deviations that a ridge regression from the frozen, pooled features explains.

- *Relatives* have kernels that point the same way, see :data:`RELATED`.
- The *barrier* of a pair is the score of the network with both sources' averaged weights less the
  mean of the two sources' scores; below 0 the average knows less than they do.
- *Complementarity* ``D`` is the score of several sources' concatenated features less that of the
  best of them, see :func:`join`.

All scores are of features as they are: a long training changes what sources are worth, and
networks that learned the same may still disagree usefully. Random weights are the measure of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import median
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from zoo_lightning.architecture import Architecture
from zoo_lightning.backbone import average_networks
from zoo_lightning.errors import ConfigError
from zoo_lightning.matching.sources import agreement
from zoo_lightning.sources.adapting import Adapted
from zoo_lightning.sources.probing import Probe
from zoo_lightning.starts import TOLERANCE, UNTRAINED_SEED, SampleScores, half_for_last

Relation = Literal["relatives", "distant", "strangers"]

RELATED = 0.6
"""Cosine of kernels from which on two sources are relatives. Measured: five descendants of one
ImageNet network (MobileNetV1 of width 0.25), it and one another, 0.77 to 0.997; the shipped
descendants of ``tiny-imagenet50`` 0.83 to 0.95; networks and the random weights that they were
trained from 0.43 to 0.50; networks of one random start trained on different data 0.17 to 0.27."""

STRANGE = 0.1
"""Cosine of kernels below which two sources have nothing in common, not even the random weights
that they started from. Measured for independent weights of both architectures: at most 0.005."""

SHARES = (1 / 8, 1 / 4, 1 / 2)
"""Of a further source's features in the concatenated ones: tried one after the other, as long as
more of it explains more."""

WORTH = 0.02
"""Least gain of a score that is called one, if it is also two standard errors: those are about
0.004 for 1,000 images."""


@dataclass(frozen=True)
class Estimate:
    """A difference of two scores on the same samples.

    Attributes:
        value: the difference.
        error: its standard error, from the differences of the single samples. Too small where
            samples are near copies of one another, such as frames of one film.
    """

    value: float
    error: float

    def is_gain(self) -> bool:
        """Whether it is at least :data:`WORTH` and two standard errors above 0."""
        return self.value >= WORTH and self.value > 2 * self.error

    def __str__(self) -> str:
        """``+0.045 ± 0.003``."""
        return f"{self.value:+.3f} ± {self.error:.3f}"


@dataclass(frozen=True)
class SourceRow:
    """One source by itself.

    Attributes:
        name: of the source.
        weights: its reference.
        score: of its probe.
        over_random: score less that of a network of random weights.
        beside_random: ``D`` of the source and a network of random weights: what any further
            features add.
    """

    name: str
    weights: str
    score: float
    over_random: Estimate
    beside_random: Estimate


@dataclass(frozen=True)
class Pair:
    """Two sources by their names.

    Attributes:
        first: name of the one that comes first in the zoo.
        second: name of the other.
    """

    first: str
    second: str

    @property
    def names(self) -> str:
        """``A and B``."""
        return f"{self.first} and {self.second}"


@dataclass(frozen=True)
class PairRow(Pair):
    """Two sources beside each other.

    Attributes:
        cosine: of their kernels, the median over the layers, in [-1, 1].
        relation: ``relatives``, ``strangers``, or ``distant``: between both, as networks are that
            only share their random start.
        midpoint: score of the network of averaged weights.
        barrier: of the midpoint, against the mean of both scores.
        kept: share of what the better one has above random weights that the midpoint keeps;
            ``None`` where that is less than two standard errors.
        joint: score of the concatenated features.
        complementarity: ``D``: ``joint`` less the better one's score.
        over_random: ``joint`` less the score of the better one beside random weights.
    """

    cosine: float
    relation: Relation
    midpoint: float
    barrier: Estimate
    kept: float | None
    joint: float
    complementarity: Estimate
    over_random: Estimate


@dataclass(frozen=True)
class BestPair(Pair):
    """The pair whose concatenated features explain most.

    Attributes:
        score: of the concatenated features.
        complementarity: ``D`` against the best of all sources, which need not be in the pair.
        over_random: score less that of the best source beside random weights.
    """

    score: float
    complementarity: Estimate
    over_random: Estimate


@dataclass(frozen=True)
class Together:
    """All sources' features.

    Attributes:
        score: of the concatenated features.
        complementarity: ``D`` against the best source.
        shares: of each source's features, by name; 0 for those that add nothing.
        over_pair: score less that of the best pair.
        over_pair_random: score less that of the best pair beside random weights.
    """

    score: float
    complementarity: Estimate
    shares: dict[str, float]
    over_pair: Estimate
    over_pair_random: Estimate


@dataclass(frozen=True)
class Relations:
    """Relations of a zoo's sources.

    Attributes:
        architecture: of the sources.
        samples: that were looked at.
        num_features: of the pooled features of one source.
        untrained: score of a network of random weights.
        sources: in the zoo's order.
        pairs: in the zoo's order.
        best_pair: of those the one with the highest joint score.
        together: all sources.
        conclusion: one to three sentences.
    """

    architecture: str
    samples: int
    num_features: int
    untrained: float
    sources: list[SourceRow]
    pairs: list[PairRow]
    best_pair: BestPair
    together: Together
    conclusion: list[str]

    def as_dict(self) -> dict[str, Any]:
        """In plain types, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Joint:
    """Probe of several networks' features.

    Attributes:
        probe: of the concatenated features.
        shares: of each network's features by its index; those that add nothing are not there.
    """

    probe: Probe
    shares: dict[int, float]


def relate(
    architecture: Architecture,
    sources: Sequence[Adapted],
    data: LightningDataModule,
    samples: int,
    say: Callable[[str], object] = lambda line: None,
) -> Relations:
    """Relate sources to one another and to a data set; random number generators stay as they were.

    Args:
        architecture: of the sources; features of a map or of stages are pooled.
        sources: fitted to it, two or more.
        data: set up for ``fit``, without random variations.
        samples: training samples to look at, or all if there are fewer.
        say: gets lines of progress: a network for every source and for every pair takes its time.

    Raises:
        ConfigError: fewer than two sources, or data that nothing can be scored by.
    """
    if len(sources) < 2:
        names = ", ".join(each.source.name for each in sources) or "none"
        raise ConfigError(
            f"relations are between two sources or more, got {names}; give --sources A,B"
        )
    with torch.random.fork_rng(devices=[]):
        seen = SampleScores(architecture, data, samples)
        networks = [architecture.build(each.state) for each in sources]
        torch.manual_seed(UNTRAINED_SEED)
        networks.append(architecture.build())
        names = [each.source.name for each in sources]
        features = []
        for name, network in zip([*names, "random weights"], networks, strict=True):
            say(f"features of {name}")
            features.append(seen.features(network, norms=True))
        return _relate(seen, networks, features, sources, say)


def _relate(
    seen: SampleScores,
    networks: Sequence[nn.Module],
    features: Sequence[Tensor],
    sources: Sequence[Adapted],
    say: Callable[[str], object],
) -> Relations:
    """Relations from features of the sources' networks and, last, of random weights."""
    names = [each.source.name for each in sources]
    last = len(sources)
    single = [seen.probe_features(each) for each in features]
    order = sorted(range(last), key=lambda index: -single[index].explained)

    def joint(indices: Sequence[int], first: Joint | None = None) -> Joint:
        first = first or Joint(single[indices[0]], {indices[0]: 1.0})
        return join(seen, features, first, [i for i in indices if i not in first.shares])

    beside = [joint([index, last]).probe for index in range(last)]
    rows = [
        SourceRow(
            each.source.name,
            str(each.source.weights),
            single[index].explained,
            difference(single[index], single[last]),
            difference(beside[index], single[index]),
        )
        for index, each in enumerate(sources)
    ]
    states = [used_kernels(seen.architecture, each) for each in sources]
    pairs, joints = [], []
    for i, j in combinations(range(last), 2):
        say(f"midpoint of {names[i]} and {names[j]}")
        better, other = sorted((i, j), key=order.index)
        found = joint([better, other])
        midpoint = seen.probe(average_networks([networks[i], networks[j]], half_for_last(2)))
        cosine = median(agreement(states[i], states[j]).values())
        gain, rest = rows[better].over_random, midpoint.explained - single[last].explained
        kept = rest / gain.value if gain.value > 2 * gain.error else None
        joints.append(found)
        pairs.append(
            PairRow(
                names[i],
                names[j],
                cosine,
                relation_of(cosine),
                midpoint.explained,
                difference(midpoint, single[i], single[j]),
                kept,
                found.probe.explained,
                difference(found.probe, single[better]),
                difference(found.probe, beside[better]),
            )
        )
    chosen = max(range(len(pairs)), key=lambda index: pairs[index].joint)
    pair = joints[chosen]
    best_pair = BestPair(
        pairs[chosen].first,
        pairs[chosen].second,
        pair.probe.explained,
        difference(pair.probe, single[order[0]]),
        difference(pair.probe, beside[order[0]]),
    )
    both = joint([last], pair).probe
    everything = joint(order, pair)
    together = Together(
        everything.probe.explained,
        difference(everything.probe, single[order[0]]),
        {name: everything.shares.get(index, 0.0) for index, name in enumerate(names)},
        difference(everything.probe, pair.probe),
        difference(everything.probe, both),
    )
    return Relations(
        seen.architecture.label,
        len(seen),
        features[0].shape[1],
        single[last].explained,
        rows,
        pairs,
        best_pair,
        together,
        conclude(rows, pairs, best_pair, together, single[last].explained),
    )


def join(
    seen: SampleScores, features: Sequence[Tensor], first: Joint, others: Sequence[int]
) -> Joint:
    """Probe of concatenated features, in which each further network takes the share that helps.

    Width alone neither wins nor loses by this. With shares ``a_i`` that sum to 1, network i's
    standardised features are multiplied by ``√a_i``, so that the ridge meets ``Σ a_i K_i`` of the
    networks' kernel matrices: a copy changes nothing. (Without shares it is as if half the penalty
    were tried.) The share of a further network is chosen on the same held-out parts as the ridge,
    or is none. Measured with features of other images, which know nothing: without shares they cost
    up to 0.05 of the score, with them they gain at most 0.0002 in 42 cases.

    Args:
        seen: the samples.
        features: ``(n, F)`` of each network.
        first: what is there already.
        others: indices of networks to join one after the other.
    """
    found = first
    for index in others:
        start = found
        for share in SHARES:
            shares = {k: (1 - share) * v for k, v in start.shares.items()} | {index: share}
            scales = [
                torch.full((features[k].shape[1],), v, dtype=torch.float64).sqrt()
                for k, v in shares.items()
            ]
            probe = seen.probe_features(
                torch.cat([features[k] for k in shares], dim=1), torch.cat(scales)
            )
            if probe.explained <= found.probe.explained + ROUNDING:
                break
            found = Joint(probe, shares)
    return found


ROUNDING = 1e-7
"""Of a score, above which a copy's features never gain."""


def difference(probe: Probe, *others: Probe) -> Estimate:
    """Score of a probe less the mean of others' on the same samples."""
    fewer = torch.stack([each.missed for each in others]).mean(0) - probe.missed
    return Estimate(float(fewer.sum()), float(fewer.std(correction=1)) * len(fewer) ** 0.5)


def used_kernels(architecture: Architecture, source: Adapted) -> dict[str, Tensor]:
    """Those of a source's weights that the architecture's features come from."""
    return {key: source.state[key] for key in architecture.used_keys(source.state)}


def relation_of(cosine: float) -> Relation:
    """What a median cosine of kernels says of two sources."""
    if cosine >= RELATED:
        return "relatives"
    return "strangers" if cosine < STRANGE else "distant"


def conclude(
    sources: Sequence[SourceRow],
    pairs: Sequence[PairRow],
    best_pair: BestPair,
    together: Together,
    untrained: float,
) -> list[str]:
    """One to three sentences; the arguments are those of :class:`Relations`."""
    lines = [
        about_averaging(sources, pairs, untrained),
        *about_joining(sources, best_pair, together),
    ]
    below = [row.name for row in sources if row.over_random.value < -2 * row.over_random.error]
    if below and len(lines) < 3:
        verb = "explains" if len(below) == 1 else "explain"
        lines.append(f"{', '.join(below)} {verb} less than random weights here, as long as frozen")
    return lines


def about_averaging(
    sources: Sequence[SourceRow], pairs: Sequence[PairRow], untrained: float
) -> str:
    """Say which sources may be averaged.

    A midpoint costs little by the rule that ``greedy`` starts have: it keeps all but
    :data:`~zoo_lightning.starts.TOLERANCE` of what the best source has above random weights.

    Args:
        sources: two or more.
        pairs: of them.
        untrained: score of random weights.
    """
    best = max(sources, key=lambda row: row.score)
    if best.over_random.value <= 2 * best.over_random.error:
        return (
            f"no source's features explain more than random weights' ({untrained:.3f}): averaging "
            "has nothing to lose here, and transfer little to give"
        )
    least = best.score - TOLERANCE * (best.score - untrained)
    related = [pair for pair in pairs if pair.relation == "relatives"]
    good = [pair for pair in related if pair.midpoint >= least]
    if good:
        good.sort(key=lambda pair: -pair.midpoint)
        named = "; ".join(pair.names for pair in good[:3])
        more = f"; and {len(good) - 3} pairs more" if len(good) > 3 else ""
        what = "are relatives" if len(good) == 1 else "are pairs of relatives"
        share = (good[0].midpoint - untrained) / (best.score - untrained)
        cost = "nothing" if share >= 1 else f"little, {100 * share:.0f} % is kept"
        return f"{named}{more} {what}: averaging them costs {cost} (method start)"
    if related:
        top = max(related, key=lambda pair: pair.midpoint)
        return (
            f"{top.names} are relatives, but their average knows less than the best source "
            f"({top.midpoint:.3f} where {best.name} has {best.score:.3f}): train one, {best.name}"
        )
    top = max(pairs, key=lambda pair: pair.midpoint)
    line = f"no two are relatives (largest cosine {max(pair.cosine for pair in pairs):.2f})"
    if top.midpoint >= least:
        return (
            f"{line}, and yet the average of {top.names} loses little here ({top.midpoint:.3f} "
            f"where {best.name} has {best.score:.3f}); it is safer to train one, {best.name}"
        )
    return (
        f"{line}: averaging destroys them (at best {top.midpoint:.3f}, {top.names}, where "
        f"{best.name} has {best.score:.3f}); train one, {best.name}"
    )


def about_joining(sources: Sequence[SourceRow], pair: BestPair, together: Together) -> list[str]:
    """Say whether sources know what the best one does not.

    Features complement the best source if they add what random weights' features do not.

    Args:
        sources: two or more.
        pair: the one that explains most.
        together: all of them.
    """
    best = max(sources, key=lambda row: row.score)
    gain, over_random = pair.complementarity, pair.over_random
    joined = together.complementarity
    if gain.is_gain() and over_random.is_gain():
        lines = [
            f"{pair.names} complement each other (D = {gain}): an ensemble of the two, or one "
            "network taught by them, can gain"
        ]
        if len(sources) > 2:
            adds = together.over_pair.is_gain() and together.over_pair_random.is_gain()
            others = [name for name in together.shares if name not in (pair.first, pair.second)]
            used = [name for name in others if together.shares[name]]
            lines.append(
                f"of the others {', '.join(used)} add {together.over_pair}"
                if adds
                else f"as frozen features the others add nothing ({together.over_pair})"
            )
        return lines
    if gain.is_gain():
        return [
            f"{pair.names} together explain more than either (D = {gain}), but no more than "
            f"{best.name} beside random weights (D = {best.beside_random}): no sign that they "
            "know different things"
        ]
    if joined.is_gain() and together.over_pair_random.is_gain():
        return [f"only all sources together explain more than {best.name} (D = {joined})"]
    return [
        f"as frozen features the others add nothing to {best.name} (D = {gain} for {pair.names}); "
        "trained for long they may still, for networks of other origin disagree"
    ]

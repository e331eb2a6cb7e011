"""Relations between the sources of a zoo on a data set, without training: ``sources relate``.

Networks run over some training samples with norm statistics of these samples, and are scored by the
linear probe of :mod:`zoo_lightning.transfer.starts`: the fraction of the held-out targets' squared
deviations that a ridge regression from the frozen, pooled features explains.

- *Relatives* are sources with similar kernels, see :data:`~zoo_lightning.transfer.kinship.RELATED`.
- The *barrier* of a pair is the score of the network with both sources' averaged weights minus the
  mean of the two sources' scores; below 0 the average is worse than they are.
- *Complementarity* ``D`` is the score of several sources' concatenated features minus that of the
  best of them, see :func:`join`.

All scores use frozen features, which a long training changes; and an ensemble can gain even where
features do not complement each other. Random weights are the baseline of all scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import median
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from zoo_lightning.errors import ConfigError
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.models.backbone import average_networks
from zoo_lightning.nn.random_numbers import private_random_numbers
from zoo_lightning.rebasin.sources import kernel_cosines
from zoo_lightning.sources.adapting import Adapted
from zoo_lightning.transfer.kinship import Relation, relation_of
from zoo_lightning.transfer.probing import Probe
from zoo_lightning.transfer.starts import TOLERANCE, UNTRAINED_SEED, SampleScores, half_for_last

SHARES = (1 / 8, 1 / 4, 1 / 2)
"""Weights of a further source's features in the concatenated ones, tried in order as long as the
score rises."""

WORTH = 0.02
"""Smallest increase of a score that counts as a gain, if it is also two standard errors: those are
about 0.004 for 1,000 images."""


@dataclass(frozen=True)
class ScoreDifference:
    """Difference of two scores on the same samples, with its standard error.

    Attributes:
        value: difference of the scores.
        error: standard error of the difference, from the samples' differences. It is too small if
            samples are near duplicates, such as frames of one video.
    """

    value: float
    error: float

    def is_gain(self) -> bool:
        """Whether the difference is at least :data:`WORTH` and two standard errors."""
        return self.value >= WORTH and self.value > 2 * self.error

    def __str__(self) -> str:
        """Format as ``+0.045 ± 0.003``."""
        return f"{self.value:+.3f} ± {self.error:.3f}"


@dataclass(frozen=True)
class RelatedSource:
    """Scores of one source.

    Attributes:
        name: name of the source.
        weights: weights reference of the source.
        score: score of the source's linear probe.
        over_random: score minus that of a network with random weights.
        beside_random: complementarity ``D`` of the source and a network with random weights: the
            gain from additional features of any kind.
    """

    name: str
    weights: str
    score: float
    over_random: ScoreDifference
    beside_random: ScoreDifference


@dataclass(frozen=True)
class Pair:
    """Names of two sources.

    Attributes:
        first: name of the source that comes first in the zoo.
        second: name of the other source.
    """

    first: str
    second: str

    @property
    def names(self) -> str:
        """Both names, as ``A and B``."""
        return f"{self.first} and {self.second}"


@dataclass(frozen=True)
class PairRow(Pair):
    """Relation of two sources.

    Attributes:
        cosine: cosine of their kernels, the median over the layers, in [-1, 1].
        relation: ``relatives``, ``strangers``, or ``distant`` in between, as for networks that were
            trained from the same random weights.
        midpoint: score of the network with the average of both sources' weights.
        barrier: midpoint minus the mean of both sources' scores.
        kept: fraction of the better source's score above random weights that the midpoint keeps;
            ``None`` where that difference is less than two standard errors.
        joint: score of the concatenated features.
        complementarity: ``D``: ``joint`` minus the better source's score.
        over_random: ``joint`` minus the score of the better source's features concatenated with
            those of random weights.
    """

    cosine: float
    relation: Relation
    midpoint: float
    barrier: ScoreDifference
    kept: float | None
    joint: float
    complementarity: ScoreDifference
    over_random: ScoreDifference


@dataclass(frozen=True)
class BestPair(Pair):
    """Pair of sources whose concatenated features explain most.

    Attributes:
        score: score of the concatenated features.
        complementarity: score minus that of the best of all sources, which need not be in the pair.
        over_random: score minus that of the best source's features concatenated with those of
            random weights.
    """

    score: float
    complementarity: ScoreDifference
    over_random: ScoreDifference


@dataclass(frozen=True)
class Together:
    """Score of the concatenated features of all sources.

    Attributes:
        score: score of the concatenated features.
        complementarity: score minus that of the best source.
        shares: weight of each source's features, by name; 0 for those that add nothing.
        over_pair: score minus that of the best pair.
        over_pair_random: score minus that of the best pair's features concatenated with those of
            random weights.
    """

    score: float
    complementarity: ScoreDifference
    shares: dict[str, float]
    over_pair: ScoreDifference
    over_pair_random: ScoreDifference


@dataclass(frozen=True)
class Relations:
    """Result of :func:`relate`.

    Attributes:
        architecture: name of the sources' architecture.
        samples: number of training samples.
        num_features: number of pooled features of one source.
        untrained: score of a network with random weights.
        sources: scores of the sources, in the zoo's order.
        pairs: relations of all pairs, in the zoo's order.
        best_pair: pair with the highest joint score.
        together: score of all sources together.
        conclusion: one to three sentences that sum up the numbers.
    """

    architecture: str
    samples: int
    num_features: int
    untrained: float
    sources: list[RelatedSource]
    pairs: list[PairRow]
    best_pair: BestPair
    together: Together
    conclusion: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain types, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Joint:
    """Linear probe of several networks' concatenated features.

    Attributes:
        probe: result of the probe.
        shares: weight of each network's features by its index, without those that add nothing.
    """

    probe: Probe
    shares: dict[int, float]


def relate(
    architecture: Architecture,
    sources: Sequence[Adapted],
    data: LightningDataModule,
    samples: int,
    progress: Callable[[str], object] = lambda line: None,
) -> Relations:
    """Compare the sources of a zoo with one another on a data set.

    The state of the CPU's random number generator is restored.

    Args:
        architecture: architecture of the sources; features of a map or of stages are pooled.
        sources: sources whose weights are fitted to the architecture, two or more.
        data: data module, set up for ``fit``.
        samples: largest number of training samples.
        progress: function called with a line of text for each network that runs.

    Raises:
        ConfigError: there are fewer than two sources, or the samples have no targets that vary.
    """
    if len(sources) < 2:
        given = ", ".join(each.source.name for each in sources) or "none"
        raise ConfigError(
            f"sources must be two or more to be compared, got {given}; give --sources A,B"
        )
    with private_random_numbers():
        seen = SampleScores(architecture, data, samples)
        networks = [architecture.build(each.state) for each in sources]
        names = [each.source.name for each in sources]
        with private_random_numbers(UNTRAINED_SEED):
            networks.append(architecture.build())
            features = []
            for name, network in zip([*names, "random weights"], networks, strict=True):
                progress(f"features of {name}")
                features.append(seen.features(network, norms=True))
            return _relate(seen, networks, features, sources, progress)


def _relate(
    seen: SampleScores,
    networks: Sequence[nn.Module],
    features: Sequence[Tensor],
    sources: Sequence[Adapted],
    progress: Callable[[str], object],
) -> Relations:
    """Compute relations from the sources' features, followed by those of random weights."""
    names = [each.source.name for each in sources]
    last = len(sources)
    single = [seen.probe_features(each) for each in features]
    order = sorted(range(last), key=lambda index: -single[index].explained)

    def joint(indices: Sequence[int], first: Joint | None = None) -> Joint:
        first = first or Joint(single[indices[0]], {indices[0]: 1.0})
        return join(seen, features, first, [i for i in indices if i not in first.shares])

    beside = [joint([index, last]).probe for index in range(last)]
    rows = [
        RelatedSource(
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
        progress(f"midpoint of {names[i]} and {names[j]}")
        better, other = sorted((i, j), key=order.index)
        found = joint([better, other])
        midpoint = seen.probe(average_networks([networks[i], networks[j]], half_for_last(2)))
        cosine = median(kernel_cosines(states[i], states[j]).values())
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
    """Probe concatenated features, choosing each added network's weight by the score.

    With weights ``a_i`` that sum to 1, network i's standardised features are multiplied by
    ``√a_i``, so that the ridge regression has the kernel matrix ``Σ a_i K_i``: the number of
    features alone has no effect, and a copy changes nothing. (Without weights, adding a copy would
    halve the penalty.) The weight of a further network is chosen on the same held-out folds as the
    penalty, or is 0. Measured with features of other images, which are useless: without weights
    they cost up to 0.05 of the score, with them they gain at most 0.0002 in 42 cases.

    Args:
        seen: samples and their targets.
        features: features of each network, ``(n, F)``.
        first: result for the networks that are concatenated already.
        others: indices of further networks, added one after the other.

    Returns:
        Probe of all concatenated features, and the networks' weights.
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
"""Largest increase of a score that is attributed to rounding; a copy's features add less."""


def difference(probe: Probe, *others: Probe) -> ScoreDifference:
    """Difference of a probe's score from the mean score of other probes on the same samples."""
    fewer = torch.stack([each.missed for each in others]).mean(0) - probe.missed
    return ScoreDifference(float(fewer.sum()), float(fewer.std(correction=1)) * len(fewer) ** 0.5)


def used_kernels(architecture: Architecture, source: Adapted) -> dict[str, Tensor]:
    """Weights of a source that the architecture's features depend on."""
    return {key: source.state[key] for key in architecture.used_keys(source.state)}


def conclude(
    sources: Sequence[RelatedSource],
    pairs: Sequence[PairRow],
    best_pair: BestPair,
    together: Together,
    untrained: float,
) -> list[str]:
    """Sum up relations in one to three sentences; arguments as attributes of :class:`Relations`."""
    lines = [
        about_averaging(sources, pairs, untrained),
        *about_joining(sources, best_pair, together),
    ]
    below = [row.name for row in sources if row.over_random.value < -2 * row.over_random.error]
    if below and len(lines) < 3:
        verb = "explains" if len(below) == 1 else "explain"
        lines.append(
            f"{', '.join(below)} {verb} less than random weights here as frozen features, which "
            "says nothing of long trainings"
        )
    return lines


def about_averaging(
    sources: Sequence[RelatedSource], pairs: Sequence[PairRow], untrained: float
) -> str:
    """Sum up in a sentence which sources can be averaged.

    By the rule of ``gate_init: greedy``, an average is accepted if it keeps all but
    :data:`~zoo_lightning.transfer.starts.TOLERANCE` of the best source's score above random
    weights.

    Args:
        sources: scores of two or more sources.
        pairs: relations of all pairs.
        untrained: score of random weights.
    """
    best = max(sources, key=lambda row: row.score)
    if best.over_random.value <= 2 * best.over_random.error:
        return (
            f"no source's features explain more than random weights' ({untrained:.3f}) by two "
            "standard errors: averaging cannot lose anything here, and transfer gains little"
        )
    least = best.score - TOLERANCE * (best.score - untrained)
    related = [pair for pair in pairs if pair.relation == "relatives"]
    good = [pair for pair in related if pair.midpoint >= least]
    if good:
        good.sort(key=lambda pair: -pair.midpoint)
        named = "; ".join(pair.names for pair in good[:3])
        more = f"; and {len(good) - 3} more pairs" if len(good) > 3 else ""
        what = "are relatives" if len(good) == 1 else "are pairs of relatives"
        share = (good[0].midpoint - untrained) / (best.score - untrained)
        cost = "nothing" if share >= 1 else f"little, {100 * share:.0f} % is kept"
        return f"{named}{more} {what}: averaging them costs {cost} (method start)"
    if related:
        top = max(related, key=lambda pair: pair.midpoint)
        return (
            f"{top.names} are relatives, but before any training their average explains less than "
            f"the best source ({top.midpoint:.3f} where {best.name} has {best.score:.3f}): for a "
            f"short training take {best.name} alone, or method start, which weighs it most; in a "
            "long one the average may catch up"
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


def about_joining(
    sources: Sequence[RelatedSource], pair: BestPair, together: Together
) -> list[str]:
    """Sum up in sentences whether other sources complement the best one.

    Features complement the best source if they add more than the features of random weights do.

    Args:
        sources: scores of two or more sources.
        pair: pair whose concatenated features explain most.
        together: score of all sources together.
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
                f"of the others, {', '.join(used)} add{'s' * (len(used) == 1)} {together.over_pair}"
                if adds
                else f"as frozen features the others add too little to count ({together.over_pair})"
            )
        return lines
    if gain.is_gain():
        return [
            f"{pair.names} together explain more than either (D = {gain}), but no more than "
            f"{best.name} beside random weights (D = {best.beside_random}): no sign that they "
            "have learned different things"
        ]
    if joined.is_gain() and together.over_pair_random.is_gain():
        return [f"only all sources together explain more than {best.name} (D = {joined})"]
    return [
        f"as frozen features the others add too little to {best.name} to count (D = {gain} for "
        f"{pair.names}); after long training they may, since networks of other origin disagree"
    ]

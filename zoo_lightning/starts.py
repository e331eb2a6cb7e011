"""An informed start: how much each source should count, found from the target's training data.

Sources that were trained independently do not average well, so a zoo that starts with all of them
in equal parts loses what the best one knew. Three ways find the numbers for ``gate_init``; each
runs the sources' networks over some training samples and trains nothing by gradients.

- ``rank``: most for the source of the highest LogME, as ``sources rank`` prints it.
- ``probe``: most for the source whose features a linear probe explains held-out targets best with.
- ``greedy``: after the greedy soup of Wortsman et al. (*Model soups*, ICML 2022, section 2), by
  such probes: descendants of one ancestor, whose average is good, share the start, and sources
  that spoil what it has above a network of random weights get little. Each is tried at half the
  weight, see :func:`half_for_last`.

Under distributed training every process finds the numbers for itself, from the same samples; the
weights that are trained are rank zero's all the same, which DDP hands to the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from zoo_lightning.architecture import Architecture, Output
from zoo_lightning.backbone import average_networks, load_architecture
from zoo_lightning.errors import ConfigError
from zoo_lightning.layers.multiply_adds import counting
from zoo_lightning.layers.norm_statistics import estimate_norms, mixed
from zoo_lightning.ranking import (
    Targets,
    join_targets,
    pooled,
    score,
    targets_of,
    training_batches,
)
from zoo_lightning.shares import INFORMED, NEARLY_ONE, Informed, check_choice
from zoo_lightning.sources.probing import Probe, block_folds, linear_probe, spread_folds
from zoo_lightning.sources.spec import Source, parse_sources

SAMPLES = 2000
"""Training samples to look at, at most: enough that the order of the sources is stable, few enough
that it is a matter of seconds."""

NORM_SAMPLES = 512
"""Of these, those that norm statistics are estimated from, at most."""

CHOSEN_SHARE = 0.9
"""Start of all chosen sources together. Measured on faces: with 0.9 for the near source the zoo
keeps what that source knows; the rest is for the others' gates to have a gradient to grow by."""


@dataclass(frozen=True)
class Start:
    """A start and why it is so.

    Attributes:
        how: ``rank``, ``probe`` or ``greedy``.
        gate_init: for each source, in their order.
        names: of the sources.
        scores: of the sources, higher is better.
        chosen: indices of the sources that share :data:`CHOSEN_SHARE`, the best one first.
        joined: for ``greedy``, the score of the average that each further source was tried in, by
            its index, in the order of trying.
        untrained: for ``greedy``, the score of a network of random weights.
        samples: that were looked at.
        seconds: that it took.
        multiply_adds: that it took.
    """

    how: str
    gate_init: list[float]
    names: list[str]
    scores: list[float]
    chosen: list[int]
    joined: dict[int, float] = field(default_factory=dict)
    untrained: float | None = None
    samples: int = 0
    seconds: float = 0.0
    multiply_adds: int = 0

    def lines(self) -> list[str]:
        """For people to read: the scores, and the start."""
        measure = "LogME" if self.how == "rank" else "held-out share explained by a linear probe"
        scores = ", ".join(f"{n} {s:.4f}" for n, s in zip(self.names, self.scores, strict=True))
        if self.untrained is not None:
            scores += f", random weights {self.untrained:.4f}"
        numbers = ", ".join(f"{number:g}" for number in self.gate_init)
        tried = [
            f"{'with' if index in self.chosen else 'not'} {self.names[index]} ({value:.4f})"
            for index, value in self.joined.items()
        ]
        averages = f"; averages: {', '.join(tried)}" if tried else ""
        return [
            f"gate_init     {self.how}: {measure}, {self.samples} training samples, "
            f"{self.seconds:.1f} s: {scores}",
            f"start         [{numbers}], mostly {', '.join(self.names[i] for i in self.chosen)}"
            f"{averages}",
        ]


TOLERANCE = 0.12
"""Share of what the best score so far has above a network of random weights that an average may
lose and still be kept. Measured on seven targets with the shipped sources (``results/zoo``): the
average of the best source and a near relative keeps 90 to 105 %, that with a relative trained far
away 7 to 82 %, that with a stranger -62 to 65 %. Shares of the score itself do not tell them apart,
for random features alone explain up to 80 % of what the best source's do."""


def shares(chosen: Sequence[int], num_sources: int) -> list[float]:
    """Start of each source's gates.

    Args:
        chosen: indices of the sources that share :data:`CHOSEN_SHARE` equally; the others share
            the rest. If all are chosen they share 1.
        num_sources: ``m``.

    Returns:
        ``m`` numbers in (0, 1) that sum to 1 up to rounding.
    """
    others = num_sources - len(chosen)
    if not others:
        return [min(round(1 / num_sources, 4), NEARLY_ONE)] * num_sources
    much, little = CHOSEN_SHARE / len(chosen), (1 - CHOSEN_SHARE) / others
    return [float(f"{much if i in chosen else little:.4g}") for i in range(num_sources)]


def greedy(
    scores: Sequence[float],
    score_of: Callable[[list[int]], float],
    untrained: float = 0.0,
    tolerance: float = TOLERANCE,
) -> tuple[list[int], dict[int, float]]:
    """Sources whose average is hardly worse, or better, than the best of fewer of them.

    Args:
        scores: of each source alone, higher is better, on the scale of ``score_of``.
        score_of: score of the average of several sources, given by their indices, the one that is
            tried last.
        untrained: score of a network of random weights. If no source does better, the best one is
            alone.
        tolerance: share of what the best score so far has above it that an average may lose.

    Returns:
        Indices of the chosen sources, the best one first, and the scores of the averages that were
        tried, by the index of the source that was added.
    """
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    chosen, best = order[:1], scores[order[0]]
    tried: dict[int, float] = {}
    for index in order[1:]:
        tried[index] = score_of([*chosen, index])
        gain = best - untrained
        if gain > 0 and tried[index] >= best - tolerance * gain:
            chosen, best = [*chosen, index], max(best, tried[index])
    return chosen, tried


UNTRAINED_SEED = 0
"""Of the random weights that sources are compared with."""


def half_for_last(number: int) -> Tensor:
    """Weights ``(number,)`` of a network that is tried, the last one, and of those it joins.

    Half is the middle of the way between both, where a loss of unlike networks shows most. At the
    uniform ``1 / number`` a stranger drowns among several relatives: measured, one that costs its
    pair a quarter of the score costs a fourth place nothing.

    Args:
        number: at least 2.
    """
    weights = torch.full((number,), 0.5 / (number - 1))
    weights[-1] = 0.5
    return weights


class SampleScores:
    """Scores of networks by their features of the same training samples.

    Args:
        architecture: of the networks.
        data: set up for ``fit``.
        samples: how many to look at, or all if there are fewer.
        device: to run networks on; ``None`` takes a GPU if there is one.

    Raises:
        ConfigError: data without training samples, or without anything to predict.
    """

    def __init__(
        self,
        architecture: Architecture,
        data: LightningDataModule,
        samples: int = SAMPLES,
        device: torch.device | None = None,
    ) -> None:
        self.architecture = architecture
        self.data = data
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.images: list[Tensor] = []
        targets = []
        for batch in training_batches(data, samples):
            self.images.append(batch["image"])  # as bytes, a quarter of the normalised image
            targets.append(targets_of(batch))
        channels = {images.shape[1] for images in self.images} - {architecture.in_chans}
        if channels:
            raise ConfigError(
                f"the data's images have {channels.pop()} channels, the network takes "
                f"{architecture.in_chans}; set in_chans to those of the data"
            )
        self.targets: Targets = join_targets(targets)
        if len(self) < 2:
            raise ConfigError(f"the data have {len(self)} training samples, expected at least 2")

    def __len__(self) -> int:
        return len(self.targets.values)

    def logme(self, network: nn.Module) -> float:
        """LogME of a network as it is."""
        return score(self.features(network), self.targets)["logme"]

    def probe(self, network: nn.Module) -> Probe:
        """Linear probe of a network whose norm statistics are those of the samples.

        A zoo estimates its statistics anew, and so does an average; sources by themselves are
        measured alike.

        Args:
            network: its norm statistics change.

        Raises:
            ConfigError: targets that are the same everywhere.
        """
        return self.probe_features(self.features(network, norms=True))

    def probe_features(self, features: Tensor, scales: Tensor | None = None) -> Probe:
        """Linear probe of features of the samples.

        Args:
            features: ``(n, F)``, in the samples' order.
            scales: as of :func:`~zoo_lightning.sources.probing.linear_probe`.

        Raises:
            ConfigError: targets that are the same everywhere.
        """
        targets = self.targets
        if targets.kind == "classes":
            present, labels = targets.values.unique(return_inverse=True)
            values = torch.nn.functional.one_hot(labels, len(present))
            folds = spread_folds(labels)
        else:
            values, folds = targets.values, block_folds(len(targets.values))
        found = linear_probe(features, values, targets.counted, folds, scales)
        if found.explained != found.explained:  # not a number
            raise ConfigError(f"the {targets.kind} of the training samples are all the same")
        return found

    def features(self, network: nn.Module, norms: bool = False) -> Tensor:
        """Pooled features ``(n, F)`` of the samples, on the CPU.

        Args:
            network: brought to :attr:`device` and to evaluation.
            norms: whether its norm statistics become those of the samples.
        """
        network = network.to(self.device).eval()
        if norms:
            estimate_norms(network, self._normalised(mixed(self.images, NORM_SAMPLES)))
        batches = self._normalised(self.images)
        return torch.cat([pooled(self.architecture, network, each).cpu() for each in batches])

    def _normalised(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        for images in batches:
            batch = self.data.on_after_batch_transfer({"image": images.to(self.device)}, 0)
            yield batch["image"]


def find_start(
    architecture: Architecture,
    sources: Sequence[Source],
    data: LightningDataModule,
    how: Informed = "greedy",
    samples: int = SAMPLES,
) -> Start:
    """Find the start of a zoo; the random number generators are left as they were.

    Args:
        architecture: of the sources.
        sources: of the zoo.
        data: set up for ``fit``.
        how: ``rank``, ``probe`` or ``greedy``.
        samples: training samples to look at, or all if there are fewer.

    Raises:
        ConfigError: an unknown way, or data that nothing can be scored by.
        SourceError: a source cannot be read or does not fit.
    """
    check_choice("gate_init", how, INFORMED)
    began = time.monotonic()
    with torch.random.fork_rng(devices=[]), counting() as cost:
        seen = SampleScores(architecture, data, samples)
        loaded = load_architecture(architecture, sources)
        networks = [architecture.build(each.state) for each in loaded]
        joined: dict[int, float] = {}
        untrained = None
        if how == "rank":
            scores = [seen.logme(network) for network in networks]
        else:
            scores = [seen.probe(network).explained for network in networks]
        chosen = [max(range(len(scores)), key=scores.__getitem__)]
        if how == "greedy":

            def score_of(indices: list[int]) -> float:
                halves = half_for_last(len(indices))
                average = average_networks([networks[i] for i in indices], halves)
                return seen.probe(average).explained

            torch.manual_seed(UNTRAINED_SEED)
            untrained = seen.probe(architecture.build()).explained
            chosen, joined = greedy(scores, score_of, untrained)
    numbers = shares(chosen, len(sources))
    names = [source.name for source in sources]
    return Start(
        how, numbers, names, scores, chosen, joined, untrained, len(seen),
        seconds=time.monotonic() - began, multiply_adds=cost.multiply_adds,
    )  # fmt: skip


def informed_start(
    architecture: str | Callable[[], nn.Module],
    sources: list[str | dict[str, Any]],
    data: LightningDataModule,
    how: Informed = "greedy",
    samples: int = SAMPLES,
    output: Output = "pooled",
    in_chans: int = 3,
) -> list[float]:
    """Numbers for the ``gate_init`` of a :class:`~zoo_lightning.backbone.ZooBackbone`.

    Args:
        architecture: as the backbone's.
        sources: as the backbone's.
        data: a data module of this package; it is set up for ``fit`` and otherwise left as it is.
        how: ``rank``, ``probe`` or ``greedy``, see :mod:`zoo_lightning.starts`.
        samples: training samples to look at, or all if there are fewer.
        output: as the backbone's; features of a map or of stages are pooled.
        in_chans: as the backbone's.

    Returns:
        A number in (0, 1) for each source, in their order.

    Raises:
        ConfigError: an unknown way, or data that nothing can be scored by.
        DataError: as the data raise it.
        SourceError: a source that cannot be read or does not fit.
    """
    recipe = Architecture(architecture, output, in_chans)
    data.setup("fit")
    return find_start(recipe, parse_sources(sources), data, how, samples).gate_init

"""Initial gates of a zoo from training data: ``gate_init`` ``rank``, ``probe`` and ``greedy``.

Sources that were trained independently do not average well, so a zoo that starts with equal gates
loses what the best source has learned. Three methods find initial gates; each runs the sources'
networks over some training samples and trains nothing by gradients.

- ``rank``: a large gate for the source with the highest LogME, as printed by ``sources rank``.
- ``probe``: a large gate for the source whose linear probe explains held-out targets best.
- ``greedy``: after the greedy soup of Wortsman et al. (*Model soups*, ICML 2022, section 2), with
  such probes: large gates for sources whose average is good, such as descendants of one network;
  small ones for sources that lower the average's score towards that of random weights. Each source
  is tried at half the weight, see :func:`half_for_last`.

In distributed training every process finds the gates from the same samples; DDP then broadcasts the
parameters of rank zero.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from zoo_lightning.errors import ConfigError
from zoo_lightning.models.architecture import Architecture, Output
from zoo_lightning.models.backbone import average_networks, load_architecture
from zoo_lightning.models.initialization import INFORMED, NEARLY_ONE, Informed, check_choice
from zoo_lightning.nn.multiply_adds import counting
from zoo_lightning.nn.norm_statistics import estimate_norms, interleaved
from zoo_lightning.nn.random_numbers import private_random_numbers
from zoo_lightning.sources.spec import Source, parse_sources
from zoo_lightning.transfer.probing import Probe, block_folds, linear_probe, spread_folds
from zoo_lightning.transfer.ranking import (
    Targets,
    combinations,
    join_targets,
    pooled,
    score,
    targets_of,
    training_batches,
)

SAMPLES = 2000
"""Largest number of training samples: enough for a stable ranking of the sources, few enough to
take seconds."""

NORM_SAMPLES = 512
"""Largest number of training samples from which norm statistics are estimated."""

CHOSEN_SHARE = 0.9
"""Sum of the chosen sources' initial gates. Measured on faces: with 0.9 for the best source the zoo
keeps what that source has learned; the rest gives the other sources' gates a gradient."""


@dataclass(frozen=True)
class InformedStart:
    """Initial gates of a zoo, and the scores that they were chosen by.

    Attributes:
        how: method: ``rank``, ``probe`` or ``greedy``.
        gate_init: initial gate of each source, in (0, 1).
        names: names of the sources.
        scores: score of each source, LogME for ``rank``, else ``explained`` of its probe; higher is
            better.
        chosen: indices of the sources with large gates, the best source first.
        joined: for ``greedy``, score of the average with each further source, by the source's
            index, in the order of the trials; else empty.
        untrained: for ``greedy``, score of a network with random weights; else ``None``.
        samples: number of training samples.
        seconds: duration in seconds.
        multiply_adds: number of multiply-adds of all forward passes.
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
        """Format the scores and the initial gates as two lines to print."""
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
"""Fraction of the best score so far, above that of random weights, that an average may lose and
still be accepted. Measured on seven targets with the shipped sources (``results/zoo``): the average
of the best source and a near relative keeps 90 to 105 %, with a relative trained on other data 7 to
82 %, with an unrelated source -62 to 65 %. Fractions of the score itself do not separate these
cases, since random features already explain up to 80 % of what the best source's do."""


def initial_gates(chosen: Sequence[int], num_sources: int) -> list[float]:
    """Divide 1 among the sources: :data:`CHOSEN_SHARE` for the chosen ones, the rest for others.

    Args:
        chosen: indices of the chosen sources, which get equal parts; so do the others.
        num_sources: number of sources ``m``.

    Returns:
        Gates in (0, 1) that sum to 1 up to rounding, ``m`` numbers.
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
    """Choose sources greedily: each that lowers the chosen ones' average little, or raises it.

    Args:
        scores: score of each source alone; higher is better.
        score_of: function from indices of sources, the new one last, to the score of their average.
        untrained: score of a network with random weights. If no source has a higher score, only the
            best one is chosen.
        tolerance: fraction of the best score so far, above ``untrained``, that an average may lose.

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
"""Seed of the random weights that are the baseline of the sources' scores."""


def half_for_last(number: int) -> Tensor:
    """Weights ``(number,)`` for averaging networks: 1/2 for the last, equal ones for the others.

    The midpoint between the last network and the others shows best whether they can be averaged. At
    the uniform weight ``1 / number`` an unrelated network has little effect among relatives:
    measured, one that costs a pair a quarter of the score costs nothing as the fourth.

    Args:
        number: number of networks, at least 2.
    """
    weights = torch.full((number,), 0.5 / (number - 1))
    weights[-1] = 0.5
    return weights


def check_channels(found: int, wanted: int) -> None:
    """Check that images and network agree in their number of channels.

    Args:
        found: number of channels of the data's images.
        wanted: number of channels that the network takes, its ``in_chans``.

    Raises:
        ConfigError: they do not.
    """
    if found == wanted:
        return
    remedy = f"give model.backbone.in_chans {found}"
    if found == 3:
        kind = "grey" if wanted == 1 else "all"
        remedy = (
            "images are read as red, green and blue unless data.bands names other bands: give "
            f"--data.bands {kind}, which sets in_chans, too, or leave in_chans out"
        )
    raise ConfigError(
        f"model.backbone.in_chans must be the number of channels of the data's images, {found}, "
        f"got {wanted}; {remedy}"
    )


class SampleScores:
    """Scorer of networks by their features on the same training samples.

    Args:
        architecture: architecture of the networks.
        data: data module, set up for ``fit``.
        samples: largest number of training samples.
        device: device to run networks on; ``None`` takes a GPU if there is one.

    Attributes:
        images: batches of images ``(B, C, H, W)``, not yet normalised.
        targets: targets of the samples.

    Raises:
        ConfigError: there are fewer than two training samples, they have no targets, or their
            images have another number of channels than the architecture.
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
            check_channels(channels.pop(), architecture.in_chans)
        self.targets: Targets = join_targets(targets)
        if len(self) < 2:
            raise ConfigError(f"the data must have at least 2 training samples, got {len(self)}")

    def __len__(self) -> int:
        return len(self.targets.values)

    def logme(self, network: nn.Module) -> float:
        """Compute LogME of a network with its own norm statistics; higher is better.

        Raises:
            ConfigError: the targets are the same for all samples.
        """
        return score(self.features(network), self.targets)["logme"]

    def probe(self, network: nn.Module) -> Probe:
        """Linear probe of a network with norm statistics of the samples.

        Zoos and averages have no statistics of their own; with new ones sources are scored alike.

        Args:
            network: network to score; its norm statistics are replaced.

        Raises:
            ConfigError: the targets are the same for all samples.
        """
        return self.probe_features(self.features(network, norms=True))

    def probe_features(self, features: Tensor, scales: Tensor | None = None) -> Probe:
        """Linear probe from features of the samples to their targets.

        Args:
            features: features ``(n, F)``, in the samples' order.
            scales: factors of the standardised features, ``(F,)``, see
                :func:`~zoo_lightning.transfer.probing.linear_probe`; ``None`` for 1.

        Raises:
            ConfigError: the targets are the same for all samples.
        """
        targets = self.targets
        if targets.kind == "classes":
            present, labels = targets.values.unique(return_inverse=True)
            values = torch.nn.functional.one_hot(labels, len(present))
            folds = spread_folds(labels)
        elif targets.kind == "labels":
            values, folds = targets.values, spread_folds(combinations(targets))
        else:
            values, folds = targets.values, block_folds(len(targets.values))
        found = linear_probe(features, values, targets.counted, folds, scales)
        if math.isnan(found.explained):
            raise ConfigError(f"the {targets.kind} of the training samples are all the same")
        return found

    def features(self, network: nn.Module, norms: bool = False) -> Tensor:
        """Compute pooled features ``(n, F)`` of the samples, on the CPU.

        Args:
            network: network to run; it is moved to the device and put in evaluation mode.
            norms: whether to replace its norm statistics by those of the samples.
        """
        network = network.to(self.device).eval()
        if norms:
            estimate_norms(network, self._normalised(interleaved(self.images, NORM_SAMPLES)))
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
) -> InformedStart:
    """Find initial gates of a zoo; the state of the CPU's random number generator is restored.

    Args:
        architecture: architecture of the sources.
        sources: sources of the zoo.
        data: data module, set up for ``fit``.
        how: method: ``rank``, ``probe`` or ``greedy``.
        samples: largest number of training samples.

    Raises:
        ConfigError: ``how`` is unknown, or the training samples have no targets, the same target,
            or another number of channels.
        SourceError: a source cannot be read or does not fit.
    """
    check_choice("gate_init", how, INFORMED)
    architecture = architecture.with_images_of(data)
    began = time.monotonic()
    with private_random_numbers(), counting() as cost:
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

            with private_random_numbers(UNTRAINED_SEED):
                untrained = seen.probe(architecture.build()).explained
                chosen, joined = greedy(scores, score_of, untrained)
    numbers = initial_gates(chosen, len(sources))
    names = [source.name for source in sources]
    return InformedStart(
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
    image_size: int | None = None,
) -> list[float]:
    """Find ``gate_init`` of a :class:`~zoo_lightning.models.backbone.ZooBackbone` from data.

    Args:
        architecture: timm model name, import path or function, as the backbone's argument.
        sources: sources, each a string or a mapping, as the backbone's argument.
        data: data module of this package; it is set up for ``fit``.
        how: method: ``rank``, ``probe`` or ``greedy``, see :mod:`zoo_lightning.transfer.starts`.
        samples: largest number of training samples.
        output: features that the backbone returns: ``pooled``, ``map`` or ``stages``; maps and
            stages are pooled for scoring.
        in_chans: number of channels of the images.
        image_size: the backbone's argument; ``None`` for the network's own size.

    Returns:
        Gate in (0, 1) of each source, in their order.

    Raises:
        ArchitectureError: the architecture is unknown.
        ConfigError: ``how`` is unknown, or the training samples have no targets, the same target,
            or another number of channels.
        DataError: the data cannot be read.
        SourceError: a source cannot be read or does not fit.
    """
    recipe = Architecture(architecture, output, in_chans, image_size=image_size)
    data.setup("fit")
    return find_start(recipe, parse_sources(sources), data, how, samples).gate_init

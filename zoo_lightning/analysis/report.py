"""Gate report: gates by layer and source, and the effect of removing sources on the metric.

Removal measures what *this* network needs of a source, not what a zoo trained without the source
would reach. Of two sources that have learned the same, each can be removed at no cost; therefore
the report also has the metric with each source alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from zoo_lightning.analysis.agreement import BEYOND_NOISE, Agreement, agree, mean_and_error
from zoo_lightning.analysis.measuring import (
    Measure,
    RemovalStudy,
    Scores,
    measure_of,
    measured_task,
    removal_study,
)
from zoo_lightning.analysis.removing import kernel_norms
from zoo_lightning.errors import ConfigError
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.tasks import BaseTask
from zoo_lightning.tasks.compatibility import check_class_names


@dataclass(frozen=True)
class LayerRow:
    """Gate of a source in one layer, and the effect of its removal.

    Attributes:
        layer: name of the layer in the network.
        source: name of the source.
        gate: mean gate over the samples, in [0, 1]; the moving average in lite mode.
        gate_deviation: standard deviation of the gate over the samples; ``None`` in lite mode.
        gate_share: share of the source in the sum of the layer's mean gates.
        kernel_share: share of the source in the sum of the layer's ``‖a_i T_i W_i‖``, which takes
            the size of kernels into account.
        effect: increase of the loss without the source in this layer; ``None`` if not measured.
        effect_error: standard error of ``effect`` over the samples; ``None`` if not measured.
    """

    layer: str
    source: str
    gate: float
    gate_deviation: float | None
    gate_share: float
    kernel_share: float
    effect: float | None = None
    effect_error: float | None = None


@dataclass(frozen=True)
class SourceEffect:
    """Gates of a source in all layers, and the effect of its removal.

    Attributes:
        source: name of the source.
        start_share: share of the source in the sum of the initial gates; ``None`` if they were
            random.
        gate_share: mean of the source's gate shares over the layers.
        kernel_share: mean of the source's kernel shares over the layers.
        metric: metric without the source, in percent, norm statistics re-estimated.
        effect: increase of the error without the source, in percentage points.
        effect_error: standard error of ``effect`` over the samples.
        loss_effect: increase of the loss without the source.
        loss_effect_error: standard error of ``loss_effect`` over the samples.
        metric_as_is: metric without the source, in percent, norm statistics as trained.
        effect_as_is: increase of the error without the source, in percentage points, norm
            statistics as trained.
        metric_alone: metric with this source only, in percent, norm statistics re-estimated.
    """

    source: str
    start_share: float | None
    gate_share: float
    kernel_share: float
    metric: float
    effect: float
    effect_error: float
    loss_effect: float
    loss_effect_error: float
    metric_as_is: float
    effect_as_is: float
    metric_alone: float


@dataclass(frozen=True)
class GateReport:
    """Result of :func:`gate_report`.

    Attributes:
        method: ``zoo`` or ``lite``.
        architecture: name of the sources' architecture.
        split: split of the data whose samples were evaluated.
        samples: number of evaluated samples.
        calibration: number of training images that norm statistics were estimated from.
        layer_samples: number of samples for effects by layer; 0 if they were not measured.
        measure: description of the task's metric and loss.
        metric: metric with all sources, in percent, norm statistics re-estimated; the reference of
            all effects but those with the statistics as trained.
        metric_as_is: metric with all sources, in percent, norm statistics as trained.
        sources: one row for each source.
        layers: one row for each source in each layer.
        agreement: agreement of gates with the effects of removal.
        verdict: sentence on whether gates may be read as the sources' worth.
        remarks: remarks on the interpretation.
    """

    method: str
    architecture: str
    split: str
    samples: int
    calibration: int
    layer_samples: int
    measure: Measure
    metric: float
    metric_as_is: float
    sources: list[SourceEffect]
    layers: list[LayerRow]
    agreement: Agreement
    verdict: str
    remarks: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain types, for JSON."""
        return asdict(self) | {"trusted": self.agreement.trusted}


def gate_report(
    task: BaseTask,
    data: LightningDataModule,
    split: str = "test",
    samples: int = 2000,
    calibration: int = 1000,
    layer_samples: int = 256,
    progress: Callable[[str], None] = lambda line: None,
    classes: Sequence[str] | None = None,
) -> GateReport:
    """Measure the gates of a trained zoo and the effect of removing its sources.

    Args:
        task: trained classification or landmark task over a zoo of two or more sources.
        data: data module of the task; it is set up here.
        split: ``val`` or ``test``.
        samples: largest number of samples to evaluate, at least 2.
        calibration: largest number of training images to estimate norm statistics from, at least 2.
        layer_samples: number of samples for the removal from single layers, rounded up to whole
            batches; 0 leaves it out.
        progress: function called with a line of text for each step.
        classes: names of the task's classes, which must equal those of the data; ``None`` skips the
            check.

    Raises:
        ConfigError: the task, its backbone or the data are not supported, or a number is out of its
            range.
        DataError: the data cannot be read.
    """
    measure = check(task, split, samples, calibration, layer_samples)
    data.setup("fit")
    if split == "test":
        data.setup("test")
    measured_task(task).check_data(data)
    check_class_names(classes, data)
    study = removal_study(task, data, split, samples, calibration)
    removals = remove_each(study, progress)
    gates, deviations, shares, kernel_shares = gate_tables(study)
    effects, errors, layer_samples = layer_effects(study, layer_samples, progress)
    losses = torch.stack([each.loss for each in removals.without])
    agreement = agree(shares, kernel_shares, losses, effects)
    starts = start_shares(study.backbone)
    names = [source.name for source in task.backbone.sources]
    tables = (gates, deviations, shares, kernel_shares, effects, errors)
    return GateReport(
        task.backbone.method,
        task.backbone.architecture.label,
        split,
        len(removals.full.error),
        sum(map(len, study.images)),
        layer_samples,
        measure,
        measure.of(removals.full),
        measure.of(removals.as_is),
        source_rows(measure, names, starts, shares.mean(0), kernel_shares.mean(0), removals),
        layer_rows(list(study.layers), names, *tables),
        agreement,
        agreement.verdict(),
        remarks(study, starts, removals, saturated(list(study.layers), gates)),
    )


def check(
    task: BaseTask, split: str, samples: int, calibration: int, layer_samples: int
) -> Measure:
    """Check the arguments of :func:`gate_report`, and return the metric of the task.

    Raises:
        ConfigError: the task or its backbone is not supported, or a number is out of its range.
    """
    measure = measure_of(measured_task(task))
    if split not in ("val", "test"):
        raise ConfigError(f"split must be val or test, got {split!r}")
    if task.ensemble is not None:
        raise ConfigError(
            f"gates are reported for one zoo, and the task is an ensemble of "
            f"{len(task.networks())} networks; give one of task.networks()"
        )
    refuse_no_zoo(type(task.backbone).__name__, len(task.backbone.sources))
    for name, value in (("samples", samples), ("calibration", calibration)):
        if value < 2:
            raise ConfigError(f"{name} must be at least 2, better hundreds, got {value}")
    if layer_samples < 0:
        raise ConfigError(f"layer_samples must be at least 0, got {layer_samples}")
    return measure


def refuse_no_zoo(backbone: str, num_sources: int) -> None:
    """Check that a backbone is a zoo of two or more sources.

    Args:
        backbone: name of the backbone's class.
        num_sources: number of its sources.

    Raises:
        ConfigError: the backbone has no gates, or a single source.
    """
    if backbone != "ZooBackbone":
        raise ConfigError(
            f"the backbone is a {backbone}, which has no gates; give a run of a ZooBackbone: fit "
            "with --experiment methods/lite or methods/full behind the experiment"
        )
    if num_sources < 2:
        raise ConfigError(
            "the zoo has one source, which cannot be removed; give a run with two or more"
        )


class Removals(NamedTuple):
    """Errors of the samples with all sources and with fewer.

    Norm statistics are re-estimated, except in ``as_is`` and ``without_as_is``.

    Attributes:
        full: errors with all sources.
        as_is: errors with all sources, norm statistics as trained.
        without: errors without each source.
        without_as_is: errors without each source, norm statistics as trained.
        alone: errors with each source only.
    """

    full: Scores
    as_is: Scores
    without: list[Scores]
    without_as_is: list[Scores]
    alone: list[Scores]


def remove_each(study: RemovalStudy, progress: Callable[[str], None]) -> Removals:
    """Evaluate the zoo without each source, and with each source alone."""
    full, as_is = study.scores(), study.scores(estimate=False)
    sources = range(study.num_sources)
    others = [[j for j in sources if j != i] for i in sources]
    progress(f"removing each of {len(sources)} sources, {len(full.error)} samples")
    without = [study.scores(kept) for kept in others]
    without_as_is = [study.scores(kept, estimate=False) for kept in others]
    # Of two sources, one alone is the other removed.
    alone = without[::-1] if len(sources) == 2 else [study.scores([i]) for i in sources]
    return Removals(full, as_is, without, without_as_is, alone)


def source_rows(
    measure: Measure,
    names: list[str],
    starts: list[float] | None,
    shares: Tensor,
    kernel_shares: Tensor,
    removals: Removals,
) -> list[SourceEffect]:
    """Build the rows of the table by source.

    Args:
        measure: description of the metric.
        names: names of the sources.
        starts: shares of the sources in the sum of the initial gates; ``None`` if random.
        shares: mean gate shares over the layers, ``(m,)``.
        kernel_shares: mean kernel shares over the layers, ``(m,)``.
        removals: errors with all sources and with fewer.
    """
    full, as_is = removals.full, removals.as_is
    return [
        SourceEffect(
            name,
            None if starts is None else starts[i],
            float(shares[i]),
            float(kernel_shares[i]),
            measure.of(removals.without[i]),
            *mean_and_error(removals.without[i].error - full.error),
            *mean_and_error(removals.without[i].loss - full.loss),
            measure.of(removals.without_as_is[i]),
            float((removals.without_as_is[i].error - as_is.error).mean()),
            measure.of(removals.alone[i]),
        )
        for i, name in enumerate(names)
    ]


def gate_tables(study: RemovalStudy) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Mean gates, standard deviations, gate shares and kernel shares: ``(L, m)`` each, float64.

    The standard deviations are ``None`` in lite mode. Full mode uses the gates recorded by
    :meth:`~zoo_lightning.analysis.measuring.RemovalStudy.scores`.
    """
    means, deviations, norms = [], [], []
    for name, layer in study.layers.items():
        if layer.mode == "full":
            means.append(study.gates[name].double().mean(dim=0))
            deviations.append(study.gates[name].double().std(dim=0))
        else:
            means.append(layer.gate_ema.double().cpu())
        norms.append(kernel_norms(layer).double().cpu())
    gates, kernels = torch.stack(means), torch.stack(means) * torch.stack(norms)
    shares, kernel_shares = (each / each.sum(dim=1, keepdim=True) for each in (gates, kernels))
    return gates, torch.stack(deviations) if deviations else None, shares, kernel_shares


def layer_effects(
    study: RemovalStudy, samples: int, progress: Callable[[str], None]
) -> tuple[Tensor | None, Tensor | None, int]:
    """Measure the increase of the loss without one source in one layer, for all of them.

    Args:
        study: task and samples.
        samples: number of samples to evaluate, rounded up to whole batches; 0 for none.
        progress: function called with a line of text.

    Returns:
        Effects and standard errors, ``(L, m)`` each, or ``None``; and the number of samples.
    """
    if not samples:
        return None, None, 0
    size = len(study.batches[0]["image"])
    number = -(-samples // size)
    sources = range(study.num_sources)
    progress(f"removing each source from each of {len(study.layers)} layers")
    full = study.scores(batches=number)
    found = [
        [
            mean_and_error(
                study.scores([j for j in sources if j != i], layer, batches=number).loss - full.loss
            )
            for i in sources
        ]
        for layer in study.layers
    ]
    effects, errors = torch.tensor(found, dtype=torch.float64).unbind(dim=-1)
    return effects, errors, len(full.loss)


def start_shares(backbone: ZooBackbone) -> list[float] | None:
    """Shares of the sources in the sum of the initial gates; ``None`` if these were random."""
    start = backbone.gate_init
    if start == "sum_to_one":
        start = [1.0] * len(backbone.sources)
    return None if isinstance(start, str) else [value / sum(start) for value in start]


def layer_rows(
    layers: list[str],
    sources: list[str],
    gates: Tensor,
    deviations: Tensor | None,
    shares: Tensor,
    kernel_shares: Tensor,
    effects: Tensor | None,
    errors: Tensor | None,
) -> list[LayerRow]:
    """Build the rows of the table by layer and source from its columns, ``(L, m)`` each."""

    def cell(column: Tensor | None, i: int, j: int) -> float | None:
        return None if column is None else column[i, j].item()

    return [
        LayerRow(
            layer,
            source,
            gates[i, j].item(),
            cell(deviations, i, j),
            shares[i, j].item(),
            kernel_shares[i, j].item(),
            cell(effects, i, j),
            cell(errors, i, j),
        )
        for i, layer in enumerate(layers)
        for j, source in enumerate(sources)
    ]


SATURATED = 0.001
"""Distance from 0 or 1 below which a sigmoid has less than a 250th of its largest slope."""


def saturated(layers: Sequence[str], gates: Tensor) -> list[str]:
    """Find the layers in which the gates of all sources are at 0 or 1.

    Their gate network has run off and hardly learns any more: whatever its sources are worth, they
    count the same, or not at all.

    Args:
        layers: names of the layers, ``L``.
        gates: mean gates, ``(L, m)``.
    """
    at_end = torch.minimum(gates, 1 - gates).amax(dim=1) < SATURATED
    return [layer for layer, end in zip(layers, at_end.tolist(), strict=True) if end]


def remarks(
    study: RemovalStudy, starts: list[float] | None, removals: Removals, ends: Sequence[str]
) -> list[str]:
    """Format remarks on the interpretation of the numbers; ``ends`` names saturated layers."""
    lines = [
        "removal measures what this trained network needs of a source, not what a zoo trained "
        "without it would reach; sources that have learned the same can each be removed at little "
        "cost: see alone"
    ]
    if starts is not None and max(starts) - min(starts) > 0.01:
        lines.append(
            "the initial gates were unequal (column start), which alone may make them agree with "
            "removal, since a source with a small initial gate is little used"
        )
    effects = [mean_and_error(each.loss - removals.full.loss) for each in removals.without]
    if all(abs(effect) <= BEYOND_NOISE * deviation for effect, deviation in effects):
        lines.append("no removal has an effect beyond sampling noise")
    if ends:
        lines.append(
            f"all gates of {', '.join(ends)} are within {SATURATED} of 0 or 1, where they hardly "
            "learn any more: there they say nothing about the sources"
        )
    if not study.estimates:
        lines.append("the network has no batch norms, so no statistics are re-estimated")
    return lines

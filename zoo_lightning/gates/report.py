"""The report: gates by layer and source, beside what removing sources does to the task's metric.

What removal measures is what *this* network needs of a source. It is not what a zoo trained without
it would reach, and of two sources that know the same each can be removed at no cost; so the report
also says what the network reaches with each source alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from zoo_lightning.errors import ConfigError
from zoo_lightning.gates.agreement import BEYOND_NOISE, Agreement, agree, mean_and_error
from zoo_lightning.gates.measuring import Measure, Scores, Trial, measure_of, trial_of
from zoo_lightning.gates.removing import kernel_norms
from zoo_lightning.tasks import BaseTask
from zoo_lightning.tasks.same_options import check_class_names


@dataclass(frozen=True)
class LayerRow:
    """A source in one layer.

    Attributes:
        layer: its name in the network.
        source: its name.
        gate: mean over the samples; in lite mode the moving average.
        gate_deviation: over the samples; ``None`` in lite mode.
        gate_share: of the sum of the layer's mean gates.
        kernel_share: of the sum of the layer's ``‖a_i T_i W_i‖``: what a gate multiplies counts
            as well.
        effect: rise of the loss without the source in this layer, if it was measured.
        effect_error: its standard error over the samples.
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
class SourceRow:
    """A source in all layers together.

    Attributes:
        source: its name.
        start_share: of the gates' start, where numbers said it.
        gate_share: mean over the layers.
        kernel_share: mean over the layers.
        metric: without the source, norm statistics estimated anew.
        effect: rise of the error without the source, points; above 0 the source is of use.
        effect_error: its standard error over the samples.
        loss_effect: rise of the finer measure without the source.
        loss_effect_error: its standard error over the samples.
        metric_as_is: without the source, norm statistics as trained.
        effect_as_is: rise of the error then.
        metric_alone: with this source only, norm statistics estimated anew.
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
    """Everything that was measured.

    Attributes:
        method: ``zoo`` or ``lite``.
        architecture: of the sources.
        split: of the data, whose samples were judged.
        samples: how many.
        calibration: training images that norm statistics were estimated from.
        layer_samples: samples behind the effects by layer; 0 if there are none.
        measure: what metrics, effects and effects by layer are of.
        metric: with all sources, norm statistics estimated anew: what removals are compared with.
        metric_as_is: with all sources, as trained.
        sources: one row a source.
        layers: one row a source of a layer.
        agreement: of gates and removals.
        verdict: for people to read.
        remarks: likewise.
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
    sources: list[SourceRow]
    layers: list[LayerRow]
    agreement: Agreement
    verdict: str
    remarks: list[str]

    def as_dict(self) -> dict[str, Any]:
        """In plain types, for JSON."""
        return asdict(self) | {"trusted": self.agreement.trusted}


def gate_report(
    task: BaseTask,
    data: LightningDataModule,
    split: str = "test",
    samples: int = 2000,
    calibration: int = 1000,
    layer_samples: int = 256,
    say: Callable[[str], None] = lambda line: None,
    classes: Sequence[str] | None = None,
) -> GateReport:
    """Measure what a trained zoo's gates say and what removing its sources does.

    Args:
        task: classification or landmarks over a zoo of two sources or more, trained.
        data: of the task; it is set up here.
        split: ``val`` or ``test``.
        samples: to judge by, or all if there are fewer.
        calibration: training images to estimate norm statistics from, or all.
        layer_samples: samples to judge the removal from single layers by; 0 leaves it out.
        say: told what is going on.
        classes: names of the task's outputs, which the data's classes have to agree with.

    Raises:
        ConfigError: a task, numbers or data of which there can be no report.
        DataError: as the data raise it.
    """
    measure = check(task, split, samples, calibration, layer_samples)
    data.setup("fit")
    if split == "test":
        data.setup("test")
    task.check_data(data)
    check_class_names(classes, data)
    trial = trial_of(task, data, split, samples, calibration)
    removals = remove_each(trial, say)
    gates, deviations, shares, kernel_shares = gate_tables(trial)
    effects, errors, layer_samples = layer_effects(trial, layer_samples, say)
    losses = torch.stack([each.loss for each in removals.without])
    agreement = agree(shares, kernel_shares, losses, effects)
    starts = start_shares(task)
    names = [source.name for source in task.backbone.sources]
    tables = (gates, deviations, shares, kernel_shares, effects, errors)
    return GateReport(
        task.backbone.method,
        task.backbone.architecture.label,
        split,
        len(removals.full.error),
        sum(map(len, trial.images)),
        layer_samples,
        measure,
        measure.of(removals.full),
        measure.of(removals.as_is),
        source_rows(measure, names, starts, shares.mean(0), kernel_shares.mean(0), removals),
        layer_rows(list(trial.layers), names, *tables),
        agreement,
        agreement.verdict(),
        remarks(trial, starts, removals),
    )


def check(
    task: BaseTask, split: str, samples: int, calibration: int, layer_samples: int
) -> Measure:
    """Refuse what there can be no report of; tells what the task is judged by.

    Raises:
        ConfigError: naming it.
    """
    measure = measure_of(task)
    if split not in ("val", "test"):
        raise ConfigError(f"split is {split!r}; expected val or test")
    if task.ensemble is not None:
        raise ConfigError(
            f"gates are reported for one zoo, and the task is an ensemble of "
            f"{len(task.networks())} networks; give one of task.networks()"
        )
    refuse_no_zoo(type(task.backbone).__name__, len(task.backbone.sources))
    for name, value in (("samples", samples), ("calibration", calibration)):
        if value < 2:
            raise ConfigError(f"{name} is {value}; expected at least 2, better hundreds")
    if layer_samples < 0:
        raise ConfigError(f"layer_samples is {layer_samples}; expected at least 0")
    return measure


def refuse_no_zoo(backbone: str, num_sources: int) -> None:
    """Refuse what has no gates, or no two sources to tell apart.

    Raises:
        ConfigError: naming what it is.
    """
    if backbone != "ZooBackbone":
        raise ConfigError(
            f"the backbone is a {backbone}, which has no gates; give a run of a ZooBackbone, lite "
            "or full"
        )
    if num_sources < 2:
        raise ConfigError(
            "the zoo has one source, which cannot be removed; give a run with two or more"
        )


class Removals(NamedTuple):
    """How wrong the samples are with all sources and with fewer.

    Attributes:
        full: with all, norm statistics estimated anew, as everywhere but in ``*as_is``.
        as_is: with all, as trained.
        without: without each source.
        without_as_is: likewise, norm statistics as trained.
        alone: with each source only.
    """

    full: Scores
    as_is: Scores
    without: list[Scores]
    without_as_is: list[Scores]
    alone: list[Scores]


def remove_each(trial: Trial, say: Callable[[str], None]) -> Removals:
    """Remove each source from all layers, and all the others."""
    full, as_is = trial.scores(), trial.scores(estimate=False)
    sources = range(trial.num_sources)
    others = [[j for j in sources if j != i] for i in sources]
    say(f"removing each of {len(sources)} sources, {len(full.error)} samples")
    without = [trial.scores(kept) for kept in others]
    without_as_is = [trial.scores(kept, estimate=False) for kept in others]
    # Of two sources, one alone is the other removed.
    alone = without[::-1] if len(sources) == 2 else [trial.scores([i]) for i in sources]
    return Removals(full, as_is, without, without_as_is, alone)


def source_rows(
    measure: Measure,
    names: list[str],
    starts: list[float] | None,
    shares: Tensor,
    kernel_shares: Tensor,
    removals: Removals,
) -> list[SourceRow]:
    """Rows of the table by source; shares are ``(m,)``, means over the layers."""
    full, as_is = removals.full, removals.as_is
    return [
        SourceRow(
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


def gate_tables(trial: Trial) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Mean gates, their deviations, gate shares and kernel shares: ``(L, m)`` each, float64.

    There are no deviations in lite mode. Full mode takes the gates that
    :meth:`~zoo_lightning.gates.measuring.Trial.scores` saw.
    """
    means, deviations, norms = [], [], []
    for name, layer in trial.layers.items():
        if layer.mode == "full":
            means.append(trial.gates[name].double().mean(dim=0))
            deviations.append(trial.gates[name].double().std(dim=0))
        else:
            means.append(layer.gate_ema.double().cpu())
        norms.append(kernel_norms(layer).double().cpu())
    gates, kernels = torch.stack(means), torch.stack(means) * torch.stack(norms)
    shares, kernel_shares = (each / each.sum(dim=1, keepdim=True) for each in (gates, kernels))
    return gates, torch.stack(deviations) if deviations else None, shares, kernel_shares


def layer_effects(
    trial: Trial, samples: int, say: Callable[[str], None]
) -> tuple[Tensor | None, Tensor | None, int]:
    """Rise of the loss without one source in one layer, and its standard error: ``(L, m)`` each.

    Args:
        trial: of the task.
        samples: whole batches of at least so many samples are judged; none if 0.
        say: told how much there is to do.

    Returns:
        Effects, standard errors and the number of samples; ``None`` twice and 0 for no samples.
    """
    if not samples:
        return None, None, 0
    size = len(trial.batches[0]["image"])
    number = -(-samples // size)
    sources = range(trial.num_sources)
    say(f"removing each source from each of {len(trial.layers)} layers")
    full = trial.scores(batches=number)
    found = [
        [
            mean_and_error(
                trial.scores([j for j in sources if j != i], layer, batches=number).loss - full.loss
            )
            for i in sources
        ]
        for layer in trial.layers
    ]
    effects, errors = torch.tensor(found, dtype=torch.float64).unbind(dim=-1)
    return effects, errors, len(full.loss)


def start_shares(task: BaseTask) -> list[float] | None:
    """Shares of the sources in the gates' start; ``None`` where chance scattered it."""
    start = task.backbone.gate_init
    if start == "sum_to_one":
        start = [1.0] * len(task.backbone.sources)
    return None if isinstance(start, str) else [value / sum(start) for value in start]


def layer_rows(
    layers: list[str],
    sources: list[str],
    *columns: Tensor | None,
) -> list[LayerRow]:
    """Rows of the table by layer and source from its columns ``(L, m)``, in :class:`LayerRow`."""
    tables = [None if column is None else column.tolist() for column in columns]
    return [
        LayerRow(layer, source, *(None if t is None else t[i][j] for t in tables))
        for i, layer in enumerate(layers)
        for j, source in enumerate(sources)
    ]


def remarks(trial: Trial, starts: list[float] | None, removals: Removals) -> list[str]:
    """What a reader of the figures should know."""
    lines = [
        "removal says what this trained network needs of a source, not what a zoo trained without "
        "it would reach; sources that know the same can each be removed at little cost: see alone"
    ]
    if starts is not None and max(starts) - min(starts) > 0.01:
        lines.append(
            "the gates started unequal (column start): that they agree with removal may be the "
            "start's doing, since a source that starts small is little used"
        )
    effects = [mean_and_error(each.loss - removals.full.loss) for each in removals.without]
    if all(abs(effect) <= BEYOND_NOISE * deviation for effect, deviation in effects):
        lines.append("no removal has an effect beyond the samples' noise")
    if not trial.estimates:
        lines.append("the network has no batch norms, so there is nothing to estimate anew")
    return lines

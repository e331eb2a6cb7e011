"""What a comparison's finished runs say: tables, differences, and which method is best."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from statistics import mean
from typing import Any

from zoo_lightning.comparing.costs import Cost
from zoo_lightning.comparing.grid import Cell, Comparison
from zoo_lightning.comparing.statistics import Difference, Interval, interval, paired, with_half
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.recipes import RECIPES
from zoo_lightning.run_folder import METRICS, metric_by_step
from zoo_lightning.whole_files import whole_file

HINDSIGHT, BY_VALIDATION = "best single (hindsight)", "best single (validation)"

FILES = ("table.md", "table.csv", "runs.json")


@dataclass(frozen=True)
class Metric:
    """What methods are compared by.

    Attributes:
        name: in ``summary.json``.
        rises: whether higher is better.
        scale: by which it is multiplied in tables.
        unit: for people to read.
    """

    name: str
    rises: bool
    scale: float
    unit: str

    @property
    def in_validation(self) -> Metric:
        """The same figure of the validation data."""
        name, unit = (text.replace("test", "val", 1) for text in (self.name, self.unit))
        return replace(self, name=name, unit=unit.replace("val", "validation", 1))

    def of(self, summary: Mapping[str, Any]) -> float:
        """From a run's ``summary.json``, as tables have it."""
        part = summary["test" if self.name.startswith("test/") else "validation"]
        return self.scale * part[self.name]

    @property
    def sign(self) -> int:
        """1 if higher is better, else -1."""
        return 1 if self.rises else -1


METRICS_OF = {
    "ClassificationTask": Metric("test/acc", True, 100.0, "test accuracy, %"),
    "LandmarkTask": Metric("test/nme", False, 1.0, "test NME, %"),
    "SegmentationTask": Metric("test/miou", True, 100.0, "test mIoU, %"),
    "PPOTask": Metric("test/episodic_return", True, 1.0, "test episodic return"),
}


@dataclass
class Row:
    """A method on one fraction of the training data.

    Attributes:
        label: of the method and its variant.
        zoo: whether it is Zoo-Tuning.
        figures: test figure by seed.
        seconds: of training and of what an informed start took before it, by seed.
        memory: most memory in training, MiB, by seed.
        cost: in evaluation, where it was measured.
        chosen: whether it is a choice among other rows, not a method by itself.
    """

    label: str
    zoo: bool
    figures: dict[int, float] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    memory: dict[int, float] = field(default_factory=dict)
    cost: Cost | None = None
    chosen: bool = False

    @property
    def interval(self) -> Interval:
        """Over the seeds."""
        return interval(list(self.figures.values()))


@dataclass(frozen=True)
class Table:
    """All methods on one fraction of the training data.

    Attributes:
        fraction: of it.
        metric: that they are compared by.
        rows: in the order of the methods, the two choices among single sources first.
        reference: label of the baseline whose mean is best; ``None`` without one.
    """

    fraction: float
    metric: Metric
    rows: list[Row]
    reference: str | None

    @property
    def has_costs(self) -> bool:
        """Whether what inference costs was measured of any row."""
        return any(row.cost is not None for row in self.rows)

    def row(self, label: str) -> Row:
        """The row of a label."""
        return next(row for row in self.rows if row.label == label)

    def difference(self, row: Row) -> Difference | None:
        """A row minus the reference; ``None`` of the reference itself."""
        if self.reference in (None, row.label):
            return None
        return paired(row.figures, self.row(self.reference).figures)


def metric_of(comparison: Comparison) -> Metric:
    """What a comparison's methods are compared by.

    Raises:
        ConfigError: a task that has no such figure.
    """
    if comparison.task not in METRICS_OF:
        raise ConfigError(
            f"{comparison.task} cannot be compared; expected one of {', '.join(METRICS_OF)}"
        )
    metric = METRICS_OF[comparison.task]
    return metric.in_validation if comparison.hold_out else metric


def make_tables(comparison: Comparison, cells: Sequence[Cell]) -> list[Table]:
    """Tables of the finished cells, one for each fraction of the training data."""
    metric = metric_of(comparison)
    tables = []
    for fraction in dict.fromkeys(cell.fraction for cell in cells):
        rows: dict[str, Row] = {}
        validation: dict[str, dict[int, float]] = {}
        for cell in cells:
            summary = comparison.summary(cell)
            if cell.fraction != fraction or summary is None:
                continue
            label = cell.label
            row = rows.setdefault(label, Row(label, RECIPES[cell.method].zoo))
            row.figures[cell.seed] = metric.of(summary)
            row.seconds[cell.seed] = summary["seconds"] + summary.get("start_seconds", 0.0)
            row.memory[cell.seed] = summary.get("peak_memory_mb") or float("nan")
            found = comparison.validation(cell)
            validation.setdefault(label, {})[cell.seed] = found
        chosen = choices_among(rows, validation, metric)
        everything = [*chosen, *rows.values()]
        tables.append(Table(fraction, metric, everything, best_baseline(everything, metric)))
    return tables


def choices_among(
    rows: Mapping[str, Row], validation: Mapping[str, Mapping[int, float]], metric: Metric
) -> list[Row]:
    """The best single source, by hindsight over all seeds, and by validation in each seed."""
    singles = [row for label, row in rows.items() if label.startswith("single ")]
    if len(singles) < 2:
        return []
    best = max(with_most_seeds(singles), key=lambda row: metric.sign * mean(row.figures.values()))
    common = sorted(set.intersection(*(set(row.figures) for row in singles)))
    by_validation = Row(BY_VALIDATION, False, chosen=True)
    for seed in common:
        pick = max(singles, key=lambda row: metric.sign * validation[row.label][seed])
        for name in ("figures", "seconds", "memory"):
            getattr(by_validation, name)[seed] = getattr(pick, name)[seed]
    by_hindsight = Row(HINDSIGHT, False, best.figures, best.seconds, best.memory, chosen=True)
    return [by_hindsight, by_validation]


def with_most_seeds(rows: Sequence[Row]) -> list[Row]:
    """Rows that may be ranked by their means: a mean of few seeds is the best too easily."""
    most = max((len(row.figures) for row in rows), default=0)
    return [row for row in rows if len(row.figures) == most]


def best_baseline(rows: Sequence[Row], metric: Metric) -> str | None:
    """Label of the row whose mean is best among those that are not Zoo-Tuning."""
    baselines = with_most_seeds([row for row in rows if not row.zoo and row.figures])
    if not baselines:
        return None
    # Of equal rows the choice by hindsight comes first, which says what it is.
    return max(baselines, key=lambda row: metric.sign * row.interval.mean).label


def format_table(table: Table) -> str:
    """Markdown."""
    heads = [
        "method", table.metric.unit, "seeds", f"minus {table.reference}", "bootstrap", "p",
        "training s", "peak MiB",
    ]  # fmt: skip
    if table.has_costs:
        heads += ["multiply-adds, M", "time, relative", "parameters stored"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(_cells(table, row))} |" for row in table.rows if row.figures]
    return "\n".join(lines) + "\n"


def _cells(table: Table, row: Row) -> list[str]:
    figure = row.interval
    found = table.difference(row)
    cells = [
        row.label,
        with_half(figure),
        str(figure.count),
        "" if found is None else with_half(found, "+"),
        "" if found is None or isnan(found.p) else f"{found.low:+.2f} to {found.high:+.2f}",
        "" if found is None or isnan(found.p) else f"{found.p:.3f}",
        f"{mean(row.seconds.values()):.0f}",
        f"{mean(row.memory.values()):.0f}",
    ]
    if table.has_costs:
        cost = row.cost
        cells += (
            [""] * 3
            if cost is None
            else [f"{cost.multiply_adds:.1f}", f"{cost.relative:.2f}", f"{cost.parameters:,}"]
        )
    return cells


def verdict(table: Table) -> list[str]:
    """Where Zoo-Tuning wins, ties and loses against the best baseline, a line each."""
    lines = []
    for row in table.rows:
        found = table.difference(row)
        if not row.zoo or found is None or found.seeds < 2:
            continue
        word = {1: "wins against", 0: "ties with", -1: "loses to"}[outcome(table.metric, found)]
        lines.append(
            f"{row.label} {word} {table.reference}: {with_half(found, '+')} over "
            f"{found.seeds} seeds"
        )
    return lines


def outcome(metric: Metric, found: Difference) -> int:
    """Whether the first of two methods wins (1), ties (0) or loses (-1).

    A tie is a difference whose 95 % interval contains 0, or whose interval nobody knows.
    """
    if not abs(found.mean) > found.half:
        return 0
    return metric.sign if found.mean > 0 else -metric.sign


def write_tables(comparison: Comparison, tables: Sequence[Table]) -> None:
    """Write ``table.md``, ``table.csv`` and ``runs.json`` into the comparison's folder."""
    parts = []
    for table in tables:
        lines = verdict(table)
        words = "\n".join(f"- {line}" for line in lines)
        alone = (
            ""
            if len(tables) == 1 and table.fraction == 1
            else (f"## {table.fraction:g} of the training data\n\n")
        )
        parts.append(f"{alone}{format_table(table)}\n{words}\n")
    head = (
        f"# {comparison.folder.resolve().name}\n\nMean ± half of the 95 % interval (Student's t "
        "over seeds); differences seed by seed, with a bootstrap over seeds and a paired t-test."
    )
    if any(table.has_costs for table in tables):
        head += " Times were taken alternately."
    head += "\n\n"
    if comparison.hold_out:
        head += "The test data are held out: all figures are of the validation data.\n\n"
    with whole_file(comparison.folder / "table.md") as part:
        part.write_text(head + "\n".join(parts))
    with whole_file(comparison.folder / "table.csv") as part, part.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["fraction", "method", "seed", table.metric.name, "seconds", "memory_mb"])
        for table in tables:
            for row in table.rows:
                writer.writerows(
                    [table.fraction, row.label, seed, value, row.seconds[seed], row.memory[seed]]
                    for seed, value in sorted(row.figures.items())
                )
    content = [
        {
            "fraction": table.fraction,
            "metric": table.metric.name,
            "reference": table.reference,
            "rows": [_plain(table, row) for row in table.rows],
        }
        for table in tables
    ]
    with whole_file(comparison.folder / "runs.json") as part:
        part.write_text(json.dumps(content, indent=1) + "\n")


def _plain(table: Table, row: Row) -> dict[str, Any]:
    found = table.difference(row)
    return {
        "method": row.label,
        "zoo": row.zoo,
        "figures": row.figures,
        "seconds": row.seconds,
        "cost": None if row.cost is None else row.cost._asdict(),
        "difference": None if found is None else found._asdict(),
        **{f"mean_{k}": v for k, v in row.interval._asdict().items()},
    }


def learning_curves(
    comparison: Comparison, cells: Sequence[Cell], fraction: float
) -> dict[str, list[dict[int, float]]]:
    """Validation figures by step of every trained run, by label."""
    curves: dict[str, list[dict[int, float]]] = {}
    monitor = metric_of(comparison).name.replace("test/", "val/")
    for cell in cells:
        path = comparison.run(cell) / METRICS
        if cell.fraction != fraction or not path.is_file():
            continue
        curve = metric_by_step(path.parent, monitor)
        if curve:
            curves.setdefault(cell.label, []).append(curve)
    return curves

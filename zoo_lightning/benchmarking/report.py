"""Tables of a comparison's finished runs, with differences from the best baseline."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from pathlib import Path
from statistics import mean
from typing import Any

from zoo_lightning.benchmarking.costs import Cost
from zoo_lightning.benchmarking.grid import Cell, Comparison, target_name
from zoo_lightning.benchmarking.statistics import (
    Difference,
    Interval,
    image_differences,
    interval,
    paired,
    with_half,
)
from zoo_lightning.errors import ConfigError
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.methods.recipes import RECIPES
from zoo_lightning.runs.run_folder import METRICS, TEST_ERRORS, metric_by_step

HINDSIGHT, BY_VALIDATION = "best single (hindsight)", "best single (validation)"

TABLE_FILES = ("table.md", "table.csv", "runs.json")


@dataclass(frozen=True)
class ComparedMetric:
    """Metric by which methods are compared.

    Attributes:
        name: key of the metric in ``summary.json``.
        rises: whether higher values are better.
        scale: factor by which values are multiplied in tables.
        unit: column heading in tables, with the unit.
    """

    name: str
    rises: bool
    scale: float
    unit: str

    @property
    def in_validation(self) -> ComparedMetric:
        """The same metric on the validation data."""
        name, unit = (text.replace("test", "val", 1) for text in (self.name, self.unit))
        return replace(self, name=name, unit=unit.replace("val", "validation", 1))

    def of(self, summary: Mapping[str, Any]) -> float:
        """Read the value from a run's summary, scaled as in tables."""
        part = summary["test" if self.name.startswith("test/") else "validation"]
        return self.scale * part[self.name]

    @property
    def sign(self) -> int:
        """1 if higher is better, else -1."""
        return 1 if self.rises else -1


METRICS_OF = {
    "ClassificationTask": ComparedMetric("test/acc", True, 100.0, "test accuracy, %"),
    "LandmarkTask": ComparedMetric("test/nme", False, 1.0, "test NME, %"),
    "RegressionTask": ComparedMetric("test/nmae", False, 1.0, "test NMAE, %"),
    "MultiLabelTask": ComparedMetric("test/map", True, 100.0, "test mAP, %"),
    "SegmentationTask": ComparedMetric("test/miou", True, 100.0, "test mIoU, %"),
    "PPOTask": ComparedMetric("test/episodic_return", True, 1.0, "test episodic return"),
}


@dataclass
class Row:
    """Table row: results of a method by seed.

    Attributes:
        label: method and variant.
        zoo: whether the method is Zoo-Tuning.
        figures: metric by seed, scaled as in tables.
        seconds: seconds of the run and of all runs that it needed, by seed.
        multiply_adds: multiply-adds of the same runs, by seed, if counted.
        units: compute of the same runs in trainings of one ordinary network, by seed, if there is a
            budget.
        images: metric of each test image by name, by seed, if the runs recorded it.
        memory: peak memory in training, MiB, by seed.
        tuning_seconds: seconds of the trials that tuned the learning rate, 0 without tuning.
        cost: inference cost, if it was measured.
        chosen: whether the row is a choice among other rows rather than a method.
    """

    label: str
    zoo: bool
    figures: dict[int, float] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    multiply_adds: dict[int, int] = field(default_factory=dict)
    units: dict[int, float] = field(default_factory=dict)
    images: dict[int, dict[str, float]] = field(default_factory=dict)
    memory: dict[int, float] = field(default_factory=dict)
    tuning_seconds: float = 0.0
    cost: Cost | None = None
    chosen: bool = False

    @property
    def interval(self) -> Interval:
        """Mean over the seeds with its 95 % interval over seeds and, if known, test images."""
        return interval(list(self.figures.values()), self.image_means())

    def image_means(self) -> dict[str, float]:
        """Metric of each test image, averaged over seeds; empty if the seeds' images differ."""
        if not self.figures or set(self.images) != set(self.figures):
            return {}
        first, *others = self.images.values()
        if any(other.keys() != first.keys() for other in others):
            return {}
        return {name: mean(each[name] for each in self.images.values()) for name in first}

    def put(self, seed: int, found: Mapping[str, Any]) -> None:
        """Set attributes' values for a seed, by attribute name; ``None`` is skipped."""
        for name, value in found.items():
            if value is not None:
                getattr(self, name)[seed] = value


@dataclass(frozen=True)
class Table:
    """Table of results of all methods for one fraction of the training data and one budget.

    Attributes:
        fraction: fraction of the training data.
        budget: budget, see :class:`~zoo_lightning.benchmarking.grid.Cell`.
        metric: metric that the methods are compared by.
        rows: the two choices among single sources, then the methods in their order.
        reference: label of the baseline with the best mean; ``None`` without a baseline.
        unfinished: seeds of runs that have failed or not ended, by label.
    """

    fraction: float
    budget: float | None
    metric: ComparedMetric
    rows: list[Row]
    reference: str | None
    unfinished: dict[str, list[int]] = field(default_factory=dict)

    def holds(self, cell: Cell) -> bool:
        """Whether a cell is one of the table's runs."""
        return (cell.fraction, cell.budget) == (self.fraction, self.budget)

    @property
    def stem(self) -> str:
        """Stem of the names of the table's files."""
        return target_name(self.fraction, self.budget)

    @property
    def has_costs(self) -> bool:
        """Whether inference costs were measured for any row."""
        return any(row.cost is not None for row in self.rows)

    def row(self, label: str) -> Row:
        """Row with a given label."""
        return next(row for row in self.rows if row.label == label)

    def difference(self, row: Row) -> Difference | None:
        """Difference of a row from the reference; ``None`` for the reference itself."""
        if self.reference is None or self.reference == row.label:
            return None
        return self.between(row, self.row(self.reference))

    @staticmethod
    def between(first: Row, second: Row) -> Difference:
        """Difference of two rows, seed by seed and image by image."""
        return paired(first.figures, second.figures, image_differences(first.images, second.images))


def metric_of(comparison: Comparison) -> ComparedMetric:
    """Select the metric by which the methods of a comparison are compared.

    Raises:
        ConfigError: the task has no such metric.
    """
    if comparison.task not in METRICS_OF:
        raise ConfigError(
            f"{comparison.task} cannot be compared; expected one of {', '.join(METRICS_OF)}"
        )
    metric = METRICS_OF[comparison.task]
    return metric.in_validation if comparison.hold_out else metric


def make_tables(comparison: Comparison, cells: Sequence[Cell]) -> list[Table]:
    """Build tables of finished cells, one for each fraction of the training data and budget."""
    metric = metric_of(comparison)
    tables = []
    for fraction, budget in dict.fromkeys((cell.fraction, cell.budget) for cell in cells):
        rows: dict[str, Row] = {}
        validation: dict[str, dict[int, float]] = {}
        unfinished: dict[str, list[int]] = {}
        for cell in cells:
            if (cell.fraction, cell.budget) != (fraction, budget):
                continue
            label, summary = cell.label, comparison.summary(cell)
            if summary is None:
                unfinished.setdefault(label, []).append(cell.seed)
                continue
            spent = comparison.cost(cell)
            units = spent.multiply_adds / spent.unit if spent.multiply_adds and spent.unit else None
            found = {
                "figures": metric.of(summary),
                "seconds": spent.seconds,
                "multiply_adds": spent.multiply_adds,
                "units": units,
                "images": image_figures(comparison.run(cell), metric, metric.of(summary)),
                "memory": summary.get("peak_memory_mb") or float("nan"),
            }
            row = rows.setdefault(label, Row(label, RECIPES[cell.method].zoo))
            row.put(cell.seed, found)
            row.tuning_seconds = comparison.tuning_seconds(cell)
            if (value := comparison.validation(cell)) is not None:
                validation.setdefault(label, {})[cell.seed] = value
        chosen = choices_among(rows, validation, metric)
        everything = [*chosen, *rows.values()]
        reference = best_baseline(everything, metric)
        tables.append(Table(fraction, budget, metric, everything, reference, unfinished))
    return tables


def image_figures(run: Path, metric: ComparedMetric, figure: float) -> dict[str, float] | None:
    """Read the test metric of each image of a run.

    Args:
        run: run folder.
        metric: metric that methods are compared by.
        figure: metric of the whole test, scaled as in tables.

    Returns:
        Values by image; ``None`` if the run did not record them, their mean differs from
        ``figure``, or the metric is not a mean over images.
    """
    path = run / TEST_ERRORS
    if metric.name not in ("test/acc", "test/nme", "test/nmae") or not path.is_file():
        return None
    with path.open(newline="", **TEXT) as stream:
        # An image of several faces has a row for each, in the same order in all runs.
        rows = {
            f"{number} {row['image']}": row for number, row in enumerate(csv.DictReader(stream))
        }
    if metric.name == "test/acc":
        found = {name: 100.0 * (row["true"] == row["predicted"]) for name, row in rows.items()}
    else:
        key = metric.name.removeprefix("test/")
        errors = {name: float(row[key]) for name, row in rows.items() if row[key]}
        found = {name: error for name, error in errors.items() if not isnan(error)}
    whole = found and abs(mean(found.values()) - figure) <= ROUNDED * max(abs(figure), 1.0)
    return found if whole else None


ROUNDED = 1e-3
"""Tolerated relative difference of the images' mean from the metric, due to rounding in files."""


def choices_among(
    rows: Mapping[str, Row], validation: Mapping[str, Mapping[int, float]], metric: ComparedMetric
) -> list[Row]:
    """Build the rows of the best single source, in hindsight and by validation per seed.

    The choice by validation has the cost of training all sources, the choice in hindsight of only
    one. There are no such rows for fewer than two sources.
    """
    singles = [row for label, row in rows.items() if label.startswith("single ")]
    if len(singles) < 2:
        return []
    best = max(with_most_seeds(singles), key=lambda row: metric.sign * mean(row.figures.values()))
    common = sorted(set.intersection(*(set(row.figures) for row in singles)))
    by_validation = Row(BY_VALIDATION, False, chosen=True)
    for seed in common:
        pick = max(singles, key=lambda row: metric.sign * validation[row.label][seed])
        for name in ("figures", "images", "memory"):
            by_validation.put(seed, {name: getattr(pick, name).get(seed)})
        for name in ("seconds", "multiply_adds", "units"):
            each = [getattr(row, name).get(seed) for row in singles]
            by_validation.put(seed, {name: None if None in each else sum(each)})
    return [replace(best, label=HINDSIGHT, zoo=False, chosen=True, cost=None), by_validation]


def with_most_seeds(rows: Sequence[Row]) -> list[Row]:
    """Select the rows with most seeds; a mean over few seeds would be the best too often."""
    most = max((len(row.figures) for row in rows), default=0)
    return [row for row in rows if len(row.figures) == most]


def best_baseline(rows: Sequence[Row], metric: ComparedMetric) -> str | None:
    """Label of the baseline with the best mean; ``None`` without a baseline."""
    baselines = with_most_seeds([row for row in rows if not row.zoo and row.figures])
    if not baselines:
        return None
    # The choice by hindsight precedes the equal row of its source.
    return max(baselines, key=lambda row: metric.sign * row.interval.mean).label


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table of strings in Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in [heads, *rows]]
    lines.insert(1, f"|{'---|' * len(heads)}")
    return "\n".join(lines) + "\n"


def format_table(table: Table) -> str:
    """Format a table of results in Markdown."""
    heads = [
        "method", table.metric.unit, "seeds", f"minus {table.reference}", "bootstrap", "p",
        "total s", "peak MiB", "total compute",
    ]  # fmt: skip
    if table.has_costs:
        heads += ["multiply-adds, M", "time, relative", "parameters stored"]
    return markdown(heads, [_cells(table, row) for row in table.rows if row.figures])


def _cells(table: Table, row: Row) -> list[str]:
    figure = row.interval
    found = table.difference(row)
    cells = [
        row.label,
        with_half(figure),
        str(figure.seeds),
        "" if found is None else with_half(found, "+"),
        "" if found is None or isnan(found.p) else f"{found.low:+.2f} to {found.high:+.2f}",
        "" if found is None or isnan(found.p) else f"{found.p:.3f}",
        f"{mean(row.seconds.values()):.0f}",
        f"{mean(row.memory.values()):.0f}",
        _compute(row),
    ]
    if table.has_costs:
        cost = row.cost
        cells += (
            [""] * 3
            if cost is None
            else [f"{cost.multiply_adds:.1f}", f"{cost.relative:.2f}", f"{cost.parameters:,}"]
        )
    return cells


def _compute(row: Row) -> str:
    """Total training cost, in trainings of one network if there is a budget, or multiply-adds."""
    if row.units:
        return f"{mean(row.units.values()):.2f}"
    return f"{mean(row.multiply_adds.values()) / 1e12:.2f} T" if row.multiply_adds else ""


def verdict(table: Table) -> list[str]:
    """Format lines on whether each Zoo-Tuning method wins against the best baseline."""
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


def tuning_line(table: Table) -> list[str]:
    """Format a line on the cost of tuning learning rates; no line if none were tuned."""
    tuned = {row.label: row.tuning_seconds for row in table.rows if row.tuning_seconds}
    if not tuned:
        return []
    words = ", ".join(f"{label} {seconds:.0f}" for label, seconds in tuned.items())
    return [f"choosing learning rates took seconds that the totals leave out: {words}"]


def unfinished_line(unfinished: Mapping[str, Sequence[int]]) -> list[str]:
    """Format a line on runs that a table lacks; no line if it has all.

    Args:
        unfinished: seeds by the method's label.
    """
    if not unfinished:
        return []
    words = ", ".join(
        f"{label} (seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))})"
        for label, seeds in unfinished.items()
    )
    return [f"without runs that failed or have not ended: {words}"]


def outcome(metric: ComparedMetric, found: Difference) -> int:
    """Whether the first of two methods wins (1), ties (0) or loses (-1).

    A difference whose 95 % interval contains 0 or is unknown is a tie.
    """
    if not abs(found.mean) > found.half:
        return 0
    return metric.sign if found.mean > 0 else -metric.sign


def write_tables(comparison: Comparison, tables: Sequence[Table]) -> None:
    """Write ``table.md``, ``table.csv`` and ``runs.json`` to the comparison's folder."""
    parts = []
    for table in tables:
        lines = verdict(table) + tuning_line(table) + unfinished_line(table.unfinished)
        words = "\n".join(f"- {line}" for line in lines)
        names_fraction = table.fraction != 1 or len({each.fraction for each in tables}) > 1
        titles = [f"{table.fraction:g} of the training data"] if names_fraction else []
        titles += [] if table.budget is None else [f"budget {table.budget:g}"]
        title = ", ".join(titles)
        heading = f"## {title[:1].upper()}{title[1:]}\n\n" if title else ""
        parts.append(f"{heading}{format_table(table)}\n{words}\n")
    head = (
        f"# {comparison.folder.resolve().name}\n\nMean ± half of the 95 % interval over seeds and, "
        "where each image's result is known, over test images (Student's t with Satterthwaite's "
        "degrees of freedom); differences seed by seed and image by image, with a bootstrap over "
        "seeds and a t-test. Total s and total compute are those of training and of all that it "
        "needed, such as sources that were tried, teachers and informed starts; "
    )
    if any(table.budget is not None for table in tables):
        head += "compute in trainings of one ordinary network of the experiment's length."
    else:
        head += "compute in multiply-adds."
    if any(table.has_costs for table in tables):
        head += " Times were taken alternately."
    head += "\n\n"
    if comparison.hold_out:
        head += "The test data are held out: all figures are of the validation data.\n\n"
    with atomic_file(comparison.folder / "table.md") as part:
        part.write_text(head + "\n".join(parts), **TEXT)
    with (
        atomic_file(comparison.folder / "table.csv") as part,
        part.open("w", newline="", **TEXT) as stream,
    ):
        writer = csv.writer(stream)
        names = ["seconds", "memory_mb", "multiply_adds", "units"]
        writer.writerow(["fraction", "budget", "method", "seed", table.metric.name, *names])
        for table in tables:
            for row in table.rows:
                writer.writerows(
                    [
                        table.fraction, table.budget, row.label, seed, value, row.seconds[seed],
                        row.memory[seed], row.multiply_adds.get(seed), row.units.get(seed),
                    ]
                    for seed, value in sorted(row.figures.items())
                )  # fmt: skip
    content = [
        {
            "fraction": table.fraction,
            "budget": table.budget,
            "metric": table.metric.name,
            "reference": table.reference,
            "unfinished": table.unfinished,
            "rows": [_plain(table, row) for row in table.rows],
        }
        for table in tables
    ]
    with atomic_file(comparison.folder / "runs.json") as part:
        part.write_text(json.dumps(content, indent=1) + "\n", **TEXT)


def _plain(table: Table, row: Row) -> dict[str, Any]:
    found = table.difference(row)
    figure = row.interval
    return {
        "method": row.label,
        "zoo": row.zoo,
        "figures": row.figures,
        "seconds": row.seconds,
        "multiply_adds": row.multiply_adds,
        "units": row.units,
        "cost": None if row.cost is None else row.cost._asdict(),
        "difference": None if found is None else found._asdict(),
        "mean_mean": figure.mean,
        "mean_half": figure.half,
        "mean_count": figure.seeds,
    }


def learning_curves(
    comparison: Comparison, cells: Sequence[Cell], table: Table
) -> dict[str, list[dict[int, float]]]:
    """Read the validation metric by step of each of a table's runs, by label."""
    curves: dict[str, list[dict[int, float]]] = {}
    monitor = metric_of(comparison).name.replace("test/", "val/")
    for cell in cells:
        path = comparison.run(cell) / METRICS
        if not table.holds(cell) or not path.is_file():
            continue
        curve = metric_by_step(path.parent, monitor)
        if curve:
            curves.setdefault(cell.label, []).append(curve)
    return curves

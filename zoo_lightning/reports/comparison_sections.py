"""Sections of a report on a comparison of methods, from ``runs.json`` and its pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo_lightning.benchmarking.grid import EXPERIMENT, REQUESTED, target_name
from zoo_lightning.benchmarking.report import METRICS_OF, ComparedMetric, unfinished_line
from zoo_lightning.reports import charts
from zoo_lightning.reports.contents import (
    MINUS,
    Code,
    Gallery,
    Section,
    Table,
    Text,
    Value,
    duration,
    facts,
    number,
    operations,
    value,
    without_gaps,
)
from zoo_lightning.reports.finished_run import named_sources
from zoo_lightning.reports.folder import Folder, finite, within
from zoo_lightning.reports.pictures import pictures_in
from zoo_lightning.reports.run_sections import command
from zoo_lightning.runs.pool import folder_name
from zoo_lightning.runs.run_folder import PAGE, PICTURES

RUNS = "runs.json"

METRICS = {
    each.name: each for metric in METRICS_OF.values() for each in (metric, metric.in_validation)
}
"""Metrics that methods are compared by, by name."""


def comparison_sections(folder: Folder) -> list[Section]:
    """Make the sections on a comparison; those that its files say nothing of are left out."""
    tables = read_tables(folder)
    options = folder.yaml(EXPERIMENT)
    pictures, unread = pictures_in(folder.path / PICTURES)
    sections = [Section("What was compared", [facts(_described(folder, options, tables))])]
    sections += [_results(folder, table, len(tables) > 1) for table in tables]
    sections.append(Section("Pictures", [Gallery(pictures)] if pictures else []))
    sections.append(Section("Run it again", _again(folder)))
    lines = [*folder.notes, *unread]
    if lines:
        sections.insert(0, Section("Left out", [Text(lines, warning=True)]))
    return [section for section in sections if section.blocks]


def read_tables(folder: Folder) -> list[dict[str, Any]]:
    """Read the tables of ``runs.json`` that have rows."""
    found = folder.json(RUNS)
    tables = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    return [each for each in tables if rows_of(each)]


def rows_of(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a table of ``runs.json`` that have a mean."""
    rows = table.get("rows")
    known = [each for each in rows if isinstance(each, dict)] if isinstance(rows, list) else []
    return [each for each in known if finite(each.get("mean_mean")) is not None]


def comparison_lead(folder: Folder) -> str:
    """Describe the result of a comparison in a sentence."""
    tables = read_tables(folder)
    if not tables:
        return "No run of this comparison has ended yet."
    lines = [line for table in tables for line in _verdict(table)]
    methods = len({row.get("method") for table in tables for row in rows_of(table)})
    return "; ".join(lines[:3]) or f"{methods} methods, against each other"


def _described(
    folder: Folder, options: dict[str, Any], tables: list[dict[str, Any]]
) -> list[tuple[str, Any]]:
    backbone = within(options, "model", "init_args", "backbone", "init_args") or {}
    data = within(options, "data", "init_args") or {}
    asked = folder.yaml(REQUESTED)
    task = within(options, "model", "class_path")
    kind = within(options, "data", "class_path")
    return [
        ("task", str(task).rpartition(".")[2] if task else None),
        ("architecture", backbone.get("architecture")),
        ("sources", ", ".join(weights for _, weights in named_sources(backbone.get("sources")))),
        (
            "data",
            ", ".join([str(kind).rpartition(".")[2], *[str(data[k]) for k in ("root", "name")
                                                       if data.get(k)]]) if kind else None,
        ),
        ("methods", asked.get("methods")),
        ("seeds", asked.get("seeds")),
        ("fractions of the training data", asked.get("fractions")),
        ("budgets", asked.get("budgets")),
        ("judged by", ", ".join(dict.fromkeys(str(each.get("metric")) for each in tables))),
        ("folder", str(folder.path)),
    ]  # fmt: skip


def metric_in(table: Mapping[str, Any]) -> ComparedMetric:
    """Metric of a table of ``runs.json`` or ``joint.json``."""
    name = str(table.get("metric"))
    return METRICS.get(name) or ComparedMetric(name, False, 1.0, name)


def _results(folder: Folder, table: dict[str, Any], several: bool) -> Section:
    """Section on one fraction of the training data and one budget."""
    metric, rows = metric_in(table), rows_of(table)
    fraction, budget = finite(table.get("fraction")), finite(table.get("budget"))
    words = [] if fraction in (None, 1.0) else [f"{number(fraction)} of the training data"]
    words += [] if budget is None else [f"budget {number(budget)}"]
    titled = words or (["all training data"] if several else [])
    section = Section(f"Results: {', '.join(titled)}" if titled else "Results")
    section.add(Text(_verdict(table)) if _verdict(table) else None)
    if lacking := unfinished_line(_unfinished(table)):
        section.add(Text(lacking, warning=True))
    reference = table.get("reference")
    means = [(label, mean, mean - half, mean + half) for label, mean, half in map(_mean, rows)]
    better = [(row, found) for row in rows if (found := _difference(row)) is not None]
    drawn = [
        charts.intervals("Each method with its 95 % interval", means, metric.unit),
        charts.intervals(
            f"Difference from {reference}, seed by seed",
            [
                (str(row.get("method")), found[0], found[0] - found[1], found[0] + found[1])
                for row, found in better
            ],
            f"{metric.unit}, {'higher' if metric.rises else 'lower'} is better",
            zero=True,
        ),
    ]
    place = target_name(1.0 if fraction is None else fraction, budget)
    section.add(
        Gallery([chart for chart in drawn if chart is not None]),
        without_gaps(_table(folder.path, place, rows, metric, reference)),
    )
    return section


def _unfinished(table: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Seeds of the runs that a table of ``runs.json`` lacks, by label."""
    found = table.get("unfinished")
    known = found if isinstance(found, dict) else {}
    return {label: seeds for label, seeds in known.items() if isinstance(seeds, list) and seeds}


def _mean(row: Mapping[str, Any]) -> tuple[str, float, float]:
    half = finite(row.get("mean_half"))
    mean = finite(row.get("mean_mean"))
    return str(row.get("method")), mean or 0.0, math.nan if half is None else half


def _difference(row: Mapping[str, Any]) -> tuple[float, float, float | None] | None:
    """Mean, half the width of the interval and p value of a row's difference."""
    mean = finite(within(row.get("difference"), "mean"))
    if mean is None:
        return None
    half = finite(within(row.get("difference"), "half"))
    p = finite(within(row.get("difference"), "p"))
    return mean, math.nan if half is None else half, p


def _verdict(table: Mapping[str, Any]) -> list[str]:
    """Whether each zoo wins against the best baseline: its interval lies on one side of 0."""
    metric, lines = metric_in(table), []
    for row in rows_of(table):
        found = _difference(row)
        if not row.get("zoo") or found is None or found[1] != found[1]:
            continue
        mean, half, _ = found
        word = "ties with"
        if abs(mean) > half:
            word = "wins against" if (mean > 0) == metric.rises else "loses to"
        lines.append(
            f"{row.get('method')} {word} {table.get('reference')}: {signed(mean)} ± {half:.2f}"
        )
    return lines


def signed(content: float) -> str:
    """Format a difference with its sign and two decimals."""
    return f"{content:+.2f}".replace("-", MINUS)


def _table(
    folder: Path, place: str, rows: list[dict[str, Any]], metric: ComparedMetric, reference: Any
) -> Table:
    heads = ["method", metric.unit, "±", "seeds", f"minus {reference}", "±", "p", "time", "compute"]
    costs = any(isinstance(row.get("cost"), dict) for row in rows)
    heads += ["inference, M multiply-adds", "relative time", "parameters"] if costs else []
    cells = [_cells(folder, place, row, costs) for row in rows]
    sign = 1 if metric.rises else -1
    best = max(range(len(rows)), key=lambda i: sign * (finite(rows[i].get("mean_mean")) or 0.0))
    return Table(
        heads,
        cells,
        note="±: half of the 95 % interval over seeds and, where they are known, test images. Time "
        "and compute: of the training and of all that it needed, means over seeds. The best mean "
        "is emphasised.",
        marked=best,
    )


def _cells(folder: Path, place: str, row: Mapping[str, Any], costs: bool) -> list[Value]:
    found = _difference(row) or (None, None, None)
    seconds, spent, units = (
        _average(row.get(key)) for key in ("seconds", "multiply_adds", "units")
    )
    cost = row.get("cost") if isinstance(row.get("cost"), dict) else {}
    compute = Value("" if spent is None else operations(spent), spent)
    if units is not None:
        compute = Value(f"{units:.2f} trainings", units)
    half = finite(row.get("mean_half"))
    cells = [
        Value(str(row.get("method")), link=_link(folder, place, row)),
        Value(f"{_mean(row)[1]:.2f}".replace("-", MINUS), _mean(row)[1]),
        Value("" if half is None else f"{half:.2f}", half),
        value(row.get("mean_count")),
        Value("" if found[0] is None else signed(found[0]), found[0]),
        Value("" if found[1] is None or found[1] != found[1] else f"{found[1]:.2f}", found[1]),
        Value("" if found[2] is None else _p_value(found[2]), found[2]),
        Value("" if seconds is None else duration(seconds), seconds),
        compute,
    ]
    if costs:
        keys = ("multiply_adds", "relative", "parameters")
        cells += [value(finite(within(cost, key)), 3) for key in keys]
    return cells


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _average(by_seed: Any) -> float | None:
    found = by_seed.values() if isinstance(by_seed, dict) else ()
    numbers = [n for each in found if (n := finite(each)) is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _link(folder: Path, place: str, row: Mapping[str, Any]) -> str:
    """Relative address of the report of a row's first run, if it has one."""
    figures = row.get("figures")
    seeds = sorted(figures) if isinstance(figures, dict) else []
    for seed in seeds[:1]:
        way = Path("runs", place, folder_name(str(row.get("method"))), str(seed), PAGE)
        if (folder / way).is_file():
            return way.as_posix()
    return ""


def _again(folder: Folder) -> list[Any]:
    if not folder.has(EXPERIMENT):
        return []
    asked = folder.yaml(REQUESTED)
    words = ["compare", "--config", str(folder.path / EXPERIMENT)]
    for name, default in (("methods", None), ("seeds", None), ("fractions", "1"),
                          ("budgets", None), ("tune", 0)):  # fmt: skip
        if asked.get(name) not in (None, default):
            words += [f"--{name}", str(asked[name])]
    return [
        Text([f"With {EXPERIMENT} of the comparison, which is also below:"]),
        Code(command(*words, "--run_dir", "runs/comparison-again")),
        Code(folder.text(EXPERIMENT), EXPERIMENT),
    ]

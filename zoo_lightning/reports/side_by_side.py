"""Sections that put several runs side by side: figures, curves, and the options that differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo_lightning.reports import charts
from zoo_lightning.reports.contents import (
    Chart,
    Gallery,
    Section,
    Table,
    Value,
    duration,
    operations,
    value,
)
from zoo_lightning.reports.finished_run import Figure, RunFiles
from zoo_lightning.reports.folder import finite
from zoo_lightning.reports.run_sections import data_of, interval, training_curves

LEFT_OUT = ("run_dir", "ckpt_path", "config", "weights_only")
"""Options that differ between any two runs, or say nothing of the training."""


def side_by_side(runs: Sequence[RunFiles]) -> list[Section]:
    """Make the sections on several runs together; the runs' names must differ."""
    shown: list[Chart] = [*_judged(runs), *training_curves([*runs])]
    sections = [
        Section("Side by side", [_overview(runs)]),
        Section("Charts", [Gallery(shown)] if shown else []),
        Section("All figures", [_figures(runs)]),
    ]
    if (differing := _options(runs)) is not None:
        sections.append(Section("Options that differ", [differing]))
    return [section for section in sections if section.blocks]


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """Name folders by as many of their last parts as it takes to tell them apart."""
    whole = [folder.resolve().parts for folder in folders]
    names = []
    for parts in whole:
        for length in range(1, len(parts) + 1):
            if sum(other[-length:] == parts[-length:] for other in whole) == 1:
                break
        names.append("/".join(parts[-length:]))
    return names


def _overview(runs: Sequence[RunFiles]) -> Table:
    labels = [*dict.fromkeys(run.main.label for run in runs if run.main is not None)]
    same = len(labels) == 1
    heads = ["run", "experiment", "method", "seed", labels[0] if same else "figure",
             "95 % interval", *([] if same else ["of"]), "steps", "time", "multiply-adds",
             "peak MiB"]  # fmt: skip
    rows = []
    for run in runs:
        summary, main = run.summary, run.main
        spent, seconds = finite(run.compute.get("multiply_adds")), run.seconds
        rows.append(
            [
                Value(run.name),
                value(summary.get("experiment")),
                value(summary.get("method") or ("" if run.ended else "not ended")),
                value(summary.get("seed")),
                value(None if main is None else main.mean),
                _interval(main),
                *([] if same else [Value("" if main is None else main.label)]),
                value(summary.get("steps")),
                Value("" if seconds is None else duration(seconds), seconds),
                Value("" if spent is None else operations(spent), spent),
                value(summary.get("peak_memory_mb")),
            ]
        )
    return Table(
        heads,
        rows,
        note="Intervals are over the samples of each test. Whether a method is better takes "
        "several seeds of each: the command compare.",
        marked=_best(runs) if same else None,
    )


def _interval(main: Figure | None) -> Value:
    return Value("") if main is None else Value(interval(main), main.mean)


def _best(runs: Sequence[RunFiles]) -> int | None:
    if len({data_of(run) for run in runs}) > 1:
        return None  # figures on different data say nothing of the runs
    known = [i for i, run in enumerate(runs) if run.main is not None and run.metric is not None]
    if len(known) < 2:
        return None
    metric = runs[known[0]].metric
    sign = metric.sign if metric is not None else 1
    return max(known, key=lambda i: sign * main.mean if (main := runs[i].main) else -math.inf)


def _judged(runs: Sequence[RunFiles]) -> list[Chart]:
    """A chart for each metric that runs are judged by."""
    found = [(run.name, run.main) for run in runs]
    mains = [(name, main) for name, main in found if main is not None]
    drawn = []
    for label in dict.fromkeys(main.label for _, main in mains):
        rows = [(name, m.mean, m.low, m.high) for name, m in mains if m.label == label]
        chart = charts.intervals("Figures with their 95 % intervals", rows, label)
        drawn += [] if chart is None else [chart]
    return drawn


def _figures(runs: Sequence[RunFiles]) -> Table:
    each = [{**run.test, **run.validation} for run in runs]
    names = list(dict.fromkeys(name for found in each for name in found))
    rows = [[Value(name), *(value(found.get(name)) for found in each)] for name in names]
    return Table(["metric", *(run.name for run in runs)], rows)


def _options(runs: Sequence[RunFiles]) -> Table | None:
    """Options that have not the same value in all runs; ``None`` without any."""
    each = [flat(run.config) for run in runs]
    names = dict.fromkeys(name for found in each for name in found if name not in LEFT_OUT)
    differing = [name for name in names if len({found.get(name, "") for found in each}) > 1]
    if not differing:
        return None
    rows = [[Value(name), *(Value(found.get(name, "")) for found in each)] for name in differing]
    return Table(["option", *(run.name for run in runs)], rows)


def flat(options: Any, name: str = "") -> dict[str, str]:
    """Options by dotted name, as text, without ``init_args`` and unset ones."""
    if not isinstance(options, dict):
        return {} if options is None else {name: str(options)}
    found: dict[str, str] = {}
    for key, content in options.items():
        place = name if key == "init_args" else f"{name}.{key}".removeprefix(".")
        found |= flat(content, place)
    return found

"""Sections of a report on several comparisons together, from ``joint.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from zoo_lightning.benchmarking.joint import JOINT, STATISTICS
from zoo_lightning.reports import charts
from zoo_lightning.reports.comparison_sections import metric_in
from zoo_lightning.reports.contents import (
    Gallery,
    Section,
    Table,
    Text,
    Value,
    number,
    value,
    without_gaps,
)
from zoo_lightning.reports.folder import Folder, finite, within

WORDS = {1: "wins", 0: "ties", -1: "loses"}


def joint_sections(folder: Folder) -> list[Section]:
    """Make the sections on comparisons of several games or data sets; none if there are none."""
    found = folder.mapping(JOINT)
    made = _games(found) if "games" in found else _targets(found)
    return [section for section in made if section.blocks]


def joint_lead(folder: Folder) -> str:
    """Describe in a sentence what was put together."""
    found = folder.mapping(JOINT)
    names = found.get("games") or list(found)
    what = "games" if "games" in found else "targets"
    return f"{len(names)} {what}: {', '.join(map(str, names))}"


def _targets(found: Mapping[str, Any]) -> list[Section]:
    tables = {name: each for name, each in found.items() if isinstance(each, dict)}
    methods = list(dict.fromkeys(m for each in tables.values() for m in each.get("figures") or {}))
    section = Section("Results")
    shown = [_chart(name, table, methods) for name, table in tables.items()]
    heads = [f"{name}, {metric_in(table).unit}" for name, table in tables.items()]
    rows = [
        [Value(method), *(_mean(table, method) for table in tables.values())] for method in methods
    ]
    if rows:
        section.add(
            Gallery([chart for chart in shown if chart is not None]),
            Table(
                ["method", *heads],
                rows,
                note="Mean ± half of the 95 % interval over seeds and, where they are known, test "
                "images.",
            ),
        )
    return [section, _outcomes(tables)]


def _chart(name: str, table: Mapping[str, Any], methods: list[str]) -> charts.Chart | None:
    rows = []
    for method in methods:
        mean, half = _interval(table, method)
        if mean is not None:
            rows.append((method, mean, mean - half, mean + half))
    metric = metric_in(table)
    better = "higher" if metric.rises else "lower"
    return charts.intervals(name, rows, f"{metric.unit}, {better} is better")


def _interval(table: Mapping[str, Any], method: str) -> tuple[float | None, float]:
    """Mean of a method, and half of its interval; NaN where that is unknown."""
    mean = finite(within(table, "intervals", method, "mean"))
    half = finite(within(table, "intervals", method, "half"))
    if mean is None:  # written by an earlier version
        figures = within(table, "figures", method)
        values = list(figures.values()) if isinstance(figures, dict) else []
        known = [each for each in map(finite, values) if each is not None]
        mean = sum(known) / len(known) if known else None
    return mean, math.nan if half is None else half


def _mean(table: Mapping[str, Any], method: str) -> Value:
    mean, half = _interval(table, method)
    if mean is None:
        return Value("")
    return Value(number(mean) + ("" if math.isnan(half) else f" ± {number(half, 3)}"), mean)


def _outcomes(tables: Mapping[str, Mapping[str, Any]]) -> Section:
    """Section on which method each zoo beats on which target."""
    section = Section("Zoo-Tuning against the others")
    rows = []
    for name, table in tables.items():
        outcomes = table.get("outcomes")
        for zoo, against in (outcomes if isinstance(outcomes, dict) else {}).items():
            for label, sign in (against if isinstance(against, dict) else {}).items():
                rows.append([Value(name), Value(zoo), value(WORDS.get(sign)), Value(label)])
    if rows:
        note = (
            "A zoo wins or loses if the 95 % interval of the difference, seed by seed, lies on one "
            "side of 0."
        )
        section.add(Table(["target", "zoo", "outcome", "against"], rows, note))
    return section


def _games(found: Mapping[str, Any]) -> list[Section]:
    methods = found.get("methods")
    known = {
        name: each
        for name, each in (methods if isinstance(methods, dict) else {}).items()
        if isinstance(each, dict)
    }
    section = Section("Human-normalised scores")
    if not known:
        return [section]
    first = next(iter(STATISTICS))
    rows = []
    for name, each in known.items():
        middle, low, high = (finite(within(each, first, key)) for key in ("value", "low", "high"))
        if middle is not None:
            ends = (math.nan if end is None else end for end in (low, high))
            rows.append((name, middle, *ends))
    chart = charts.intervals(f"{first} over all games", rows, "0 random play, 1 a person")
    statistics = [*STATISTICS, "improvement"]
    heads = [*STATISTICS, f"chance to beat {found.get('reference')}"]
    section.add(
        Text(["Scores are 0 for random play and 1 for a person (Agarwal et al. 2021)."]),
        None if chart is None else Gallery([chart]),
        without_gaps(
            Table(
                ["method", *heads],
                [
                    [Value(name), *(_estimate(within(each, key)) for key in statistics)]
                    for name, each in known.items()
                ],
                note="In brackets the 95 % interval by the bootstrap over runs, game by game.",
            )
        ),
    )
    return [section]


def _estimate(found: Any) -> Value:
    middle, low, high = (finite(within(found, key)) for key in ("value", "low", "high"))
    if middle is None:
        return Value("")
    return Value(f"{number(middle, 3)} ({number(low, 3)} to {number(high, 3)})", middle)

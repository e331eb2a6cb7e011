"""Sections of a report on a sweep, from ``trials.csv``, ``importances.json`` and its pictures."""

from __future__ import annotations

from typing import Any

from zoo_lightning.reports import charts
from zoo_lightning.reports.contents import (
    Code,
    Gallery,
    Section,
    Table,
    Text,
    Value,
    facts,
    number,
    without_gaps,
)
from zoo_lightning.reports.folder import Folder, finite
from zoo_lightning.reports.pictures import pictures_in
from zoo_lightning.reports.run_sections import command
from zoo_lightning.runs.run_folder import PAGE, PICTURES
from zoo_lightning.sweeps.report import BEST, IMPORTANCES, TABLE, short_names

SWEEP = "sweep.yaml"
"""Copy of the sweep file in the sweep's folder."""

BEFORE, AFTER = 3, 3
"""Columns of the table of trials before and after the parameters."""


def sweep_sections(folder: Folder) -> list[Section]:
    """Make the sections on a sweep; those that its files say nothing of are left out."""
    rows = folder.rows(TABLE)
    pictures, unread = pictures_in(folder.path / PICTURES)
    sections = [Section("Trials", [] if not rows else _trials(folder, rows))]
    weights = [
        (name, weight)
        for name, each in folder.mapping(IMPORTANCES).items()
        if (weight := finite(each)) is not None
    ]
    if weights:
        short = short_names([name for name, _ in weights])
        chart = charts.bars(
            "Importance of each parameter (PED-ANOVA)",
            [(short[name], weight) for name, weight in weights],
            "share of the importance",
        )
        shown = [] if chart is None else [chart]
        sections.append(Section("What mattered", [Gallery(shown)]))
    others = [each for each in pictures if each.name != "importances"]
    sections.append(Section("Pictures", [Gallery(others)] if others else []))
    if folder.has(BEST):
        best = folder.path / BEST
        sections.append(
            Section(
                "The best configuration",
                [
                    Code(command("fit", "--config", str(best), "--run_dir", "runs/best")),
                    Code(folder.text(BEST), BEST),
                ],
            )
        )
    if folder.has(SWEEP):
        words = ["sweep", str(folder.path / SWEEP), "--local", "--run_dir", "runs/sweep-again"]
        sections.append(
            Section("Run it again", [Code(command(*words)), Code(folder.text(SWEEP), SWEEP)])
        )
    lines = [*folder.notes, *unread]
    if lines:
        sections.insert(0, Section("Left out", [Text(lines, warning=True)]))
    return [section for section in sections if section.blocks]


def sweep_lead(folder: Folder) -> str:
    """Describe the result of a sweep in a sentence."""
    rows = folder.rows(TABLE)
    if not rows:
        return "No trial of this sweep has begun yet."
    done = [row for row in rows if row.get("state") == "done"]
    head = f"{number(len(rows))} trials, {number(len(done))} of them finished"
    comment = folder.text(BEST).splitlines()[1:2]
    return f"{head}. {comment[0].removeprefix('# ').rstrip(', with')}." if comment else f"{head}."


def _trials(folder: Folder, rows: list[dict[str, str]]) -> list[Any]:
    names = list(rows[0])
    metric, parameters = names[BEFORE - 1], names[BEFORE:-AFTER]
    short = short_names(parameters)
    heads = [*names[:BEFORE], *(short[name] for name in parameters), *names[-AFTER:]]
    cells = [[_cell(row[name], folder, name == names[0]) for name in names] for row in rows]
    states = {state: sum(row.get("state") == state for row in rows) for state in
              dict.fromkeys(row.get("state", "") for row in rows)}  # fmt: skip
    points = {
        int(index): reached
        for row in rows
        if (index := finite(row[names[0]])) is not None
        and (reached := finite(row[metric])) is not None
        and row.get("state") == "done"
    }
    chart = charts.curves(
        f"{metric} of the finished trials", {metric: points}, "trial", joined=False
    )
    blocks: list[Any] = [
        facts(
            [
                ("metric", metric),
                ("parameters", ", ".join(parameters)),
                ("trials", ", ".join(f"{count} {state}" for state, count in states.items())),
                ("folder", str(folder.path)),
            ]
        )
    ]
    if chart is not None and len(points) > 1:
        blocks.append(Gallery([chart]))
    return [*blocks, without_gaps(Table(heads, cells))]


def _cell(text: str, folder: Folder, is_index: bool) -> Value:
    key = finite(text)
    link = ""
    if is_index and key is not None:
        way = f"trials/{int(key):04d}/{PAGE}"
        link = way if (folder.path / way).is_file() else ""
    return Value(text if key is None else number(key), key, link)

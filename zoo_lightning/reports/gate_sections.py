"""Sections on the report of the command ``gates``: gates beside what removing sources does."""

from __future__ import annotations

import math
from typing import Any

from zoo_lightning.reports import charts
from zoo_lightning.reports.contents import Gallery, Section, Table, Text, Value, number, value
from zoo_lightning.reports.finished_run import NORMAL
from zoo_lightning.reports.folder import Folder, finite, within


def gate_sections(folder: Folder, name: str = "gates.json") -> list[Section]:
    """Make the sections on a gate report; none if there is no such file.

    Args:
        folder: folder with the file.
        name: path of the file within the folder.
    """
    found = folder.mapping(name)
    sources = [each for each in found.get("sources", []) if isinstance(each, dict)]
    if not sources:
        return []
    label = within(found, "measure", "label") or "metric"
    head = (
        f"{label} on {number(found.get('samples'))} samples of {found.get('split')}: "
        f"{number(finite(found.get('metric')))} with all sources."
    )
    section = Section("What each source is worth")
    section.add(
        Text([str(found.get("verdict", "")), head]),
        _by_source(sources, str(label)),
        _charts(sources),
        Text([str(line) for line in found.get("remarks") or []]),
    )
    layers = [each for each in found.get("layers", []) if isinstance(each, dict)]
    if layers:
        section.add(_by_layer(layers))
    return [section]


def _by_source(sources: list[dict[str, Any]], label: str) -> Table:
    heads = ["source", "start", "gates", "kernels", "without it", "effect", "±", "alone"]
    keys = ["start_share", "gate_share", "kernel_share", "metric", "effect", "effect_error",
            "metric_alone"]  # fmt: skip
    rows = [
        [Value(str(each.get("source"))), *(value(finite(each.get(key)), 3) for key in keys)]
        for each in sources
    ]
    return Table(
        heads,
        rows,
        note=f"start, gates, kernels: shares of the source at the start, in the gates and in the "
        f"norms of what they multiply; without it and alone: {label}; effect: increase of the "
        "error in points without the source, ± its standard error.",
    )


def _charts(sources: list[dict[str, Any]]) -> Gallery | None:
    rows = []
    for each in sources:
        effect, error = finite(each.get("effect")), finite(each.get("effect_error"))
        if effect is not None:
            half = math.nan if error is None else NORMAL * error
            rows.append((str(each.get("source")), effect, effect - half, effect + half))
    shares = [
        (str(each.get("source")), share)
        for each in sources
        if (share := finite(each.get("gate_share"))) is not None
    ]
    drawn = [
        charts.intervals(
            "Effect of removing each source", rows, "increase of the error, points (95 %)", True
        ),
        charts.bars("Share of each source in the gates", shares, "mean over layers"),
    ]
    shown = [chart for chart in drawn if chart is not None]
    return Gallery(shown) if shown else None


def _by_layer(layers: list[dict[str, Any]]) -> Table:
    keys = ["gate", "gate_deviation", "gate_share", "kernel_share", "effect"]
    used = [key for key in keys if any(each.get(key) is not None for each in layers)]
    rows = [
        [
            Value(str(each.get("layer"))),
            Value(str(each.get("source"))),
            *(value(finite(each.get(key)), 3) for key in used),
        ]
        for each in layers
    ]
    return Table(
        ["layer", "source", *(key.replace("_", " ") for key in used)],
        rows,
        note="effect: increase of the loss without the source in that layer.",
    )

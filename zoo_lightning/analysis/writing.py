"""Gate report as tables to print and as files."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from zoo_lightning.analysis.plots import plot_gates
from zoo_lightning.analysis.relation_report import aligned
from zoo_lightning.analysis.report import GateReport, LayerRow, SourceEffect
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.plotting.figures import save_figure

FILES = ("gates.json", "gates.csv", "removal.csv", "gates.png")
"""Names of a report's files: all numbers, rows by layer and source, rows by source, the figure."""


def write_report(found: GateReport, folder: Path, described: dict[str, Any]) -> None:
    """Write a gate report as ``gates.json``, ``gates.csv``, ``removal.csv`` and ``gates.png``.

    Args:
        found: gate report.
        folder: folder to write to; it is created if necessary.
        described: additional entries of ``gates.json``, such as the checkpoint's path.

    Raises:
        StorageError: the folder cannot be written to.
    """
    with atomic_file(folder / "gates.json") as part:
        part.write_text(json.dumps(described | found.as_dict(), indent=2) + "\n", **TEXT)
    _write_rows(folder / "gates.csv", LayerRow, found.layers)
    _write_rows(folder / "removal.csv", SourceEffect, found.sources)
    save_figure(plot_gates(found), folder / "gates.png")


def _write_rows(path: Path, kind: type, rows: Sequence[Any]) -> None:
    with atomic_file(path) as part, part.open("w", newline="", **TEXT) as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(kind)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def format_report(found: GateReport) -> str:
    """Format the tables by source and by layer, explanations, and the verdict."""
    measure = found.measure
    lines = [
        f"{found.architecture}, {found.method}: {measure.label} on {found.samples} samples of "
        f"{found.split}: {found.metric:.2f}, as trained {found.metric_as_is:.2f}",
        "",
        *_by_source(found),
        "",
        *_by_layer(found),
        "",
        f"without, effect, alone: norm statistics re-estimated from {found.calibration} training "
        f"images, as for the {found.metric:.2f} with all sources; effect: increase of the error in "
        "points, ± its standard error; as is: effect with the norm statistics as trained"
        f"{_finer(found)}",
        "gates: mean over layers of a source's share; kernels: of the norms of what the gates "
        "multiply",
        *found.remarks,
        "",
        found.verdict,
    ]
    return "\n".join(lines)


def _finer(found: GateReport) -> str:
    if found.measure.loss == found.measure.label:
        return ""
    return f"; loss: increase of {found.measure.loss}, by which the sources are ordered"


def _by_source(found: GateReport) -> list[str]:
    started = found.sources[0].start_share is not None
    finer = found.measure.loss != found.measure.label
    head = ["source", *["start"] * started, "gates", "kernels", "without", "effect", ""]
    rows = [[*head, *["loss", ""] * finer, "as is", "alone"]]
    for row in found.sources:
        start = [f"{row.start_share:.3f}"] if row.start_share is not None else []
        loss = [f"{row.loss_effect:+.3f}", f"± {row.loss_effect_error:.3f}"] * finer
        rows.append(
            [
                row.source,
                *start,
                f"{row.gate_share:.3f}",
                f"{row.kernel_share:.3f}",
                f"{row.metric:.2f}",
                f"{row.effect:+.2f}",
                f"± {row.effect_error:.2f}",
                *loss,
                f"{row.effect_as_is:+.2f}",
                f"{row.metric_alone:.2f}",
            ]
        )
    return aligned(rows)


def _by_layer(found: GateReport) -> list[str]:
    names = [row.source for row in found.sources]
    measured = found.layer_samples > 0
    titles = ["gate", *[""] * (len(names) - 1), *["effect", *[""] * (len(names) - 1)] * measured]
    rows = [["", *titles], ["layer", *names, *names * measured]]
    for first in range(0, len(found.layers), len(names)):
        group = found.layers[first : first + len(names)]
        gates = [
            f"{row.gate:.3f}"
            + ("" if row.gate_deviation is None else f" ± {row.gate_deviation:.3f}")
            for row in group
        ]
        effects = [f"{row.effect:+.4f}" for row in group if row.effect is not None]
        rows.append([group[0].layer, *gates, *effects])
    lines = aligned(rows)
    if measured:
        lines.append(
            f"effect: increase of {found.measure.loss} without the source in that layer, "
            f"{found.layer_samples} samples"
        )
    return lines

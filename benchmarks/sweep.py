"""Cost against architecture, batch, image size and number of sources: a table and a plot.

One thing is varied at a time around a base setting, since all combinations would take hours on a
CPU. Results are written after every setting, so an interrupted sweep leaves what it has measured.
"""

from __future__ import annotations

import csv
import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.train_step import measure
from benchmarks.variants import Setting

AXES: dict[str, tuple] = {
    "architecture": (
        "resnet18", "resnet50", "mobilenetv3_small_050", "tf_efficientnet_lite0",
        "hrnet_w18_small",
    ),
    "batch": (1, 8, 32),
    "size": (64, 112, 224),
    "sources": (2, 5, 10),
}  # fmt: skip

PLOTTED = {
    "train.full_vs_plain": "full, training",
    "train.lite_vs_plain": "lite, training",
    "train.reference_full_vs_plain": "usual full, training",
    "train.reference_lite_vs_plain": "usual lite, training",
    "eval.full_vs_plain": "full, evaluation",
}


def settings(base: Setting) -> list[tuple[str, Setting]]:
    """Settings to run, each with the axis it belongs to; the base belongs to all."""
    found = []
    for axis, values in AXES.items():
        found += [(axis, replace(base, **{axis: value})) for value in values]
    return found


def sweep(base: Setting, turns: int, threads: int, out: Path) -> None:
    """Measure every setting once and write ``sweep.csv``, ``sweep.md`` and ``sweep.png``."""
    out.mkdir(parents=True, exist_ok=True)
    known: dict[Setting, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for axis, setting in settings(base):
        if setting not in known:
            known[setting] = flat(measure(setting, turns, False, threads))
            gc.collect()
        rows.append({"axis": axis, **vars(setting), **known[setting]})
        print(axis, setting, known[setting], flush=True)
        write(rows, out)


def flat(result: dict[str, Any]) -> dict[str, float]:
    """Ratios, the usual implementation's slow-down, and the plain network's seconds."""
    train = result["seconds"]["train"]
    ratios = {key: round(value, 3) for key, value in result.items() if "_vs_" in key}
    for mode in ("full", "lite"):
        slow_down = train[f"reference_{mode}"] / train["plain"]
        ratios[f"train.reference_{mode}_vs_plain"] = round(slow_down, 3)
    return ratios | {"train.plain_seconds": round(train["plain"], 4)}


def write(rows: list[dict[str, Any]], out: Path) -> None:
    """Write the table as CSV and Markdown, and the plot."""
    with (out / "sweep.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    shown = [k for k in rows[0] if k not in ("plan",)]
    lines = [" | ".join(shown), " | ".join("---" for _ in shown)]
    lines += [" | ".join(str(row[k]) for k in shown) for row in rows]
    (out / "sweep.md").write_text("\n".join(f"| {line} |" for line in lines) + "\n")
    plot(rows, out / "sweep.png")


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Slow-down against the plain network along each axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(AXES), figsize=(16, 4.5), sharey=True)
    for panel, (axis, values) in zip(axes, AXES.items(), strict=True):
        measured = {row[axis]: row for row in rows if row["axis"] == axis}
        present = [value for value in values if value in measured]
        for key, label in PLOTTED.items():
            heights = [measured[value][key] for value in present]
            style = "--" if "usual" in label else "-"
            panel.plot([str(v) for v in present], heights, style, marker="o", label=label)
        panel.set_xlabel(axis)
        panel.set_yscale("log")
        panel.grid(alpha=0.3)
        if axis == "architecture":
            panel.tick_params(axis="x", labelrotation=30, labelsize=7)
    axes[0].set_ylabel("time / plain network's time")
    axes[-1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)

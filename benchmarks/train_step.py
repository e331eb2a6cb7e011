r"""Time training and evaluation steps: plain, the usual implementation, and this package's.

    python -m benchmarks.train_step --architecture resnet50 --batch 16 --size 112 --sources 5 \
        --json FILE
    python -m benchmarks.train_step --sweep

All variants take turns in one process, so that other load on the machine affects them equally, and
figures are medians over the turns. ``x_vs_reference`` above 1 means faster than the usual
implementation; ``x_vs_plain`` is how many times slower than one plain model. ``--sweep`` varies
architecture, batch, image size and number of sources.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.memory import peak_memory
from benchmarks.variants import FUSED, VARIANTS, SpeedSetting, Variant
from zoo_lightning.plotting.figures import new_figure, save_figure

Seconds = dict[str, list[float]]

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


def take_turns(variants: dict[str, Variant], step: str, turns: int) -> Seconds:
    """Seconds of each turn by variant, after one untimed step of each variant."""
    seconds: Seconds = {name: [] for name in variants}
    for turn in range(turns + 1):
        for name, variant in variants.items():
            run = getattr(variant, step)
            if step == "eval_step" and turn == 0:
                run()  # fills caches of kernels
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def measure(
    setting: SpeedSetting, turns: int, memory: bool, threads: int, names: tuple[str, ...] = VARIANTS
) -> dict[str, Any]:
    """Figures of one setting: the ratios of :func:`ratios`, and the measurements behind them."""
    variants = {name: Variant(name, setting) for name in names}
    trained = {name: v for name, v in variants.items() if name != "folded"}
    train = take_turns(trained, "train_step", turns)
    evaluated = take_turns(variants, "eval_step", turns)
    del variants, trained
    gc.collect()
    peaks = {}
    if memory:
        peaks = {n: peak_memory(n, setting, threads) for n in names if n != "folded"}
    medians = {
        "train": {name: median(each) for name, each in train.items()},
        "eval": {name: median(each) for name, each in evaluated.items()},
        "memory": peaks,
    }
    return {
        **ratios(medians),
        "setting": vars(setting) | {"turns": turns, "threads": threads, "dtype": "float32"},
        "seconds": {"train": medians["train"], "eval": medians["eval"]},
        "peak_bytes": peaks,
        "turns": {"train": train, "eval": evaluated},
    }


def ratios(medians: dict[str, dict[str, float]]) -> dict[str, float]:
    """Ratios of medians between variants, for the measured variants."""
    faster = {
        f"{kind}.{mode}_vs_reference": (kind, f"reference_{mode}", mode)
        for kind in ("train", "eval")
        for mode in ("full", "lite")
    }
    slower = {
        f"{kind}.{name}_vs_plain": (kind, name, "plain")
        for kind, name in [("train", "full"), ("train", "lite"), ("eval", "full"),
                           ("eval", "lite"), ("eval", "folded")]
    }  # fmt: skip
    slower |= {
        f"train.{mode}_fused_vs_plain{base}": ("train", f"{mode}_fused", f"plain{base}")
        for mode in ("full", "lite")
        for base in ("", "_fused")
    }
    used = {
        "memory.full_vs_reference": ("memory", "full", "reference_full"),
        "memory.lite_vs_reference": ("memory", "lite", "reference_lite"),
        "memory.full_vs_plain": ("memory", "full", "plain"),
        "memory.lite_vs_plain": ("memory", "lite", "plain"),
    }
    found = {}
    for key, (kind, above, below) in (faster | slower | used).items():
        values = medians[kind]
        if above in values and below in values:
            found[key] = values[above] / values[below]
    return found


def report(result: dict[str, Any]) -> str:
    """Format figures as text."""
    lines = [str(result["setting"])]
    for kind in ("train", "eval"):
        each = result["seconds"][kind].items()
        lines.append(f"{kind:6} s   " + "  ".join(f"{n} {s:.3f}" for n, s in each))
    if result["peak_bytes"]:
        each = result["peak_bytes"].items()
        lines.append("memory GB  " + "  ".join(f"{n} {b / 1e9:.2f}" for n, b in each))
    lines += [f"{key:28} {result[key]:.2f}" for key in result if "_vs_" in key]
    return "\n".join(lines)


def settings(base: SpeedSetting) -> list[tuple[str, SpeedSetting]]:
    """Settings to measure, each with its axis; one thing is varied at a time around the base."""
    found = []
    for axis, values in AXES.items():
        found += [(axis, replace(base, **{axis: value})) for value in values]
    return found


def sweep(base: SpeedSetting, turns: int, threads: int, out: Path) -> None:
    """Measure every setting once and write ``sweep.csv``, ``sweep.md`` and ``sweep.png``.

    Files are written after every setting, so that an interrupted sweep keeps its results.
    """
    out.mkdir(parents=True, exist_ok=True)
    known: dict[SpeedSetting, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for axis, setting in settings(base):
        if setting not in known:
            known[setting] = flat(measure(setting, turns, False, threads))
            gc.collect()
        rows.append({"axis": axis, **vars(setting), **known[setting]})
        print(axis, setting, known[setting], flush=True)
        write(rows, out)


def flat(result: dict[str, Any]) -> dict[str, float]:
    """Ratios, slow-down of the usual implementation, and seconds of the plain network."""
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
    shown = [k for k in rows[0] if k not in ("plan", "align")]
    lines = [" | ".join(shown), " | ".join("---" for _ in shown)]
    lines += [" | ".join(str(row[k]) for k in shown) for row in rows]
    (out / "sweep.md").write_text("\n".join(f"| {line} |" for line in lines) + "\n")
    plot(rows, out / "sweep.png")


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot the slow-down against the plain network along each axis."""
    figure = new_figure(16, 4.5)
    axes = figure.subplots(1, len(AXES), sharey=True)
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
    save_figure(figure, path)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--architecture", default="resnet50", help="timm name")
    parser.add_argument("--batch", type=int, default=16, help="images in a step")
    parser.add_argument("--size", type=int, default=112, help="side of the images in pixels")
    parser.add_argument("--sources", type=int, default=5)
    parser.add_argument("--plan", default="auto", help="auto, benchmark or a way's name")
    parser.add_argument("--turns", type=int, default=5, help="timed steps of each variant")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--variants", nargs="+", choices=(*VARIANTS, *FUSED), default=list(VARIANTS)
    )
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    parser.add_argument("--sweep", action="store_true", help="measure a series of settings")
    parser.add_argument(
        "--out", type=Path, default=Path("results/speed"), help="folder for the sweep's files"
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Run one setting or the sweep."""
    options = parse()
    torch.set_num_threads(options.threads)
    setting = SpeedSetting(
        options.architecture, options.batch, options.size, options.sources, options.plan
    )
    if options.sweep:
        sweep(setting, options.turns, options.threads, options.out)
        return
    result = measure(
        setting, options.turns, not options.no_memory, options.threads, tuple(options.variants)
    )
    print(report(result))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

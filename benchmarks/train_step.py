r"""Times training and evaluation steps: plain, the usual implementation, and this package's.

    python -m benchmarks.train_step --architecture resnet50 --batch 16 --size 112 --sources 5 \
        --json FILE
    python -m benchmarks.train_step --sweep

All variants take turns in one process, so that whatever else the machine does meets them alike;
figures are medians over the turns. Ratios are of medians; ``x_vs_reference`` above 1 means faster
than the usual implementation, ``x_vs_plain`` how many times slower than one plain model.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.memory import peak_memory
from benchmarks.variants import VARIANTS, Setting, Variant

Seconds = dict[str, list[float]]


def take_turns(variants: dict[str, Variant], step: str, turns: int) -> Seconds:
    """Seconds of every turn of every variant, after one untimed step of each."""
    seconds: Seconds = {name: [] for name in variants}
    for turn in range(turns + 1):
        for name, variant in variants.items():
            run = getattr(variant, step)
            if step == "eval_step" and turn == 0:
                run()  # kernels that are kept are made here
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def measure(
    setting: Setting, turns: int, memory: bool, threads: int, names: tuple[str, ...] = VARIANTS
) -> dict[str, Any]:
    """All figures of one setting: ratios by the keys of :func:`ratios`, and what they come from."""
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
    """Ratios of medians; those whose variants were not measured are left out."""
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
    """The figures for people to read."""
    lines = [str(result["setting"])]
    for kind in ("train", "eval"):
        each = result["seconds"][kind].items()
        lines.append(f"{kind:6} s   " + "  ".join(f"{n} {s:.3f}" for n, s in each))
    if result["peak_bytes"]:
        each = result["peak_bytes"].items()
        lines.append("memory GB  " + "  ".join(f"{n} {b / 1e9:.2f}" for n, b in each))
    lines += [f"{key:28} {result[key]:.2f}" for key in result if "_vs_" in key]
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--architecture", default="resnet50", help="timm name")
    parser.add_argument("--batch", type=int, default=16, help="images a step")
    parser.add_argument("--size", type=int, default=112, help="side of the images in pixels")
    parser.add_argument("--sources", type=int, default=5)
    parser.add_argument("--plan", default="auto", help="auto, benchmark or a way's name")
    parser.add_argument("--turns", type=int, default=5, help="timed steps of each variant")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    parser.add_argument("--sweep", action="store_true", help="vary one thing at a time")
    parser.add_argument("--out", type=Path, default=Path("results/speed"), help="of the sweep")
    return parser.parse_args(arguments)


def main() -> None:
    """Run one setting or the sweep."""
    options = parse()
    torch.set_num_threads(options.threads)
    setting = Setting(
        options.architecture, options.batch, options.size, options.sources, options.plan
    )
    if options.sweep:
        from benchmarks.sweep import sweep

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

r"""Measure what a kernel for each sample costs in transformers, by the number of tokens.

    python -m benchmarks.vision_transformers --out results/transformers

An ordinary layer of ``n`` tokens multiplies ``B n C_in C_out`` times for ``B`` samples. A kernel of
``m`` sources for each sample takes ``B m C_in C_out`` multiplications more, ``m / n`` of the layer;
one kernel for the batch, as in lite mode, takes ``m / (B n)``. Here both are measured, forward and
backward, for a layer of a ViT-Tiny's MLP and for training steps of whole networks; ``--planner``
measures instead how good the planner's choices are for layers of transformers, and ``--others``
training steps of other networks than ViTs.

Variants take turns in one process on one thread; figures are medians over the turns of the
process's CPU seconds, which other work on the machine does not count towards.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn

from benchmarks.variants import SpeedSetting, Variant
from zoo_lightning.nn import ZooLinear
from zoo_lightning.nn.fast.planner import costs, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TOKENS = (4, 16, 49, 197, 785)
"""Numbers of tokens; 197 are 224x224 pixels in patches of 16, and a class token."""

SOURCES, BATCH = 5, 16

PLANNED = (
    (16, 197, 192, 576), (16, 197, 192, 768), (16, 197, 768, 192), (16, 50, 192, 192),
    (16, 49, 384, 1536), (32, 17, 192, 768), (32, 17, 768, 192), (32, 17, 192, 192),
)  # fmt: skip
"""Layers whose ways are timed: samples, tokens, channels of input and output."""

VITS = (
    SpeedSetting("vit_tiny_patch16_224", BATCH, 64, SOURCES),
    SpeedSetting("vit_tiny_patch16_224", 8, 224, SOURCES),
)
OTHERS = (
    SpeedSetting("convnext_atto", 8, 96, SOURCES),
    SpeedSetting("mobilevit_xxs", 8, 128, SOURCES),
    SpeedSetting("mixer_s32_224", 8, 224, SOURCES),
    SpeedSetting("swin_tiny_patch4_window7_224", 1, 224, SOURCES),
)
"""Networks whose training steps are timed; those of the ViTs with every layer aligned, too, which
takes minutes in wider networks."""


def take_turns(runs: Mapping[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Median CPU seconds of each function, after one untimed call of each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(turns + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if turn:
                seconds[name].append(time.process_time() - start)
    return {name: median(each) for name, each in seconds.items()}


def layer_steps(
    tokens: int, batch: int, sources: int, inputs: int = 192, outputs: int = 768
) -> dict[str, Callable[[], object]]:
    """Forward and backward passes of an ordinary, a full and a lite layer.

    Args:
        tokens: number of tokens ``n`` of a sample.
        batch: number of samples ``B``.
        sources: number of sources ``m``.
        inputs: number of channels ``C_in``.
        outputs: number of channels ``C_out``.
    """
    torch.manual_seed(0)
    like = nn.Linear(inputs, outputs)
    weight, bias = 0.02 * torch.randn(sources, outputs, inputs), torch.zeros(sources, outputs)
    layers = {"plain": like}
    layers |= {m: ZooLinear(like, weight, bias, mode=m, aligned=False) for m in ("full", "lite")}
    x = torch.randn(batch, tokens, inputs, requires_grad=True)
    weights = torch.randn(batch, tokens, outputs)

    def step(layer: nn.Module) -> Callable[[], object]:
        return lambda: torch.autograd.backward(layer(x), weights)

    return {name: step(layer) for name, layer in layers.items()}


def layer_rows(turns: int, tokens: tuple[int, ...] = TOKENS) -> list[dict[str, float]]:
    """Measured cost of aggregation beside ``m / n`` and ``m / (B n)``, by number of tokens."""
    rows = []
    for n in tokens:
        found = take_turns(layer_steps(n, BATCH, SOURCES), turns)
        rows.append(
            {
                "tokens": n,
                "plain_ms": round(1000 * found["plain"], 2),
                "full_vs_plain": round(found["full"] / found["plain"], 2),
                "m/n": round(SOURCES / n, 3),
                "lite_vs_plain": round(found["lite"] / found["plain"], 2),
                "m/Bn": round(SOURCES / (BATCH * n), 4),
            }
        )
        print(rows[-1], flush=True)
    return rows


def planned_row(
    batch: int, tokens: int, inputs: int, outputs: int, turns: int
) -> dict[str, object]:
    """Time all candidate ways of a full layer, training, beside the planner's choice."""
    torch.manual_seed(0)
    like = nn.Linear(inputs, outputs)
    weight, bias = 0.02 * torch.randn(SOURCES, outputs, inputs), torch.zeros(SOURCES, outputs)
    layer = ZooLinear(like, weight, bias, aligned=False)
    x = torch.randn(batch, tokens, inputs, requires_grad=True)
    weights = torch.randn(batch, tokens, outputs)
    asked = layer.planned(x, torch.zeros(batch, SOURCES), training=True)

    def step(way: str) -> Callable[[], object]:
        def run() -> None:
            layer.plan = way
            torch.autograd.backward(layer(x), weights)

        return run

    found = take_turns({way: step(way) for way in costs(asked)}, turns)
    chosen, best = plan("auto", asked), min(found, key=found.__getitem__)
    row: dict[str, object] = {
        "batch": batch, "tokens": tokens, "inputs": inputs, "outputs": outputs,
        "chosen": chosen, "fastest": best,
        "chosen_vs_fastest": round(found[chosen] / found[best], 2),
    }  # fmt: skip
    row |= {f"{way}_ms": round(1000 * seconds, 1) for way, seconds in found.items()}
    print(row, flush=True)
    return row


def network_row(setting: SpeedSetting, turns: int, everything: bool) -> dict[str, object]:
    """Training steps of a full and of a lite zoo beside those of one network.

    Lite is measured with the default alignment, of spatial kernels, with that of heads, and on
    request with that of every layer.
    """
    aligned = {"lite_heads": "heads", **({"lite_all": "all"} if everything else {})}
    variants = {name: Variant(name, setting) for name in ("plain", "full", "lite")}
    variants |= {
        name: Variant("lite", replace(setting, align=align)) for name, align in aligned.items()
    }
    found = take_turns({name: each.train_step for name, each in variants.items()}, turns)
    row: dict[str, object] = {
        "architecture": setting.architecture, "batch": setting.batch, "size": setting.size,
        "plain_s": round(found["plain"], 3),
    }  # fmt: skip
    row |= {f"{n}_vs_plain": round(found[n] / found["plain"], 2) for n in variants if n != "plain"}
    print(row, flush=True)
    return row


def write(rows: list[dict], path: Path) -> None:
    """Write rows as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Measure layers and networks; files are written after each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--turns", type=int, default=5, help="timed steps of each variant")
    parser.add_argument("--others", action="store_true", help="measure other networks than ViTs")
    parser.add_argument("--planner", action="store_true", help="measure the planner's choices")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.planner:
        planned = [planned_row(*layer, turns=options.turns) for layer in PLANNED]
        write(planned, options.out / "planner.csv")
        return
    rows = []
    for setting in OTHERS if options.others else ():
        rows.append(network_row(setting, options.turns, everything=False))
        write(rows, options.out / "others.csv")
    if options.others:
        return
    write(layer_rows(5 * options.turns), options.out / "layers.csv")
    for setting in VITS:
        rows.append(network_row(setting, options.turns, everything=True))
        write(rows, options.out / "networks.csv")


if __name__ == "__main__":
    main()

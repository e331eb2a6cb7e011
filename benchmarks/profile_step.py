"""Profile of a training step by part of the layers, beside the necessary multiplications.

    python -m benchmarks.profile_step --architecture resnet50 --batch 16 --size 112 --sources 5

Operations are attributed to the part of the layer that called them, those of the backward pass to
the part of their forward operation (autograd gives both one number).
"""

from __future__ import annotations

import argparse
import importlib
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from unittest.mock import patch

import torch
from torch.autograd.profiler import record_function

from benchmarks.variants import SpeedSetting, Variant
from zoo_lightning.nn import aggregated
from zoo_lightning.nn.fast.planner import plan
from zoo_lightning.nn.fast.ways import WAYS

PARTS = {
    "gates": "gates",
    "alignment": "alignment of kernels",
    "aggregation": "aggregation of kernels",
    "convolution": "convolution with aggregated kernels",
    "aligned_outputs": "convolution with all sources, alignment on outputs",
    "mixed_inputs": "convolution of inputs mixed for all sources",
    "optimiser": "optimiser",
    "rest": "norm layers, activations and the rest",
}
KERNELS = importlib.import_module("zoo_lightning.nn.reference")
"""The module, whose name in its package is a function's."""

MIXING = ("aten::mm", "aten::addcmul_")
"""Operations that mix kernels or inputs in an aggregated layer's functions; others convolve."""


def labelled(part: str, function: Callable) -> Callable:
    """Wrap a function so that its operations are recorded as those of a part."""

    def run(*args: object, **options: object) -> object:
        with record_function(f"part:{part}"):
            return function(*args, **options)

    return run


def profile(variant: Variant, steps: int = 3) -> dict[str, float]:
    """Milliseconds of processor time in a training step by part in ``PARTS``."""
    with ExitStack() as stack:
        layer = aggregated.AggregatedLayer
        patches = [
            (layer, "gates", "gates", layer.gates),
            (layer, "_mix", "alignment", layer._mix),
            (layer, "_compute", "convolution", layer._compute),
            (KERNELS, "align", "alignment", KERNELS.align),
        ]
        for owner, name, part, function in patches:
            stack.enter_context(patch.object(owner, name, labelled(part, function)))
        for way in ("aligned_outputs", "mixed_inputs"):
            stack.enter_context(patch.dict(WAYS, {way: labelled(way, WAYS[way])}))
        variant.train_step()
        with torch.profiler.profile() as recorded:
            for _ in range(steps):
                variant.train_step()
    totals = attribute(list(recorded.events()))
    return {part: totals[part] / 1e3 / steps for part in PARTS}


def attribute(events: list) -> Counter:
    """Microseconds of self time by part."""
    numbered: dict[int, str] = {}
    for event in events:
        part = _enclosing(event)
        if part and event.sequence_nr >= 0:
            # The innermost of nested parts comes last.
            numbered[event.sequence_nr] = part
    totals: Counter = Counter()
    for event in events:
        totals[_part_of(event, numbered)] += event.self_cpu_time_total
    return totals


def _ancestors(event: object) -> list:
    chain = []
    while event is not None:
        chain.append(event)
        event = event.cpu_parent
    return chain


def _enclosing(event: object) -> str | None:
    for each in _ancestors(event):
        if each.name.startswith("part:"):
            return each.name.removeprefix("part:")
    return None


def _part_of(event: object, numbered: dict[int, str]) -> str:
    chain = _ancestors(event)
    names = [each.name for each in chain]
    if any(name.startswith("Optimizer.") for name in names):
        return "optimiser"
    part = _enclosing(event)
    if part is None:
        backward = [e for e in chain if e.name.startswith("autograd::engine::evaluate_function")]
        part = numbered.get(backward[0].sequence_nr) if backward else None
    if part is None:
        return "rest"
    own = any("_PerSample" in name or "_MixedInputs" in name for name in names)
    if part == "convolution" and own and any(name in MIXING for name in names):
        return "aggregation"
    if part == "alignment" and not any("_Product" in name for name in names):
        return "aggregation"  # an unaligned kernel's mixing, and scaling maps by gates
    return part


def multiplications(variant: Variant) -> Counter:
    """Thousand million multiplications of a training step by part, for the planned computations.

    The gradients of inputs and of kernels each take as many as the forward pass. ``plain`` counts
    the convolutions of one network. Kernels per sample are computed twice.
    """
    totals: Counter = Counter()

    def count(layer: aggregated.AggregatedLayer, inputs: tuple, y: torch.Tensor) -> None:
        full = layer.mode == "full"
        m, kernel = layer.num_sources, layer.weight[0].numel()
        gates = inputs[0].new_empty((len(y), m) if full else (m,))
        way = plan(layer.plan, layer.planned(inputs[0], gates, training=True))
        positions = y.shape[2:].numel() * len(y)
        block = 0 if layer.alignment is None else layer.alignment.shape[-1]
        on_kernels, work = m * kernel * block, kernel * positions
        totals["plain"] += 3 * work
        if way == "aligned_outputs":
            totals[way] += 3 * m * (work + block * y.shape[1] * positions)
            return
        totals["alignment"] += 3 * on_kernels
        if way == "mixed_inputs":
            totals[way] += 3 * m * work
            return
        totals["convolution"] += 3 * work
        if full:
            totals["aggregation"] += 4 * m * len(y) * kernel
        elif not block:
            totals["aggregation"] += 3 * m * kernel

    hooks = [layer.register_forward_hook(count) for layer in variant.layers]
    variant.eval_step()
    for hook in hooks:
        hook.remove()
    return Counter({part: number / 1e9 for part, number in totals.items()})


def main() -> None:
    """Profile full and lite, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--architecture", default="resnet50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--sources", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    setting = SpeedSetting(options.architecture, options.batch, options.size, options.sources)
    print("| mode | part | ms | share | 10^9 multiplications |\n| --- | --- | --- | --- | --- |")
    for name in ("full", "lite"):
        variant = Variant(name, setting)
        spent, counted = profile(variant), multiplications(variant)
        whole = sum(spent.values())
        for part, title in PARTS.items():
            share = f"{spent[part] / whole:.0%}"
            print(f"| {name} | {title} | {spent[part]:.0f} | {share} | {counted[part]:.1f} |")
        total = sum(counted.values()) - counted["plain"]
        print(f"| {name} | total | {whole:.0f} | 100% | {total:.1f} |")
        print(f"| {name} | one plain network | | | {counted['plain']:.1f} |")


if __name__ == "__main__":
    main()

"""Fit the planner's rates of a device to measured layers."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo_lightning.nn import ZooConv2d
from zoo_lightning.nn.fast.planner import RATES, Rates, Request, costs

Layer = tuple[int, int, int, int, int, int]
"""Input channels, output channels, kernel, stride, side of the input, groups."""

LAYERS: tuple[Layer, ...] = (
    (64, 64, 1, 1, 56, 1), (64, 256, 1, 1, 56, 1), (256, 128, 1, 1, 56, 1), (512, 128, 1, 1, 28, 1),
    (1024, 256, 1, 1, 14, 1), (512, 2048, 1, 1, 7, 1), (384, 1536, 1, 1, 14, 1),
    (64, 64, 3, 1, 56, 1), (128, 128, 3, 1, 28, 1), (256, 256, 3, 1, 14, 1), (512, 512, 3, 1, 7, 1),
    (128, 128, 3, 2, 56, 1), (3, 64, 7, 2, 224, 1), (96, 96, 3, 1, 28, 96),
    (240, 240, 5, 1, 14, 240),
)  # fmt: skip
"""Kinds of layers of a ResNet-50, a ViT-S and a MobileNetV3 on 224 pixels."""

QUICK: tuple[Layer, ...] = ((16, 32, 1, 1, 8, 1), (16, 16, 3, 1, 8, 1), (16, 16, 3, 1, 8, 16))

PRIOR = 1e-4
"""Weight of the present rates against the measurements; it decides where these say nothing."""

LEAST = 0.02
"""Smallest rate that is fitted, as a multiple of the present one."""

Measured = list[tuple[Request, dict[str, float]]]
"""Requests, each with the measured nanoseconds of its candidate ways."""


def measure_layers(
    layers: tuple[Layer, ...], batch: int, sources: int, device: str, deadline: float
) -> Measured:
    """Measure a training pass of every candidate way of every layer, full and lite.

    Args:
        layers: kinds of layers.
        batch: number of samples.
        sources: number of sources.
        device: type of the device.
        deadline: ``time.monotonic()`` after which no further layer is begun.
    """
    found: Measured = []
    for layer in layers:
        for mode in ("full", "lite"):
            if time.monotonic() < deadline:
                found.append(_measure(layer, mode, batch, sources, device))
    return found


def _measure(
    layer: Layer, mode: str, batch: int, sources: int, device: str
) -> tuple[Request, dict[str, float]]:
    inputs, outputs, kernel, stride, side, groups = layer
    like = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    weight = torch.randn(sources, *like.weight.shape)
    zoo = ZooConv2d(like, weight, None, mode=mode, aligned=kernel > 1).to(device)
    x = torch.randn(batch, inputs, side, side, device=device)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_(inputs > 3)
    gates = zoo.gates(x).detach()
    asked = zoo.planned(x, gates, training=True)
    timed: dict[str, float] = {}
    for way in costs(asked):
        try:
            timed[way] = _nanoseconds(lambda way=way: zoo._try(way, x, gates, zoo.geometry), device)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    return asked, timed


def _nanoseconds(run: Any, device: str, turns: int = 3) -> float:
    def once() -> float:
        start = time.perf_counter_ns()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter_ns() - start

    once()
    return median(once() for _ in range(turns))


def fit_rates(measured: Measured, present: Rates) -> Rates:
    """Fit rates so that estimates come near measured times, by relative least squares.

    ``Σ (estimate / measured − 1)² + λ Σ (rate / present − 1)²`` with rates at least ``LEAST`` of
    the present ones, by coordinate descent.

    Args:
        measured: requests with the nanoseconds of their ways.
        present: rates that decide where the measurements say nothing.
    """
    ones = [
        Rates(*(value if i == k else 0.0 for i, value in enumerate(present)))
        for k in range(len(present))
    ]
    rows = []
    for asked, timed in measured:
        shares = [costs(asked, one) for one in ones]
        rows += [[share[way] / spent for share in shares] for way, spent in timed.items()]
    matrix = np.array(rows).reshape(-1, len(present))
    factors = np.ones(len(present))
    for _ in range(5000):
        for k, column in enumerate(matrix.T):
            rest = 1 - matrix @ factors + column * factors[k]
            best = (column @ rest + PRIOR * len(matrix)) / (column @ column + PRIOR * len(matrix))
            factors[k] = max(best, LEAST)
    return Rates(*(float(f"{f * r:.3g}") for f, r in zip(factors, present, strict=True)))


def lost_time(measured: Measured, rates: Rates) -> float:
    """Time of the ways that rates choose, relative to the fastest ways, less one."""
    chosen = fastest = 0.0
    for asked, timed in measured:
        estimates = {way: cost for way, cost in costs(asked, rates).items() if way in timed}
        chosen += timed[min(estimates, key=estimates.__getitem__)]
        fastest += min(timed.values())
    return chosen / fastest - 1


def fitted(measured: Measured, device: str) -> dict[str, Any]:
    """Fit rates, and compare their choices with those of the present ones.

    Returns:
        ``row``: the entry of ``RATES``; ``rates``; ``lost_before`` and ``lost_after``: time lost
        to the fastest ways; ``layers``: the measurements.
    """
    present = RATES[device]
    rates = fit_rates(measured, present)
    numbers = ", ".join(f"{value:g}" for value in rates)
    return {
        "row": f'"{device}": Rates({numbers}),',
        "rates": rates._asdict(),
        "lost_before": lost_time(measured, present),
        "lost_after": lost_time(measured, rates),
        "layers": [
            {
                "mode": "lite" if asked.shared else "full",
                "channels": [asked.in_channels, asked.out_channels],
                "kernel": asked.kernel[0],
                "groups": asked.geometry.groups,
                "image": asked.image[0],
                "nanoseconds": timed,
            }
            for asked, timed in measured
        ],
    }

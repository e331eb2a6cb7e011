"""Choice of the way to compute an aggregated layer: by a cost model, by timing, or by name.

All ways are exact (:mod:`zoo_lightning.layers.aggregation`); the choice is one of speed only. The
model counts multiplications, elements moved and calls, each at a rate that the device reaches in
that kind of work, so it needs no timing and gives the same plan in every process. Timing (plan
``benchmark``) measures the candidates on the first input of each shape, as cuDNN's own does.
"""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from zoo_lightning.layers.aggregation import WAYS, SourceKernels, aggregate
from zoo_lightning.layers.per_sample import ConvGeometry, is_channels_last, output_size

if TYPE_CHECKING:
    from collections.abc import Callable

ONE_KERNEL = "one_kernel"
"""Lite's own way: align and mix into one kernel, then an ordinary convolution."""

PLANS = ("auto", "benchmark", ONE_KERNEL, *WAYS)
"""What a plan may be called."""


class Request(NamedTuple):
    """All that the choice depends on; equal requests get equal answers.

    Attributes:
        batch: ``B``.
        sources: ``m``.
        in_channels: ``C_in``.
        out_channels: ``C_out``.
        image: height and width of the padded input.
        kernel: height and width of the kernel.
        geometry: stride, padding, dilation, groups.
        aligned: whether an alignment is still to be applied (a cached one is not).
        shared: whether one set of gates serves all samples (lite mode).
        training: whether gradients will be wanted.
        device: type of the device.
        dtype: in which is computed.
        channels_last: memory format of the input.
    """

    batch: int
    sources: int
    in_channels: int
    out_channels: int
    image: tuple[int, int]
    kernel: tuple[int, int]
    geometry: ConvGeometry
    aligned: bool
    shared: bool
    training: bool
    device: str
    dtype: torch.dtype
    channels_last: bool


def request(
    x: Tensor, kernels: SourceKernels, gates: Tensor, geometry: ConvGeometry, training: bool
) -> Request:
    """What is asked of the planner for an input ``(B, C_in, H, W)``; see :class:`Request`."""
    kind, dtype = x.device.type, x.dtype
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
    sources, out_channels = kernels.weight.shape[:2]
    return Request(
        batch=x.shape[0],
        sources=sources,
        in_channels=x.shape[1],
        out_channels=out_channels,
        image=tuple(x.shape[2:]),
        kernel=tuple(kernels.weight.shape[-2:]),
        geometry=geometry,
        aligned=kernels.alignment is not None,
        shared=gates.dim() == 1,
        training=training,
        device=kind,
        dtype=dtype,
        channels_last=is_channels_last(x),
    )


class Rates(NamedTuple):
    """Nanoseconds that a device needs for one unit of each kind of work.

    Attributes:
        conv: a multiplication in a library's convolution of many positions.
        product: one in a large matrix product.
        batched: one in a product per sample.
        move: writing and reading an element of a kernel per sample, once.
        unfold: an element of the unfolded input, once.
        call: starting one operation.
        conv_fill: positions at which a convolution per sample reaches half its rate.
        batched_fill: the same for a product per sample.
        grouped_fill: the same for a grouped convolution over the merged batch.
    """

    conv: float
    product: float
    batched: float
    move: float
    unfold: float
    call: float
    conv_fill: float
    batched_fill: float
    grouped_fill: float


RATES = {
    # One AVX-512 core, float32, measured; more cores and other types change the ratios little.
    "cpu": Rates(0.0095, 0.0105, 0.013, 0.29, 1.0, 10_000, 80, 12, 250),
    # Not measured here: a mid-range GPU by its data sheet (10 TMAC/s, 500 GB/s, 5 µs a launch). A
    # loop over samples is out of the question there; `benchmark` decides better.
    "cuda": Rates(1e-4, 1e-4, 1.3e-4, 0.016, 0.016, 5_000, 2000, 12, 100),
}


def costs(asked: Request) -> dict[str, float]:
    """Estimated nanoseconds of every candidate, forward and, in training, backward."""
    rates = RATES.get(asked.device, RATES["cuda"])
    m, groups = asked.sources, asked.geometry.groups
    height, width = output_size(asked.image, asked.kernel, asked.geometry)
    positions = max(1, height * width)
    passes = 3 if asked.training else 1
    filter_size = asked.in_channels // groups * asked.kernel[0] * asked.kernel[1]
    kernel_size = asked.out_channels * filter_size
    work = passes * kernel_size * asked.batch * positions
    block = asked.out_channels // groups
    align = passes * m * kernel_size * block * rates.product if asked.aligned else 0.0
    align += passes * rates.call if asked.aligned else 0.0
    outputs = passes * m * asked.out_channels * asked.batch * positions * rates.move
    pointwise = asked.kernel == (1, 1) and asked.geometry.padding == (0, 0)
    unfold = 0.0 if pointwise else passes * filter_size * groups * asked.batch * positions
    unfold *= rates.unfold
    found: dict[str, float] = {}
    if asked.aligned and groups == 1:
        found["aligned_outputs"] = (
            m * work * rates.product
            + passes * m * block * asked.out_channels * asked.batch * positions * rates.product
            + outputs + unfold + 8 * passes * rates.call
        )  # fmt: skip
    if asked.shared:
        # Making the kernel reads all sources, and writes all their gradients, whatever the batch.
        found[ONE_KERNEL] = (
            align + m * passes * kernel_size * rates.move + work * rates.conv + passes * rates.call
        )
        return found
    mixing = (4.5 if asked.training else 1.0) * asked.batch * kernel_size * rates.move + align
    filling = 1 + rates.grouped_fill / positions if filter_size > asked.kernel[0] ** 2 else 1.0
    found["grouped"] = mixing + work * rates.conv * filling + passes * 3 * rates.call
    found["looped"] = (
        mixing
        + work * rates.conv * (1 + rates.conv_fill / positions)
        + asked.batch * passes * 2 * rates.call
    )
    if groups == 1:
        filling = 1 + rates.batched_fill / positions
        calls = asked.batch if asked.device == "cpu" else 3
        found["unfolded"] = mixing + work * rates.batched * filling + unfold
        found["unfolded"] += calls * passes * rates.call
        found["mixed_outputs"] = (
            align + m * work * rates.conv * (1 + 10 / positions) + outputs + passes * rates.call
        )
    return found


_TIMED: dict[Request, dict[str, float]] = {}


def plan(name: str, asked: Request, trial: Callable[[str], None] | None = None) -> str:
    """Name of the way to compute a layer.

    Args:
        name: ``auto``, ``benchmark``, or a way's name. A way that lite mode does not have means
            ``one_kernel`` there, and ``one_kernel`` means ``auto`` in full mode.
        asked: the layer's shape and circumstances.
        trial: runs the layer in a named way, backward pass included, for ``benchmark``; without
            it, or while a compiler is looking, ``benchmark`` means ``auto``.
    """
    if name in WAYS:
        return name if not asked.shared or name == "aligned_outputs" else ONE_KERNEL
    if asked.shared and name == ONE_KERNEL:
        return name
    estimates = costs(asked)
    if name == "benchmark" and trial is not None and not torch.compiler.is_compiling():
        if asked not in _TIMED:
            _TIMED[asked] = {way: _time(trial, way) for way in estimates}
        estimates = _TIMED[asked]
    return min(estimates, key=estimates.__getitem__)


def timings(asked: Request) -> dict[str, float] | None:
    """Nanoseconds that ``benchmark`` measured for a request, if it did."""
    return _TIMED.get(asked)


def forget_timings() -> None:
    """Measure anew, for instance after the number of threads has changed."""
    _TIMED.clear()


def _time(trial: Callable[[str], None], way: str, repeats: int = 3) -> float:
    """Median nanoseconds of ``trial(way)``, after one run to warm up."""
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter_ns()
        trial(way)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter_ns() - start)
    return median(taken[1:])


def table(rows: list[tuple[str, Request, str]]) -> str:
    """A network's plan for people to read, a line for each layer.

    Args:
        rows: name, request and chosen way of each layer.
    """
    lines = [f"{'layer':28} {'kernels':22} {'input':18} {'way':16} ms (estimated or timed)"]
    for name, asked, way in rows:
        height, width = asked.kernel
        inputs = asked.in_channels // asked.geometry.groups
        shape = f"{asked.sources}x{asked.out_channels}x{inputs}x{height}x{width}"
        size = "x".join(map(str, (asked.batch, asked.in_channels, *asked.image)))
        known = timings(asked) or costs(asked)
        each = "  ".join(
            f"{key} {value / 1e6:.2f}" for key, value in sorted(known.items(), key=lambda i: i[1])
        )
        lines.append(f"{name:28} {shape:22} {size:18} {way:16} {each}")
    return "\n".join(lines)

"""Choice of the way to compute an aggregated layer: by a cost model, by timing, or by name.

All ways are exact (:mod:`zoo_lightning.layers.aggregation`); the choice is one of speed only. The
model counts multiplications, elements moved and calls, each at a rate that the device reaches in
that kind of work, so it needs no timing and gives the same plan in every process. Timing (plan
``benchmark``) measures the candidates on the first input of each shape, as cuDNN's own does, but
not anew for every batch of a few samples more or less.
"""

from __future__ import annotations

import time
from math import inf
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from zoo_lightning.layers.aggregation import WAYS, SourceKernels
from zoo_lightning.layers.per_sample import (
    ConvGeometry,
    is_channels_last,
    is_pointwise,
    output_size,
)

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
        of_input: whether those of the input are among them; images need none.
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
    of_input: bool
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
        of_input=training and x.requires_grad,
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
        move: writing and reading an element of a kernel or an output, once.
        unfold: an element of the unfolded input, once.
        call: starting one operation.
        grouped: an element of input and output in a grouped convolution, by position and stride.
        reorder: bringing an element of a grouped convolution's kernel into the library's order.
    """

    conv: float
    product: float
    batched: float
    move: float
    unfold: float
    call: float
    grouped: float
    reorder: float


RATES = {
    # Measured, forward and backward, on one AVX-512 core in float32 with the batch of 16 of a
    # ResNet-50, a MobileNetV3 and an EfficientNet-Lite; more cores change the ratios little.
    "cpu": Rates(0.0095, 0.0105, 0.017, 0.29, 2.0, 10_000, 0.9, 7.0),
    # Not measured: a mid-range GPU by its data sheet (10 TMAC/s, 500 GB/s, 5 µs a launch). A loop
    # over samples is out of the question there; `benchmark` knows better.
    "cuda": Rates(1e-4, 1e-4, 1.5e-4, 0.016, 0.032, 5_000, 0.02, 0.02),
}


class _Sizes(NamedTuple):
    """Counts that all estimates use: ``L``, ``D``, ``C_out D``, passes, multiplications of one."""

    positions: int
    filter_size: int
    kernel_size: int
    passes: int
    work: int


def _sizes(asked: Request) -> _Sizes:
    height, width = output_size(asked.image, asked.kernel, asked.geometry)
    positions = max(1, height * width)
    filter_size = asked.in_channels // asked.geometry.groups * asked.kernel[0] * asked.kernel[1]
    kernel_size = asked.out_channels * filter_size
    passes = 1 + asked.training + asked.of_input  # forward, gradients of kernels and of inputs
    work = passes * kernel_size * asked.batch * positions
    return _Sizes(positions, filter_size, kernel_size, passes, work)


def costs(asked: Request) -> dict[str, float]:
    """Estimated nanoseconds of every candidate, forward and, in training, backward.

    The factors say how far a library falls behind its own rate for large convolutions; they come
    from the measurements named at ``RATES``.
    """
    rates, n = RATES.get(asked.device, RATES["cuda"]), _sizes(asked)
    m, groups = asked.sources, asked.geometry.groups
    align = 0.0
    if asked.aligned:
        block = asked.out_channels // groups
        align = n.passes * (m * n.kernel_size * block * rates.product + rates.call)
    found: dict[str, float] = {}
    if asked.aligned and groups == 1:
        found["aligned_outputs"] = _aligned_outputs_cost(asked, rates, n)
    if asked.shared:
        # Making the kernel reads all sources, and writes all their gradients, whatever the batch.
        moved = m * n.passes * n.kernel_size * rates.move
        return found | {ONE_KERNEL: align + moved + n.work * rates.conv + n.passes * rates.call}
    # Kernels are made, made again, and give gradients of the sources and of the gates.
    mixing = (4.5 if asked.training else 1.0) * asked.batch * n.kernel_size * rates.move + align
    per_sample = _grouped_costs if groups > 1 else _ungrouped_costs
    found |= {way: mixing + cost for way, cost in per_sample(asked, rates, n).items()}
    if groups == 1:
        found |= {way: align + cost for way, cost in _mixing_costs(asked, rates, n).items()}
    return found


def _aligned_outputs_cost(asked: Request, rates: Rates, n: _Sizes) -> float:
    outputs = n.passes * asked.sources * asked.out_channels * asked.batch * n.positions
    return (
        asked.sources * n.work * rates.product
        + outputs * (asked.out_channels * rates.product + rates.move)
        + _unfolding(asked, rates, n)
        + 8 * n.passes * rates.call
    )


def _unfolding(asked: Request, rates: Rates, n: _Sizes) -> float:
    if is_pointwise(asked.kernel, asked.geometry):
        return 0.0
    return n.passes * n.filter_size * asked.batch * n.positions * rates.unfold


def _ungrouped_costs(asked: Request, rates: Rates, n: _Sizes) -> dict[str, float]:
    """Kernels per sample where all inputs meet all outputs, without making the kernels."""
    calls = asked.batch if asked.device == "cpu" else 3
    slow = 2.4 if asked.kernel == (1, 1) else 1.0
    few = 3.0 if asked.in_channels < 8 else 1.0
    grouped = n.work * rates.conv * slow * few * (1.5 + 50 / n.positions)
    looped = n.work * rates.conv * slow * (1.5 + 150 / n.positions)
    unfolded = n.work * rates.batched * (1 + 12 / n.positions)
    return {
        "grouped": grouped + 3 * n.passes * rates.call,
        "looped": looped + 2 * n.passes * asked.batch * rates.call,
        "unfolded": unfolded + _unfolding(asked, rates, n) + calls * n.passes * rates.call,
    }


def _grouped_costs(asked: Request, rates: Rates, n: _Sizes) -> dict[str, float]:
    """Kernels per sample of grouped and depthwise convolutions, bound by memory, not by work."""
    inputs = asked.in_channels * asked.image[0] * asked.image[1]
    elements = asked.batch * (inputs + asked.out_channels * n.positions)
    strided = 3.0 if max(asked.geometry.stride) > 1 else 1.0
    kernels = asked.batch * n.kernel_size * rates.reorder
    work = n.work * rates.conv
    return {
        "grouped": work
        + n.passes * (strided * elements * rates.grouped + kernels + 3 * rates.call),
        "looped": work
        + n.passes
        * (0.6 * elements * rates.grouped + 1.7 * kernels + 2 * asked.batch * rates.call),
    }


def _mixing_costs(asked: Request, rates: Rates, n: _Sizes) -> dict[str, float]:
    """Every source on every sample: no kernels per sample, ``m`` times the multiplications."""
    m, all_positions = asked.sources, asked.batch * n.positions
    inputs = m * n.passes * n.filter_size * all_positions * rates.move
    outputs = m * n.passes * asked.out_channels * all_positions * rates.move
    conv = m * n.work * rates.conv * (1 + 10 / n.positions)
    return {
        "mixed_inputs": m * n.work * rates.product
        + _unfolding(asked, rates, n)
        + 1.2 * inputs
        + 4 * m * n.passes * rates.call,
        "mixed_outputs": 1.2 * conv + outputs + n.passes * rates.call,
    }


_TIMED: dict[Request, dict[str, float]] = {}

HOPELESS = 8.0
"""Times the least estimate from which a candidate is not timed: that could take seconds."""

BEATEN = 2.0
"""Times the least measurement from which a candidate's first run, which warms up, is enough."""


def _alike(asked: Request) -> Request:
    """The request that stands for this one in timings.

    Batches up to a power of two are alike, for some trainings have another batch at every step.
    """
    return asked._replace(batch=1 << max(asked.batch - 1, 0).bit_length())


def plan(name: str, asked: Request, trial: Callable[[str], None] | None = None) -> str:
    """Name of the way to compute a layer.

    Args:
        name: ``auto``, ``benchmark``, or a way's name. A way that lite mode does not have means
            ``one_kernel`` there, and ``one_kernel`` means ``auto`` in full mode.
        asked: the layer's shape and circumstances.
        trial: runs the layer in a named way, backward pass included, for ``benchmark``; without
            it ``benchmark`` takes what was timed before. Where nothing was, and while a compiler is
            looking, it means ``auto``.
    """
    if name in WAYS:
        return name if not asked.shared or name == "aligned_outputs" else ONE_KERNEL
    if asked.shared and name == ONE_KERNEL:
        return name
    estimates = costs(asked)
    if name == "benchmark" and not torch.compiler.is_compiling():
        alike = _alike(asked)
        if alike not in _TIMED and trial is not None:
            _TIMED[alike] = _time_all(trial, estimates)
        estimates = _TIMED.get(alike, estimates)
    return min(estimates, key=estimates.__getitem__)


def timings(asked: Request) -> dict[str, float] | None:
    """Nanoseconds that ``benchmark`` measured for a request or one that is alike, if it did."""
    return _TIMED.get(_alike(asked))


def forget_timings() -> None:
    """Measure anew, for instance after the number of threads has changed."""
    _TIMED.clear()


def _time_all(trial: Callable[[str], None], estimates: dict[str, float]) -> dict[str, float]:
    """Nanoseconds of all candidates that may win, the likeliest first."""
    least, timed = min(estimates.values()), {}
    for way in sorted(estimates, key=estimates.__getitem__):
        if estimates[way] <= HOPELESS * least:
            timed[way] = _time(trial, way, BEATEN * min(timed.values(), default=inf))
    return timed


def _time(trial: Callable[[str], None], way: str, enough: float = inf, repeats: int = 3) -> float:
    """Median nanoseconds of ``trial(way)`` after one run to warm up; that one's if ``enough``."""

    def run() -> int:
        start = time.perf_counter_ns()
        trial(way)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter_ns() - start

    first = run()
    return first if first > enough else median(run() for _ in range(repeats))

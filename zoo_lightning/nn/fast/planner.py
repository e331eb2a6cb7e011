"""Choice of the way to compute an aggregated layer: by a cost model, by timing, or by name.

All ways compute the same as :func:`zoo_lightning.nn.reference.reference`; the choice is one of
speed only. The cost model counts multiplications, elements moved and calls, each at a rate that the
device reaches in that kind of work, so it needs no timing and gives the same plan in every process.
Timing (plan ``benchmark``) measures the candidates on the first input of each shape, as cuDNN's
benchmark mode does; batches that differ by a few samples share a measurement.
"""

from __future__ import annotations

import time
from math import inf
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from zoo_lightning.nn.fast.per_sample import is_channels_last, is_pointwise, output_size
from zoo_lightning.nn.fast.ways import WAYS
from zoo_lightning.nn.reference import REFERENCE, ConvGeometry, SourceKernels

if TYPE_CHECKING:
    from collections.abc import Callable

ONE_KERNEL = "one_kernel"
"""Name of the way for one kernel per batch: align and mix, then an ordinary convolution."""

PLANS = ("auto", "benchmark", ONE_KERNEL, *WAYS)
"""Values of the layer option ``plan``."""


class Request(NamedTuple):
    """Facts about a layer and its input that the planner chooses by.

    Attributes:
        batch: number of samples ``B``.
        sources: number of sources ``m``.
        in_channels: channels ``C_in`` of the input.
        out_channels: channels ``C_out`` of the output.
        image: height and width of the padded input.
        kernel: height and width of the kernel.
        geometry: stride, padding, dilation and groups.
        aligned: whether an alignment is still to be applied (a cached one is not).
        shared: whether all samples have the same gates (lite mode).
        training: whether gradients will be computed.
        of_input: whether the input's gradient will be computed; images need none.
        device: type of the device, such as ``cpu`` or ``cuda``.
        dtype: type of the computation; under autocast its type.
        channels_last: whether the input is channels last in memory.
        blocks: blocks of the alignment in each group: 1, or those of an attention's heads.
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
    blocks: int = 1


def request(
    x: Tensor, kernels: SourceKernels, gates: Tensor, geometry: ConvGeometry, training: bool
) -> Request:
    """Describe a layer and its input for the planner.

    Args:
        x: input, ``(B, C_in, H, W)``.
        kernels: kernels of the sources, with the alignment that is still to be applied.
        gates: gates, ``(B, m)``, or ``(m,)`` for one set for the whole batch.
        geometry: stride, padding, dilation and groups.
        training: whether gradients will be computed.
    """
    kind, dtype = x.device.type, x.dtype
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
    sources, out_channels = kernels.weight.shape[:2]
    return Request(
        batch=x.shape[0],
        sources=sources,
        in_channels=x.shape[1],
        out_channels=out_channels,
        image=(x.shape[2], x.shape[3]),
        kernel=(kernels.weight.shape[-2], kernels.weight.shape[-1]),
        geometry=geometry,
        aligned=kernels.alignment is not None,
        shared=gates.dim() == 1,
        training=training,
        of_input=training and x.requires_grad,
        device=kind,
        dtype=dtype,
        channels_last=is_channels_last(x),
        blocks=1 if kernels.alignment is None else kernels.alignment.shape[1] // geometry.groups,
    )


class Rates(NamedTuple):
    """Nanoseconds that a device takes for one unit of each kind of work.

    Attributes:
        conv: time of a multiplication in a library's convolution of many positions.
        product: time of a multiplication in a large matrix product.
        batched: time of a multiplication in a product per sample.
        move: time to write and read an element of a kernel or an output.
        unfold: time to unfold an element of the input.
        call: time to start one operation.
        grouped: time per element of input and output in a grouped convolution.
        reorder: time to bring an element of a grouped convolution's kernel into the library's
            order.
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
    # over samples is out of the question there; use `benchmark` there.
    "cuda": Rates(1e-4, 1e-4, 1.5e-4, 0.016, 0.032, 5_000, 0.02, 0.02),
}


class _Sizes(NamedTuple):
    """Counts that all estimates use: ``L``, ``D``, ``C_out D``, passes and multiplications."""

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


def costs(asked: Request, rates: Rates | None = None) -> dict[str, float]:
    """Estimate the nanoseconds of every candidate way, forward and, in training, backward.

    The factors are a library's slowdown relative to its own rate for large convolutions; they come
    from the measurements named at ``RATES``. Estimates are linear in the rates.

    Args:
        asked: facts about the layer and its input.
        rates: rates of the device; ``None`` for those in ``RATES``.
    """
    rates, n = rates or RATES.get(asked.device, RATES["cuda"]), _sizes(asked)
    m, groups = asked.sources, asked.geometry.groups
    align = 0.0
    if asked.aligned:
        block = asked.out_channels // (groups * asked.blocks)
        align = n.passes * (m * n.kernel_size * block * rates.product + rates.call)
    found: dict[str, float] = {}
    if asked.aligned and groups == asked.blocks == 1:
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
    """Estimates of ungrouped convolutions with a kernel per sample, without the mixing."""
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
    """Estimates of grouped convolutions with a kernel per sample, bound by memory, not by work."""
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
    """Estimates of the ways with every source on every sample: ``m`` times the multiplications."""
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
"""Multiple of the least estimate above which a candidate is not timed: it could take seconds."""

BEATEN = 2.0
"""Multiple of the least measurement above which a candidate's first run, which warms up, is its
only one."""


def _alike(asked: Request) -> Request:
    """Round the batch up to a power of two, so that batches of similar size share a timing.

    Some trainings have a batch of another size at every step.
    """
    return asked._replace(batch=1 << max(asked.batch - 1, 0).bit_length())


def plan(name: str, asked: Request, trial: Callable[[str], None] | None = None) -> str:
    """Choose the way to compute a layer.

    Args:
        name: ``auto``, ``benchmark``, or the name of a way. A way that lite mode does not have
            means ``one_kernel`` there, and ``one_kernel`` means ``auto`` in full mode.
        asked: facts about the layer and its input.
        trial: function that runs the layer in a named way, backward pass included, for
            ``benchmark``; without it ``benchmark`` uses earlier timings. Where there are none, and
            under a compiler, ``benchmark`` means ``auto``.

    Returns:
        Name of the way, one of ``WAYS`` or ``one_kernel``.
    """
    if name in WAYS:
        either = name in (REFERENCE, "aligned_outputs")  # for one kernel and for one per sample
        return name if either or not asked.shared else ONE_KERNEL
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
    """Nanoseconds by way, as ``benchmark`` measured for a batch of similar size; else ``None``."""
    return _TIMED.get(_alike(asked))


def forget_timings() -> None:
    """Discard all measurements, for instance after the number of threads has changed."""
    _TIMED.clear()


def _time_all(trial: Callable[[str], None], estimates: dict[str, float]) -> dict[str, float]:
    """Measure the nanoseconds of all candidates that may be fastest, the likeliest first."""
    least = min(estimates.values())
    timed: dict[str, float] = {}
    for way in sorted(estimates, key=estimates.__getitem__):
        if estimates[way] <= HOPELESS * least:
            timed[way] = _time(trial, way, BEATEN * min(timed.values(), default=inf))
    return timed


def _time(trial: Callable[[str], None], way: str, enough: float = inf, repeats: int = 3) -> float:
    """Median nanoseconds of ``trial(way)`` after a warm-up run; the latter if above ``enough``."""

    def run() -> int:
        start = time.perf_counter_ns()
        trial(way)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter_ns() - start

    first = run()
    return first if first > enough else median(run() for _ in range(repeats))

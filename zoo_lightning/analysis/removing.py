"""Temporary removal of sources from a trained zoo, and recording of its gates. Pure PyTorch.

All functions are for layers in evaluation, in which lite mode computes with the gates' moving
average and full mode with each sample's gates. Letters: ``B`` samples, ``m`` sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo_lightning.nn import AggregatedLayer


def keep_only(gates: Tensor, kept: Tensor) -> Tensor:
    """Set the gates of some sources to zero and scale the others so that the sum is unchanged.

    A smaller sum would weaken the kernel, which is another change than removing a source.

    Args:
        gates: gates of at least 0, ``(B, m)`` or ``(m,)``.
        kept: mask ``(m,)`` of the sources to keep.

    Returns:
        Gates in the same shape; all zeros where every kept gate is zero.
    """
    if bool(kept.all()):
        return gates
    remaining = gates * kept.to(gates.device)
    left = remaining.sum(dim=-1, keepdim=True)
    scaled = remaining / left * gates.sum(dim=-1, keepdim=True)
    return torch.where(left > 0, scaled, 0.0)


@contextmanager
def keeping(layers: Iterable[AggregatedLayer], kept: Tensor) -> Iterator[None]:
    """Remove sources from layers inside the block, see :func:`keep_only`.

    Args:
        layers: aggregated layers of a zoo in evaluation.
        kept: mask ``(m,)`` of the sources to keep.
    """
    with ExitStack() as undo:
        for layer in layers:
            if layer.mode == "lite":
                before = layer.gate_ema.clone()
                undo.callback(layer.gate_ema.copy_, before)
                layer.gate_ema.copy_(keep_only(before, kept))
            else:
                hook = layer.gate.register_forward_hook(
                    lambda module, inputs, gates: keep_only(gates, kept)
                )
                undo.callback(hook.remove)
        yield


@contextmanager
def recorded_gates(layers: Mapping[str, AggregatedLayer]) -> Iterator[dict[str, list[Tensor]]]:
    """Record the gates of each full layer inside the block.

    Args:
        layers: aggregated layers by name.

    Yields:
        For each full layer by name a list to which every batch appends gates ``(B, m)``; nothing
        for lite layers, which use one moving average.
    """
    seen: dict[str, list[Tensor]] = {
        name: [] for name, layer in layers.items() if layer.mode == "full"
    }
    with ExitStack() as undo:
        for name, rows in seen.items():
            hook = layers[name].gate.register_forward_hook(
                lambda module, inputs, gates, rows=rows: rows.append(gates.detach().cpu())
            )
            undo.callback(hook.remove)
        yield seen


@contextmanager
def norms_restored(network: nn.Module) -> Iterator[None]:
    """Restore the statistics of a network's batch norms at the end of the block."""
    buffers = [
        buffer
        for module in network.modules()
        if isinstance(module, _BatchNorm)
        for buffer in module.buffers()
    ]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)


def has_batch_norms(network: nn.Module) -> bool:
    """Whether a network has batch norms with running statistics."""
    return any(
        isinstance(module, _BatchNorm) and module.track_running_stats
        for module in network.modules()
    )


@torch.no_grad()
def kernel_norms(layer: AggregatedLayer) -> Tensor:
    """Frobenius norm ``‖T_i W_i‖`` of each source's aligned kernel, ``(m,)``."""
    return layer.source_kernels().aligned().weight.flatten(1).norm(dim=1)

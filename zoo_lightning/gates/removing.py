"""Take sources out of a trained zoo for a while, and look at its gates. No data, no Lightning.

Everything here is about evaluation, in which lite mode computes with the gates' moving average and
full mode with each sample's gates. Letters: ``B`` samples, ``m`` sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo_lightning.layers import AggregatedLayer


def keep_only(gates: Tensor, kept: Tensor) -> Tensor:
    """Gates with some sources at zero and the others scaled so that the sum stays as it was.

    The sum stays because gates are not shares: only their proportions say whom a layer listens to,
    and a smaller sum would be a weaker kernel, which is another change than a source less.

    Args:
        gates: ``(B, m)`` or ``(m,)``, at least 0.
        kept: ``(m,)`` bool.

    Returns:
        As ``gates``; all zeros where every kept gate is zero.
    """
    if bool(kept.all()):
        return gates
    remaining = gates * kept.to(gates.device)
    left = remaining.sum(dim=-1, keepdim=True)
    scaled = remaining / left * gates.sum(dim=-1, keepdim=True)
    return torch.where(left > 0, scaled, 0.0)


@contextmanager
def keeping(layers: Iterable[AggregatedLayer], kept: Tensor) -> Iterator[None]:
    """Let layers in evaluation compute with some of their sources only, see :func:`keep_only`.

    Args:
        layers: of a zoo.
        kept: ``(m,)`` bool, the sources that stay.
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
    """The gates of each full layer during all that is computed meanwhile.

    Yields:
        For each full layer by name a list that grows by ``(B, m)`` with every batch; nothing for
        lite layers, whose gates are one moving average.
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
    """Give the batch norms of a network their statistics back afterwards."""
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
    """Whether there are norm statistics to estimate."""
    return any(
        isinstance(module, _BatchNorm) and module.track_running_stats
        for module in network.modules()
    )


@torch.no_grad()
def kernel_norms(layer: AggregatedLayer) -> Tensor:
    """Frobenius norm of each source's aligned kernel, ``‖T_i W_i‖``: ``(m,)``."""
    return layer.source_kernels().aligned().weight.flatten(1).norm(dim=1)

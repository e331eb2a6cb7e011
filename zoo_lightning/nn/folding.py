"""Folding: from the state dict of an aggregated network to that of an ordinary network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo_lightning.nn.alignment import align_and_mix, repeat_maps
from zoo_lightning.nn.fast.per_sample import mix

if TYPE_CHECKING:
    from collections.abc import Mapping

MARK = ".gate_ema"
"""Ending of a state-dict key that every aggregated layer has and no ordinary layer has."""


def is_aggregated(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is that of a network with aggregated layers."""
    return any(key.endswith(MARK) for key in state)


@torch.no_grad()
def fold_state(
    state: Mapping[str, Tensor], gates: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Replace the sources' kernels of each layer by their aggregate for one set of gates.

    Exact for a lite network in evaluation, which computes with these kernels; for a full network
    an approximation by one kernel per layer.

    Args:
        state: state dict with, for each aggregated layer, ``weight`` ``(m, C_out, ...)``,
            ``gate_ema`` ``(m,)``, and where the layer has them ``bias`` ``(m, C_out)`` and
            ``alignment``.
        gates: gates ``(m,)`` of each layer by its name; ``None`` takes the moving averages.

    Returns:
        State dict of the ordinary network; tensors that need no folding are copied.
    """
    layers = [key.removesuffix(MARK) for key in state if key.endswith(MARK)]
    inside = tuple(f"{name}." for name in layers)
    folded = {k: v.detach().clone() for k, v in state.items() if not k.startswith(inside)}
    for name in layers:
        a = state[f"{name}{MARK}"] if gates is None else gates[name]
        alignment = state.get(f"{name}.alignment")
        if alignment is not None:
            alignment = repeat_maps(alignment, state.get(f"{name}.alignment_blocks"))
        for part in ("weight", "bias"):
            kernels = state.get(f"{name}.{part}")
            if kernels is None:
                continue
            if alignment is None:
                folded[f"{name}.{part}"] = mix(kernels, a)
            else:
                folded[f"{name}.{part}"] = align_and_mix(kernels, alignment, a)
    return folded

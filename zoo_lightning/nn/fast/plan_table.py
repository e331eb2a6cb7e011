"""Table of the way in which each aggregated layer of a network computes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo_lightning.nn.aggregated import AggregatedLayer
from zoo_lightning.nn.fast.planner import Request, costs, plan, timings


def plan_table(network: nn.Module, x: Tensor, training: bool = True) -> str:
    """Format a table of the way that each aggregated layer computes and the candidates' times.

    All ways compute the same as :func:`zoo_lightning.nn.reference.reference`. The network runs once
    in evaluation mode and is left unchanged; plan ``benchmark`` measures layers of new shapes. For
    a network under autocast, call this under the same autocast.

    Args:
        network: network with aggregated layers, for instance a ``ZooBackbone``.
        x: input ``(B, C, H, W)`` of the size, type, memory format and device to plan for.
        training: whether to plan for training steps rather than for evaluation.

    Returns:
        A header and one line per layer: name, kernels ``m x C_out x C_in/g x kh x kw``, input
        ``B x C_in x H x W``, chosen way, and the milliseconds of all candidates, measured where
        plan ``benchmark`` has measured them, else estimated.
    """
    rows: list[tuple[str, Request, str]] = []
    layers = {n: m for n, m in network.named_modules() if isinstance(m, AggregatedLayer)}

    def note(name: str, layer: AggregatedLayer) -> torch.utils.hooks.RemovableHandle:
        def before(_: nn.Module, inputs: tuple) -> None:
            per_sample = (len(inputs[0]),) if layer.mode == "full" else ()
            gates = inputs[0].new_empty((*per_sample, layer.num_sources))
            asked = layer.planned(inputs[0], gates, training)
            rows.append((name, asked, plan(layer.plan, asked)))

        return layer.register_forward_pre_hook(before)

    hooks = [note(name, layer) for name, layer in layers.items()]
    was_training = network.training
    try:
        # With gradients recorded, since what needs none computes otherwise.
        with torch.set_grad_enabled(training):
            network.eval()(x)
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return "\n".join([_HEADER, *(_line(*row) for row in rows)])


_HEADER = f"{'layer':28} {'kernels':22} {'input':18} {'way':16} milliseconds"


def _line(name: str, asked: Request, way: str) -> str:
    inputs = asked.in_channels // asked.geometry.groups
    kernels = "x".join(map(str, (asked.sources, asked.out_channels, inputs, *asked.kernel)))
    size = "x".join(map(str, (asked.batch, asked.in_channels, *asked.image)))
    known = sorted((timings(asked) or costs(asked)).items(), key=lambda item: item[1])
    each = "  ".join(f"{key} {value / 1e6:.2f}" for key, value in known)
    return f"{name:28} {kernels:22} {size:18} {way:16} {each}"

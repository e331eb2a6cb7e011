"""The plan of a whole network, a line for each aggregated layer, for people to read."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo_lightning.layers.aggregated import AggregatedLayer
from zoo_lightning.layers.planner import Request, costs, plan, timings


def plan_table(network: nn.Module, x: Tensor, training: bool = True) -> str:
    """In which way every aggregated layer computes, and what the candidates cost.

    Runs the network once in evaluation mode, so nothing in it changes; plan ``benchmark`` times
    what it has not timed yet. Under autocast, run this under the same autocast.

    Args:
        network: with aggregated layers in it, for instance a ``ZooBackbone``.
        x: input of the size, type, memory format and device in question.
        training: plan for training steps rather than for evaluation.

    Returns:
        Name, kernels ``m x C_out x C_in/g x kh x kw``, input, chosen way, and all candidates'
        milliseconds: timed ones where plan ``benchmark`` has timed them, else estimates.
    """
    rows: list[tuple[str, Request, str]] = []
    layers = {n: m for n, m in network.named_modules() if isinstance(m, AggregatedLayer)}

    def note(name: str, layer: AggregatedLayer) -> torch.utils.hooks.RemovableHandle:
        def before(_: nn.Module, inputs: tuple) -> None:
            shape = (layer.num_sources,)
            if layer.mode == "full":
                shape = (len(inputs[0]), layer.num_sources)
            asked = layer.planned(inputs[0], inputs[0].new_empty(shape), training)
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

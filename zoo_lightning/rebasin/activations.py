"""Matching of channels by activations.

Li, Yosinski, Clune, Lipson and Hopcroft, *Convergent Learning: Do different neural networks learn
the same representations?*, 2015, and section 3.1 of Git Re-Basin: one assignment for each
group, with the largest total correlation of channels over images and pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from zoo_lightning.models.architecture import Architecture
from zoo_lightning.rebasin.assignment import assign_bundle, bundles
from zoo_lightning.rebasin.channels import ChannelGraph, Tap, indices_of, rows_of


class Correlation:
    """Pearson correlation of two networks' channels, accumulated over batches."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[Tensor] = []
        self.shift: list[Tensor] = []

    def add(self, first: Tensor, second: Tensor) -> None:
        """Add a batch of the channels' activations in both networks, ``(n, samples)`` each."""
        first, second = first.double(), second.double()
        if not self.shift:
            # Shifted by the first batch's means, which keeps squares from cancelling later.
            self.shift = [each.mean(1, keepdim=True) for each in (first, second)]
        x, y = first - self.shift[0], second - self.shift[1]
        new = [x.sum(1), y.sum(1), (x * x).sum(1), (y * y).sum(1), x @ y.T]
        sums = self.sums or [torch.zeros_like(each) for each in new]
        self.sums = [old + each for old, each in zip(sums, new, strict=True)]
        self.count += x.shape[1]

    def matrix(self) -> Tensor:
        """Pearson correlation of all pairs of channels, ``(n, n)``; 0 for constant channels."""
        x, y, xx, yy, xy = [each / self.count for each in self.sums]
        spread = ((xx - x**2).clamp_min(0)[:, None] * (yy - y**2).clamp_min(0)).sqrt()
        covariance = xy - x[:, None] * y
        return torch.where(spread > 1e-12, covariance / spread.clamp_min(1e-12), 0.0)


def taps_of(graph: ChannelGraph, network: nn.Module) -> dict[int, list[tuple[Tap, Tensor]]]:
    """Find the layers at which each group's activations are compared, and its channels' indices.

    These are the norm layers that hold the whole group, if there are any, else the layers without
    children that hold it, else all layers that hold it.

    Args:
        graph: channel graph of the network.
        network: network of the graph.

    Returns:
        Layers, each with the indices ``(channels, times)`` of the group's channels, by the group's
        ``start``.
    """
    leaves = {name for name, module in network.named_modules() if not any(module.children())}
    result = {}
    for group in graph.groups:
        having = [
            (tap, indices)
            for tap in graph.taps
            if (indices := indices_of(group, tap.axis.channels)) is not None
        ]
        norms = [each for each in having if each[0].norm]
        result[group.start] = norms or [e for e in having if e[0].module in leaves] or having
    return result


@torch.inference_mode()
def correlations(
    graph: ChannelGraph,
    architecture: Architecture,
    states: Sequence[Mapping[str, Tensor]],
    images: Tensor,
    batch_size: int = 64,
) -> list[Tensor]:
    """Correlations of two networks' channels over images and pixels.

    Args:
        graph: channel graph of both networks.
        architecture: architecture of both networks.
        states: state dicts of the network whose channels are the rows, and of the other one.
        images: normalised images, ``(N, C, H, W)``.
        batch_size: number of images in a forward pass.

    Returns:
        Correlations ``(n, n)`` for each group, averaged over the layers of :func:`taps_of`.
    """
    networks = [architecture.plain(state).eval() for state in states]
    taps = taps_of(graph, networks[0])
    wanted = {tap.module for having in taps.values() for tap, _ in having}
    outputs: list[dict[str, Tensor]] = [{}, {}]
    for network, kept in zip(networks, outputs, strict=True):
        for name in wanted:
            network.get_submodule(name).register_forward_hook(_keeper(kept, name))
    found = {group.start: [Correlation() for _ in taps[group.start]] for group in graph.groups}
    for batch in images.split(batch_size):
        for network in networks:
            network(batch)
        for start, having in taps.items():
            for (tap, indices), each in zip(having, found[start], strict=True):
                rows = [rows_of(kept[tap.module], tap.axis.dim, indices) for kept in outputs]
                each.add(*rows)
    return [
        torch.stack([each.matrix() for each in found[group.start]]).mean(0)
        for group in graph.groups
    ]


def _keeper(kept: dict[str, Tensor], name: str) -> Callable[..., None]:
    def keep(_: nn.Module, __: tuple, output: Tensor) -> None:
        kept[name] = output.clone()  # the next layer may change it in place

    return keep


def match_activations(
    graph: ChannelGraph,
    architecture: Architecture,
    reference: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    images: Tensor,
) -> Tensor:
    """Find the permutation of channels whose activations correlate best with a reference network's.

    Args:
        graph: channel graph of both networks.
        architecture: architecture of both networks.
        reference: state dict of the network to agree with.
        state: state dict of the network to permute.
        images: normalised images ``(N, C, H, W)``, of the kind the networks will be used for.

    Returns:
        Permutation ``(num_channels,)`` for :func:`~zoo_lightning.rebasin.channels.permute`.

    Raises:
        ConfigError: SciPy is not installed.
    """
    scores = correlations(graph, architecture, [reference, state], images)
    by_start = {group.start: own for group, own in zip(graph.groups, scores, strict=True)}
    permutation = graph.identity()
    for groups in bundles(graph):
        chosen = assign_bundle(groups, [by_start[group.start] for group in groups])
        for group, own in zip(groups, chosen, strict=True):
            permutation[group.span] = own
    return permutation


def mean_correlation(
    graph: ChannelGraph,
    architecture: Architecture,
    reference: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    images: Tensor,
) -> float:
    """Mean correlation of two networks' channels at the same index, averaged over groups.

    Args:
        graph: channel graph of both networks.
        architecture: architecture of both networks.
        reference: state dict of one network.
        state: state dict of the other network.
        images: normalised images, ``(N, C, H, W)``.
    """
    scores = correlations(graph, architecture, [reference, state], images)
    return float(torch.stack([own.diagonal().mean() for own in scores]).mean())

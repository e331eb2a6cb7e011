"""Matching of channels by weights.

Ainsworth, Hayase and Srinivasa, *Git Re-Basin: Merging Models modulo Permutation Symmetries*, ICLR
2023, algorithm 1: coordinate descent over groups of channels in random order, each assigned by its
scores under the present permutations of all other groups, until nothing changes.

Two things differ. Batch norms are folded into the layers before them, because they make the scale
of kernels arbitrary; the channels found then correlate better than those found from the parameters
as they are. And the blocks of grouped convolutions are assigned as wholes, by the best assignments
within each pair of blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product

import torch
from torch import Tensor

from zoo_lightning.rebasin.assignment import Inside, assign_bundle, assign_within, bundles
from zoo_lightning.rebasin.channels import (
    Axis,
    ChannelGraph,
    Group,
    indices_of,
    rows_of,
    source_index,
)

SWEEPS = 100
"""Largest number of rounds over all groups; a few are usual."""

BIAS = " bias"
"""Suffix of a kernel's key, for the key of the bias that results from folding a norm."""


@dataclass(frozen=True, eq=False)
class Term:
    """A pair of two networks' tensors, whose inner product is a term of their agreement.

    Attributes:
        reference: tensor of the reference network.
        source: tensor of the source network, of the same shape.
        axes: axes that hold channels, as in
            :class:`~zoo_lightning.rebasin.channels.ChannelGraph`.
        inside: whether it is the kernel of a grouped convolution, with zeros for the pairs of input
            and output channels that it does not connect.
    """

    reference: Tensor
    source: Tensor
    axes: list[Axis]
    inside: bool


def folded_norms(graph: ChannelGraph, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold batch norms into the kernels and biases before them, for comparing networks.

    A layer and its norm compute with ``W γ/σ`` and ``β + (b - μ) γ/σ``. Norm statistics are not
    returned.
    """
    result = {key: value.double() for key, value in state.items() if value.is_floating_point()}
    gone = {key for key in result if key.endswith(("running_mean", "running_var"))}
    for key, norm in graph.norms.items():
        own = {name: result[each] for name, each in norm.keys.items()}
        scale = own.get("weight", 1.0) * (own["running_var"] + norm.eps).rsqrt()
        shift = (result[norm.bias] if norm.bias else 0) - own["running_mean"]
        bias = norm.keys.get("bias", norm.keys["running_mean"])
        result[key] = result[key] * scale.reshape(-1, *[1] * (result[key].dim() - 1))
        result[key + BIAS] = shift * scale + own.get("bias", 0)
        gone |= {norm.bias, bias, *norm.keys.values()}
    return {key: value for key, value in result.items() if key not in gone}


def terms_of(
    graph: ChannelGraph, reference: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> list[Term]:
    """Pair two networks' tensors that hold channels, with batch norms folded.

    Args:
        graph: channel graph of both networks.
        reference: state dict of the network to agree with.
        state: state dict of the network to permute.
    """
    references, sources = folded_norms(graph, reference), folded_norms(graph, state)
    terms = []
    for key, own in references.items():
        other, kernel = sources[key], key.removesuffix(BIAS)
        axes = [axis for axis in graph.axes.get(kernel, []) if axis.dim < own.dim()]
        inside = key in graph.grouped
        if inside:
            given = graph.grouped[key]
            axes.append(Axis(1, given.channels))
            own, other = (_ungrouped(each, given.groups) for each in (own, other))
        if axes:
            terms.append(Term(own, other, axes, inside))
    return terms


def _ungrouped(kernels: Tensor, groups: int) -> Tensor:
    """Expand kernels ``(O, C / groups, *)`` of a grouped convolution to ``(O, C, *)`` by zeros."""
    out, inside = kernels.shape[:2]
    result = kernels.new_zeros(groups, out // groups, groups, *kernels.shape[1:])
    index = torch.arange(groups)
    result[index, :, index] = kernels.reshape(groups, out // groups, *kernels.shape[1:])
    return result.reshape(out, groups * inside, *kernels.shape[2:])


class WeightMatching:
    """Coordinate ascent on the agreement of two networks' weights, permuting one of them.

    Args:
        graph: channel graph of both networks.
        terms: terms of the agreement.

    Attributes:
        permutation: present permutation of the source network's channels, ``(num_channels,)``.
        places: terms that hold a group, each with its axis and the indices of the group's channels,
            by the group's ``start``.
    """

    def __init__(self, graph: ChannelGraph, terms: Sequence[Term]) -> None:
        self.graph, self.terms = graph, terms
        self.permutation = graph.identity()
        self.places: dict[int, list[tuple[Term, int, Tensor]]] = {}
        for group in graph.groups:
            found = [
                (term, axis.dim, indices)
                for term in terms
                for axis in term.axes
                if (indices := indices_of(group, axis.channels)) is not None
            ]
            self.places[group.start] = found

    def scores(self, group: Group, inside: bool = True) -> Tensor:
        """Agreement from each channel (column) at each place (row), ``(n, n)``.

        Args:
            group: group of ``n`` channels; all other groups keep their permutations.
            inside: whether to include the kernels of grouped convolutions.
        """
        total = torch.zeros(group.channels, group.channels, dtype=torch.float64)
        for term, dim, indices in self.places[group.start]:
            if inside or not term.inside:
                source = _permuted(term.source, term.axes, self.permutation, but=dim)
                total += rows_of(term.reference, dim, indices) @ rows_of(source, dim, indices).T
        return total

    def agreement(self, groups: Sequence[Group], permutation: Tensor) -> float:
        """Sum of the inner products of the terms that hold any of these groups."""
        terms = dict.fromkeys(term for group in groups for term, _, _ in self.places[group.start])
        return sum(
            float((term.reference * _permuted(term.source, term.axes, permutation)).sum())
            for term in terms
        )

    def accept(self, groups: Sequence[Group], chosen: Sequence[Tensor]) -> bool:
        """Accept assignments of groups if they increase the agreement; returns whether they do."""
        new = self.permutation.clone()
        for group, own in zip(groups, chosen, strict=True):
            new[group.span] = own
        if torch.equal(new, self.permutation):
            return False
        before = self.agreement(groups, self.permutation)
        # By more than rounding, or two equal assignments would alternate forever.
        better = self.agreement(groups, new) > before + 1e-9 * abs(before)
        if better:
            self.permutation = new
        return better

    def improve(self, groups: Sequence[Group]) -> bool:
        """Reassign a bundle of groups; returns whether anything changed."""
        changed = False
        if groups[0].blocks > 1:
            outside = [self.scores(group, inside=False) for group in groups]
            changed = self.accept(groups, assign_bundle(groups, outside, self._inside(groups)))
        for group in groups:
            current = self.permutation[group.span]
            changed |= self.accept([group], [assign_within(group, self.scores(group), current)])
        return changed

    def _inside(self, groups: Sequence[Group]) -> Inside:
        """Scores of a group within each pair of blocks, by kernels of grouped convolutions."""
        links = self._links(groups)

        def inside(index: int, chosen: list[Tensor]) -> Tensor | float:
            total: Tensor | float = 0.0
            for other, reference, kernels in links.get(index, ()):
                if other < len(chosen):
                    total = total + _between(reference, kernels, chosen[other])
            return total

        return inside

    def _links(self, groups: Sequence[Group]) -> dict[int, list[tuple[int, Tensor, Tensor]]]:
        """Kernels of grouped convolutions between pairs of groups, block by block.

        Returns:
            For each group, by its index, the other group and both networks' kernels ``(blocks, n,
            m, k)`` from its channels to the other's.
        """
        blocks = groups[0].blocks
        links: dict[int, list[tuple[int, Tensor, Tensor]]] = {}
        single = [
            [each for each in self.places[group.start] if each[0].inside and each[2].shape[1] == 1]
            for group in groups
        ]
        for (one, places), (other, partners) in permutations(enumerate(single), 2):
            for (term, dim, here), (same, across, there) in product(places, partners):
                if term is same and dim != across:
                    reference, source = (
                        _diagonal_blocks(
                            each.index_select(dim, here.flatten())
                            .index_select(across, there.flatten())
                            .movedim((dim, across), (0, 1)),
                            blocks,
                        )
                        for each in (term.reference, term.source)
                    )
                    links.setdefault(one, []).append((other, reference, source))
        return links

    def involved(self, groups: Sequence[Group]) -> Tensor:
        """Numbers of the channels on whose assignment :meth:`improve` depends."""
        axes = [axis for g in groups for term, _, _ in self.places[g.start] for axis in term.axes]
        own = [torch.arange(group.start, group.span.stop) for group in groups]
        channels = torch.cat([*own, *(axis.channels for axis in axes)]).unique()
        return channels[channels >= 0]


def _diagonal_blocks(kernels: Tensor, blocks: int) -> Tensor:
    """Diagonal blocks ``(blocks, n, m, k)`` of kernels ``(blocks n, blocks m, ...)``."""
    rows, columns = kernels.shape[:2]
    shaped = kernels.reshape(blocks, rows // blocks, blocks, columns // blocks, -1)
    return shaped.diagonal(dim1=0, dim2=2).movedim(-1, 0).contiguous()


def _between(reference: Tensor, kernels: Tensor, chosen: Tensor) -> Tensor:
    """Scores within each pair of blocks by the kernels to a group that is assigned already.

    Args:
        reference: kernels of the blocks whose places are taken, ``(P, n, m, k)``.
        kernels: kernels of the blocks that take them, ``(P, n, m, k)``.
        chosen: assignment of the other group within each pair of blocks, ``(P, P, m)``.

    Returns:
        Scores, ``(P, P, n, n)``.
    """
    rows = []
    for own, columns in zip(reference, chosen, strict=True):  # all pairs at once might not fit
        index = columns[:, None, :, None].expand_as(kernels)
        rows.append(own.flatten(1) @ kernels.gather(2, index).flatten(2).transpose(1, 2))
    return torch.stack(rows)


def _permuted(
    tensor: Tensor, axes: Sequence[Axis], permutation: Tensor, but: int | None = None
) -> Tensor:
    """Permute a tensor along its axes, except for the axis ``but``."""
    for axis in axes:
        if axis.dim != but:
            tensor = tensor.index_select(axis.dim, source_index(axis.channels, permutation))
    return tensor


def match_weights(
    graph: ChannelGraph, reference: Mapping[str, Tensor], state: Mapping[str, Tensor], seed: int = 0
) -> Tensor:
    """Find the permutation of a network's channels whose weights agree best with a reference's.

    Args:
        graph: channel graph of both networks.
        reference: state dict of the network to agree with.
        state: state dict of the network to permute.
        seed: seed of the order in which groups are assigned.

    Returns:
        Permutation ``(num_channels,)`` for :func:`~zoo_lightning.rebasin.channels.permute`, a local
        optimum: reassigning one group cannot improve it.

    Raises:
        ConfigError: SciPy is not installed.
    """
    matching = WeightMatching(graph, terms_of(graph, reference, state))
    generator = torch.Generator().manual_seed(seed)
    together = bundles(graph)
    involved = [matching.involved(groups) for groups in together]
    # A bundle that was left unchanged stays so until a channel that it depends on moves.
    settled: dict[int, Tensor] = {}
    for _ in range(SWEEPS):
        order = torch.randperm(len(together), generator=generator).tolist()
        before = matching.permutation
        for index in order:
            seen = matching.permutation[involved[index]]
            if index in settled and torch.equal(settled[index], seen):
                continue
            if not matching.improve(together[index]):
                settled[index] = seen
        if torch.equal(matching.permutation, before):
            break
    return matching.permutation

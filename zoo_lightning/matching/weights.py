"""Match channels by weights.

Ainsworth, Hayase and Srinivasa, *Git Re-Basin: Merging Models modulo Permutation Symmetries*, ICLR
2023, algorithm 1: coordinate descent over groups of channels in random order, each assigned anew by
the scores that all other groups' permutations leave, until nothing changes.

Two things differ. Batch norms are folded into the layers before them, because they make the scale
of kernels arbitrary; the channels found then correlate better than those found by all parameters as
they are. And the blocks of grouped convolutions are assigned as wholes, by the best assignments
within each pair of blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product

import torch
from torch import Tensor

from zoo_lightning.matching.assignment import Inside, assign_bundle, assign_within, bundles
from zoo_lightning.matching.channels import Axis, ChannelGraph, Group, source_index
from zoo_lightning.matching.slices import indices_of, rows_of

SWEEPS = 100
"""At most so many rounds over all groups; a handful is usual."""


BIAS = " bias"
"""Added to a kernel's key, the key of the bias that folding a norm gives it."""


@dataclass(frozen=True)
class Term:
    """A tensor of both networks whose inner product counts.

    Attributes:
        reference: scaled to how much it counts.
        source: of the same shape.
        axes: as in :class:`ChannelGraph`.
        inside: whether it is the kernel of a grouped convolution, with zeros for the pairs of input
            and output channels that it does not connect.
    """

    reference: Tensor
    source: Tensor
    axes: list[Axis]
    inside: bool


def folded_norms(graph: ChannelGraph, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Kernels and biases with the batch norms after them folded in, by which networks are compared.

    Together they compute ``W γ/σ`` and ``β + (b - μ) γ/σ``. Norm statistics by themselves are left
    out.
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
    """All that counts when two networks are compared by their weights."""
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
    """Kernels ``(O, C / groups, *)`` of a grouped convolution as ``(O, C, *)``, 0 elsewhere."""
    out, inside = kernels.shape[:2]
    result = kernels.new_zeros(groups, out // groups, groups, *kernels.shape[1:])
    index = torch.arange(groups)
    result[index, :, index] = kernels.reshape(groups, out // groups, *kernels.shape[1:])
    return result.reshape(out, groups * inside, *kernels.shape[2:])


class Weights:
    """The agreement of two networks' weights under a permutation, which grows step by step.

    Args:
        graph: of both networks.
        terms: that count.
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
        """What each channel adds at each place, all other groups as they are: ``(n, n)``."""
        total = torch.zeros(group.channels, group.channels, dtype=torch.float64)
        for term, dim, indices in self.places[group.start]:
            if inside or not term.inside:
                source = _permuted(term.source, term.axes, self.permutation, but=dim)
                total += rows_of(term.reference, dim, indices) @ rows_of(source, dim, indices).T
        return total

    def agreement(self, groups: Sequence[Group], permutation: Tensor) -> float:
        """Sum of the inner products that groups have a part in."""
        terms = {id(term): term for group in groups for term, _, _ in self.places[group.start]}
        return sum(
            float((term.reference * _permuted(term.source, term.axes, permutation)).sum())
            for term in terms.values()
        )

    def accept(self, groups: Sequence[Group], chosen: Sequence[Tensor]) -> bool:
        """Take assignments of groups if agreement grows; tells whether it did."""
        new = self.permutation.clone()
        for group, own in zip(groups, chosen, strict=True):
            new[group.span] = own
        if torch.equal(new, self.permutation):
            return False
        before = self.agreement(groups, self.permutation)
        # By more than rounding, or two equal assignments would alternate for ever.
        better = self.agreement(groups, new) > before + 1e-9 * abs(before)
        if better:
            self.permutation = new
        return better

    def improve(self, groups: Sequence[Group]) -> bool:
        """Assign a bundle of groups anew; tells whether anything changed."""
        changed = False
        if groups[0].blocks > 1:
            outside = [self.scores(group, inside=False) for group in groups]
            changed = self.accept(groups, assign_bundle(groups, outside, self._inside(groups)))
        for group in groups:
            current = self.permutation[group.span]
            changed |= self.accept([group], [assign_within(group, self.scores(group), current)])
        return changed

    def _inside(self, groups: Sequence[Group]) -> Inside:
        """How grouped convolutions' kernels score a group within a pair of blocks."""
        links = self._links(groups)

        def inside(index: int, chosen: list[Tensor]) -> Tensor | float:
            total: Tensor | float = 0.0
            for other, reference, kernels in links.get(index, ()):
                if other < len(chosen):
                    total = total + _between(reference, kernels, chosen[other])
            return total

        return inside

    def _links(self, groups: Sequence[Group]) -> dict[int, list[tuple[int, Tensor, Tensor]]]:
        """Kernels between groups by group: of each block, the channels of one by the other's."""
        blocks = groups[0].blocks
        links: dict[int, list[tuple[int, Tensor, Tensor]]] = {}
        single = [
            [each for each in self.places[group.start] if each[0].inside and each[2].shape[1] == 1]
            for group in groups
        ]
        for (one, places), (other, partners) in permutations(enumerate(single), 2):
            for (term, dim, here), (same, across, there) in product(places, partners):
                if term is same and dim != across:
                    kernels = [
                        _diagonal_blocks(
                            each.index_select(dim, here.flatten())
                            .index_select(across, there.flatten())
                            .movedim((dim, across), (0, 1)),
                            blocks,
                        )
                        for each in (term.reference, term.source)
                    ]
                    links.setdefault(one, []).append((other, *kernels))
        return links

    def involved(self, groups: Sequence[Group]) -> Tensor:
        """Numbers of the channels whose assignment :meth:`improve` looks at."""
        axes = [axis for g in groups for term, _, _ in self.places[g.start] for axis in term.axes]
        own = [torch.arange(group.start, group.span.stop) for group in groups]
        channels = torch.cat([*own, *(axis.channels for axis in axes)]).unique()
        return channels[channels >= 0]


def _diagonal_blocks(kernels: Tensor, blocks: int) -> Tensor:
    """Blocks ``(blocks, n, m, k)`` on the diagonal of kernels ``(blocks n, blocks m, ...)``."""
    rows, columns = kernels.shape[:2]
    shaped = kernels.reshape(blocks, rows // blocks, blocks, columns // blocks, -1)
    return shaped.diagonal(dim1=0, dim2=2).movedim(-1, 0).contiguous()


def _between(reference: Tensor, kernels: Tensor, chosen: Tensor) -> Tensor:
    """Scores within each pair of blocks by the kernels to a group that is assigned already.

    Args:
        reference: ``(P, n, m, k)``, of the blocks whose places are taken.
        kernels: ``(P, n, m, k)``, of the blocks that take them.
        chosen: ``(P, P, m)``, the other group's assignment within each pair of blocks.

    Returns:
        ``(P, P, n, n)``.
    """
    rows = []
    for own, columns in zip(reference, chosen, strict=True):  # all pairs at once might not fit
        index = columns[:, None, :, None].expand_as(kernels)
        rows.append(own.flatten(1) @ kernels.gather(2, index).flatten(2).transpose(1, 2))
    return torch.stack(rows)


def _permuted(
    tensor: Tensor, axes: Sequence[Axis], permutation: Tensor, but: int | None = None
) -> Tensor:
    """A tensor with its axes permuted, but for one."""
    for axis in axes:
        if axis.dim != but:
            tensor = tensor.index_select(axis.dim, source_index(axis.channels, permutation))
    return tensor


def match_weights(
    graph: ChannelGraph, reference: Mapping[str, Tensor], state: Mapping[str, Tensor], seed: int = 0
) -> Tensor:
    """Permutation of a network's channels by which its weights agree best with another's.

    Args:
        graph: of both networks.
        reference: state dict of the network to agree with.
        state: of the network to permute.
        seed: of the order in which groups are taken.

    Returns:
        ``(num_channels,)``, for :func:`permute`. A local optimum: no group alone can do better.

    Raises:
        ConfigError: SciPy is not installed.
    """
    weights = Weights(graph, terms_of(graph, reference, state))
    generator = torch.Generator().manual_seed(seed)
    together = bundles(graph)
    involved = [weights.involved(groups) for groups in together]
    # Where nothing changed since a bundle was last left as it is, it would be left again.
    settled: dict[int, Tensor] = {}
    for _ in range(SWEEPS):
        order = torch.randperm(len(together), generator=generator).tolist()
        before = weights.permutation
        for index in order:
            seen = weights.permutation[involved[index]]
            if index in settled and torch.equal(settled[index], seen):
                continue
            if not weights.improve(together[index]):
                settled[index] = seen
        if torch.equal(weights.permutation, before):
            break
    return weights.permutation

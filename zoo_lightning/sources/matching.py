"""Match the channels of sources to those of a reference, without changing what a source computes.

Two networks of one architecture that were trained apart may compute the same features in different
channels; kernels at the same index have then nothing to do with each other. Matching permutes the
channels of one so that they agree with the other's:

- by weights, as Ainsworth, Hayase and Srinivasa, *Git Re-Basin: Merging Models modulo Permutation
  Symmetries*, ICLR 2023, algorithm 1: group after group in random order is assigned anew by the
  scores that all other groups' permutations leave, until nothing changes;
- by activations, as Li, Yosinski, Clune, Lipson and Hopcroft, *Convergent Learning*, 2015, and
  section 3.1 of Git Re-Basin: one assignment a group, by the correlation of channels over images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from zoo_lightning.architecture import Architecture
from zoo_lightning.errors import ConfigError
from zoo_lightning.sources.adapting import Adapted
from zoo_lightning.sources.assignment import assign_bundle, assign_within, bundles
from zoo_lightning.sources.channel_slices import indices_of, rows_of
from zoo_lightning.sources.channels import (
    Axis,
    ChannelGraph,
    Group,
    Tap,
    channel_groups,
    permute,
    source_index,
    verify,
)

How = Literal["weights", "activations"]

SWEEPS = 100
"""At most so many rounds over all groups; a handful is usual."""


@dataclass(frozen=True)
class Term:
    """A tensor of both networks whose inner product counts.

    Attributes:
        reference: scaled to how much it counts.
        source: of the same shape.
        axes: as in :class:`ChannelGraph`.
        inside: whether it is the kernel of a grouped convolution, blown up to all pairs of input and
            output channels.
    """

    reference: Tensor
    source: Tensor
    axes: list[Axis]
    inside: bool


def folded_norms(graph: ChannelGraph, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by which networks are compared: kernels and biases with the norm after them folded in.

    A batch norm makes the scale of the kernel before it arbitrary. ``W γ/σ`` and ``β + (b - μ) γ/σ``
    are what both compute together. Norm statistics by themselves are left out.
    """
    result = {key: value.double() for key, value in state.items() if value.is_floating_point()}
    gone = {key for key in result if key.endswith(("running_mean", "running_var"))}
    for key, norm in graph.norms.items():
        own = {name: result[each] for name, each in norm.keys.items()}
        scale = own.get("weight", 1.0) * (own["running_var"] + norm.eps).rsqrt()
        shift = (result[norm.bias] if norm.bias else 0) - own["running_mean"]
        bias = norm.keys.get("bias", norm.keys["running_mean"])
        result[key] = result[key] * scale.reshape(-1, *[1] * (result[key].dim() - 1))
        result[f"{key} bias"] = shift * scale + own.get("bias", 0)
        gone |= {norm.bias, bias, *norm.keys.values()}
    return {key: value for key, value in result.items() if key not in gone}


VARIANT = "fold"


def terms_of(
    graph: ChannelGraph, reference: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> list[Term]:
    """All that counts when two networks are compared by their weights."""
    if VARIANT == "raw":
        ones, twos = ({k: v.double() for k, v in each.items() if not k.endswith(("running_mean","running_var","tracked"))} for each in (reference, state))
    else:
        ones, twos = folded_norms(graph, reference), folded_norms(graph, state)
    terms = []
    for key, own in ones.items():
        kernel = key.removesuffix(" bias")
        axes = graph.axes.get(kernel, [])
        if kernel != key:
            axes = [axis for axis in axes if axis.dim == 0]
        if key in graph.grouped:
            given = graph.grouped[key]
            axes = [*axes, Axis(1, given.channels)]
            own, other = (_ungrouped(each, given.groups) for each in (own, twos[key]))
        else:
            other = twos[key]
        if axes:
            if VARIANT.endswith("+unit"):
                own, other = own / own.norm().clamp_min(1e-30), other / other.norm().clamp_min(1e-30)
            if VARIANT.endswith("+rootn"):
                n = own.numel() ** 0.5
                own, other = own * n / own.norm().clamp_min(1e-30), other / other.norm().clamp_min(1e-30)
            if VARIANT.endswith("+rows"):
                own, other = (_unit_rows(x) if x.dim() > 1 else x for x in (own, other))
            if VARIANT.endswith("+rowsonly"):
                if own.dim() < 2: continue
                own, other = (_unit_rows(x) for x in (own, other))
            terms.append(Term(own, other, axes, key in graph.grouped))
    return terms


def _unit_rows(x: Tensor) -> Tensor:
    return x / x.flatten(1).norm(dim=1).clamp_min(1e-30).reshape(-1, *[1] * (x.dim() - 1))


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

    def _inside(self, groups: Sequence[Group]) -> Callable[..., Tensor | float]:
        """How grouped convolutions' kernels score a group within a pair of blocks."""
        index_of = {group.start: index for index, group in enumerate(groups)}
        links: dict[int, list[tuple[int, Tensor, Tensor]]] = {}
        for group in groups:
            for term, dim, indices in self.places[group.start]:
                other = next((g for g in groups if g is not group and term.inside
                              for t, d, _ in self.places[g.start] if t is term and d != dim), None)
                if other is None or indices.shape[1] > 1:
                    continue
                across = next(i for t, d, i in self.places[other.start] if t is term and d != dim)
                ref, src = (
                    each.index_select(dim, indices.flatten()).index_select(1 - dim, across.flatten())
                    .transpose(0, dim)
                    for each in (term.reference, term.source)
                )
                links.setdefault(index_of[group.start], []).append((index_of[other.start], ref, src))

        def inside(index: int, place: int, source: int, chosen: dict[int, Tensor]) -> Tensor | float:
            total: Tensor | float = 0.0
            for other, ref, src in links.get(index, ()):
                if other in chosen:
                    n, m = groups[index].size, groups[other].size
                    own = ref[place * n : (place + 1) * n, place * m : (place + 1) * m]
                    its = src[source * n : (source + 1) * n, source * m + chosen[other]]
                    total = total + own.flatten(1) @ its.flatten(1).T
            return total

        return inside


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
    for _ in range(SWEEPS):
        order = torch.randperm(len(together), generator=generator).tolist()
        if not any([weights.improve(together[index]) for index in order]):
            break
    return weights.permutation


class Correlation:
    """Correlation of two networks' channels, summed up batch by batch."""

    def __init__(self) -> None:
        self.count, self.sums = 0, None

    def add(self, first: Tensor, second: Tensor) -> None:
        """Take channels' activations ``(n, samples)`` of both."""
        first, second = first.double(), second.double()
        if self.sums is None:
            # Shifted by the first batch's means, which keeps squares from cancelling later.
            self.shift = [each.mean(1, keepdim=True) for each in (first, second)]
            self.sums = [0.0] * 5
        x, y = first - self.shift[0], second - self.shift[1]
        new = (x.sum(1), y.sum(1), (x * x).sum(1), (y * y).sum(1), x @ y.T)
        self.sums = [old + each for old, each in zip(self.sums, new, strict=True)]
        self.count += x.shape[1]

    def matrix(self) -> Tensor:
        """Pearson's correlation ``(n, n)``; 0 for channels that never vary."""
        x, y, xx, yy, xy = [each / self.count for each in self.sums]
        spread = ((xx - x**2).clamp_min(0)[:, None] * (yy - y**2).clamp_min(0)).sqrt()
        covariance = xy - x[:, None] * y
        return torch.where(spread > 1e-12, covariance / spread.clamp_min(1e-12), 0.0)


def taps_of(graph: ChannelGraph, network: nn.Module) -> dict[int, list[tuple[Tap, Tensor]]]:
    """Layers at which each group is looked at, by its start, and the indices of its channels.

    Those of norm layers if there are any that have the whole group, else those of all layers
    without parts.
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
    """Correlation of two networks' channels over images and pixels: ``(n, n)`` for each group.

    Args:
        graph: of both networks.
        architecture: of both networks.
        states: their state dicts: of the one whose channels are the rows, and of the other.
        images: ``(N, C, H, W)``, normalised.
        batch_size: of a forward pass.
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
    return [sum(each.matrix() for each in found[group.start]) for group in graph.groups]


def _keeper(kept: dict[str, Tensor], name: str) -> Callable[..., None]:
    def keep(_: nn.Module, __: tuple, output: Tensor) -> None:
        kept[name] = output.clone()  # the next layer may work in place

    return keep


def match_activations(
    graph: ChannelGraph,
    architecture: Architecture,
    reference: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    images: Tensor,
) -> Tensor:
    """Permutation of a network's channels by which its activations correlate best with another's.

    Args:
        graph: of both networks.
        architecture: of both networks.
        reference: state dict of the network to agree with.
        state: of the network to permute.
        images: ``(N, C, H, W)``, normalised, of the kind the networks shall be used for.

    Returns:
        ``(num_channels,)``, for :func:`permute`.

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


def agreement(reference: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, float]:
    """Mean cosine of corresponding kernels of two networks, by key; 1 if they are the same.

    A kernel is all that makes one output channel. Its cosine does not depend on its scale, which
    a batch norm makes arbitrary.
    """
    result = {}
    for key, own in reference.items():
        if own.dim() >= 2 and own.is_floating_point():
            cosines = nn.functional.cosine_similarity(
                own.double().flatten(1), state[key].double().flatten(1)
            )
            result[key] = float(cosines.mean())
    return result


def match_sources(
    architecture: Architecture,
    sources: Sequence[Adapted],
    how: How = "weights",
    images: Tensor | None = None,
    reference: int = 0,
    seed: int = 0,
) -> list[Adapted]:
    """Permute the channels of sources so that they agree with one of them.

    Args:
        architecture: of the sources.
        sources: fitted to it.
        how: by ``weights`` or by ``activations`` on images.
        images: ``(N, C, H, W)``, normalised; for ``activations``.
        reference: index of the source to agree with, which stays as it is.
        seed: of the order in which groups are taken, for ``weights``.

    Returns:
        The sources in their order, each computing what it did, but for the order of its features.

    Raises:
        ArchitectureError: the architecture's channels cannot be followed.
        ConfigError: no such way of matching, no images for it, or SciPy is not installed.
    """
    if how not in ("weights", "activations"):
        raise ConfigError(f"unknown way of matching {how!r}; expected weights or activations")
    if how == "activations" and images is None:
        raise ConfigError("matching by activations needs images; give some, or match by weights")
    graph = channel_groups(architecture)
    wanted = sources[reference].state
    result = []
    for index, each in enumerate(sources):
        if index == reference:
            result.append(each)
            continue
        if how == "weights":
            permutation = match_weights(graph, wanted, each.state, seed)
        else:
            permutation = match_activations(graph, architecture, wanted, each.state, images)
        verify(graph, architecture, each.state, permutation)
        result.append(replace(each, state=permute(graph, each.state, permutation)))
    return result

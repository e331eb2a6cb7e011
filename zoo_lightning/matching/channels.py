"""Which channels of a network are tied to which, and permutations that leave its function alone.

The channels that a layer gives may be reordered if all that takes them is reordered alike. A
:class:`ChannelGraph` says which channels may change places and where each of them occurs, in every
parameter and buffer of a state dict. It is read off one forward pass, so any network will do whose
operations are known (see :mod:`zoo_lightning.matching.rules`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from zoo_lightning.architecture import Architecture, is_norm
from zoo_lightning.errors import ArchitectureError
from zoo_lightning.matching.labels import Labels, Unmatchable, axes_of
from zoo_lightning.matching.orbits import find_orbits
from zoo_lightning.matching.tracing import ChannelTracer, Found, Norm

TOLERANCE = 1e-6
"""Largest change of a network's output, relative to its spread, that rounding in float64 explains;
a wrong permutation changes it by about 1."""


@dataclass(frozen=True)
class Group:
    """Channels that may change places; they have consecutive numbers.

    Attributes:
        name: layer whose kernels make the first of them.
        start: number of the first channel.
        blocks: equal parts that change places as wholes; within each, all channels may.
        size: channels of a block.
        bundle: groups of the same number move their blocks together; -1 for a single block.
    """

    name: str
    start: int
    blocks: int
    size: int
    bundle: int = -1

    @property
    def channels(self) -> int:
        """How many there are."""
        return self.blocks * self.size

    @property
    def span(self) -> slice:
        """Their numbers."""
        return slice(self.start, self.start + self.channels)


@dataclass(frozen=True)
class Axis:
    """One axis of a tensor.

    Attributes:
        dim: which.
        channels: ``(size,)`` number of the channel at each index, -1 for what keeps its place. A
            channel that occurs several times, as after flattening, changes places index by index.
    """

    dim: int
    channels: Tensor


@dataclass(frozen=True)
class GroupedInput:
    """What a grouped convolution's kernels ``(O, C / groups, *)`` take.

    Attributes:
        channels: ``(C,)``, numbers as in :class:`Axis`.
        groups: of the convolution.
    """

    channels: Tensor
    groups: int


@dataclass(frozen=True)
class Tap:
    """A layer whose output ``(N, ..., C, ...)`` has a group's channels.

    Attributes:
        module: its name.
        axis: of the output, counted from the front, and the channels along it.
        norm: whether it is a norm layer.
    """

    module: str
    axis: Axis
    norm: bool


@dataclass(frozen=True)
class ChannelGraph:
    """Where each channel of a network occurs.

    Attributes:
        groups: that may be permuted, each by itself.
        axes: by key of the state dict, those with channels that can move.
        grouped: by key, the inputs of grouped convolutions.
        norms: by a kernel's key, the batch norm that follows immediately.
        taps: layers' outputs.
        outputs: for each of the network's outputs its axes, as in ``axes``.
    """

    groups: list[Group]
    axes: dict[str, list[Axis]]
    grouped: dict[str, GroupedInput]
    norms: dict[str, Norm]
    taps: list[Tap]
    outputs: list[list[Axis]]

    @property
    def num_channels(self) -> int:
        """Channels of all groups."""
        return sum(group.channels for group in self.groups)

    def identity(self) -> Tensor:
        """The permutation that changes nothing: ``(num_channels,)``."""
        return torch.arange(self.num_channels)


def random_permutation(graph: ChannelGraph, generator: torch.Generator) -> Tensor:
    """Permute each group at random, and blocks as wholes: ``(num_channels,)``."""
    result, moved = graph.identity(), {}
    for group in graph.groups:
        if group.bundle not in moved or group.bundle < 0:
            moved[group.bundle] = torch.randperm(group.blocks, generator=generator)
        members = torch.arange(group.channels).reshape(group.blocks, group.size)
        members = members[moved[group.bundle]]
        shuffled = [row[torch.randperm(group.size, generator=generator)] for row in members]
        result[group.span] = group.start + torch.cat(shuffled)
    return result


def source_index(channels: Tensor, permutation: Tensor) -> Tensor:
    """Index along an axis from which each of its indices is filled: ``(size,)``.

    Args:
        channels: ``(size,)`` numbers, -1 for what keeps its place.
        permutation: ``(num_channels,)``, number of the channel that takes each one's place.
    """
    index = torch.arange(len(channels))
    free = (channels >= 0).nonzero().flatten()
    if not len(free):
        return index
    own = channels[free]
    order = torch.argsort(own, stable=True)
    counts = torch.bincount(own, minlength=len(permutation))
    starts = counts.cumsum(0) - counts
    place = torch.empty_like(own)  # of an index among those of its channel
    place[order] = torch.arange(len(own)) - starts[own[order]]
    index[free] = free[order[starts[permutation[own]] + place]]
    return index


def permute(
    graph: ChannelGraph, state: Mapping[str, Tensor], permutation: Tensor
) -> dict[str, Tensor]:
    """Reorder the channels of a whole state dict; the network computes the same.

    Args:
        graph: of the network.
        state: its state dict.
        permutation: ``(num_channels,)``, number of the channel that takes each one's place.

    Returns:
        A new state dict with the same keys; those without movable channels are not copied.
    """
    result = dict(state)
    for key, axes in graph.axes.items():
        for axis in axes:
            index = source_index(axis.channels, permutation)
            result[key] = result[key].index_select(axis.dim, index)
    for key, given in graph.grouped.items():
        rows = torch.arange(len(state[key]))
        for axis in graph.axes.get(key, []):
            rows = source_index(axis.channels, permutation)
        kernels, inside = result[key], state[key].shape[1]
        block = len(rows) // given.groups
        # Of each output channel: which places within the block it came from fill its own.
        places = source_index(given.channels, permutation).reshape(given.groups, inside)
        places = places.repeat_interleave(block, 0) - (rows // block * inside)[:, None]
        places = places.reshape(*places.shape, *[1] * (kernels.dim() - 2)).expand_as(kernels)
        result[key] = kernels.gather(1, places)
    return result


def permute_outputs(
    graph: ChannelGraph, outputs: list[Tensor], permutation: Tensor
) -> list[Tensor]:
    """What a network's outputs become when its channels are permuted."""
    result = []
    for output, axes in zip(outputs, graph.outputs, strict=True):
        for axis in axes:
            output = output.index_select(axis.dim, source_index(axis.channels, permutation))
        result.append(output)
    return result


def channel_groups(
    architecture: Architecture,
    network: nn.Module | None = None,
    image: Tensor | None = None,
    keep_output: bool = False,
) -> ChannelGraph:
    """Find the channels of a network that may change places.

    Args:
        architecture: of the network.
        network: one that :meth:`Architecture.plain` made, whose weights do not matter; made if not
            given. It is not changed.
        image: ``(1, C, H, W)``; of the network's own size, if not given.
        keep_output: leave the outputs' channels in their places.

    Raises:
        ArchitectureError: an operation through which channels cannot be followed, with the layer
            that called it and why.
    """
    # A copy, because hooks are added.
    network = copy.deepcopy(network or architecture.plain()).eval().requires_grad_(False)
    image = architecture.example_input(network) if image is None else image
    labels, keys, atoms = Labels(), WeakIdKeyDictionary(), {}
    state = network.state_dict(keep_vars=True)
    for key, tensor in state.items():
        # A tensor with two names has the atoms of the first.
        atoms[key] = atoms[keys[tensor]] if tensor in keys else labels.begin(tensor)
        keys.setdefault(tensor, key)
    labels.set(image, [])
    tracer, running, taps = ChannelTracer(labels, keys), [], []
    _watch_modules(network, labels, running, taps)
    try:
        with torch.inference_mode(), tracer:
            outputs = network(image)
    except Unmatchable as error:
        raise ArchitectureError(_refusal(architecture, network, running, error)) from error
    results = [_vectors(labels.of(output).factors) for output in tree_leaves(outputs)]
    for vectors in results if keep_output else ():
        for own in vectors.values():
            labels.freeze(own)
    for key, tensor in state.items():
        if keys[tensor] not in tracer.found.touched:
            for own in atoms[key]:
                labels.freeze(own)
    aliases = {key: keys[tensor] for key, tensor in state.items()}
    return _graph(labels, atoms, tracer.found, aliases, taps, results)


def _watch_modules(
    network: nn.Module,
    labels: Labels,
    running: list[str],
    taps: list[tuple[str, bool, dict[int, Tensor]]],
) -> None:
    """Keep a list of the modules that run at any moment, and note what their outputs' axes hold."""

    def watch(name: str, module: nn.Module) -> None:
        def before(_: nn.Module, __: tuple) -> None:
            running.append(name)

        def after(_: nn.Module, __: tuple, output: object) -> None:
            running.pop()
            if isinstance(output, Tensor) and (vectors := _vectors(labels.of(output).factors)):
                taps.append((name, is_norm(module), vectors))

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)

    for name, module in network.named_modules():
        watch(name, module)


def _vectors(factors: Sequence[Tensor]) -> dict[int, Tensor]:
    """Atoms along each axis that has some; not those across several axes."""
    return {axes_of(f)[0]: f.flatten() for f in factors if len(axes_of(f)) == 1}


def _refusal(
    architecture: Architecture, network: nn.Module, running: list[str], error: Exception
) -> str:
    """Say which layer stopped it."""
    module = network.get_submodule(running[-1]) if running else network
    layer = f"layer {running[-1]!r}" if running and running[-1] else "its own forward pass"
    return (
        f"the channels of {architecture.label} cannot be matched: {layer} ({type(module).__name__})"
        f" calls {error}. Choose an architecture of convolutions, norms, linear "
        "layers, sums and concatenations, or take the sources unmatched"
    )


def _graph(
    labels: Labels,
    atoms: Mapping[str, list[Tensor]],
    found: Found,
    aliases: Mapping[str, str],
    taps: list[tuple[str, bool, dict[int, Tensor]]],
    results: list[dict[int, Tensor]],
) -> ChannelGraph:
    """Number the channels, group by group, and say where they are."""
    channel, orbits = find_orbits(labels)
    number = torch.full((labels.count,), -1)
    start = 0
    for orbit in orbits:
        number[orbit.members.flatten()] = torch.arange(start, start + orbit.members.numel())
        start += orbit.members.numel()
    number = number[channel]

    def axes_with(vectors: Mapping[int, Tensor]) -> list[Axis]:
        numbered = {dim: number[own] for dim, own in vectors.items()}
        return [Axis(dim, own) for dim, own in numbered.items() if (own >= 0).any()]

    axes = {key: axes_with(dict(enumerate(own))) for key, own in atoms.items()}
    grouped = {
        key: GroupedInput(number[found.grouped[first].atoms], found.grouped[first].groups)
        for key, first in aliases.items()
        if first in found.grouped
    }
    groups, start = [], 0
    for orbit in orbits:
        blocks, size = orbit.members.shape
        groups.append(Group(_name(axes, start), start, blocks, size, orbit.bundle))
        start += blocks * size
    seen = [Tap(name, axis, norm) for name, norm, vectors in taps for axis in axes_with(vectors)]
    return ChannelGraph(
        groups,
        {key: own for key, own in axes.items() if own},
        {key: own for key, own in grouped.items() if (own.channels >= 0).any()},
        found.norms,
        seen,
        [axes_with(vectors) for vectors in results],
    )


def _name(axes: Mapping[str, list[Axis]], channel: int) -> str:
    """The layer whose kernels make a channel, or whatever has it first."""
    having = [
        (key, axis.dim)
        for key, own in axes.items()
        for axis in own
        if (axis.channels == channel).any()
    ]
    kernels = [key for key, dim in having if dim == 0 and key.endswith("weight")]
    return (kernels or [key for key, _ in having])[0].rpartition(".")[0]


def verify(
    graph: ChannelGraph,
    architecture: Architecture,
    state: Mapping[str, Tensor],
    permutation: Tensor,
) -> None:
    """Check in float64 that a permuted network computes the same.

    Raises:
        ArchitectureError: it does not.
    """
    outputs = []
    for each in (state, permute(graph, state, permutation)):
        network = architecture.plain(each).double().eval()
        with torch.inference_mode():
            result = network(architecture.example_input(network).double())
        outputs.append(tree_leaves(result))
    expected = permute_outputs(graph, outputs[0], permutation)
    for own, wanted in zip(outputs[1], expected, strict=True):
        spread = wanted.std() if wanted.numel() > 1 else wanted.abs()
        error = float((own - wanted).abs().max() / spread.clamp_min(1e-30))
        if not error <= TOLERANCE:
            raise ArchitectureError(
                f"the channels of {architecture.label} cannot be matched: permuted, it computes "
                f"something else (by {error:.1g} of the output's spread); expected the same. One "
                "of its operations depends on the order of channels in a way that was not "
                "recognised; take the sources unmatched"
            )

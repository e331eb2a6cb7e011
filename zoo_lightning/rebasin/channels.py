"""Channel graph of a network, and permutations of channels that leave its function unchanged.

The output channels of a layer may be reordered if the layers that use them are reordered
accordingly. A :class:`ChannelGraph` lists the channels that may change places and where each of
them occurs in the parameters and buffers of a state dict. It is found by tracing one forward pass,
for any network whose operations have rules (see :mod:`zoo_lightning.rebasin.rules`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from zoo_lightning.errors import ArchitectureError
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.nn.norm_search import is_norm
from zoo_lightning.rebasin.labels import Labels, Unmatchable, axes_of
from zoo_lightning.rebasin.orbits import find_orbits
from zoo_lightning.rebasin.rules import ChannelTrace, Norm
from zoo_lightning.rebasin.tracing import ChannelTracer

TOLERANCE = 1e-6
"""Largest change of a network's output, relative to its spread, that rounding in float64 explains;
a wrong permutation changes it by about 1."""


@dataclass(frozen=True)
class Group:
    """Group of consecutively numbered channels that may change places.

    Attributes:
        name: name of the layer whose kernels compute the group's first channel.
        start: number of the first channel.
        blocks: number of equally large blocks, each of which moves as a whole; within a block all
            channels may change places.
        size: number of channels of a block.
        bundle: number of the bundle of groups whose blocks move together; -1 for a single block.
    """

    name: str
    start: int
    blocks: int
    size: int
    bundle: int = -1

    @property
    def channels(self) -> int:
        """Number of channels of the group."""
        return self.blocks * self.size

    @property
    def span(self) -> slice:
        """Numbers of the group's channels, as a slice."""
        return slice(self.start, self.start + self.channels)


@dataclass(frozen=True)
class Axis:
    """Channels along one axis of a tensor.

    Attributes:
        dim: index of the axis.
        channels: number of the channel at each index, ``(size,)``; -1 for an index that keeps its
            place. A channel that occurs several times, as after flattening, moves in the same order
            of occurrence.
    """

    dim: int
    channels: Tensor


@dataclass(frozen=True)
class GroupedInput:
    """Input channels of a grouped convolution with kernels ``(O, C / groups, *)``.

    Attributes:
        channels: numbers of the channels as in :class:`Axis`, ``(C,)``.
        groups: number of groups of the convolution.
    """

    channels: Tensor
    groups: int


@dataclass(frozen=True)
class Tap:
    """A layer whose output ``(N, ..., C, ...)`` holds channels that may change places.

    Attributes:
        module: name of the layer.
        axis: axis of the output that holds the channels.
        norm: whether the layer is a norm layer.
    """

    module: str
    axis: Axis
    norm: bool


@dataclass(frozen=True)
class ChannelGraph:
    """Channels of a network that may change places, and where each of them occurs.

    Attributes:
        groups: groups of channels, each of which may be permuted.
        axes: axes that hold such channels, by state-dict key.
        grouped: inputs of grouped convolutions, by state-dict key of the kernel.
        norms: batch norms that immediately follow a layer, by state-dict key of the layer's kernel.
        taps: layers whose outputs hold such channels.
        outputs: axes that hold such channels, for each output of the network.
    """

    groups: list[Group]
    axes: dict[str, list[Axis]]
    grouped: dict[str, GroupedInput]
    norms: dict[str, Norm]
    taps: list[Tap]
    outputs: list[list[Axis]]

    @property
    def num_channels(self) -> int:
        """Number of channels of all groups."""
        return sum(group.channels for group in self.groups)

    def identity(self) -> Tensor:
        """Identity permutation, ``(num_channels,)``."""
        return torch.arange(self.num_channels)


def random_permutation(graph: ChannelGraph, generator: torch.Generator) -> Tensor:
    """Draw a random permutation of the channels of each group, ``(num_channels,)``."""
    result = graph.identity()
    moved: dict[int, Tensor] = {}
    for group in graph.groups:
        if group.bundle not in moved or group.bundle < 0:
            moved[group.bundle] = torch.randperm(group.blocks, generator=generator)
        members = torch.arange(group.channels).reshape(group.blocks, group.size)
        members = members[moved[group.bundle]]
        shuffled = [row[torch.randperm(group.size, generator=generator)] for row in members]
        result[group.span] = group.start + torch.cat(shuffled)
    return result


def source_index(channels: Tensor, permutation: Tensor) -> Tensor:
    """Indices ``(size,)`` for ``index_select`` that apply a permutation of channels along an axis.

    Args:
        channels: numbers of the channels along the axis, ``(size,)``; -1 for an index that keeps
            its place.
        permutation: number of the channel that takes each channel's place, ``(num_channels,)``.
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
    """Reorder the channels of a state dict without changing the network's function.

    Only the order of the outputs changes, see :func:`permute_outputs`.

    Args:
        graph: channel graph of the network.
        state: state dict of the network.
        permutation: number of the channel that takes each channel's place, ``(num_channels,)``.

    Returns:
        New state dict with the same keys; tensors without such channels are not copied.
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
    """Reorder a network's outputs as the network with permuted channels returns them.

    Args:
        graph: channel graph of the network.
        outputs: outputs of the network before the permutation.
        permutation: number of the channel that takes each channel's place, ``(num_channels,)``.
    """
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
        architecture: architecture of the network.
        network: network that :meth:`~zoo_lightning.models.architecture.Architecture.plain` built,
            with any weights; ``None`` builds it. It is not changed.
        image: input ``(1, C, H, W)``; ``None`` for noise of the network's own input size.
        keep_output: whether the outputs' channels keep their places.

    Raises:
        ArchitectureError: channels cannot be followed through an operation; the message names the
            layer and the reason.
    """
    # A copy, because hooks are added.
    network = copy.deepcopy(network or architecture.plain()).eval().requires_grad_(False)
    image = architecture.example_input(network) if image is None else image
    labels, keys = Labels(), WeakIdKeyDictionary()
    atoms: dict[str, list[Tensor]] = {}
    state = network.state_dict(keep_vars=True)
    for key, tensor in state.items():
        # A tensor with two names has the atoms of the first.
        atoms[key] = atoms[keys[tensor]] if tensor in keys else labels.begin(tensor)
        keys.setdefault(tensor, key)
    labels.set(image, [])
    tracer = ChannelTracer(labels, keys)
    running: list[str] = []
    taps: list[tuple[str, bool, dict[int, Tensor]]] = []
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
        if keys[tensor] not in tracer.trace.touched:
            for own in atoms[key]:
                labels.freeze(own)
    aliases = {key: keys[tensor] for key, tensor in state.items()}
    return _graph(labels, atoms, tracer.trace, aliases, taps, results)


def _watch_modules(
    network: nn.Module,
    labels: Labels,
    running: list[str],
    taps: list[tuple[str, bool, dict[int, Tensor]]],
) -> None:
    """Keep a stack of the modules that are running, and record the channels of their outputs."""

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
    """Atoms along each axis, without those that are spread over several axes."""
    return {axes_of(f)[0]: f.flatten() for f in factors if len(axes_of(f)) == 1}


def _refusal(
    architecture: Architecture, network: nn.Module, running: list[str], error: Exception
) -> str:
    """Error message that names the layer that cannot be followed."""
    module = network.get_submodule(running[-1]) if running else network
    layer = f"layer {running[-1]!r}" if running and running[-1] else "its own forward pass"
    return (
        f"the channels of {architecture.label} cannot be matched: {layer} ({type(module).__name__})"
        f" calls {error}. Choose an architecture of convolutions, norms, linear layers, attention "
        "heads, sums and concatenations, or take the sources unmatched"
    )


def _graph(
    labels: Labels,
    atoms: Mapping[str, list[Tensor]],
    trace: ChannelTrace,
    aliases: Mapping[str, str],
    taps: list[tuple[str, bool, dict[int, Tensor]]],
    results: list[dict[int, Tensor]],
) -> ChannelGraph:
    """Number the channels group by group, and locate them in all tensors."""
    channel, orbits = find_orbits(labels)
    last = max(int(axis.max()) for own in atoms.values() for axis in own if len(axis))
    # Rows of attention's scores, one for each head, are in no tensor of the state dict.
    orbits = [orbit for orbit in orbits if int(orbit.members.min()) <= last]
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
        key: GroupedInput(number[trace.grouped[first].atoms], trace.grouped[first].groups)
        for key, first in aliases.items()
        if first in trace.grouped
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
        trace.norms,
        seen,
        [axes_with(vectors) for vectors in results],
    )


def _name(axes: Mapping[str, list[Axis]], channel: int) -> str:
    """Name of the layer whose kernels compute a channel, else of the first that holds it."""
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
    """Check in float64 that a network computes the same after a permutation.

    Args:
        graph: channel graph of the network.
        architecture: architecture of the network.
        state: state dict of the network.
        permutation: permutation of the channels, ``(num_channels,)``.

    Raises:
        ArchitectureError: the permuted network computes something else.
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


def indices_of(group: Group, channels: Tensor) -> Tensor | None:
    """Find the indices of a group's channels along an axis, ``(channels, times)``.

    Args:
        group: group of channels to locate.
        channels: numbers of the channels along the axis, ``(size,)``.

    Returns:
        The indices; ``None`` if the axis does not hold all channels equally often.
    """
    inside = (channels >= group.start) & (channels < group.span.stop)
    index = inside.nonzero().flatten()
    times = len(index) // group.channels
    if not times or len(index) % group.channels:
        return None
    order = torch.argsort(channels[index], stable=True)
    return index[order].reshape(group.channels, times)


def rows_of(tensor: Tensor, dim: int, indices: Tensor) -> Tensor:
    """Slices of a tensor along an axis, concatenated for each channel: ``(channels, rest)``.

    Args:
        tensor: tensor to slice.
        dim: index of the axis.
        indices: indices of each channel along the axis, ``(channels, times)``.
    """
    chosen = tensor.index_select(dim, indices.flatten()).movedim(dim, 0)
    return chosen.reshape(len(indices), -1)

"""Blocks of a layer's output channels that attention takes as heads.

A head compares queries with keys channel by channel, ``q · k``, and averages its values. A channel
alignment that mixed the channels of several heads, or queries with values, would make other heads
of them; so the layers that compute queries, keys and values are aligned block by block. Queries
and keys of one head have one map ``T``: if it is orthogonal, as a permutation is,
``Tq · Tk = q · k``, and the source's scores are what they were.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from zoo_lightning.rebasin.labels import Labels, Unmatchable
from zoo_lightning.rebasin.tracing import ChannelTracer

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from zoo_lightning.models.architecture import Architecture
    from zoo_lightning.rebasin.rules import ChannelTrace

Part = tuple[str, int, int]
"""Part of an attention: ``scores`` (queries and keys) or ``values``, its number, its head."""


@dataclass(frozen=True)
class HeadBlocks:
    """Division of a layer's output channels into blocks of equal size, each with a map.

    Attributes:
        bank: name of the first of the layers that share their maps: a layer of queries and one of
            keys do.
        maps: number of maps that these layers have together.
        index: number of each block's map; queries and keys of one head have the same.
    """

    bank: str
    maps: int
    index: tuple[int, ...]


@dataclass(frozen=True)
class AttentionHeads:
    """Layers of queries, keys and values.

    Attributes:
        blocks: division into heads by layer.
        undivided: layers of attention that could not be divided into heads.
    """

    blocks: dict[str, HeadBlocks] = field(default_factory=dict)
    undivided: frozenset[str] = frozenset()


def attention_heads(architecture: Architecture, network: nn.Module) -> AttentionHeads:
    """Find the layers that compute queries, keys and values, and their heads' channels.

    A forward pass is traced. Recognised is dot-product attention over tokens, as torch's
    ``scaled_dot_product_attention`` or as two matrix products, with heads of one size each of
    consecutive channels.

    Args:
        architecture: architecture of the network.
        network: network that the architecture built; it is left unchanged.
    """
    attention = [name for name, each in network.named_modules() if _has_heads(each)]
    if not attention:
        return AttentionHeads()
    layers = {
        name: each
        for name, each in network.named_modules()
        if isinstance(each, (nn.Conv2d, nn.Linear))
    }
    parts, broken = _parts(architecture, network, layers)
    within = {n for n in layers for each in attention if n.startswith(f"{each}.")}
    located = {each for each in attention for name in parts if name.startswith(f"{each}.")}
    unknown = {n for n in within if not any(n.startswith(f"{each}.") for each in located)}
    return AttentionHeads(_banks(parts), frozenset(broken | unknown))


def _has_heads(module: nn.Module) -> bool:
    """Whether a module says how many heads it has, as timm's attention modules do."""
    return isinstance(getattr(module, "num_heads", None), int)


class _LenientTracer(ChannelTracer):
    """Tracer that follows channels as far as it can: an operation without a rule ends them."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run an operation and label its results, or leave them without labels."""
        try:
            return super().__torch_dispatch__(func, types, args, kwargs)
        except Unmatchable:
            result = func(*args, **(kwargs or {}))
            for output in tree_leaves(result):
                if isinstance(output, Tensor):
                    self.trace.labels.set(output, [])
            return result


def _parts(
    architecture: Architecture, network: nn.Module, layers: Mapping[str, nn.Module]
) -> tuple[dict[str, list[Part]], set[str]]:
    """Trace a forward pass, and find the parts of attention as :func:`_divided` does."""
    labels = Labels()
    keys: WeakIdKeyDictionary = WeakIdKeyDictionary()
    rows: dict[str, Tensor] = {}
    for key, tensor in network.state_dict(keep_vars=True).items():
        if tensor not in keys:
            keys[tensor] = key
            rows[key] = next(iter(labels.begin(tensor)), torch.zeros(0)).long()
    image = architecture.example_input(network)
    labels.set(image, [])
    tracer, training = _LenientTracer(labels, keys), network.training
    network.eval()
    try:
        with torch.inference_mode(), tracer:
            architecture.features(network, image)
    finally:
        network.train(training)
    return _divided(tracer.trace, {n: r for n in layers if len(r := rows[f"{n}.weight"])})


def _divided(
    trace: ChannelTrace, rows: Mapping[str, Tensor]
) -> tuple[dict[str, list[Part]], set[str]]:
    """Part of an attention that each block of a layer's channels is; and layers in odd blocks.

    Args:
        trace: record of a forward pass.
        rows: atoms of each layer's output channels, ``(C_out,)``.
    """
    owner = {atom: name for name, own in rows.items() for atom in own.tolist()}
    blocks: dict[str, dict[range, Part]] = defaultdict(dict)
    broken: set[str] = set()
    partners: list[set[str]] = []
    pairs: list[tuple[str, int, tuple[Tensor, ...]]]
    pairs = [("scores", turn, atoms) for turn, atoms in enumerate(trace.scores)]
    pairs += [("values", turn, (atoms,)) for turn, atoms in enumerate(trace.values)]
    for kind, turn, operands in pairs:
        names: set[str] = set()
        for head, row in ((h, row) for atoms in operands for h, row in enumerate(atoms.tolist())):
            own = {owner[atom] for atom in row if atom in owner}
            span = range(min(row), min(row) + len(row))
            names |= own
            if len(own) != 1 or sorted(row) != list(span):
                broken |= own
                continue
            blocks[own.pop()].setdefault(span, (kind, turn, head))
        partners.append(names)
    for name, spans in blocks.items():
        starts = range(int(rows[name][0]), int(rows[name][-1]) + 1, min(map(len, spans)))
        if sorted(span.start for span in spans) != list(starts) or len(set(map(len, spans))) > 1:
            broken.add(name)
    while more := {n for names in partners if names & broken for n in names} - broken:
        broken |= more  # what is compared with it must not be aligned alone
    divided = {n: [own[s] for s in sorted(own, key=min)] for n, own in blocks.items()}
    return {name: own for name, own in divided.items() if name not in broken}, broken


def _banks(parts: Mapping[str, Sequence[Hashable]]) -> dict[str, HeadBlocks]:
    """Join layers that have a part in common, and number the parts of those."""
    bank = {name: name for name in parts}
    for name, own in parts.items():
        for other in parts:
            if set(own) & set(parts[other]):
                old, new = bank[name], bank[other]
                bank = {key: new if value == old else value for key, value in bank.items()}
    blocks = {}
    for leader in dict.fromkeys(bank.values()):
        members = [name for name in parts if bank[name] == leader]
        order = list(dict.fromkeys(part for name in members for part in parts[name]))
        for name in members:
            index = tuple(order.index(part) for part in parts[name])
            blocks[name] = HeadBlocks(members[0], len(order), index)
    return blocks

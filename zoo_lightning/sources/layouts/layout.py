"""Layouts: how other projects name and shape the tensors of architectures that timm has, too.

A layout is recognised by a tensor name that no other layout has. It renames tensors to timm's names
and joins what timm keeps in one tensor; no value is changed. The layouts are in the modules beside
this one, and :mod:`zoo_lightning.sources.layouts.translating` applies them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Replacement = str | Callable[[re.Match[str]], str]


@dataclass(frozen=True)
class Layout:
    """Names of one project's tensors, and their names in timm.

    Attributes:
        name: name for messages, such as ``Hugging Face ViT``.
        marker: pattern of a whole tensor name that only this layout has, without the prefix.
        rules: pairs of a pattern of a whole tensor name without the prefix, and its replacement:
            a template, or a function of the match. The first that matches is applied; other tensors
            keep their names.
        reshape: function that changes the renamed tensors' shapes or splits them.
        remark: what the file does not say and is assumed; empty if nothing.
    """

    name: str
    marker: str
    rules: tuple[tuple[str, Replacement], ...]
    reshape: Callable[[dict[str, Tensor]], dict[str, Tensor]] = field(default=dict)
    remark: str = ""

    def prefixes(self, state: Mapping[str, Tensor]) -> list[str]:
        """Prefixes under which tensors of this layout are, the longest first; empty if none are."""
        found = (re.fullmatch(rf"(?P<prefix>(?:.*\.)?)(?:{self.marker})", key) for key in state)
        return sorted({match["prefix"] for match in found if match}, key=len, reverse=True)

    def convert(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename, reshape and join tensors whose prefix has been removed."""
        renamed = {self.renamed(key): tensor for key, tensor in state.items()}
        return join_projections(self.reshape(renamed))

    def renamed(self, key: str) -> str:
        """Name in timm of a tensor whose prefix has been removed, before parts are joined."""
        for pattern, replacement in self.rules:
            if match := re.fullmatch(pattern, key):
                return replacement(match) if callable(replacement) else match.expand(replacement)
        return key


JOINED = {
    "attn.qkv": ("attn.q", "attn.k", "attn.v"),
    "mlp.fc1": ("mlp.gate", "mlp.up"),
}
"""Layers that timm keeps in one, by its name: projections of attention, of a gated layer."""


def join_projections(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join layers that timm keeps in one, such as ``attn.q``, ``attn.k`` and ``attn.v``.

    An absent bias of the keys is 0: it has no effect, as the softmax over the keys cancels it.
    Tensors that cannot be joined stay as they are.
    """
    joined: dict[str, Tensor] = {}
    for key, tensor in state.items():
        whole, names = _whole_of(key)
        parts = [state.get(name) for name in names]
        if whole.endswith("attn.qkv.bias") and parts[1] is None and parts[0] is not None:
            parts[1] = torch.zeros_like(parts[0])
        there = [part for part in parts if part is not None]
        if names and len(there) == len(names) and _joinable(there):
            if whole not in joined:
                joined[whole] = torch.cat(there)
        else:
            joined[key] = tensor
    return joined


def _whole_of(key: str) -> tuple[str, list[str]]:
    """Key of the joined tensor that a tensor is a part of, and keys of all parts; empty if none."""
    layer, _, leaf = key.rpartition(".")
    for whole, parts in JOINED.items():
        for part in parts:
            if layer.endswith(f".{part}"):
                place = layer.removesuffix(part)
                return f"{place}{whole}.{leaf}", [f"{place}{each}.{leaf}" for each in parts]
    return "", []


def _joinable(parts: list[Tensor]) -> bool:
    """Whether tensors are plain ones of equal shape and type."""
    first = parts[0]
    return all(
        part.layout == torch.strided and part.shape == first.shape and part.dtype == first.dtype
        for part in parts
    )


def shifted(template: str, by: int = 1) -> Callable[[re.Match[str]], str]:
    """Replacement that adds to the match's first number.

    Args:
        template: template with ``{0}`` for the changed number and ``{1}``, ``{2}``, ... for the
            match's other groups.
        by: what is added.
    """

    def replace(match: re.Match[str]) -> str:
        first, *others = match.groups()
        return template.format(int(first) + by, *others)

    return replace

"""Translate a checkpoint of another project's layout into timm's names and shapes.

A translation is used only if more tensors then agree with the wanted network, so that networks of
one's own that have a foreign layout themselves still get foreign files as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from zoo_lightning.sources.key_matching import score_prefixes, unflatten_stages
from zoo_lightning.sources.layouts import huggingface, repositories, torchvision_models
from zoo_lightning.sources.layouts.keras_names import LAYOUTS as KERAS
from zoo_lightning.sources.layouts.layout import Layout
from zoo_lightning.sources.positions import fit_positions, has_numbers

LAYOUTS = (
    *huggingface.LAYOUTS,
    *torchvision_models.LAYOUTS,
    *repositories.LAYOUTS,
    *KERAS,
)
"""All layouts; where two fit equally well, the first is taken."""

BUFFERS = ("relative_position_index", "relative_coords_table", "attn_mask")
"""Last parts of names of tensors that attention computes itself, and files need not have."""


@dataclass(frozen=True)
class Translated:
    """Tensors in timm's layout.

    Attributes:
        state: tensors by their keys, unchanged if no layout was recognised.
        layout: name of the layout that was recognised; empty if none.
        remarks: what was interpolated or assumed, a line each.
    """

    state: dict[str, Tensor]
    layout: str = ""
    remarks: tuple[str, ...] = ()


def translations(state: Mapping[str, Tensor]) -> Iterator[tuple[Layout, dict[str, Tensor]]]:
    """Yield each layout that a file may have, with its tensors in timm's names."""
    for layout in LAYOUTS:
        renamed = dict(state)
        for prefix in layout.prefixes(state):
            inside = {k: t for k, t in renamed.items() if k.startswith(prefix)}
            if not all(has_numbers(t) for t in inside.values() if t.is_floating_point()):
                continue
            try:
                found = layout.convert({k[len(prefix) :]: t for k, t in inside.items()})
            except (RuntimeError, IndexError):  # shapes that the layout does not have
                continue
            renamed = {k: t for k, t in renamed.items() if k not in inside}
            renamed |= {prefix + key: tensor for key, tensor in found.items()}
        if renamed.keys() != state.keys():
            yield layout, renamed


def renamings(state: Mapping[str, Tensor]) -> Iterator[Callable[[str], str]]:
    """Yield a function for each layout that a file may have, which maps its names to timm's."""
    for layout in LAYOUTS:
        for prefix in layout.prefixes(state):
            yield partial(_renamed, layout, prefix)


def _renamed(layout: Layout, prefix: str, key: str) -> str:
    """Name in timm of a key under a prefix, which stays."""
    return prefix + layout.renamed(key[len(prefix) :]) if key.startswith(prefix) else key


def translate(state: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> Translated:
    """Bring a checkpoint into the layout of a network, if it is of a layout that is known.

    Names are those of timm afterwards, projections are joined, and position embeddings of another
    size are interpolated as timm does.

    Args:
        state: tensors of the checkpoint.
        reference: state dict of the headless plain network.
    """
    plain = unflatten_stages(state, reference)
    best, layout = plain, None
    score = _agreement(plain, reference)
    for each, renamed in translations(state):
        if (theirs := _agreement(renamed, reference)) > score:
            best, layout, score = renamed, each, theirs
    kept = {
        key: tensor
        for key, tensor in best.items()
        if key in reference or key.rpartition(".")[2] not in BUFFERS
    }
    fitted, remarks = fit_positions(kept, reference)
    if layout is not None and layout.remark:
        remarks.append(layout.remark)
    return Translated(fitted, layout.name if layout else "", tuple(remarks))


def _agreement(state: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> tuple[int, int]:
    """Largest number of tensors that agree under one prefix, in name and shape and in name."""
    return max(score_prefixes(state, reference).values(), default=(0, 0))

"""Change of position embeddings, the tensors whose shape depends on the size of the image.

They are interpolated by timm's own functions. Nothing else is interpolated: a patch or a window of
another size in a kernel makes another architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from torch import Tensor

POSITIONS, CLASS_TOKEN = "pos_embed", "cls_token"
"""Keys of timm's vision transformers: position embeddings ``(1, N, C)`` and ``(1, 1, C)``."""

TOKENS = (CLASS_TOKEN, "dist_token", "reg_token")
"""Keys of the tokens before those of the patches, ``(1, n, C)``."""

TABLE = "relative_position_bias_table"
"""Last part of the key of a table ``((2 w - 1)², heads)`` of windows of ``w`` x ``w`` patches."""


def fit_positions(
    state: Mapping[str, Tensor], reference: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Interpolate position embeddings whose number differs from the network's.

    Only square grids are interpolated. Embeddings that cannot be brought to the network's shape
    stay as they are. A class token's own position, where the network has none, is added to the
    token, which is what the other network does with it. A linear layer's weight gets the shape of a
    convolution of one pixel where the network has that, and vice versa.

    Args:
        state: tensors of a checkpoint, in timm's names under any prefix.
        reference: state dict of the headless plain network.

    Returns:
        The tensors, and a line for each kind of change.
    """
    fitted, remarks = dict(state), []
    tables: dict[tuple[int, int], int] = {}
    for key, tensor in state.items():
        inside = _within(key, reference)
        if inside is None or tensor.shape == reference[inside].shape:
            continue
        if not has_numbers(tensor):
            continue
        wanted, prefix = reference[inside], key[: len(key) - len(inside)]
        if inside == POSITIONS and (changed := _positions(fitted, prefix, reference)):
            fitted |= changed[0]
            remarks += [remark for remark in changed[1] if remark not in remarks]
        elif inside.endswith(TABLE) and (windows := _windows(tensor, wanted)):
            fitted[key] = resize_rel_pos_bias_table(tensor.float(), (windows[1],) * 2, wanted.shape)
            tables[windows] = tables.get(windows, 0) + 1
        elif _one_pixel(tensor, wanted):
            fitted[key] = tensor.reshape(wanted.shape)
    remarks += [
        f"{count} tables of relative positions interpolated from windows of {before}x{before} to "
        f"{after}x{after}"
        for (before, after), count in tables.items()
    ]
    return fitted, remarks


def has_numbers(tensor: Tensor) -> bool:
    """Whether a tensor is of plain floating numbers, as many as its shape needs.

    A file of a kilobyte may hold a tensor of a trillion numbers that are one number; copying it
    would fill the memory.
    """
    if tensor.layout != torch.strided or not tensor.is_floating_point():
        return False
    return tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()


def _within(key: str, reference: Mapping[str, Tensor]) -> str | None:
    """The network's key with which a checkpoint's key ends, if any."""
    start = 0
    while key[start:] not in reference:
        dot = key.find(".", start)
        if dot < 0:
            return None
        start = dot + 1
    return key[start:]


def _positions(
    state: Mapping[str, Tensor], prefix: str, reference: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]] | None:
    """Changed position embeddings and class token, with remarks; ``None`` if nothing fits."""
    found, wanted = state[prefix + POSITIONS], reference[POSITIONS]
    if found.ndim != 3 or wanted.ndim != 3 or found.shape[::2] != wanted.shape[::2]:
        return None
    theirs = _grid(found, {key.removeprefix(prefix): t for key, t in state.items()})
    ours = _grid(wanted, reference)
    if theirs is None or ours is None:
        return None
    (before, own), (after, needed) = theirs, ours
    changed: dict[str, Tensor] = {}
    remarks = []
    if needed == 0 < own:
        token = state.get(prefix + CLASS_TOKEN)
        if own != 1 or token is None or CLASS_TOKEN not in reference:
            return None
        if token.shape != reference[CLASS_TOKEN].shape or not has_numbers(token):
            return None
        changed[prefix + CLASS_TOKEN] = token + found[:, :1]
        found, own = found[:, 1:], 0
        remarks.append("the class token's position was added to the token")
    if own != needed:
        return None
    if before != after:
        found = resample_abs_pos_embed(
            found, [after, after], [before, before], num_prefix_tokens=own
        )
        remarks.append(
            f"position embeddings interpolated from {before}x{before} to {after}x{after} patches"
        )
    changed[prefix + POSITIONS] = found
    return changed, remarks


def _grid(positions: Tensor, state: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Side of the grid of patches, and number of positions of other tokens; ``None`` if not square.

    The other tokens have positions, the class token alone has one, or none has.
    """
    total = positions.shape[1]
    tokens = sum(state[key].shape[1] for key in TOKENS if key in state and state[key].ndim == 3)
    for others in dict.fromkeys((tokens, min(tokens, 1), 0)):
        side = isqrt(max(total - others, 0))
        if side and side * side == total - others:
            return side, others
    return None


def _windows(found: Tensor, wanted: Tensor) -> tuple[int, int] | None:
    """Sides of both tables' windows; ``None`` if a table is not that of a square window."""
    if found.ndim != 2 or wanted.ndim != 2 or found.shape[1] != wanted.shape[1]:
        return None
    sides = [isqrt(table.shape[0]) for table in (found, wanted)]
    if any(s % 2 == 0 or s * s != len(t) for s, t in zip(sides, (found, wanted), strict=True)):
        return None
    before, after = ((side + 1) // 2 for side in sides)
    return before, after


def _one_pixel(found: Tensor, wanted: Tensor) -> bool:
    """Whether shapes differ only in the axes of a kernel of one pixel."""
    return {found.ndim, wanted.ndim} == {2, 4} and (
        (*found.shape, 1, 1)[:4] == (*wanted.shape, 1, 1)[:4]
    )

"""Sources that are LoRA adapters of PEFT: the base's weights plus ``scale · B A``, layer by layer.

Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, 2021, section 4.1. The sum is an
ordinary network, and a descendant of the base by construction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo_lightning.errors import SourceError
from zoo_lightning.sources.files import read_part
from zoo_lightning.sources.layouts.translating import renamings
from zoo_lightning.sources.positions import has_numbers

CONFIG = "adapter_config.json"
"""File of an adapter's folder that describes it."""

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
"""Weight files of an adapter's folder; the first that exists is taken."""

UNSUPPORTED = ("use_dora", "use_qalora", "use_bdlora", "layer_replication", "target_parameters")
"""Options with which the sum is another one."""

KEEPS_BASE = (None, True, False, "gaussian", "eva", "orthogonal")
"""Values of ``init_lora_weights`` that leave the base's weights as they are."""

LORA = re.compile(r"(.+)\.lora_([AB])(?:\.\w+)?\.(weight|bias)")
"""Key of a factor of a layer's change."""


@dataclass(frozen=True)
class Change:
    """Change of a layer's weight or bias: ``scale · B A``, or ``scale · b`` without ``A``.

    Attributes:
        up: factor ``B (out, r)``, or the bias ``b (out,)``.
        down: factor ``A (r, in)``; ``None`` for a bias.
        scale: factor of the product.
        transposed: whether the layer keeps its weight as ``(in, out)``.
    """

    up: Tensor
    down: Tensor | None
    scale: float
    transposed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the change, of which the product is not made before it is known to fit."""
        if self.down is None:
            return tuple(self.up.shape)
        shape = (self.up.shape[0], *self.down.shape[1:])
        return shape[::-1] if self.transposed else shape

    def tensor(self) -> Tensor:
        """Multiply the factors."""
        if self.down is None:
            return self.scale * self.up.float()
        product = self.scale * (self.up.float().flatten(1) @ self.down.float().flatten(1))
        return product.T if self.transposed else product.reshape(self.shape)


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        folder: folder that it was read from.
        base: name or path of the base's weights, as the adapter states it; empty if it does not.
        changes: what is added to the base's tensors, by their names in the network that was
            adapted.
        replaced: tensors in place of the base's, such as biases and heads that were trained whole.
        rank: largest rank of a change.
    """

    folder: Path
    base: str
    changes: dict[str, Change]
    replaced: dict[str, Tensor]
    rank: int


def is_adapter(folder: Path) -> bool:
    """Whether a folder has an adapter."""
    return (folder / CONFIG).is_file()


def read_adapter(folder: Path) -> Adapter:
    """Read a LoRA adapter in the layout of PEFT.

    Raises:
        SourceError: a file is missing or damaged, or the adapter is of another kind than LoRA.
    """
    config = _read_config(folder / CONFIG)
    file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise SourceError(f"{folder} has {CONFIG}, but none of {' and '.join(WEIGHTS)}.")
    factors: dict[tuple[str, str], dict[str, Tensor]] = {}
    replaced: dict[str, Tensor] = {}
    for key, tensor in read_part(file).items():
        plain = key.removeprefix("base_model.model.")
        if found := LORA.fullmatch(plain):
            factors.setdefault((found[1], found[3]), {})[found[2]] = tensor
        elif ".lora_" in plain:
            raise SourceError(
                f"{file} has {key!r}, which is no factor of a linear layer or convolution: merge "
                "the adapter into its base with PEFT (merge_and_unload), and give the result."
            )
        elif ".original_module." not in plain:
            plain = re.sub(r"\.modules_to_save(\.default)?\.|\.base_layer\.", ".", plain)
            replaced[plain] = tensor
    changes = {
        f"{layer}.{leaf}": _change(layer, leaf, pair, config, file)
        for (layer, leaf), pair in factors.items()
    }
    if not changes:
        raise SourceError(f"{file} has no factors of LoRA (lora_A, lora_B).")
    rank = max(pair["A"].shape[0] for pair in factors.values() if "A" in pair)
    base = config.get("base_model_name_or_path")
    return Adapter(folder, base if isinstance(base, str) else "", changes, replaced, rank)


def _read_config(path: Path) -> dict[str, Any]:
    """Read an adapter's description, and refuse what is not plain LoRA.

    Raises:
        SourceError: it cannot be read, or is of another kind.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path} cannot be read: {error}.") from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise SourceError(f"{path} must describe an adapter of peft_type LORA, got {kind!r}.")
    given = [f"{name}: {config[name]}" for name in UNSUPPORTED if config.get(name)]
    start = config.get("init_lora_weights")
    if start not in KEEPS_BASE:
        given.append(f"init_lora_weights: {start}")
    if given:
        raise SourceError(
            f"{path} has {', '.join(given)}, with which the weights are not base + scale·B·A: "
            "merge the adapter into its base with PEFT (merge_and_unload), and give the result."
        )
    return config


def _change(
    layer: str, leaf: str, pair: Mapping[str, Tensor], config: Mapping[str, Any], file: Path
) -> Change:
    """Change of a layer's weight, or of its bias.

    Raises:
        SourceError: a factor is missing, or their shapes do not go together.
    """
    down, up = pair.get("A"), pair.get("B")
    scale = _scale(layer, config, down, file)
    if leaf == "bias" and up is not None:
        return Change(up, None, scale, transposed=False)
    if down is None or up is None or not _fit_together(down, up):
        shapes = {name: tuple(tensor.shape) for name, tensor in pair.items()}
        raise SourceError(
            f"{file} must have factors A (r, in) and B (out, r) for {layer!r}, got {shapes}."
        )
    return Change(up, down, scale, bool(config.get("fan_in_fan_out")) and down.ndim == 2)


def _fit_together(down: Tensor, up: Tensor) -> bool:
    """Whether factors are those of a linear layer or of a convolution, with all their numbers."""
    if not has_numbers(down) or not has_numbers(up) or min(down.ndim, up.ndim) < 2:
        return False
    return down.ndim == up.ndim and down.shape[0] == up.shape[1] and set(up.shape[2:]) <= {1}


def _scale(layer: str, config: Mapping[str, Any], down: Tensor | None, file: Path) -> float:
    """Factor of a layer's change: ``alpha / r``, or ``alpha / √r`` if it is rank-stabilised.

    Raises:
        SourceError: rank or alpha are no positive numbers.
    """
    rank = _of_layer(layer, config.get("rank_pattern"), config.get("r"))
    rank = down.shape[0] if down is not None else rank
    alpha = _of_layer(layer, config.get("alpha_pattern"), config.get("lora_alpha"))
    if not isinstance(alpha, (int, float)) or not isinstance(rank, (int, float)) or rank <= 0:
        raise SourceError(
            f"{file.parent / CONFIG} must state numbers r and lora_alpha, got {rank!r} and "
            f"{alpha!r}."
        )
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _of_layer(layer: str, patterns: Any, default: Any) -> Any:
    """Value of the pattern with which a layer's name ends, or the default."""
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        if layer == pattern or layer.endswith(f".{pattern}"):
            return value
    return default


def add_adapter(adapter: Adapter, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add an adapter to its base's weights.

    The adapter names the layers of the network that was adapted, and the base's file may have other
    names for them: another prefix, or those of another version of ``transformers``.

    Args:
        adapter: adapter, read with :func:`read_adapter`.
        base: tensors of the base by its file's keys.

    Returns:
        Tensors of the sum by the base's keys, and heads of the adapter that the base lacks.

    Raises:
        SourceError: the base lacks a layer of the adapter, or has another shape for it.
    """
    merged = dict(base)
    places = _places([*adapter.changes, *adapter.replaced], base)
    absent = [key for key in adapter.changes if key not in places]
    if absent:
        raise SourceError(
            f"the base of {adapter.folder} lacks {len(absent)} of {len(adapter.changes)} layers "
            f"that the adapter changes, such as {absent[0]!r}; the base has "
            f"{', '.join(map(repr, list(base)[:4]))}, …: give the adapter's own base."
        )
    for key, tensor in adapter.replaced.items():
        merged[places.get(key, key)] = tensor
    for key, change in adapter.changes.items():
        before = merged[places[key]]
        if tuple(before.shape) != change.shape:
            raise SourceError(
                f"the adapter {adapter.folder} changes {key!r} by {change.shape}, and its "
                f"base has {tuple(before.shape)} there: give the adapter's own base."
            )
        merged[places[key]] = before.to(torch.float32) + change.tensor()
    return merged


def _places(wanted: Iterable[str], base: Mapping[str, Tensor]) -> dict[str, str]:
    """Keys of the base by those of an adapter."""
    known = {key: key for key in base}
    for rename in renamings(base):
        renamed = {rename(key): key for key in base}
        known |= {
            key: renamed[new]
            for key in wanted
            if key not in known and (new := rename(key)) in renamed
        }
    ends: dict[str, list[str]] = {}
    for key in base:
        parts = key.split(".")
        for start in range(1, len(parts)):
            ends.setdefault(".".join(parts[start:]), []).append(key)
    for key in wanted:
        parts = key.split(".")
        inside = (".".join(parts[start:]) for start in range(1, len(parts) - 1))
        found = next((each for each in inside if each in base), None)
        if key not in known and (found or len(ends.get(key, [])) == 1):
            known[key] = found or ends[key][0]
    return {key: known[key] for key in wanted if key in known}

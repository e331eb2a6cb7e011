"""Read weight files of unknown origin without running code in them, and write safetensors.

Only ``torch.load(weights_only=True)``, safetensors, a reader of pickled arrays that calls nothing
(:mod:`zoo_lightning.sources.detectron`) and one of HDF5 (:mod:`zoo_lightning.sources.keras_files`)
read the file; its first bytes, not its suffix, decide which. Fitting the tensors to an architecture
is done in :mod:`zoo_lightning.sources.adapting`.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from zoo_lightning.errors import SourceError, nearest
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.sources.detectron import read_array_pickle
from zoo_lightning.sources.keras_files import is_hdf5, is_keras_archive, read_keras
from zoo_lightning.sources.own_runs import describe_ensemble
from zoo_lightning.sources.spec import known_kinds

AVERAGED = (
    "state_dict_ema",
    "model_ema",
    "ema",
    "ema_state_dict",
    "teacher",
    "target_network",
    "target_encoder",
)
"""Keys of containers of averaged weights, preferred to all others because averages are usually
better: in self-supervised training the teacher averages the student, and authors evaluate it."""

AVERAGE_WORDS = frozenset({"ema", "swa", "average", "averaged", "shadow", "teacher", "target"})
"""Words that mark a key of averaged weights, as in ``params_ema``."""

CONTAINERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "backbone",
    "encoder",
    "student",
    "params",
    "weights",
)
"""Keys of containers of weights; the first in the file that contains kernels is taken."""


LIKENESS = 0.5
"""Fraction of a network's kernels, by name and shape, that a mapping must contain to be another
version of its weights."""


def names_average(key: str) -> bool:
    """Whether a key or prefix names averaged weights, as ``params_ema`` does."""
    words = re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower())
    return not AVERAGE_WORDS.isdisjoint(words)


@dataclass(frozen=True)
class Contents:
    """Contents of a weight file.

    Attributes:
        whole: Everything in the file, as it was loaded.
        state: The weights by key, on the CPU, in the file's order.
        containers: Keys that lead to the weights, outermost first.
        others: Other containers in the file with such weights, nested ones with dots, in the form
            of a source's ``container``.
    """

    whole: Any
    state: dict[str, Tensor]
    containers: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def is_safetensors(path: Path) -> bool:
    """Whether a file is safetensors, by its first bytes or, failing those, its suffix."""
    with path.open("rb") as file:
        start = file.read(9)
    if start.startswith(b"PK") or start[:1] == b"\x80":
        return False
    return start[8:9] == b"{" or path.suffix.lower() == ".safetensors"


def read_file(path: Path, container: str | None = None) -> dict[str, Tensor]:
    """Read all tensors of a weight file, unwrapped from the usual containers.

    Args:
        path: A file written by ``torch.save`` (either format) or by safetensors.
        container: Key that leads to the weights, with dots for nested keys; ``None`` finds them.

    Returns:
        The tensors by key, on the CPU, in the file's order.

    Raises:
        SourceError: If the file is missing, empty, damaged, not a checkpoint, holds no weights or
            those of an ensemble, or would run code to be read. The message names the file and the
            remedy.
    """
    return read_network(path, container).state


def read_network(path: Path, container: str | None = None) -> Contents:
    """Read a weight file like :func:`read_file`, and return its other contents as well.

    Raises:
        SourceError: As :func:`read_file`.
    """
    contents = read_contents(path, container)
    check_one_network(contents.whole, path)
    return contents


def check_one_network(content: Any, path: Path) -> None:
    """Refuse an ensemble's checkpoint, whose weights are not those of one network.

    Raises:
        SourceError: The checkpoint belongs to an ensemble.
    """
    ensemble = describe_ensemble(content) if isinstance(content, Mapping) else ""
    if ensemble:
        raise SourceError(
            f"{path} is {ensemble}, and weights are taken from one network: give the run of one of "
            "them."
        )


def read_contents(path: Path, container: str | None = None) -> Contents:
    """Read a weight file like :func:`read_network`, and allow an ensemble's.

    Raises:
        SourceError: As :func:`read_file`, except that ensembles are allowed.
    """
    path = Path(path)
    _check_present(path)
    try:
        content: Any = _load(path)
        inner = content if container is None else _inside(content, container, path)
        state, inside = _unwrap(inner, set())
        others = _others(inner, inside, state)
        averages = [keys for keys in others if names_average(keys[-1])]
        if averages and not any(map(names_average, inside)):
            # Named otherwise than AVERAGED, but another version of the very network.
            state, inside = _unwrap_at(inner, averages[0])
            others = _others(inner, inside, state)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error}.") from error
    except RecursionError as error:
        raise SourceError(f"{path} is nested too deeply to be a checkpoint.") from error
    if not _holds_kernels(state):
        found = ", ".join(map(repr, list(content)[:8])) if isinstance(content, Mapping) else ""
        raise SourceError(
            f"{path} holds no weights: found {type(content).__name__}"
            f"{f' with {found}' if found else ''}. Save the network's state_dict() instead."
        )
    given = [] if container is None else [container]
    return Contents(
        content,
        state,
        (*given, *inside),
        tuple(".".join([*given, *keys]) for keys in others),
    )


def read_part(path: Path) -> dict[str, Tensor]:
    """Read one shard of a sharded checkpoint: its tensors by key.

    Raises:
        SourceError: As :func:`read_file`, except that a shard may hold no kernels.
    """
    _check_present(path)
    try:
        content = _load(path)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error}.") from error
    return _flatten(content, set()) if isinstance(content, Mapping) else {}


def _inside(content: Any, container: str, path: Path) -> Any:
    """Content of a file under a key, with dots for nested keys.

    Raises:
        SourceError: It has no such key, or no mapping under it.
    """
    found = content
    for key in container.split("."):
        keys = [str(each) for each in found] if isinstance(found, Mapping) else []
        if key not in keys:
            inner = [k for k in keys if isinstance(found[k], Mapping)]
            raise SourceError(
                f"{path} has no container {container!r}: there is no {key!r}."
                f"{nearest(key, keys)} Mappings there: {', '.join(inner[:8]) or 'none'}."
            )
        found = found[key]
    if not isinstance(found, Mapping):
        raise SourceError(
            f"{path} has no weights under {container!r}: found {type(found).__name__}."
        )
    return found


def _check_present(path: Path) -> None:
    """Refuse a file that is missing, empty or not a file."""
    if not path.exists():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise SourceError(
            f"{path} does not exist.{nearest(path.name, beside)} Weights are {known_kinds()}."
        )
    if not path.is_file():
        raise SourceError(f"{path} is not a file.")
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty: copy or download it again.")


def _load(path: Path) -> Any:
    """Read a weight file by the reader of its format."""
    if is_hdf5(path) or is_keras_archive(path):
        return read_keras(path)
    return _load_safetensors(path) if is_safetensors(path) else _load_pickle(path)


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
    header = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if header + 8 > size:
        raise SourceError(
            f"{path} is damaged or not safetensors: it announces a header of {header} bytes but "
            f"has {size} in all. Copy or download it again."
        )
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, MemoryError) as error:
        raise SourceError(
            f"{path} is damaged or not safetensors ({error}). Copy or download it again."
        ) from error


def _load_pickle(path: Path) -> Any:
    """Read a file written by ``torch.save`` without running anything in it."""
    try:
        # Many published checkpoints keep their command line's arguments; a namespace is inert.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever a damaged file leads it to
        with path.open("rb") as file:
            pickled = file.read(1) == b"\x80"
        if pickled and not is_legacy(path):
            return read_array_pickle(path)
        raise SourceError(_explain(path, error)) from error


MAGIC = 0x1950A86A20F9469CFC6C
"""Number with which ``torch.save`` began files before torch 1.6, pickled by itself."""


def is_legacy(path: Path) -> bool:
    """Whether ``torch.save`` before torch 1.6 wrote a pickle, by the number that it begins with."""
    with path.open("rb") as file:
        return pickle.dumps(MAGIC, protocol=2)[2:-1] in file.read(32)


def _explain(path: Path, error: Exception) -> str:
    """Message for a file that torch cannot read."""
    text = str(error)
    wanted = re.search(r"GLOBAL ([\w.]+)|[Cc]lass(?: name)? <class '([\w.]+)'>", text)
    with path.open("rb") as file:
        start = file.read(16)
    if "TorchScript" in text:
        return f"{path} is a TorchScript archive: save its state_dict() with torch.save instead."
    if wanted:
        return (
            f"{path} is refused: reading it would call {wanted[1] or wanted[2]}, and a file that "
            "calls code can do anything. If you trust it, load it yourself and save only its "
            "state_dict()."
        )
    if start.startswith(b"\x80") or start.startswith(b"PK"):
        return f"{path} is truncated or damaged: copy or download it again."
    return (
        f"{path} is not a checkpoint: it begins with {start!r}. Expected a file written by "
        "torch.save or safetensors."
    )


def unwrap(content: Any) -> dict[str, Tensor]:
    """Take the weights out of the usual containers.

    Averaged weights (``ema`` and the like) come first, then the first known container in the
    file's order that holds a kernel, at any depth. Without a known container all tensors are taken,
    nested keys joined by dots.

    Returns:
        The tensors by key; empty if there are none.
    """
    return _unwrap(content, set())[0]


def _unwrap(content: Any, seen: set[int]) -> tuple[dict[str, Tensor], list[str]]:
    """Unwrap, entering no mapping twice: a pickle may contain itself. Names the containers, too."""
    if not isinstance(content, Mapping) or id(content) in seen:
        return {}, []
    seen.add(id(content))
    ordered = [key for key in AVERAGED if key in content]
    ordered += [key for key in content if key in CONTAINERS]
    for key in ordered:
        state, containers = _unwrap(content[key], seen)
        if _holds_kernels(state):
            return state, [key, *containers]
    return without_wrappers(_flatten(content, set())), []


def _unwrap_at(content: Any, keys: Sequence[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Unwrap what is under some keys, one inside of the other."""
    for key in keys:
        content = content[key]
    state, containers = _unwrap(content, set())
    return state, [*keys, *containers]


def _others(
    content: Any, containers: list[str], state: Mapping[str, Tensor]
) -> list[tuple[str, ...]]:
    """Find containers of other weights of the same network.

    Args:
        content: content of the file.
        containers: keys that lead to the weights, outermost first.
        state: the weights.

    Returns:
        Keys that lead to each of them.
    """
    wanted = _kernels(state)
    found: list[tuple[str, ...]] = []
    for depth, chosen in enumerate(containers):
        for key, inner in content.items():
            known = key == chosen or inner is content[chosen]
            if known or not isinstance(inner, Mapping) or not isinstance(key, str):
                continue
            other, _ = _unwrap(inner, set())
            if len(wanted & _kernels(other)) >= LIKENESS * len(wanted):
                found.append((*containers[:depth], key))
        content = content[chosen]
    return found


def _kernels(state: Mapping[str, Tensor]) -> set[tuple[str, ...]]:
    """Kernels by the last two parts of their names and their shapes."""
    return {
        (*key.split(".")[-2:], *map(str, tensor.shape))
        for key, tensor in state.items()
        if tensor.ndim >= 2
    }


WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Parts that ``torch.compile``, FSDP and activation checkpointing add to keys, at any place."""


def without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove what ``torch.compile``, FSDP and activation checkpointing have added to the keys."""

    def plain(key: str) -> str:
        for wrapper in WRAPPERS:
            key = key.replace(wrapper, "")
        return key

    return {plain(key): tensor for key, tensor in state.items()}


def _flatten(content: Mapping[Any, Any], seen: set[int]) -> dict[str, Tensor]:
    """Collect the tensors of nested mappings under dotted keys."""
    seen.add(id(content))
    state: dict[str, Tensor] = {}
    for key, value in content.items():
        if isinstance(value, Tensor):
            state[str(key)] = value.detach()
        elif isinstance(value, Mapping) and id(value) not in seen:
            state |= {f"{key}.{inner}": tensor for inner, tensor in _flatten(value, seen).items()}
    return state


def _holds_kernels(state: Mapping[str, Tensor]) -> bool:
    """Whether any tensor could be a kernel, which counters and averages' decays are not."""
    return any(tensor.ndim >= 2 for tensor in state.values())


INDEX = ".index.json"
"""Suffix of an index file, after the name that a single file would have."""

HUB_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Names of weight files in the Hugging Face hub's layout; the first that exists is taken."""


def weights_in(folder: Path) -> Path | None:
    """Find the weight file or shard index of a folder in the hub's layout; ``None`` without one."""
    return next((folder / name for name in HUB_FILES if (folder / name).is_file()), None)


def whole_of(part: Path) -> str:
    """What the name of one part of a sharded checkpoint says about the whole; empty for others."""
    found = re.fullmatch(r"(.+)-\d{5}-of-(\d{5})(\..+)", part.name)
    if found is None:
        return ""
    return f"one of {int(found[2])} parts: give the folder, or {found[1]}{found[3]}{INDEX}"


def read_shards(index: Path) -> dict[str, Tensor]:
    """Read a sharded checkpoint: all files that its index names.

    Args:
        index: JSON file with ``weight_map``, the name of the file of each tensor.

    Returns:
        All tensors of the index.

    Raises:
        SourceError: The index cannot be read or names files elsewhere, or a file or a tensor is
            missing.
    """
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        places = dict(content["weight_map"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise SourceError(
            f"{index} is no index of weights ({type(error).__name__}: {error}); expected JSON with "
            "weight_map, the file of each tensor."
        ) from error
    state: dict[str, Tensor] = {}
    for name in sorted({str(place) for place in places.values()}):
        # An index may come from anybody: it names files beside it, and no others.
        if Path(name).name != name:
            raise SourceError(f"{index} names {name!r}, which does not lie beside it.")
        if not (index.parent / name).is_file():
            raise SourceError(
                f"{index.parent / name} is missing, one of {len(set(places.values()))} parts that "
                f"{index.name} names: copy or download it, too."
            )
        state |= read_part(index.parent / name)
    if absent := [key for key in places if key not in state]:
        raise SourceError(
            f"the parts that {index} names lack {absent[0]!r}"
            f"{f' and {len(absent) - 1} other tensors' if len(absent) > 1 else ''}: download all "
            "of them again."
        )
    return without_wrappers({key: state[key] for key in places})


def write_tensors(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors, atomically.

    Args:
        state: tensors by name, on any device; they may share memory.
        path: file to write; a missing folder is created.
        metadata: entries of the file's header, besides the format.
    """
    # Copies, because safetensors refuses tensors that share memory.
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in state.items()}
    with atomic_file(path) as part:
        save_file(tensors, part, metadata={"format": "pt", **metadata})

"""Read a weight file that nobody vouches for: no code in it is run, and containers are unwrapped.

Only ``torch.load(weights_only=True)`` and safetensors read the file; its first bytes, not its
ending, decide which. Whether the tensors fit an architecture is not asked here.
"""

from __future__ import annotations

import argparse
import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from zoo_lightning.errors import SourceError, nearest
from zoo_lightning.run_folder import describe_ensemble
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
"""Containers of averaged weights, taken before all others because they are usually better: teachers
of self-supervised training are averages of their students, and what the authors evaluate."""

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
"""Containers of which the first in the file that holds kernels is taken."""


def is_safetensors(path: Path) -> bool:
    """Tell from a file's first bytes, or failing those its ending, whether it is safetensors."""
    with path.open("rb") as file:
        start = file.read(9)
    if start.startswith(b"PK") or start[:1] == b"\x80":
        return False
    return start[8:9] == b"{" or path.suffix.lower() == ".safetensors"


def read_file(path: Path, container: str | None = None) -> dict[str, Tensor]:
    """Read all tensors of a weight file, unwrapped from the usual containers.

    Args:
        path: A file written by ``torch.save`` (either format) or by safetensors.
        container: Key under which the weights are, with dots for keys inside of others; ``None``
            finds them.

    Returns:
        The tensors by key, on the CPU, in the file's order.

    Raises:
        SourceError: If the file is missing, empty, damaged, not a checkpoint, holds no weights or
            those of an ensemble, or would run code to be read. The message names the file and the
            mend.
    """
    content, state, _ = read_contents(path, container)
    check_one_network(content, path)
    return state


def check_one_network(content: Any, path: Path) -> None:
    """Refuse an ensemble's checkpoint, whose weights are not those of one network.

    Raises:
        SourceError: It is one.
    """
    ensemble = describe_ensemble(content) if isinstance(content, Mapping) else ""
    if ensemble:
        raise SourceError(
            f"{path} is {ensemble}, and weights are taken from one network: give the run of one of "
            "them."
        )


def read_contents(
    path: Path, container: str | None = None
) -> tuple[Any, dict[str, Tensor], list[str]]:
    """Read a weight file as :func:`read_file` does, and keep what is around the weights.

    Returns:
        All that the file holds; the tensors; and the containers they were in, outermost first.

    Raises:
        SourceError: As :func:`read_file`.
    """
    path = Path(path)
    _check_present(path)
    try:
        content: Any = _load_safetensors(path) if is_safetensors(path) else _load_pickle(path)
        inner = content if container is None else _inside(content, container, path)
        state, containers = _unwrap(inner, set())
        containers = [*([] if container is None else [container]), *containers]
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
    return content, state, containers


def read_part(path: Path) -> dict[str, Tensor]:
    """Read one of several files that hold a network's tensors together, by their own keys.

    Raises:
        SourceError: As :func:`read_file`, but that a part may hold no kernels.
    """
    _check_present(path)
    try:
        content = _load_safetensors(path) if is_safetensors(path) else _load_pickle(path)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error}.") from error
    return _flatten(content, set()) if isinstance(content, Mapping) else {}


def _inside(content: Any, container: str, path: Path) -> Any:
    """What a file holds under a key, with dots for keys inside of others.

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
        raise SourceError(_explain(path, error)) from error


def _explain(path: Path, error: Exception) -> str:
    """Say what is wrong with a file that torch would not read."""
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
    pickled = start.startswith(b"\x80")
    if pickled and ("Unsupported operand" in text or "magic number" in text):
        return (
            f"{path} is refused: it is a pickle that torch.save did not write as usual, and "
            "reading such a file may run any code. If you trust it, load it yourself and save "
            "only its state_dict()."
        )
    if pickled or start.startswith(b"PK"):
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


WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What ``torch.compile``, FSDP and activation checkpointing put into keys, at any place."""


def without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take what wrappers of modules have added out of the keys, which are the network's then."""

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
    """Tell whether any tensor could be a kernel, which counters and averages' decays are not."""
    return any(tensor.ndim >= 2 for tensor in state.values())

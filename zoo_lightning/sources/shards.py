"""Weights in several files with an index, and folders as the Hugging Face hub has them."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from zoo_lightning.errors import SourceError
from zoo_lightning.sources.files import read_part, without_wrappers

INDEX = ".index.json"
"""How the name of an index ends; before it is the name that a single file would have."""

HUB_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Names of the weights in a folder as the hub has it, the first that is there being taken."""


def weights_in(folder: Path) -> Path | None:
    """The weight file, or the index of several, of a folder as the hub has it, if it is one."""
    return next((folder / name for name in HUB_FILES if (folder / name).is_file()), None)


def read_shards(index: Path) -> dict[str, Tensor]:
    """Read weights that lie in several files beside their index.

    Args:
        index: JSON with ``weight_map``, the name of the file of each tensor.

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

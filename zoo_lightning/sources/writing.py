"""Write a source's weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from zoo_lightning.whole_files import whole_file


def write_tensors(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors, whole or not at all.

    Args:
        state: tensors by name, on any device; they may share memory.
        path: of the file; its folder is made if it is absent.
        metadata: for the file's header, besides what says that the tensors are PyTorch's.
    """
    # Copies, because safetensors refuses tensors that share memory.
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in state.items()}
    with whole_file(path) as part:
        save_file(tensors, part, metadata={"format": "pt", **metadata})

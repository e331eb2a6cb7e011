"""Read weights of Keras: ``.h5`` of versions 2 and 3, ``.weights.h5`` and ``.keras``.

Only arrays and names are read, with h5py: no layer is built, no configuration is followed, and
links out of the file are refused. Kernels get torch's order of axes, and the leaves of the names
torch's words.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo_lightning.errors import SourceError

HDF5 = b"\x89HDF\r\n\x1a\n"
"""First bytes of an HDF5 file."""

ARCHIVED = "model.weights.h5"
"""Name of the weights inside a ``.keras`` archive."""

LARGEST_RATIO = 20
"""Largest ratio of the weights' size to that of their archive; weights hardly compress."""

LEAVES = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""Names of Keras' variables, and torch's words for them."""

VARIABLES = {
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "conv2d": ("kernel", "bias"),
    "depthwise_conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
}
"""Variables of a layer in order, where Keras 3 only numbers them, by the layer's kind."""

DEPTH = 16
"""Deepest nesting of groups that is read."""


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5, by its first bytes."""
    with path.open("rb") as file:
        return file.read(len(HDF5)) == HDF5


def is_keras_archive(path: Path) -> bool:
    """Whether a file is a ``.keras`` archive, by its contents."""
    try:
        with zipfile.ZipFile(path) as archive:
            return ARCHIVED in archive.namelist()
    except Exception:  # zipfile raises whatever a damaged directory leads it to
        return False


def read_keras(path: Path) -> dict[str, Tensor]:
    """Read the weights of a Keras model.

    Args:
        path: HDF5 file or ``.keras`` archive.

    Returns:
        Tensors by ``LAYER.weight``, ``LAYER.bias``, ``LAYER.running_mean``, ..., kernels
        ``(C_out, C_in, k, k)``.

    Raises:
        SourceError: h5py is not installed, the file is damaged, or it links to other files.
    """
    try:
        import h5py
    except ImportError as error:
        raise SourceError(
            f"{path} is of Keras, and h5py, which reads such files, is not installed: "
            "pip install -e '.[layouts]'"
        ) from error
    try:
        content: Any = path if is_hdf5(path) else _archived(path)
        names = {} if is_hdf5(path) else _names_in_order(path)
        with h5py.File(content, "r") as file:
            return _tensors(file, path, names)
    except SourceError:
        raise
    except Exception as error:  # h5py raises whatever a damaged file leads it to
        raise SourceError(
            f"{path} is damaged or no weights of Keras ({error}). Copy or download it again."
        ) from error


def _archived(path: Path) -> io.BytesIO:
    """Weights inside a ``.keras`` archive.

    Raises:
        SourceError: they are far larger than the archive.
    """
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo(ARCHIVED).file_size
        if size > LARGEST_RATIO * path.stat().st_size:
            raise SourceError(
                f"{path} is refused: it would unpack to {size} bytes, and has "
                f"{path.stat().st_size}."
            )
        return io.BytesIO(archive.read(ARCHIVED))


def _names_in_order(path: Path) -> dict[str, str]:
    """Layers' names by the paths that Keras 3 gives them, which count the layers of each kind."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    found: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for layer in config.get("config", {}).get("layers", []):
        kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(layer.get("class_name"))).lower()
        kind = kind.replace("conv2_d", "conv2d")
        number = counts[kind]
        counts[kind] += 1
        found[f"layers/{kind}{f'_{number}' if number else ''}"] = str(
            layer.get("config", {}).get("name", layer.get("name"))
        )
    return found


def _tensors(file: Any, path: Path, names: dict[str, str]) -> dict[str, Tensor]:
    """Tensors of all layers of a file."""
    found: dict[str, Tensor] = {}
    for place, dataset in _datasets(file, path):
        parent, _, leaf = place.rpartition("/")
        layer = parent.rpartition("/")[2]
        if layer == "vars":
            whole = parent.rpartition("/")[0]
            kind = re.sub(r"_\d+$", "", whole.rpartition("/")[2])
            variables = VARIABLES.get(kind, ())
            layer = _text(dataset.parent.attrs.get("name")) or names.get(whole, "")
            leaf = variables[int(leaf)] if leaf.isdigit() and int(leaf) < len(variables) else leaf
        leaf = leaf.partition(":")[0]
        if layer and leaf in LEAVES:
            found.setdefault(f"{layer}.{LEAVES[leaf]}", _tensor(dataset, layer, leaf))
    if not found and any(True for _ in _datasets(file, path)):
        raise SourceError(
            f"{path} has weights without the names of their layers: save the model as .keras or "
            ".h5 with Keras."
        )
    return found


def _text(value: Any) -> str:
    """Text of an attribute."""
    return value.decode() if isinstance(value, bytes) else str(value or "")


def _datasets(group: Any, path: Path, place: str = "", depth: int = 0) -> Any:
    """Yield arrays below a group with their paths, in order.

    Raises:
        SourceError: a link leads out of the file, or an array is not in it as it is.
    """
    import h5py

    for key in group:
        inner = f"{place}/{key}" if place else key
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise SourceError(f"{path} is refused: {inner} is a link to another place or file.")
        each = group[key]
        if isinstance(each, h5py.Dataset):
            if each.dtype.kind in "fiu" and each.size:
                _check_inside(each, path, inner)
                yield inner, each
        elif depth < DEPTH and not (depth == 0 and key.startswith("optimizer")):
            yield from _datasets(each, path, inner, depth + 1)


def _check_inside(dataset: Any, path: Path, place: str) -> None:
    """Refuse an array that is in another file, or takes more memory than the file has.

    Raises:
        SourceError: as described.
    """
    size = dataset.size * dataset.dtype.itemsize
    if dataset.external or dataset.is_virtual or dataset.id.get_storage_size() * 8 < size:
        raise SourceError(
            f"{path} is refused: the {size} bytes of {place} are not in the file as they are."
        )


def _tensor(dataset: Any, layer: str, leaf: str) -> Tensor:
    """Copy an array to a tensor, with torch's order of axes."""
    tensor = torch.tensor(dataset[()])
    if leaf.endswith("kernel") and tensor.ndim == 4:
        depthwise = leaf.startswith("depthwise") or re.search(r"depthwise|dwconv", layer)
        return tensor.permute(2, 3, 0, 1) if depthwise else tensor.permute(3, 2, 0, 1)
    return tensor.T if leaf == "kernel" and tensor.ndim == 2 else tensor

"""Read pickles of NumPy arrays, as detectron2 and Caffe2 publish them, without running code.

A pickle may call any function. This reader has inert classes of its own for the few names that
arrays need, and refuses a file with any other name before anything is called. NumPy sees numbers of
plain types only, never a type or a state from the file.
"""

from __future__ import annotations

import math
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo_lightning.errors import SourceError


class _Type:
    """Type of an array's numbers, such as ``<f4``."""

    def __init__(self, text: Any = "", *_: Any) -> None:
        if not isinstance(text, str) or not re.fullmatch(r"[<>|=]?([fiu][1248]|b1)", text):
            raise pickle.UnpicklingError(f"an array of type {text!r}")
        self.text = text

    def __setstate__(self, state: Any) -> None:
        """Take the order of bytes, and nothing else."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order in ("<", ">", "|", "="):
            self.text = order + self.text.lstrip("<>|=")


class _Array:
    """Array of plain numbers."""

    def __init__(self, *_: Any) -> None:
        self.values = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        """Take shape, type, order of axes and bytes."""
        _, shape, kind, by_columns, content = state
        self.values = _numbers(content, kind, shape, "F" if by_columns else "C")


def _numbers(content: Any, kind: Any, shape: Any, order: str) -> np.ndarray:
    """Make an array from bytes, which must be as many as its shape needs."""
    raw = content.encode("latin1") if isinstance(content, str) else content
    sides = shape if isinstance(shape, tuple) else (shape,)
    if not isinstance(kind, _Type) or not isinstance(raw, (bytes, bytearray)):
        raise pickle.UnpicklingError("an array that is not of plain numbers")
    values = np.frombuffer(bytes(raw), dtype=np.dtype(kind.text))
    if any(not isinstance(side, int) or side < 0 for side in sides):
        raise pickle.UnpicklingError(f"an array of shape {shape!r}")
    if math.prod(sides) != len(values):
        raise pickle.UnpicklingError(f"{len(values)} numbers for an array of shape {shape!r}")
    return values.reshape(sides, order="F" if order == "F" else "C")


def _reconstruct(*_: Any) -> _Array:
    """Make the array whose state the pickle sets next."""
    return _Array()


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any) -> _Array:
    """Make an array, as pickles of protocol 5 do."""
    array = _Array()
    array.values = _numbers(content, kind, shape, str(order))
    return array


def _scalar(kind: Any, content: Any) -> Any:
    """Make a number from its bytes."""
    return _numbers(content, kind, (), "C").item()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes that Python 2 kept in text."""
    return str(text).encode("latin1")


ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
}
for _core in ("core", "_core"):
    ALLOWED[f"numpy.{_core}.multiarray", "_reconstruct"] = _reconstruct
    ALLOWED[f"numpy.{_core}.multiarray", "scalar"] = _scalar
    ALLOWED[f"numpy.{_core}.numeric", "_frombuffer"] = _from_buffer


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler of dictionaries, lists, text, numbers and arrays of numbers alone."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the inert class for a name, and refuse all other names."""
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it would call {module}.{name}") from None


def read_array_pickle(path: Path) -> dict[str, Any]:
    """Read a pickle of a dictionary with NumPy arrays, such as detectron2's ``R-50.pkl``.

    Args:
        path: pickle; ``blobs`` of Caffe2 are taken for the weights.

    Returns:
        The dictionary, with tensors in place of arrays.

    Raises:
        SourceError: the file is damaged, no such dictionary, or would call anything else.
    """
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="latin1").load()
    except Exception as error:  # the unpickler raises whatever a damaged file leads it to
        raise SourceError(
            f"{path} is refused: it is no pickle of NumPy arrays alone ({error}), and reading any "
            "other pickle may run any code. If you trust it, load it yourself and save only its "
            "state_dict()."
        ) from error
    if not isinstance(content, dict):
        raise SourceError(f"{path} must be a pickle of a dictionary, got {type(content).__name__}.")
    inner = content.get("blobs")
    return _with_tensors({"model": inner} if isinstance(inner, dict) else content, set())


def _with_tensors(content: dict[Any, Any], seen: set[int]) -> dict[str, Any]:
    """Copy nested dictionaries, each once, with tensors in place of arrays."""
    seen.add(id(content))
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, _Array):
            found[str(key)] = _tensor(value.values)
        elif not isinstance(value, dict):
            found[str(key)] = value
        elif id(value) not in seen:
            found[str(key)] = _with_tensors(value, seen)
    return found


def _tensor(values: np.ndarray) -> Tensor:
    """Copy an array to a tensor, in this machine's order of bytes and a type that torch has."""
    return torch.tensor(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="))))

"""Cache of aligned or mixed kernels between evaluation passes, valid until parameters change.

A stored result is used while each tensor it was computed from has the version it had then, and
still lies in the same memory (``Tensor.is_set_to``). PyTorch raises a tensor's version with every
in-place change: optimiser steps, ``load_state_dict``, ``copy_`` under ``no_grad``. A new parameter,
a parameter that ``torch.func.functional_call`` puts in its place, assignment to ``.data`` and a
move to another device or type all bring other memory. An in-place change through ``.data`` is
invisible; a layer therefore clears its caches when it changes between training and evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")

COMPARABLE = ("cpu", "cuda", "mps")
"""Types of devices on which torch can tell whether two tensors share memory."""


class _Seen(NamedTuple):
    """A tensor as it was when a result was computed from it.

    Attributes:
        memory: view of the tensor's memory, which keeps that memory from being used again.
        version: number of in-place changes until then.
    """

    memory: Tensor
    version: int

    def is_unchanged(self, tensor: Tensor) -> bool:
        """Whether a tensor has this version and lies in this memory."""
        alike = tensor.dtype == self.memory.dtype and tensor.device == self.memory.device
        return alike and tensor._version == self.version and tensor.is_set_to(self.memory)


class KernelCache(Generic[Result]):
    """Cache of one result, valid while its input tensors are unchanged; copies are empty."""

    def __init__(self) -> None:
        self.clear()

    def __reduce__(self) -> tuple[type[KernelCache[Result]], tuple[()]]:
        return type(self), ()

    def clear(self) -> None:
        """Discard the stored result."""
        self._seen: tuple[_Seen, ...] = ()
        self._result: Result | None = None

    def get(self, sources: tuple[Tensor, ...], compute: Callable[[], Result]) -> Result:
        """Return the stored result if it is valid for these tensors, else compute it.

        Nothing is stored while gradients are recorded, since they must flow to the sources; nor
        under a compiler or tracer, nor for tensors without a version or comparable memory.

        Args:
            sources: tensors that the result is computed from, at least one.
            compute: function that computes the result.
        """
        watched = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if watched or torch.is_grad_enabled() or not all(map(_is_comparable, sources)):
            return compute()
        if self._result is None or not self._is_valid(sources):
            self._result = compute()
            self._seen = tuple(_Seen(t.detach(), t._version) for t in sources)
        return self._result

    def _is_valid(self, sources: tuple[Tensor, ...]) -> bool:
        return len(sources) == len(self._seen) and all(
            seen.is_unchanged(tensor) for seen, tensor in zip(self._seen, sources, strict=True)
        )


def _is_comparable(tensor: Tensor) -> bool:
    """Whether a tensor has a version and memory that torch can compare."""
    return not tensor.is_inference() and tensor.device.type in COMPARABLE

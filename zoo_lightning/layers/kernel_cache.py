"""Aligned or mixed kernels kept between evaluation passes for as long as nothing changes.

A cache knows what its content was computed from by identity, address, version, type and place of
each tensor. PyTorch counts every in-place change (optimiser steps, ``load_state_dict``, ``copy_``
under ``no_grad``) in a tensor's version; moving or replacing a parameter changes its address. What
it cannot see is an in-place change through ``.data``: a module therefore clears its cache when it
changes between training and evaluation, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class KernelCache:
    """One remembered result and what it came from. Copies and pickles of it are empty."""

    def __init__(self) -> None:
        self.clear()

    def __reduce__(self) -> tuple[type[KernelCache], tuple[()]]:
        return type(self), ()

    def clear(self) -> None:
        """Forget."""
        self._key: tuple | None = None
        self._sources: tuple[Tensor, ...] = ()
        self._result: Any = None

    def get(self, sources: tuple[Tensor, ...], compute: Callable[[], Any]) -> Any:
        """The result of ``compute()``, remembered if that is right.

        Nothing is remembered while gradients are recorded, for they must flow to the sources; nor
        while a compiler or tracer looks on, nor for tensors without a version.

        Args:
            sources: the tensors that the result is computed from.
            compute: computes it.
        """
        watched = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if watched or torch.is_grad_enabled() or any(t.is_inference() for t in sources):
            return compute()
        key = tuple((id(t), t.data_ptr(), t._version, t.dtype, t.device) for t in sources)
        if key != self._key:
            self._result = compute()
            # The sources are held, so that no other tensor can come to have their identity.
            self._key, self._sources = key, sources
        return self._result

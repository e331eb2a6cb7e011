"""Matrix products with fast gradients, through the fastest library available.

They compute the same as ``torch.matmul``, up to rounding. On CPUs, PyTorch hands float32 products
to MKL, which leaves half the vector width of AVX-512 processors of other makers unused; oneDNN,
which PyTorch ships for its convolutions, does not. So large float32 products on a CPU go through
oneDNN's inner product, all others through ``torch.matmul``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_ONEDNN_LINEAR: Callable[..., Tensor] | None = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
"""oneDNN's inner product ``a bᵀ``: a private operation of torch, which TorchInductor calls. Without
it :func:`row_products` goes through ``torch.matmul``, slower by up to two on AVX-512 processors of
other makers than Intel; a test fails if it is gone or takes other arguments."""

LEAST_DEPTH = 96
"""Terms per sum below which copying the result into its batch costs as much as oneDNN gains."""

LEAST_WORK = 2**18
"""Multiplications below which the overhead of a call (10 µs) costs as much as oneDNN gains."""

COPY_ELEMENTS = 2**22
"""Elements (16 MiB) of a transposed operand that are copied at a time: the memory is used again at
once, where that of one large copy would have to be mapped each time."""


def autocast_off(device: torch.device) -> torch.autocast:
    """Context manager that disables autocast, so that tensors keep their types."""
    return torch.autocast(device.type, enabled=False)


def row_products(a: Tensor, b: Tensor) -> Tensor:
    """Multiply all rows of two matrices, ``a bᵀ``; not differentiable, see :func:`product`.

    Args:
        a: left rows, ``(..., p, q)``, at most one leading dimension.
        b: right rows, ``(..., n, q)``, the same leading dimension.

    Returns:
        Products ``(..., p, n)``, contiguous.
    """
    if _ONEDNN_LINEAR is None or not _suits_onednn(a, b):
        return a @ b.transpose(-1, -2)
    if a.dim() == 2:
        return _ONEDNN_LINEAR(a, b, None, "none", [], "")
    result = a.new_empty(len(a), a.shape[1], b.shape[1])
    for row, left, right in zip(result, a, b, strict=True):
        row.copy_(_ONEDNN_LINEAR(left, right, None, "none", [], ""))
    return result


def _suits_onednn(a: Tensor, b: Tensor) -> bool:
    """Whether oneDNN is at hand and faster for a product ``a bᵀ``."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False  # a compiler chooses its own library
    if a.device.type != "cpu" or not (a.dtype == b.dtype == torch.float32):
        return False
    enabled = torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
    depth = a.shape[-1]
    work = a.shape[-2] * b.shape[-2] * depth
    return enabled and depth >= LEAST_DEPTH and work >= LEAST_WORK


def _transposed_product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply ``aᵀ b``, some rows at a time where oneDNN would copy a whole large ``a``."""
    a, b = a.transpose(-1, -2), b.transpose(-1, -2)
    step = max(LEAST_DEPTH, COPY_ELEMENTS // a.shape[-2])
    onednn = _ONEDNN_LINEAR is not None and _suits_onednn(a, b)
    if a.dim() == 3 or a.numel() <= COPY_ELEMENTS or not onednn:
        return row_products(a, b)
    first, *others = zip(a.split(step, dim=1), b.split(step, dim=1), strict=True)
    total = row_products(*first)
    for each in others:
        total.add_(row_products(*each))
    return total


class _Product(torch.autograd.Function):
    """Matrix product ``a b`` whose gradients are contiguous, as parameters' should be."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        with autocast_off(a.device):
            return row_products(a, b.transpose(-1, -2))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        grad_a = grad_b = None
        with autocast_off(a.device):
            if ctx.needs_input_grad[0]:
                grad_a = row_products(grad, b)
            if ctx.needs_input_grad[1]:
                grad_b = _transposed_product(a, grad)
        return grad_a, grad_b


def product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply ``a b`` differentiably, in the tensors' own type also under autocast.

    Args:
        a: left matrix or matrices, ``(p, q)`` or ``(k, p, q)``.
        b: right matrix or matrices, ``(q, n)`` or ``(k, q, n)``.

    Returns:
        Product, ``(p, n)`` or ``(k, p, n)``.
    """
    return _Product.apply(a, b)

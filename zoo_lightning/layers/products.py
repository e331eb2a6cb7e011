"""Matrix products that know their own cheap gradients, through the fastest library at hand.

On CPUs, PyTorch hands float32 products to MKL, which leaves half the vector width of AVX-512
processors of other makers unused; oneDNN, which PyTorch ships for its convolutions, does not. So
large float32 products on a CPU go through oneDNN's inner product, all others through
``torch.matmul``. Both are exact to rounding. Nothing here knows of layers or sources.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ONEDNN_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None)

LEAST_DEPTH = 96
"""Below so many terms per sum the copy of the result into its batch costs what oneDNN gains."""

LEAST_WORK = 2**18
"""Below so many multiplications one call's overhead (about 10 µs) costs what oneDNN gains."""

COPY_ELEMENTS = 2**22
"""Operands that lie the wrong way round are copied in parts of so many elements (16 MiB): memory
that is used again at once, where one large copy would have to be mapped anew each time."""


def autocast_off(device: torch.device) -> torch.autocast:
    """Context in which tensors keep the types they have."""
    return torch.autocast(device.type, enabled=False)


def row_products(a: Tensor, b: Tensor) -> Tensor:
    """All products of rows, ``a bᵀ``; not differentiable, see :func:`product`.

    Args:
        a: ``(..., p, q)``, at most one leading dimension.
        b: ``(..., n, q)``, the same leading dimension.

    Returns:
        ``(..., p, n)``, contiguous.
    """
    if not _through_onednn(a, b):
        return a @ b.transpose(-1, -2)
    if a.dim() == 2:
        return _ONEDNN_LINEAR(a, b, None, "none", [], "")
    result = a.new_empty(len(a), a.shape[1], b.shape[1])
    for row, left, right in zip(result, a, b, strict=True):
        row.copy_(_ONEDNN_LINEAR(left, right, None, "none", [], ""))
    return result


def _through_onednn(a: Tensor, b: Tensor) -> bool:
    if _ONEDNN_LINEAR is None or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False  # a compiler chooses its own library
    if a.device.type != "cpu" or not (a.dtype == b.dtype == torch.float32):
        return False
    enabled = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    depth = a.shape[-1]
    work = a.shape[-2] * b.shape[-2] * depth
    return enabled and depth >= LEAST_DEPTH and work >= LEAST_WORK


def _transposed_product(a: Tensor, b: Tensor) -> Tensor:
    """``aᵀ b``, a part of the rows at a time where oneDNN would copy a whole large ``a``."""
    a, b = a.transpose(-1, -2), b.transpose(-1, -2)
    step = max(LEAST_DEPTH, COPY_ELEMENTS // a.shape[-2])
    if a.dim() == 3 or a.numel() <= COPY_ELEMENTS or not _through_onednn(a, b):
        return row_products(a, b)
    total = None
    for left, right in zip(a.split(step, dim=1), b.split(step, dim=1), strict=True):
        part = row_products(left, right)
        total = part if total is None else total.add_(part)
    return total


class _Product(torch.autograd.Function):
    """``a b`` whose gradients come out contiguous, as parameters want them."""

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
    """Differentiable ``a b`` in the tensors' own type, also under autocast.

    Args:
        a: ``(p, q)`` or ``(k, p, q)``.
        b: ``(q, n)`` or ``(k, q, n)``.

    Returns:
        ``(p, n)`` or ``(k, p, n)``.
    """
    return _Product.apply(a, b)

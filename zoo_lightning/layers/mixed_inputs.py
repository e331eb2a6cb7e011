"""Convolution with a kernel per sample by mixing inputs: large matrix products, nothing per sample.

``y_b = Σ_i W_i (a_bi x_b)`` over unfolded inputs ``x``: ``m`` products of whole batches. Backwards,
``U_i = W_iᵀ g`` serves inputs and gates alike, ``∂x_b = Σ_i a_bi U_ib`` and
``∂a_bi = ⟨U_ib, x_b⟩``, so that neither the sources' outputs nor any kernel per sample is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo_lightning.layers.products import autocast_off, row_products


class _MixedInputs(torch.autograd.Function):
    """See the module's docstring; rows are positions of samples, ``(B, L, D)``."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, gates: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight, gates)
        total = None
        with autocast_off(rows.device):
            for matrix, gate in zip(weight, gates.t(), strict=True):
                scaled = (rows * gate[:, None, None]).flatten(0, 1)
                part = row_products(scaled, matrix)
                total = part if total is None else total.add_(part)
        return total.view(*rows.shape[:2], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, gates = ctx.saved_tensors
        with_rows, with_weight, with_gates = ctx.needs_input_grad
        grad = grad.flatten(0, 1)
        grad_rows = torch.zeros_like(rows) if with_rows else None
        grad_weight = torch.empty_like(weight) if with_weight else None
        grad_gates = torch.empty_like(gates) if with_gates else None
        with autocast_off(rows.device):
            for i, matrix in enumerate(weight):
                gate = gates[:, i, None, None]
                if with_rows or with_gates:
                    back = row_products(grad, matrix.t()).view(rows.shape)
                if with_rows:
                    grad_rows.addcmul_(back, gate)
                if with_gates:
                    grad_gates[:, i] = (back * rows).sum((1, 2))
                if with_weight:
                    scaled = (rows * gate).flatten(0, 1)
                    grad_weight[i] = row_products(grad.t(), scaled.t())
        return grad_rows, grad_weight, grad_gates


def mix_inputs(rows: Tensor, weight: Tensor, gates: Tensor) -> Tensor:
    """``y_b = Σ_i a_bi x_b W_iᵀ``.

    Args:
        rows: unfolded inputs, ``(B, L, D)``.
        weight: ``(m, C_out, D)``, in the type of ``rows``.
        gates: ``(B, m)``, in the type of ``rows``.

    Returns:
        ``(B, L, C_out)``.
    """
    return _MixedInputs.apply(rows, weight, gates)

"""Losses and gradients that are no numbers, noticed at the step where they appear."""

from __future__ import annotations

from typing import Any, Literal, get_args

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from zoo_lightning.errors import NumbersError
from zoo_lightning.layers import AggregatedLayer
from zoo_lightning.shares import check_choice

NAMED = 8
"""Files of a batch that a message names."""

OVERFLOWS = 100
"""Steps in a row that mixed precision may leave out: its scale halves each time."""

Policy = Literal["stop", "skip"]


class FiniteNumbers(Callback):
    """Stops before a step that would put NaN or infinity into the weights, or leaves it out.

    The check costs one look at the loss and the gradients a step. Steps that mixed precision leaves
    out by itself, because gradients in half precision overflowed, are no fault: there the loss is a
    number. Not before a hundred of them in a row is it one.

    A step that is left out changes nothing: neither weights nor norm statistics nor the gates'
    moving average. How many there were is logged as ``skipped_steps``. For that these are copied
    before each step, with ``skip`` only.

    Args:
        policy: ``stop``, or ``skip`` to leave the step out and go on.

    Raises:
        NumbersError: in training, when the policy is ``stop``; it names the batch's files, and says
            what of loss, inputs and gradients is no number.
    """

    def __init__(self, policy: Policy = "stop") -> None:
        super().__init__()
        check_choice("on_nonfinite", policy, get_args(Policy))
        self.policy = policy
        self.skipped = 0
        self._losses: list[Tensor] = []
        self._batches: list[Any] = []
        self._buffers: dict[str, Tensor] = {}
        self._overflows = 0
        self._hooks: list[RemovableHandle] = []

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.policy != "skip" or pl_module.automatic_optimization:
            return
        # Only the optimiser itself tells where one of a batch's many steps ends.
        for optimizer in trainer.optimizers:
            hook = optimizer.register_step_post_hook(lambda *_: self._keep_buffers(pl_module))
            self._hooks.append(hook)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _keep_buffers(self, pl_module: pl.LightningModule) -> None:
        self._buffers = {n: b.detach().clone() for n, b in pl_module.named_buffers()}

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if not self._batches and self.policy == "skip":
            self._keep_buffers(pl_module)
        self._batches.append(batch)

    @override
    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        self._losses.append(loss.detach())

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        losses, batches = self._losses, self._batches
        self._losses = []
        if pl_module.automatic_optimization:  # otherwise a batch has many steps
            self._batches = []
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        loss_fine = bool(torch.stack([loss.float().isfinite().all() for loss in losses]).all())
        fine = loss_fine and _all_finite(gradients)
        if trainer.world_size > 1:  # all ranks must do the same
            fine = trainer.strategy.reduce_boolean_decision(fine)
            loss_fine = trainer.strategy.reduce_boolean_decision(loss_fine)
        if fine:
            self._overflows = 0
            return
        if loss_fine and getattr(trainer.precision_plugin, "scaler", None) is not None:
            self._overflows += 1
            if self._overflows <= OVERFLOWS:
                return  # the scaler leaves the step out and lowers its scale
        told = describe(losses, batches, pl_module)
        if self.policy == "stop":
            raise NumbersError(
                f"step {trainer.global_step}: {told}. Nothing was learned from it; the checkpoints "
                "are of before. Lower model.lr, look at the files, use 32-bit precision, or leave "
                "such steps out with --on_nonfinite skip"
            )
        self._leave_out(pl_module)
        self.skipped += 1
        rank_zero_warn(f"step {trainer.global_step} is left out: {told}")

    def _leave_out(self, pl_module: pl.LightningModule) -> None:
        for parameter in pl_module.parameters():
            parameter.grad = None
        with torch.no_grad():
            for name, buffer in pl_module.named_buffers():
                if name in self._buffers and buffer.shape == self._buffers[name].shape:
                    buffer.copy_(self._buffers[name])
        for module in pl_module.modules():
            if isinstance(module, AggregatedLayer):
                module.gate_sum, module.gate_count = None, 0

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        if not pl_module.automatic_optimization:
            self._batches = []
        if self.policy == "skip":
            pl_module.log("skipped_steps", float(self.skipped), batch_size=1)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped = state_dict["skipped"]


def _all_finite(tensors: list[Tensor]) -> bool:
    """Whether every number of every tensor is one, mostly by a single look at the device."""
    if not tensors:
        return True
    # A sum of squares is many times faster than a maximum is on CPUs.
    norms = torch._foreach_norm(tensors, 2)
    if bool(torch.stack([norm.float().isfinite() for norm in norms]).all()):
        return True
    # Squares of large numbers overflow where the numbers do not.
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def describe(losses: list[Tensor], batches: list[Any], pl_module: pl.LightningModule) -> str:
    """What is NaN or infinite, and which files the batch is of."""
    found = [f"the loss is {float(loss):g}" for loss in losses if not bool(loss.isfinite())][:1]
    names: list[str] = []
    for batch in batches:
        if isinstance(batch, dict):
            found += _wrong_inputs(batch)
            names += names_of(batch, pl_module)
    wrong = [
        name
        for name, parameter in pl_module.named_parameters()
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
    ]
    if wrong:
        found.append(f"{len(wrong)} gradients are not finite, the first that of {wrong[0]}")
    told = "; ".join(found)
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        told += f"; the batch is {', '.join(names[:NAMED])}{more}"
    return told


def _wrong_inputs(batch: dict[str, Any]) -> list[str]:
    found = []
    for key, value in batch.items():
        if isinstance(value, Tensor) and value.is_floating_point() and len(value):
            wrong = (
                (~value.isfinite()).flatten(1).any(dim=1) if value.dim() > 1 else ~value.isfinite()
            )
            if bool(wrong.any()):
                found.append(f"{key} of {int(wrong.sum())} of {len(value)} samples is not finite")
    return found


def names_of(batch: dict[str, Any], pl_module: pl.LightningModule) -> list[str]:
    """Files of a training batch's samples, or their numbers where they are of no file."""
    if "index" not in batch:
        return []
    data = getattr(pl_module.trainer, "datamodule", None)
    name = getattr(getattr(data, "train_set", None), "sample_name", "sample {}".format)
    return [str(name(index)) for index in batch["index"].tolist()]

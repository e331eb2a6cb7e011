"""Detect NaN and infinity in loss or gradients at the step where they appear."""

from __future__ import annotations

from typing import Any, Literal, get_args

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from zoo_lightning.callbacks.trainer_access import data_module, sum_over_processes
from zoo_lightning.errors import NumbersError
from zoo_lightning.models.initialization import check_choice
from zoo_lightning.nn import AggregatedLayer

NAMED = 8
"""Largest number of a batch's files that a message names."""

OVERFLOWS = 100
"""Largest number of consecutive steps that mixed precision may skip, halving its scale."""

Policy = Literal["stop", "skip"]


class FiniteNumbers(Callback):
    """Stop before a step that would make weights NaN or infinite, or skip the step.

    The check reads the loss and the gradients once a step. Steps that mixed precision skips by
    itself, because half-precision gradients overflowed although the loss is finite, are tolerated
    up to a hundred in a row.

    A skipped step changes nothing: neither weights nor norm statistics nor the gates' moving
    average. Their number is logged as ``skipped_steps``. With ``skip``, buffers are copied before
    each step.

    Args:
        policy: ``stop``, or ``skip`` to skip the step and continue.

    Raises:
        NumbersError: a loss or gradient is not finite and the policy is ``stop``; the message names
            the batch's files, and which of loss, inputs and gradients are not finite.
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
        # Only the optimiser itself knows where one of a batch's many steps ends.
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
        loss_fine, fine = _are_finite(losses, gradients)
        if fine:
            self._overflows = 0
            return
        if loss_fine and getattr(trainer.precision_plugin, "scaler", None) is not None:
            self._overflows += 1
            if self._overflows <= OVERFLOWS:
                return  # the scaler skips the step and lowers its scale
        found = describe(losses, batches, pl_module)
        if self.policy == "stop":
            raise NumbersError(
                f"step {trainer.global_step}: {found}. Nothing was learned from it; the "
                "checkpoints are of earlier steps. Lower model.lr, look at the files, use 32-bit "
                "precision, or skip such steps with --on_nonfinite skip"
            )
        self._skip(pl_module)
        self.skipped += 1
        rank_zero_warn(f"step {trainer.global_step} is skipped: {found}")

    def _skip(self, pl_module: pl.LightningModule) -> None:
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


def _are_finite(losses: list[Tensor], gradients: list[Tensor]) -> tuple[bool, bool]:
    """Whether losses, and losses and gradients, are finite in all processes.

    Both answers are read from the device at once, so that the host waits for it once a step.
    """
    wrong_losses = torch.stack([~loss.float().isfinite().all() for loss in losses]).any()
    # A sum of squares is many times faster than a maximum is on CPUs.
    norm = get_total_norm(gradients) if gradients else torch.zeros_like(losses[0])
    loss_fine, fine = _nowhere(wrong_losses, ~norm.isfinite())
    if loss_fine and not fine:
        # Squares of large numbers overflow where the numbers do not.
        wrong = torch.stack([~gradient.isfinite().all() for gradient in gradients]).any()
        _, fine = _nowhere(wrong_losses, wrong)
    return loss_fine, loss_fine and fine


def _nowhere(*wrong: Tensor) -> list[bool]:
    """Whether scalars of bool are false in all processes, by one message and one read."""
    counts = sum_over_processes(torch.stack(wrong).float())
    return [count == 0 for count in counts.tolist()]


def describe(losses: list[Tensor], batches: list[Any], pl_module: pl.LightningModule) -> str:
    """Describe what is NaN or infinite, and name the batch's files.

    Args:
        losses: losses of the step's batches.
        batches: batches that the step learns from.
        pl_module: task, with its gradients.
    """
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
    words = "; ".join(found)
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        words += f"; the batch is {', '.join(names[:NAMED])}{more}"
    return words


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
    """List the files of a training batch's samples, or sample numbers without files."""
    if "index" not in batch:
        return []
    data = data_module(pl_module.trainer)
    name = getattr(getattr(data, "train_set", None), "sample_name", "sample {}".format)
    return [str(name(index)) for index in batch["index"].tolist()]

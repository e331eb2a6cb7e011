"""L2-SP: fine-tuning with a penalty on the distance from the initial weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from typing_extensions import override

from zoo_lightning.errors import ConfigError

if TYPE_CHECKING:
    from torch.optim import Optimizer


class L2SP(Callback):
    """Penalise the distance from the pretrained weights, instead of weight decay.

    The penalty is ``α/2 ‖w_S - w_S⁰‖² + β/2 ‖w_N‖²``, where ``w_S`` are the backbone's weights,
    ``w_S⁰`` their values before the first step and ``w_N`` the new head's (Li, Grandvalet and
    Davoine, *Explicit Inductive Bias for Transfer Learning with Convolutional Networks*, ICML 2018,
    equation 2). It is decoupled from the loss as AdamW's weight decay is (Loshchilov and Hutter,
    *Decoupled Weight Decay Regularization*, ICLR 2019, algorithm 2): before each step, a weight
    moves by learning rate times ``α`` towards its initial value. As part of the loss, the penalty
    would dominate the small gradients in Adam's moments. Set ``model.weight_decay: 0`` as well.

    Args:
        alpha: strength ``α`` for the backbone, at least 0; 0.1 and 0.01 are usual in the paper.
        beta: strength ``β`` for the head, at least 0; 0.01 in the paper.

    Raises:
        ConfigError: a strength is below 0.
    """

    def __init__(self, alpha: float = 0.1, beta: float = 0.01) -> None:
        super().__init__()
        if alpha < 0 or beta < 0:
            raise ConfigError(f"alpha and beta must be at least 0, got {alpha} and {beta}")
        self.alpha, self.beta = alpha, beta
        self.start: dict[str, Tensor] = {}

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.start:  # a resumed run has loaded them
            named = pl_module.named_parameters()
            self.start = {n: p.detach().clone() for n, p in named if not n.startswith("head.")}
        self.start = {n: value.to(pl_module.device) for n, value in self.start.items()}

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        names = {parameter: name for name, parameter in pl_module.named_parameters()}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._pull(parameter, self.start.get(names[parameter]), group["lr"])

    @torch.no_grad()
    def _pull(self, parameter: Tensor, start: Tensor | None, lr: float) -> None:
        """Move a weight towards its initial value; weights of a new head move towards 0."""
        if start is None:
            parameter.mul_(1 - min(1.0, lr * self.beta))
        else:
            parameter.lerp_(start, min(1.0, lr * self.alpha))

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"start": self.start}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.start = state_dict["start"]

"""L2-SP: fine-tuning that stays near its start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from typing_extensions import override

from zoo_lightning.errors import ConfigError

if TYPE_CHECKING:
    from torch.optim import Optimizer


class L2SP(Callback):
    """Penalty on the distance from the pretrained weights, in place of weight decay.

    Adds ``α/2 ‖w_S - w_S⁰‖² + β/2 ‖w_N‖²`` to the loss, where ``w_S`` are the backbone's weights,
    ``w_S⁰`` their values before the first step and ``w_N`` the new head's (Li, Grandvalet and
    Davoine, *Explicit Inductive Bias for Transfer Learning with Convolutional Networks*, ICML 2018,
    equation 2). What is added is the gradient of that, once per optimiser step and before gradients
    are clipped. Set ``model.weight_decay: 0`` beside it.

    Args:
        alpha: ``α``, at least 0; 0.1 and 0.01 are the paper's usual choices.
        beta: ``β``, at least 0; 0.01 in the paper.

    Raises:
        ConfigError: a number below 0.
    """

    def __init__(self, alpha: float = 0.1, beta: float = 0.01) -> None:
        super().__init__()
        if alpha < 0 or beta < 0:
            raise ConfigError(f"alpha and beta must be at least 0, got {alpha} and {beta}")
        self.alpha, self.beta = alpha, beta
        self.start: dict[str, Tensor] = {}

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.start:  # a run that goes on brings its own
            named = pl_module.named_parameters()
            self.start = {n: p.detach().clone() for n, p in named if not n.startswith("head.")}
        self.start = {n: value.to(pl_module.device) for n, value in self.start.items()}

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        for name, parameter in pl_module.named_parameters():
            if parameter.grad is None:
                continue
            if name in self.start:
                parameter.grad.add_(parameter.detach() - self.start[name], alpha=self.alpha)
            else:
                parameter.grad.add_(parameter.detach(), alpha=self.beta)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"start": self.start}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.start = state_dict["start"]

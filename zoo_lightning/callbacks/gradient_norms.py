"""How large gradients are, of the whole model and of its parts."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from typing_extensions import override

from zoo_lightning.tasks.parts import part_of


class GradientNorms(Callback):
    """Logs ``gradients/total`` and ``gradients/{backbone,alignment,gates,head}`` to every logger.

    Euclidean norms of what the optimiser is about to be given: of all accumulated batches and all
    devices, in the loss's own scale (mixed precision has been unscaled; a step that it is going to
    leave out shows infinity), before clipping.

    What PPO logs with a rollout is of its last minibatch. A task that optimises by itself must clip
    in its own ``on_before_optimizer_step``, which comes after this one.
    """

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        norms = gradient_norms(pl_module)
        values = {f"gradients/{part}": norm for part, norm in norms.items()}
        pl_module.log_dict(values, batch_size=1, rank_zero_only=True)


def gradient_norms(module: Any) -> dict[str, Tensor]:
    """Norms of a module's gradients: ``total``, and of each part that has some."""
    gradients: dict[str, list[Tensor]] = defaultdict(list)
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            gradients[part_of(name)].append(parameter.grad)
    norms = {part: get_total_norm(each) for part, each in gradients.items()}
    return {"total": get_total_norm(list(norms.values())), **norms} if norms else {}

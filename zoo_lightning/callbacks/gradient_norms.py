"""Log gradient norms of the whole model and of its parts."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from typing_extensions import override

from zoo_lightning.tasks.optimisation import part_of


class GradientNorms(Callback):
    """Log ``gradients/total`` and ``gradients/{backbone,alignment,gates,head}``, Euclidean norms.

    The gradients are those that the optimiser is about to use: over all accumulated batches and all
    devices, before clipping and, in mixed precision, unscaled (infinite at a step that is skipped).

    PPO logs those of a rollout's last minibatch. A task that optimises by itself must clip in its
    own ``on_before_optimizer_step``, which comes after this callback's.
    """

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        norms = gradient_norms(pl_module)
        values = {f"gradients/{part}": norm for part, norm in norms.items()}
        pl_module.log_dict(values, batch_size=1, rank_zero_only=True)


def gradient_norms(module: Any) -> dict[str, Tensor]:
    """Compute a module's gradient norms: ``total``, and of each part that has gradients."""
    gradients: dict[str, list[Tensor]] = defaultdict(list)
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            gradients[part_of(name)].append(parameter.grad)
    norms = {part: get_total_norm(each) for part, each in gradients.items()}
    return {"total": get_total_norm(list(norms.values())), **norms} if norms else {}

"""Learning from trained models: what a teacher's outputs add to the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo_lightning.methods.ensembles import Ensemble
from zoo_lightning.tasks.loading import load_task

if TYPE_CHECKING:
    from zoo_lightning.tasks import BaseTask


class Teacher:
    """The ensemble of trained runs as a teacher: ``(1 - w) L_task + w L_imitation``.

    What imitation is, the task says (its ``imitation``): of classes the distillation of Hinton et
    al. 2015, of landmarks the task's own loss with the teacher's points in place of the true ones.

    Args:
        runs: folders or checkpoints, trained on the same classes or points and images.
        weight: ``w`` in [0, 1].
        device: to compute on.
    """

    def __init__(self, runs: Sequence[str], weight: float, device: torch.device) -> None:
        self.weight = weight
        members = Ensemble([load_task(run) for run in runs])
        self.members = members.to(device).eval().requires_grad_(False)

    def __call__(self, task: BaseTask, loss: Tensor, images: Tensor, raw: Tensor) -> Tensor:
        """The loss with imitation.

        Args:
            task: the student.
            loss: its own.
            images: of the batch, normalised.
            raw: the student's output for them.
        """
        with torch.no_grad():
            taught = self.members(images)
        return (1 - self.weight) * loss + self.weight * task.imitation(raw, taught)

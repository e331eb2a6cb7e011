"""Distillation: learning from the outputs of trained models as well as from labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Teacher:
    """Trained model whose outputs a student learns: ``(1 - w) L_task + w L_imitation``.

    The student's task defines the imitation loss: for classes, that of Hinton et al. 2015; for
    landmarks, the task's own loss with the teacher's points instead of the true ones.

    Args:
        model: network with the same kind of output as the student; it is frozen.
        weight: weight ``w`` of the imitation loss, in [0, 1].
    """

    def __init__(self, model: nn.Module, weight: float) -> None:
        self.model = model.eval().requires_grad_(False)
        self.weight = weight

    def __call__(
        self,
        loss: Tensor,
        images: Tensor,
        raw: Tensor,
        imitation: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """Combine a student's loss with the imitation loss.

        Args:
            loss: the student's loss for the batch.
            images: the batch's normalised images ``(B, C, H, W)``.
            raw: the student's output for the images.
            imitation: function of the student's and the teacher's output that computes the
                imitation loss.
        """
        with torch.no_grad():
            taught = self.model(images)
        return (1 - self.weight) * loss + self.weight * imitation(raw, taught)

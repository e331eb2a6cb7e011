"""Networks as they are deployed: from normalised images to what the task's test judges by."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from torch import Tensor, nn

from zoo_lightning.backbone import ZooBackbone
from zoo_lightning.deployment.mixtures import as_mixtures
from zoo_lightning.tasks import BaseTask, LandmarkTask, PPOTask
from zoo_lightning.tasks.landmarks import UNKNOWN

if TYPE_CHECKING:
    from zoo_lightning.architecture import Architecture


class Scorer(nn.Module):
    """Scores of classes, of an image or of its cells.

    Args:
        architecture: which features the head sees.
        net: ordinary network, or mixtures.
        head: on its features.
    """

    def __init__(self, architecture: Architecture, net: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.architecture, self.net, self.head = architecture, net, head

    def forward(self, images: Tensor) -> Tensor:
        """The head's output for ``(B, 3, H, W)``."""
        return self.head(self.architecture.features(self.net, images))


class Pointer(Scorer):
    """Points of an image.

    Args:
        architecture: which features the head sees.
        net: ordinary network, or mixtures.
        head: of coordinates or heat maps.
        flip: ``(K,)`` which point takes the place of each in the mirror image, to average with
            that; ``None`` to look at the image alone.
    """

    flip: Tensor | None

    def __init__(
        self,
        architecture: Architecture,
        net: nn.Module,
        head: nn.Module,
        flip: Tensor | None = None,
    ) -> None:
        super().__init__(architecture, net, head)
        self.register_buffer("flip", flip)

    def forward(self, images: Tensor) -> Tensor:
        """Points ``(B, K, 2)``, fractions of the image, for ``(B, 3, H, W)``."""
        raw = super().forward(images)
        if self.flip is not None:
            mirrored = super().forward(images.flip(-1))
            raw = (raw + self.head.mirrored(mirrored, self.flip)) / 2
        return self.head.points(raw)


class Actor(Scorer):
    """A policy and its value of the state."""

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(B, A)`` and values ``(B,)`` for ``(B, C, H, W)`` uint8."""
        return self.head(self.architecture.features(self.net, observations))


def deployable(task: BaseTask, mirrored: bool = False) -> Scorer:
    """The network that computes what a trained task's test judges by, on the CPU.

    Args:
        task: lite and plain ones are folded, full ones become mixtures of their sources' outputs.
        mirrored: of landmarks: average with the mirror image.

    Returns:
        In evaluation mode, without gradients.
    """
    task = task.cpu().eval()
    backbone = task.backbone
    full = isinstance(backbone, ZooBackbone) and backbone.mode == "full"
    parts = (
        backbone.architecture,
        as_mixtures(backbone) if full else backbone.fold(),
        copy.deepcopy(task.head),
    )
    if isinstance(task, LandmarkTask):
        module: Scorer = Pointer(*parts, task.flip.clone() if mirrored else None)
    else:
        module = (Actor if isinstance(task, PPOTask) else Scorer)(*parts)
    return module.eval().requires_grad_(False)


def averages_with_mirror(task: BaseTask) -> bool:
    """Whether a task's own test averages with the mirror image."""
    return knows_mirror(task) and task.flip_test


def knows_mirror(task: BaseTask) -> bool:
    """Whether a task is of points that are known to swap in the mirror image, or to stay."""
    return isinstance(task, LandmarkTask) and int(task.flip[0]) != UNKNOWN

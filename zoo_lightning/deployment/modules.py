"""Networks as they are deployed: from normalised images to what the task's test judges by."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from torch import Tensor, nn

from zoo_lightning.backbone import ZooBackbone
from zoo_lightning.deployment.mixtures import as_mixtures
from zoo_lightning.methods.ensembles import JointOutput
from zoo_lightning.tasks import BaseTask, LandmarkTask, PPOTask
from zoo_lightning.tasks.landmarks import UNKNOWN

if TYPE_CHECKING:
    from zoo_lightning.architecture import Architecture
    from zoo_lightning.heads import CoordinateHead, HeatmapHead


class Scorer(nn.Module):
    """A head's output: scores of classes, of an image or of its cells, or what points are made of.

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


class Pointer(nn.Module):
    """Points of an image.

    Args:
        raw: gives the output of a head of coordinates or heat maps, or the joint one of several.
        head: such a head, for what its output means; its weights are not used.
        flip: ``(K,)`` which point takes the place of each in the mirror image, to average with
            that; ``None`` to look at the image alone.
    """

    flip: Tensor | None

    def __init__(
        self,
        raw: nn.Module,
        head: CoordinateHead | HeatmapHead,
        flip: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.raw = raw
        # Not the head itself: its weights belong to the network that it is part of.
        self.points, self.mirrored = head.points, head.mirrored
        self.register_buffer("flip", flip)

    def forward(self, images: Tensor) -> Tensor:
        """Points ``(B, K, 2)``, fractions of the image, for ``(B, 3, H, W)``."""
        raw = self.raw(images)
        if self.flip is not None:
            raw = (raw + self.mirrored(self.raw(images.flip(-1)), self.flip)) / 2
        return self.points(raw)


class Actor(Scorer):
    """A policy and its value of the state."""

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(B, A)`` and values ``(B,)`` for ``(B, C, H, W)`` uint8."""
        return self.head(self.architecture.features(self.net, observations))


def deployable(task: BaseTask, mirrored: bool = False) -> nn.Module:
    """The network that computes what a trained task's test judges by, on the CPU.

    Args:
        task: lite and plain ones are folded, full ones become mixtures of their sources' outputs;
            an ensemble becomes one module of all its networks.
        mirrored: of landmarks: average with the mirror image.

    Returns:
        In evaluation mode, without gradients.
    """
    task = task.cpu().eval()
    scorers = [_scorer(each) for each in task.networks()]
    module: nn.Module = scorers[0]
    if task.ensemble is not None:
        module = JointOutput(scorers, task.ensemble.shares)
    if isinstance(task, LandmarkTask):
        module = Pointer(module, scorers[0].head, task.flip.clone() if mirrored else None)
    return module.eval().requires_grad_(False)


def is_full(task: BaseTask) -> bool:
    """Whether a task of one network is a full zoo, which has a kernel for each sample."""
    return isinstance(task.backbone, ZooBackbone) and task.backbone.mode == "full"


def _scorer(task: BaseTask) -> Scorer:
    """The head's output of a task of one network."""
    backbone = task.backbone
    kind = Actor if isinstance(task, PPOTask) else Scorer
    net = as_mixtures(backbone) if is_full(task) else backbone.fold()
    return kind(backbone.architecture, net, copy.deepcopy(task.head))


def averages_with_mirror(task: BaseTask) -> bool:
    """Whether a task's own test averages with the mirror image."""
    return knows_mirror(task) and task.flip_test


def knows_mirror(task: BaseTask) -> bool:
    """Whether a task is of points that are known to swap in the mirror image, or to stay."""
    return isinstance(task, LandmarkTask) and int(task.flip[0]) != UNKNOWN

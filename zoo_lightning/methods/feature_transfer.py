"""Feature transfer: a network that learns a task and follows the features of frozen networks.

Adaptive feature transfer (Qiu et al., ICML 2024): to the task's loss is added
``β ‖K(φ) - K(D ψ)‖``, the distance between the kernel of the network's features ``φ`` on a batch
and that of the frozen networks' concatenated features ``ψ``, of which a learned diagonal ``D``
selects those that the task can use. See :mod:`zoo_lightning.nn.feature_kernels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import torch.distributed
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from typing_extensions import override

from zoo_lightning.callbacks.trainer_access import data_module
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.teachers import FeatureTeacher
from zoo_lightning.nn.feature_kernels import (
    joint_features,
    kernel_distance,
    kernel_errors,
    teachers_to_follow,
)

Kernels = Literal["joint", "each"]

View = Literal["same", "plain"]

SCALE_LR = 1e-2
"""Adam's learning rate for the diagonal, as in AFT's experiments."""

MOST_CACHED = 2**30
"""Largest size in bytes of the cached features of all training images."""


class FeatureTransfer:
    """Distance of a network's features from those of frozen networks.

    Args:
        teachers: frozen networks.
        weight: factor ``β`` of the distance in the loss, at least 0.
        kernels: ``joint`` for one kernel of all teachers' features, as in AFT, or ``each`` for a
            kernel of each teacher.
        drop: with ``each``, probability of not following a teacher, see
            :func:`~zoo_lightning.nn.feature_kernels.teachers_to_follow`.
        view: images that teachers see: the ``same`` augmented ones as the network that learns, or
            ``plain`` ones without augmentation, whose features are computed once.

    Attributes:
        scales: logits of the diagonal ``D``, ``(F_i,)`` for each teacher; 0, half of the greatest
            scale, at first.
        cache: features of all training images ``(N, F_i)`` by their index, if they are the same in
            every epoch; else empty.
    """

    def __init__(
        self,
        teachers: Sequence[FeatureTeacher],
        weight: float,
        kernels: Kernels,
        drop: float,
        view: View,
    ) -> None:
        self.teachers = nn.ModuleList(teachers)
        self.weight, self.kernels, self.drop, self.view = weight, kernels, drop, view
        self.scales = [nn.Parameter(torch.zeros(each.num_features)) for each in teachers]
        self.optimizer = torch.optim.Adam(self.scales, lr=SCALE_LR)
        self.cache: list[Tensor] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> FeatureTransfer:
        """Return itself: copies of a task, as for averaged weights, share what is frozen."""
        return self

    def to(self, device: torch.device) -> None:
        """Move the teachers and the diagonal to a device."""
        self.teachers.to(device)
        for each in self.scales:
            each.data = each.data.to(device)

    def taught(self, images: Tensor, index: Tensor | None = None) -> list[Tensor]:
        """Features ``(B, F_i)`` of each teacher.

        Args:
            images: normalised images ``(B, C, H, W)`` of a training batch.
            index: their indices in the training set, with which a cache is looked up.
        """
        if self.cache and index is not None:
            places = index.to(self.cache[0].device)
            return [each[places].to(images.device) for each in self.cache]
        return [teacher(images) for teacher in self.teachers]

    def distance(
        self, features: Tensor, taught: Sequence[Tensor], generator: torch.Generator
    ) -> Tensor:
        """Distance of features from the teachers', a scalar in [0, 2].

        Args:
            features: pooled features ``(B, F)`` of the network that learns.
            taught: features ``(B, F_i)`` of each teacher.
            generator: source of random numbers for teacher dropping.
        """
        scales = [each.sigmoid() for each in self.scales]
        if self.kernels == "joint":
            return kernel_distance(kernel_errors(features, [joint_features(taught, scales)]))
        each = [joint_features([t], [s]) for t, s in zip(taught, scales, strict=True)]
        errors = kernel_errors(features, each)
        followed = teachers_to_follow(errors, self.drop, generator) if self.drop else None
        return kernel_distance(errors, followed)

    def step(self) -> None:
        """Update the diagonal by the gradients of the last backward passes."""
        gradients = [each.grad for each in self.scales if each.grad is not None]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for gradient in gradients:
                torch.distributed.all_reduce(gradient)
                gradient /= torch.distributed.get_world_size()
        # The task's own step is skipped then, too. A gradient scaler's factor does not matter,
        # since Adam divides it out.
        if all(bool(gradient.isfinite().all()) for gradient in gradients):
            self.optimizer.step()
        self.optimizer.zero_grad()

    def mean_scales(self) -> dict[str, float]:
        """Mean of the diagonal over each teacher's features, in (0, 1)."""
        names = [each.name for each in self.teachers if isinstance(each, FeatureTeacher)]
        means = (float(each.detach().sigmoid().mean()) for each in self.scales)
        return {name: round(mean, 4) for name, mean in zip(names, means, strict=True)}

    def cached_bytes(self, samples: int) -> int:
        """Size of the cache for a number of training images, bytes."""
        return 4 * samples * sum(len(each) for each in self.scales)


def varies(data: Any) -> bool:
    """Whether a data module's training images differ from epoch to epoch, as far as it says."""
    check = getattr(data, "varies_training_images", None)
    return True if check is None else bool(check())


class FeatureScales(Callback):
    """Learn the diagonal of a :class:`FeatureTransfer`, and cache its teachers' features.

    The diagonal is no parameter of the task, so that checkpoints and exports hold the network
    alone. Features are cached before the first step if the training images are the same in every
    epoch.

    Hooks: ``on_train_start`` restores the diagonal and fills the cache;
    ``on_before_optimizer_step`` updates the diagonal. State: the diagonal and its optimiser's.
    """

    def __init__(self) -> None:
        super().__init__()
        self._restored: dict[str, Any] = {}
        self._transfer: FeatureTransfer | None = None

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._transfer = transfer = getattr(pl_module, "transfer", None)
        if transfer is None:
            return
        if self._restored:
            found = self._restored["scales"]
            for scale, value in zip(transfer.scales, found, strict=True):
                scale.data = value.to(scale.device)
            transfer.optimizer.load_state_dict(self._restored["optimizer"])
        if transfer.cache:  # a second fit
            return
        data = data_module(trainer)
        if is_cacheable(transfer, data, pl_module):
            fill_cache(transfer, data, pl_module.device)

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self._transfer is not None:
            self._transfer.step()

    @override
    def state_dict(self) -> dict[str, Any]:
        if self._transfer is None:
            return {}
        scales = [each.detach().clone() for each in self._transfer.scales]
        return {"scales": scales, "optimizer": self._transfer.optimizer.state_dict()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict


def is_cacheable(transfer: FeatureTransfer, data: Any, task: Any) -> bool:
    """Whether the teachers' features of each training image are the same in every epoch.

    Args:
        transfer: feature transfer of the task.
        data: data module, set up for ``fit``.
        task: task that may mix the images of a batch.

    Raises:
        ConfigError: ``view`` is plain, and the data module is not one of this package or has too
            many images.
    """
    if transfer.view == "plain" and not hasattr(data, "unvaried_batches"):
        raise ConfigError(
            f"feature_view plain needs a data module of zoo_lightning, got {type(data).__name__}; "
            "set feature_view: same"
        )
    if getattr(task, "mixing", None) is not None or (transfer.view == "same" and varies(data)):
        return False
    fits = transfer.cached_bytes(len(data.train_set)) <= MOST_CACHED
    if transfer.view == "plain" and not fits:
        raise ConfigError(
            f"feature_view plain keeps features of all {len(data.train_set)} training images, more "
            f"than {MOST_CACHED >> 20} MiB; set feature_view: same"
        )
    return fits


def fill_cache(transfer: FeatureTransfer, data: Any, device: torch.device) -> None:
    """Compute the teachers' features of all training images.

    Args:
        transfer: feature transfer whose cache is filled.
        data: data module of this package, set up for ``fit``.
        device: device of the teachers.
    """
    found: list[list[Tensor]] = [[] for _ in transfer.scales]
    plain = transfer.view == "plain"
    size = len(data.train_set)
    for batch in data.unvaried_batches(size) if plain else data.fixed_training_batches():
        images = data.on_after_batch_transfer({"image": batch["image"].to(device)}, 0)["image"]
        for features, kept in zip(transfer.taught(images), found, strict=True):
            kept.append(features.cpu())
    transfer.cache = [torch.cat(each) for each in found]

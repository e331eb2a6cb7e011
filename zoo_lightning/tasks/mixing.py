"""Mixup and CutMix by timm, reproducible from a seed.

Zhang et al., *mixup: Beyond Empirical Risk Minimization*, ICLR 2018; Yun et al., *CutMix:
Regularization Strategy to Train Strong Classifiers with Localizable Features*, ICCV 2019.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from timm.data import Mixup
from timm.data.mixup import mixup_target
from torch import Tensor


class BatchMixing:
    """Mix the images and labels of a batch with those of the same batch in reverse order.

    Args:
        num_classes: number ``C`` of classes.
        mixup: ``α`` of mixup's Beta(α, α); 0 for none.
        cutmix: ``α`` of CutMix's Beta(α, α); 0 for none. With both, each batch uses one of them at
            random.
        probability: probability that a batch is mixed at all.
        label_smoothing: label smoothing of the targets, in [0, 1).
    """

    def __init__(
        self,
        num_classes: int,
        mixup: float,
        cutmix: float,
        probability: float,
        label_smoothing: float,
    ) -> None:
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.mix = Mixup(
            mixup_alpha=mixup,
            cutmix_alpha=cutmix,
            prob=probability,
            label_smoothing=label_smoothing,
            num_classes=num_classes,
        )

    def __call__(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Mix the images of a batch in pairs, and their labels in the same proportions.

        Args:
            images: images ``(B, 3, H, W)``, not modified.
            labels: classes ``(B,)``.
            seed: seed of the random numbers, at least 0.

        Returns:
            New images, and class probabilities ``(B, C)`` as targets. The last of an odd number of
            images is not mixed.
        """
        even = len(images) // 2 * 2
        images = images.clone()
        with _numpy_seeded(seed):  # timm draws from numpy's global generator
            mixed, targets = self.mix(images[:even], labels[:even])
        rest = mixup_target(labels[even:], self.num_classes, 1.0, self.label_smoothing)
        return torch.cat([mixed, images[even:]]), torch.cat([targets, rest])


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global generator for a while, then restore its state."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)

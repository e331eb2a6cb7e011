"""Mixup and CutMix of a batch by timm, with random numbers that depend on the place in training.

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
    """Images and labels of a batch mixed with those of the same batch in reverse order.

    Args:
        num_classes: ``C``.
        mixup: ``α`` of mixup's Beta(α, α); 0 for none.
        cutmix: ``α`` of CutMix's; 0 for none. If both are on, each batch takes one of them.
        probability: that a batch is mixed at all.
        label_smoothing: of the targets.
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
        """Mix a batch.

        Args:
            images: ``(B, 3, H, W)``, left as they are.
            labels: ``(B,)`` classes.
            seed: all that the random numbers depend on, at least 0.

        Returns:
            New images and ``(B, C)`` shares of the classes. Of an odd number of images the last
            one is not mixed.
        """
        even = len(images) // 2 * 2
        images = images.clone()
        with _numpy_seeded(seed):  # timm draws from numpy's global generator
            mixed, targets = self.mix(images[:even], labels[:even])
        rest = mixup_target(labels[even:], self.num_classes, 1.0, self.label_smoothing)
        return torch.cat([mixed, images[even:]]), torch.cat([targets, rest])


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Numpy's global generator from a seed; it is put back as it was."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)

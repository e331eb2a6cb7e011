"""Distance between the kernels of two sets of features, in which a network follows frozen ones.

Pure functions. Kernels are matrices of the similarities of a batch's images, so that features of
different networks can be compared whatever their number is: Qiu et al., *Transferring Knowledge
from Large Foundation Models to Small Downstream Models*, ICML 2024 (adaptive feature transfer,
AFT).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 1e-8
"""Number that keeps roots and quotients of zero, and their gradients, finite."""


def cosine_kernel(features: Tensor) -> Tensor:
    """Cosines ``(B, B)`` of the images of a batch, in [-1, 1].

    Args:
        features: features ``(B, F)``; their mean over the batch is subtracted first.
    """
    centred = features - features.mean(dim=0)
    unit = F.normalize(centred, dim=1, eps=SMALLEST)
    return unit @ unit.T


def balanced(features: Tensor) -> Tensor:
    """Centre a network's features ``(B, F)`` and give them a mean squared norm of 1 over a batch.

    Networks whose features are large or many would otherwise dominate the concatenated ones.
    """
    centred = features - features.mean(dim=0)
    return centred / centred.square().sum(dim=1).mean().clamp_min(SMALLEST).sqrt()


def joint_features(taught: Sequence[Tensor], scales: Sequence[Tensor]) -> Tensor:
    """Concatenate the features of several networks, each feature times its scale.

    Args:
        taught: features ``(B, F_i)`` of each network.
        scales: scale ``(F_i,)`` of each feature.

    Returns:
        Features ``(B, F_1 + F_2 + ...)``.
    """
    return torch.cat([balanced(t) * s for t, s in zip(taught, scales, strict=True)], dim=1)


def kernel_errors(features: Tensor, taught: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of each image's row of kernels, ``(m, B)``.

    Args:
        features: features ``(B, F)`` of the network that learns.
        taught: features ``(B, F_i)`` of each of ``m`` networks.
    """
    own = cosine_kernel(features)
    return torch.stack([(own - cosine_kernel(each)).square().mean(dim=1) for each in taught])


def kernel_distance(errors: Tensor, counted: Tensor | None = None) -> Tensor:
    """Root of the mean of squared differences of kernels, a scalar: AFT's distance.

    Args:
        errors: result ``(m, B)`` of :func:`kernel_errors`.
        counted: which of them count, as ``(m, B)`` of 0 and 1 with at least one 1; ``None`` for
            all.
    """
    mean = errors.mean() if counted is None else (errors * counted).sum() / counted.sum()
    return (mean + SMALLEST).sqrt()


def teachers_to_follow(errors: Tensor, drop: float, generator: torch.Generator) -> Tensor:
    """Choose at random which teachers each image follows (teacher dropping).

    The teacher from which an image's features differ most always counts; each of the others is left
    out with a probability: Sariyildiz et al., *UNIC: Universal Classification Models via
    Multi-teacher Distillation*, ECCV 2024, section 3.3.

    Args:
        errors: error ``(m, B)`` of each image for each teacher.
        drop: probability in [0, 1] of leaving a teacher out.
        generator: source of the random numbers, on the CPU.

    Returns:
        ``(m, B)`` of 0 and 1, at least one 1 for each image.
    """
    kept = (torch.rand(errors.shape, generator=generator) >= drop).to(errors)
    return kept.scatter(0, errors.detach().argmax(dim=0, keepdim=True), 1.0)

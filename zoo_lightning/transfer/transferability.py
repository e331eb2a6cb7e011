"""Transferability scores: how well a source's features suit a task, without training.

- :func:`log_evidence`: LogME (You et al., *LogME: Practical Assessment of Pre-trained Models for
  Transfer Learning*, ICML 2021), the evidence of a Bayesian linear model, for regression and
  classification.
- :func:`h_score`: for classification (Bao et al., *An Information-Theoretic Approach to
  Transferability in Task Transfer Learning*, ICIP 2019), with the covariance shrunk as by Ibrahim
  et al. (*Newer is not always better*, ECML 2022).
- :func:`linear_fit`: for regression, the linear MSE of Nguyen et al. (*Simple Transferability
  Estimation for Regression Tasks*, UAI 2023).

All compute in float64, and a rotation of the features does not change them. They are written in
torch because ``fit`` uses them in the core install, which has neither SciPy nor scikit-learn; tests
compare them with those libraries' methods.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

ITERATIONS = 1000
"""Largest number of rounds of the fixed-point iteration; it usually takes fewer than 20."""

TOLERANCE = 1e-10
"""Relative change of the ratio of both precisions at which the iteration has converged."""

FLOOR = 1e-12
"""Smallest residual and smallest explained part, relative to the targets' square: where features
explain everything, or nothing, a precision would otherwise be infinite."""


@dataclass(frozen=True)
class Decomposed:
    """Singular value decomposition of features ``F = U diag(s) Vᵀ``, and projected targets.

    Attributes:
        squares: squared singular values ``s²``, ``(r,)``.
        inside: squared projections ``(Uᵀ y)²`` of each target, ``(r, K)``.
        outside: squared norm outside of the features' span, ``|y|² - |Uᵀ y|²``, ``(K,)``.
        size: number of samples and number of features, ``(n, D)``.
    """

    squares: Tensor
    inside: Tensor
    outside: Tensor
    size: tuple[int, int]


def decompose(features: Tensor, targets: Tensor) -> Decomposed:
    """Decompose features by SVD, and project the targets on the left singular vectors.

    Args:
        features: features of ``n`` samples, ``(n, D)``.
        targets: targets of the samples, ``(n, K)``.
    """
    features, targets = features.double(), targets.double()
    u, s, _ = torch.linalg.svd(features, full_matrices=False)
    inside = (u.T @ targets) ** 2
    outside = ((targets**2).sum(0) - inside.sum(0)).clamp_min(0)
    return Decomposed(s**2, inside, outside, (features.shape[0], features.shape[1]))


def log_evidence(problem: Decomposed) -> Tensor:
    """Maximum log evidence per sample of each target: LogME before averaging over targets.

    The model is ``y ~ N(F w, 1/β)``, ``w ~ N(0, 1/α)``. Its log evidence

        ``n/2 log β + D/2 log α - n/2 log 2π - β/2 |F m - y|² - α/2 |m|² - 1/2 log det A``,
        ``A = α + β FᵀF``, ``m = β A⁻¹ Fᵀ y``

    is maximised over α and β by the fixed-point iteration ``α = γ / |m|²``,
    ``β = (n - γ) / |F m - y|²``, ``γ = Σ β s² / (α + β s²)`` until convergence (the authors'
    code stops after at most 11 rounds). The paper centres neither features nor targets.

    Args:
        problem: decomposed features and ``K`` targets, none of which is 0 for all samples.

    Returns:
        Log evidence of each target, ``(K,)``; higher is better.
    """
    if not problem.squares.any():  # features of 0 explain nothing
        unexplained = problem.outside + problem.inside.sum(0)
        ones, none = torch.ones_like(problem.squares), torch.zeros_like(problem.inside)
        problem = replace(problem, squares=ones, inside=none, outside=unexplained)
    squares, samples = problem.squares[:, None], problem.size[0]
    widest = squares.max()
    least = FLOOR * (problem.inside.sum(0) + problem.outside)
    alpha, beta = torch.ones_like(least), torch.ones_like(least)
    for _ in range(ITERATIONS):
        gamma, weights, residual = _moments(problem, alpha, beta)
        before, lowest = alpha / beta, FLOOR * least / widest
        # At the smallest value a round would alternate between two values around its fixed point.
        swing = (alpha * gamma / lowest).sqrt()
        alpha = torch.where(weights > lowest, gamma / weights, swing)
        beta = (samples - gamma) / torch.maximum(residual, least)
        if ((alpha / beta - before).abs() <= TOLERANCE * before).all():
            break
    _, weights, residual = _moments(problem, alpha, beta)
    log_det = torch.log(alpha + beta * squares).sum(0) - len(squares) * torch.log(alpha)
    fit = beta * residual + alpha * weights
    constant = torch.log(2 * torch.tensor(torch.pi, dtype=torch.float64))
    return (samples * (torch.log(beta) - constant) - fit - log_det) / (2 * samples)


def _moments(problem: Decomposed, alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Moments ``γ``, ``|m|²`` and ``|F m - y|²`` of each target."""
    squares = problem.squares[:, None]
    # By the ratio of both, because each alone may be large where a fit is nearly perfect.
    ratio = alpha / beta
    gamma = (squares / (ratio + squares)).sum(0)
    weights = (squares * problem.inside / (ratio + squares) ** 2).sum(0)
    residual = ((ratio / (ratio + squares)) ** 2 * problem.inside).sum(0) + problem.outside
    return gamma, weights, residual


def linear_fit(problem: Decomposed, penalty: float = 1.0) -> Tensor:
    """Negative regularised mean squared error of a linear fit to each target.

    ``-min_w |F w - y|² / n + λ |w|²``; the paper's score is the sum over targets. Its unpenalised
    intercept is fitted if features and targets are centred. (The function that its authors released
    returns the first term alone, averaged over targets.)

    Args:
        problem: decomposed features and ``K`` targets.
        penalty: weight ``λ`` of the penalty; the paper compares 0 and 1.

    Returns:
        Score of each target, ``(K,)``, at most 0; higher is better.
    """
    samples = problem.size[0]
    ridge = samples * penalty
    shrunk = ridge / (problem.squares[:, None] + ridge) * problem.inside
    return -(problem.outside + shrunk.sum(0)) / samples


def h_score(features: Tensor, labels: Tensor) -> float:
    """H-score: separation of the classes relative to the features' covariance.

    ``tr(Σ_ε⁻¹ (1 - ε) Σ_z)`` with the covariance ``Σ_z`` of the samples' class means and the shrunk
    covariance ``Σ_ε = (1 - ε) Σ + ε tr(Σ)/D`` of the features; both factors are the paper's.
    Covariances divide by ``n``.

    Args:
        features: features of ``n`` samples, ``(n, D)``.
        labels: class indices, ``(n,)``.

    Returns:
        Score of at least 0, and below the number of classes; higher is better.
    """
    centred = features.double() - features.double().mean(0)
    samples, num_features = centred.shape
    classes, index = labels.unique(return_inverse=True)
    counts = torch.bincount(index, minlength=len(classes)).double()
    sums = torch.zeros(len(classes), num_features, dtype=torch.float64)
    means = sums.index_add_(0, index, centred) / counts[:, None]
    covariance = centred.T @ centred / samples
    intensity = shrinkage(centred)
    middle = covariance.diagonal().mean()
    if middle == 0:
        return 0.0
    shrunk = (1 - intensity) * covariance
    shrunk.diagonal().add_(intensity * middle)
    # Constant features leave a singular matrix if nothing is shrunk.
    inverse = torch.linalg.pinv(shrunk, hermitian=True)
    between = ((means @ inverse) * means).sum(1) @ counts / samples
    return float((1 - intensity) * between)


def shrinkage(centred: Tensor) -> float:
    """Optimal intensity of shrinking a covariance towards a multiple of the identity.

    Ledoit and Wolf, *A well-conditioned estimator for large-dimensional covariance matrices*, 2004:
    ``min(b², d²) / d²`` with ``d² = |Σ - μ|²`` and ``b² = Σ_k |x_k x_kᵀ - Σ|² / n²``.

    Args:
        centred: features with means of 0, ``(n, D)``.

    Returns:
        Intensity in [0, 1].
    """
    samples, num_features = centred.shape
    covariance = centred.T @ centred / samples
    square = (covariance**2).sum()
    distance = square - covariance.diagonal().sum() ** 2 / num_features
    fourth = ((centred**2).sum(1) ** 2).sum() / samples
    error = (fourth - square) / samples
    if distance <= 0:  # a multiple of the identity already
        return 1.0
    return float((error / distance).clamp(0, 1))

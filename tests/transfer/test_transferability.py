"""Transferability scores against slow independent computations, and what must not change them."""

import math

import numpy as np
import pytest
import torch

from zoo_lightning.transfer.transferability import (
    decompose,
    h_score,
    linear_fit,
    log_evidence,
    shrinkage,
)

SHAPES = [(30, 4), (12, 20), (25, 25)]


def problem(samples, width, noise=0.5, targets=3, seed=0):
    """Random features and targets that depend on them, in part."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(samples, width))
    weights = rng.normal(size=(width, targets)) / math.sqrt(width)
    return torch.tensor(features), torch.tensor(
        features @ weights + noise * rng.normal(size=(samples, targets))
    )


def classes(samples=60, width=8, distance=1.0, seed=0, count=3):
    """Features around a centre for each class, and the classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(samples) % count
    centres = distance * rng.normal(size=(count, width))
    return torch.tensor(rng.normal(size=(samples, width)) + centres[labels]), torch.tensor(labels)


def rotation(width, seed=0):
    """A random rotation."""
    return torch.linalg.qr(torch.tensor(np.random.default_rng(seed).normal(size=(width, width))))[0]


@pytest.mark.parametrize(("samples", "width"), SHAPES)
def test_the_evidence_is_the_largest_density_of_the_targets(samples, width):
    # Independently: y is normal with covariance F Fᵀ / α + 1 / β; its density is maximised by a
    # general optimiser.
    optimize = pytest.importorskip("scipy.optimize")
    stats = pytest.importorskip("scipy.stats")
    features, targets = problem(samples, width)
    found = log_evidence(decompose(features, targets))
    gram = features.numpy() @ features.numpy().T

    def negative(logs, y):
        covariance = gram / math.exp(logs[0]) + np.eye(samples) / math.exp(logs[1])
        return -stats.multivariate_normal.logpdf(y, cov=covariance)

    for k in range(targets.shape[1]):
        runs = [
            optimize.minimize(
                negative,
                start,
                args=(targets[:, k].numpy(),),
                method="Nelder-Mead",
                options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 2000},
            )
            for start in ([0.0, 0.0], [2.0, 3.0])
        ]
        best = -min(run.fun for run in runs) / samples
        assert found[k] == pytest.approx(best, abs=1e-7)


def test_the_evidence_of_one_feature_by_hand():
    # F = 1 with one sample more than features: y = (a, b), F = (1, 0): γ = β / (α + β).
    # The density factors: a ~ N(0, 1/α + 1/β), b ~ N(0, 1/β); at its largest the variances are a²
    # and b² where a² > b².
    a, b = 2.0, 0.5
    features = torch.tensor([[1.0], [0.0]])
    found = log_evidence(decompose(features, torch.tensor([[a], [b]])))
    expected = (-math.log(2 * math.pi) - 1 - math.log(a) - math.log(b)) / 2
    assert found.item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("samples", "width"), SHAPES)
def test_rotated_and_scaled_features_have_the_same_evidence(samples, width):
    features, targets = problem(samples, width)
    expected = log_evidence(decompose(features, targets))
    torch.testing.assert_close(
        log_evidence(decompose(7 * features @ rotation(width), targets)), expected
    )
    order = torch.randperm(samples)
    torch.testing.assert_close(log_evidence(decompose(features[order], targets[order])), expected)


def test_scores_of_numbers_fall_with_the_noise():
    for score in (log_evidence, linear_fit):
        problems = [decompose(*problem(200, 10, noise)) for noise in (0.1, 0.5, 2.0)]
        clear, noisy, noisiest = (score(each).mean() for each in problems)
        assert clear > noisy > noisiest


def test_features_that_hold_the_targets_beat_random_ones():
    features, targets = problem(100, 20, noise=0.1)
    other = torch.tensor(np.random.default_rng(9).normal(size=(100, 20)))
    for score in (log_evidence, linear_fit):
        good, bad = (score(decompose(each, targets)) for each in (features, other))
        assert (good > bad).all()


@pytest.mark.parametrize("case", ["perfect", "unrelated", "zero"])
def test_extreme_features_have_a_finite_evidence(case):
    features, targets = problem(20, 5, noise=0.0)
    if case == "unrelated":
        features = torch.cat([torch.zeros(10, 5), features[10:]])
        targets = torch.cat([targets[:10], torch.zeros(10, 3)])
    elif case == "zero":
        features = torch.zeros(20, 5)
    found = log_evidence(decompose(features, targets))
    assert torch.isfinite(found).all()
    if case != "perfect":  # what noise alone gives
        variance = (targets.double() ** 2).mean(0)
        expected = -(1 + torch.log(2 * torch.pi * variance)) / 2
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("samples", "width"), SHAPES)
@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_the_linear_fit_is_the_least_of_its_objective(samples, width, penalty):
    features, targets = problem(samples, width)
    found = linear_fit(decompose(features, targets), penalty)
    system = features.T @ features / samples + penalty * torch.eye(width, dtype=torch.float64)
    weights = torch.linalg.solve(system, features.T @ targets / samples)
    expected = ((features @ weights - targets) ** 2).mean(0) + penalty * (weights**2).sum(0)
    torch.testing.assert_close(found, -expected)


@pytest.mark.parametrize(("samples", "width"), [(60, 4), (30, 50)])
def test_the_h_score_is_that_of_its_equation(samples, width):
    features, labels = classes(samples, width)
    x = features.numpy() - features.numpy().mean(0)
    means = np.stack([x[labels.numpy() == label].mean(0) for label in labels.tolist()])
    covariance, between = x.T @ x / samples, means.T @ means / samples
    middle = np.trace(covariance) / width
    error = np.mean([np.sum((np.outer(row, row) - covariance) ** 2) for row in x]) / samples
    share = min(error / np.sum((covariance - middle * np.eye(width)) ** 2), 1)
    assert shrinkage(torch.tensor(x)) == pytest.approx(share)
    shrunk = (1 - share) * covariance + share * middle * np.eye(width)
    expected = (1 - share) * np.trace(np.linalg.solve(shrunk, between))
    assert h_score(features, labels) == pytest.approx(expected)


def test_the_h_score_sees_distance_and_not_rotation():
    scores = [h_score(*classes(distance=distance)) for distance in (0.0, 1.0, 3.0)]
    assert 0 <= scores[0] < scores[1] < scores[2] < 2  # one less than the classes
    features, labels = classes()
    assert h_score(5 * features @ rotation(8), labels) == pytest.approx(scores[1])
    assert h_score(torch.ones(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])) == 0


def test_the_evidence_of_classes_sees_their_distance():
    found = []
    for distance in (0.0, 1.0, 3.0):
        features, labels = classes(distance=distance)
        one_hot = torch.nn.functional.one_hot(labels)
        found.append(log_evidence(decompose(features, one_hot)).mean())
    assert found[0] < found[1] < found[2]

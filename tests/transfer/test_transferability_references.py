"""Transferability scores against fixed values that other software computed, and plain loops.

The values are scikit-learn 1.9's: ``LedoitWolf`` (its shrinkage, and its covariance in the equation
of the H-score), ``Ridge`` with ``alpha = n λ`` (its coefficients and predictions in the objective)
and the last score of ``BayesianRidge`` without intercept and with hyperpriors of 0, divided by n.
"""

import math

import numpy as np
import pytest
import torch

from zoo_lightning.transfer.ranking import Targets, score
from zoo_lightning.transfer.transferability import (
    decompose,
    h_score,
    linear_fit,
    log_evidence,
    shrinkage,
)

SHRINKAGE = {(40, 3, 3): 0.455500429998423, (20, 30, 4): 0.2964425100706003}
H_SCORE = {(40, 3, 3): 0.6307812244160198, (20, 30, 4): 1.4222518010203753}
LINEAR = {
    (40, 3, 3, 1.0): [-0.8856891312284294, -0.4201312172850359],
    (40, 3, 3, 0.05): [-0.5595686644673247, -0.32405325677897434],
    (20, 30, 4, 1.0): [-0.4749224064497656, -0.19787768088115826],
    (20, 30, 4, 0.05): [-0.36603431715905516, -0.06816871002996037],
}
EVIDENCE = {
    (40, 3, 3): [-0.6803966583777041, -0.8569734848784739, -0.5784175402778745],
    (20, 30, 4): [
        -0.5950114158329555,
        -0.6732620623306232,
        -0.6586463739711178,
        -0.5778595936898846,
    ],
}
SHAPES = list(SHRINKAGE)


def table(samples, width, count):
    """Features and classes by a formula, so that no random generator must stay the same."""
    row, column = np.arange(samples)[:, None], np.arange(width)[None]
    labels = (np.arange(samples) * 7) % count
    features = np.sin(1 + 0.7 * row * (column + 1)) + 0.1 * column
    return features + 0.3 * labels[:, None] * np.cos(column + 1.0), labels


def numbers(features):
    """Two targets that depend on the features in part."""
    waves = np.cos(0.9 * np.arange(len(features)))
    return np.stack([waves + features[:, 0], features[:, 1] * features[:, 2]], axis=1)


def one_hot(labels):
    return torch.tensor(labels[:, None] == np.unique(labels), dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_shrinkage_is_that_of_ledoit_and_wolf(shape):
    features, _ = table(*shape)
    centred = torch.tensor(features - features.mean(0))
    assert shrinkage(centred) == pytest.approx(SHRINKAGE[shape], rel=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_h_score_is_that_of_a_published_covariance(shape):
    features, labels = table(*shape)
    found = h_score(torch.tensor(features), torch.tensor(labels))
    assert found == pytest.approx(H_SCORE[shape], rel=1e-9)


@pytest.mark.parametrize(("shape", "penalty"), [(s, p) for s in SHAPES for p in (1.0, 0.05)])
def test_the_linear_fit_is_that_of_a_published_ridge_regression(shape, penalty):
    features, _ = table(*shape)
    targets = numbers(features)
    problem = decompose(
        torch.tensor(features - features.mean(0)), torch.tensor(targets - targets.mean(0))
    )
    assert linear_fit(problem, penalty).tolist() == pytest.approx(
        LINEAR[(*shape, penalty)], rel=1e-9
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_the_evidence_is_that_of_a_published_bayesian_regression(shape):
    features, labels = table(*shape)
    found = log_evidence(decompose(torch.tensor(features), one_hot(labels)))
    assert found.tolist() == pytest.approx(EVIDENCE[shape], abs=1e-9)


def evidence_by_matrices(features, target, rounds=1000):
    """One target's LogME by whole matrices, as the paper's algorithm reads."""
    samples, width = features.shape
    alpha = beta = 1.0
    for _ in range(rounds):
        a = alpha * np.eye(width) + beta * features.T @ features
        m = beta * np.linalg.solve(a, features.T @ target)
        eigenvalues = np.linalg.eigvalsh(beta * features.T @ features)
        gamma = sum(value / (alpha + value) for value in eigenvalues)
        if m @ m < 1e-12:  # features that tell nothing: α grows without end
            break
        alpha, beta = gamma / (m @ m), (samples - gamma) / np.sum((features @ m - target) ** 2)
    a = alpha * np.eye(width) + beta * features.T @ features
    m = beta * np.linalg.solve(a, features.T @ target)
    evidence = samples / 2 * math.log(beta) + width / 2 * math.log(alpha)
    evidence -= samples / 2 * math.log(2 * math.pi) + np.linalg.slogdet(a)[1] / 2
    evidence -= beta / 2 * np.sum((features @ m - target) ** 2) + alpha / 2 * (m @ m)
    return evidence / samples


@pytest.mark.parametrize("shape", SHAPES)
def test_the_score_of_classes_is_the_mean_evidence_of_one_hot_targets(shape):
    features, labels = table(*shape)
    targets = Targets("classes", torch.tensor(labels), torch.ones(len(labels), 1).bool())
    found = score(torch.tensor(features), targets)
    columns = one_hot(labels).numpy().T
    expected = np.mean([evidence_by_matrices(features, column) for column in columns])
    assert found["logme"] == pytest.approx(expected, abs=1e-7)
    assert found["logme"] == pytest.approx(np.mean(EVIDENCE[shape]), abs=1e-9)
    assert found["h_score"] == pytest.approx(H_SCORE[shape], rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_linear_score_of_points_is_summed_over_coordinates_and_has_an_intercept(shape):
    features, _ = table(*shape)
    values = torch.tensor(numbers(features)) + 5
    targets = Targets("points", values, torch.ones_like(values).bool())
    found = score(torch.tensor(features) - 3, targets)
    assert found["negative_linear_mse"] == pytest.approx(sum(LINEAR[(*shape, 1.0)]), rel=1e-9)

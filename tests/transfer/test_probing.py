"""Ridge regression on held-out parts, against numpy and by its properties."""

import math

import numpy as np
import pytest
import torch

from zoo_lightning.transfer.probing import (
    FOLDS,
    PENALTIES,
    block_folds,
    linear_probe,
    ridge,
    spread_folds,
)


def problem(samples=60, width=5, targets=3, noise=0.5):
    """Features, and targets that they hold up to noise and an offset."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(samples, width, generator=generator, dtype=torch.float64)
    weights = torch.randn(width, targets, generator=generator, dtype=torch.float64)
    rest = noise * torch.randn(samples, targets, generator=generator, dtype=torch.float64)
    return features, 2 + features @ weights + rest, torch.ones(samples, 1, dtype=torch.bool)


@pytest.mark.parametrize("width", [5, 80], ids=["narrow", "wide"])
def test_ridge_is_the_textbooks(width):
    features, values, _ = problem(width=width)
    fitted, targets, held = features[:40].numpy(), values[:40].numpy(), features[40:].numpy()
    found = ridge(features[:40], values[:40], features[40:])
    for index in (0, 7, len(PENALTIES) - 1):
        matrix = fitted.T @ fitted + PENALTIES[index] * 40 * np.eye(width)
        expected = held @ np.linalg.solve(matrix, fitted.T @ targets)
        np.testing.assert_allclose(found[index].numpy(), expected, rtol=1e-6, atol=1e-8)


def test_the_probe_is_the_best_ridge_over_all_held_out_parts():
    features, values, counted = problem()
    folds = block_folds(len(features))
    x, y, parts = features.numpy(), values.numpy(), folds.numpy()
    explained = []
    for penalty in PENALTIES:
        error = total = 0.0
        for fold in range(FOLDS):
            out = parts == fold
            mean, std, middle = x[~out].mean(0), x[~out].std(0), y[~out].mean(0)
            own, other = (x[~out] - mean) / std, (x[out] - mean) / std
            matrix = own.T @ own + penalty * len(own) * np.eye(x.shape[1])
            predicted = other @ np.linalg.solve(matrix, own.T @ (y[~out] - middle)) + middle
            error += ((predicted - y[out]) ** 2).sum()
            total += ((y[out] - middle) ** 2).sum()
        explained.append(1 - error / total)
    found = linear_probe(features, values, counted, folds)
    assert found.explained == pytest.approx(max(explained))
    assert found.penalty == PENALTIES[int(np.argmax(explained))]


def test_scale_and_offset_of_features_and_units_of_targets_change_nothing():
    features, values, counted = problem()
    folds = block_folds(len(features))
    expected = linear_probe(features, values, counted, folds)
    found = linear_probe(
        5 + features * torch.tensor([1, 10, 0.1, 3, 7]), 4 * values + 1, counted, folds
    )
    assert found.explained == pytest.approx(expected.explained)


def test_what_does_not_count_may_be_anything():
    features, values, _ = problem()
    counted = torch.ones_like(values, dtype=torch.bool)
    counted[::7, 1] = False
    folds = block_folds(len(features))
    expected = linear_probe(features, values, counted, folds)
    values[::7, 1] = math.nan
    assert linear_probe(features, values, counted, folds) == expected
    assert 0.5 < expected.explained < 1


def test_unrelated_features_explain_nothing_and_their_ridge_is_strong():
    _, values, counted = problem()
    noise = torch.randn(60, 40, generator=torch.Generator().manual_seed(1))
    found = linear_probe(noise, values, counted, block_folds(60))
    assert found.explained < 0.05
    assert found.penalty > 1


def test_features_that_never_vary_are_harmless():
    features, values, counted = problem()
    folds = block_folds(60)
    wider = torch.cat([features, torch.full((60, 2), 3.0)], dim=1)
    expected = linear_probe(features, values, counted, folds).explained
    assert linear_probe(wider, values, counted, folds).explained == pytest.approx(expected)
    assert linear_probe(torch.zeros(60, 4), values, counted, folds).explained <= 1e-9
    still = torch.ones(60, 3)
    assert math.isnan(linear_probe(features, still, counted, folds).explained)


def test_every_class_is_in_every_part_and_blocks_follow_one_another():
    labels = torch.arange(40) % 5
    parts = spread_folds(labels)
    for fold in range(FOLDS):
        assert torch.bincount(labels[parts == fold], minlength=5).tolist() == [2] * 5
    assert block_folds(8).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len(block_folds(2).unique()) == 2

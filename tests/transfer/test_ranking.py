"""Scores of features for landmarks and classes, hidden points included."""

import pytest
import torch

from zoo_lightning.errors import ConfigError
from zoo_lightning.transfer.ranking import Targets, join_targets, score, targets_of


def landmarks(samples=40, points=3):
    """Features, and targets that they hold up to noise and an offset."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(samples, 6, generator=generator)
    weights = torch.randn(6, 2 * points, generator=generator)
    noise = 0.1 * torch.randn(samples, 2 * points, generator=generator)
    values = 3 + (features @ weights + noise).double()
    return features, Targets("points", values, torch.ones_like(values, dtype=torch.bool))


def test_an_offset_of_features_or_landmarks_changes_nothing():
    features, targets = landmarks()
    moved = Targets("points", targets.values - 5, targets.counted)
    expected, found = score(features.double(), targets), score(features.double() + 2, moved)
    assert found == pytest.approx(expected)


def test_a_hidden_point_does_not_count_where_it_is_hidden():
    features, targets = landmarks()
    targets.counted[:10, 2:4] = False
    expected = score(features, targets)
    targets.values[:10, 2:4] = 1e3
    assert score(features, targets) == expected
    alone = [
        score(features, Targets("points", targets.values[:, :2], targets.counted[:, :2])),
        score(
            features[10:], Targets("points", targets.values[10:, 2:4], targets.counted[10:, 2:4])
        ),
        score(features, Targets("points", targets.values[:, 4:], targets.counted[:, 4:])),
    ]
    assert expected["logme"] == pytest.approx(sum(each["logme"] for each in alone) / 3)
    assert expected["negative_linear_mse"] == pytest.approx(
        sum(each["negative_linear_mse"] for each in alone)
    )


def test_points_that_never_move_are_left_out():
    features, targets = landmarks()
    still = torch.cat([targets.values, torch.full((40, 2), 0.5)], dim=1)
    with_still = Targets("points", still, torch.ones_like(still, dtype=torch.bool))
    assert score(features, with_still) == pytest.approx(score(features, targets))
    nothing = Targets("points", still[:, -2:], with_still.counted[:, -2:])
    with pytest.raises(ConfigError, match="no visible point varies"):
        score(features, nothing)


def test_one_class_cannot_be_ranked_by():
    targets = Targets("classes", torch.zeros(5, dtype=torch.long), torch.ones(5, 1).bool())
    with pytest.raises(ConfigError, match="one class"):
        score(torch.randn(5, 3), targets)


def test_samples_without_targets_are_refused():
    with pytest.raises(ConfigError, match="must have points with visible, label"):
        join_targets([{}])


def test_maps_of_labels_are_ranked_by_the_areas_of_their_classes():
    torch.manual_seed(0)
    labels = torch.randint(3, (40, 8, 8))
    labels[:, :2] = 255
    labels[:20, 2:5] = 1
    targets = join_targets([targets_of({"labels": part}) for part in labels.split(16)])
    assert targets.kind == "areas"
    assert targets.values.shape == (40, 3)
    expected = torch.stack([(labels == k).sum((1, 2)) / 48 for k in range(3)], 1).double()
    torch.testing.assert_close(targets.values, expected, rtol=1e-5, atol=1e-6)
    telling = torch.cat([expected.float(), torch.randn(40, 3)], 1)
    assert score(telling, targets)["logme"] > score(torch.randn(40, 6), targets)["logme"]

"""Scores of several labels an image, against scikit-learn's definitions and by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zoo_lightning.metrics import (
    LabelOutputs,
    LabelPredictions,
    average_precisions,
    best_thresholds,
    label_f1,
    label_scores,
)


def outputs(probabilities, labels):
    return LabelOutputs(torch.tensor(probabilities), torch.tensor(labels, dtype=torch.int8))


def test_average_precision_is_the_area_under_precision_by_recall():
    found = outputs([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]], [[1, 0], [0, 0], [1, 0]])
    # The first label: precision 1 at recall 1/2, 2/3 at recall 1; nobody has the second.
    precisions = average_precisions(found)
    assert precisions[0] == pytest.approx((1 + 2 / 3) / 2)
    assert precisions[1].isnan()
    assert label_scores(found, torch.full((2,), 0.5))["map"] == pytest.approx(5 / 6)


def test_unknown_labels_count_nowhere():
    known = outputs([[0.9, 0.2], [0.4, 0.7]], [[1, 0], [0, 1]])
    more = outputs([[0.9, 0.2], [0.4, 0.7], [0.99, 0.9]], [[1, 0], [0, 1], [-1, -1]])
    thresholds = torch.tensor([0.5, 0.5])
    assert label_scores(known, thresholds) == label_scores(more, thresholds)
    assert best_thresholds(known, thresholds).tolist() == best_thresholds(more, thresholds).tolist()
    assert label_scores(known, thresholds)["exact_match"] == 1


def test_f1_and_exact_match_are_at_each_labels_own_threshold():
    found = outputs([[0.6, 0.3], [0.4, 0.2], [0.1, 0.9]], [[1, 1], [1, 0], [0, 1]])
    scores = label_scores(found, torch.tensor([0.5, 0.25]))
    # True positives 1 of 2, and 2 of 2.
    assert label_f1(found, torch.tensor([0.5, 0.25])).tolist() == pytest.approx([2 / 3, 1])
    assert scores["f1_macro"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["f1_micro"] == pytest.approx(2 * 3 / (2 * 3 + 1))
    assert scores["exact_match"] == pytest.approx(2 / 3)


def test_a_threshold_lies_midway_between_what_it_parts():
    found = outputs([[0.9], [0.6], [0.2]], [[1], [1], [0]])
    assert best_thresholds(found, torch.tensor([0.5])).item() == pytest.approx(0.4)
    none = outputs([[0.9], [0.6]], [[0], [0]])
    assert best_thresholds(none, torch.tensor([0.3])).item() == pytest.approx(0.3)


@given(st.integers(0, 10**6), st.integers(2, 40), st.booleans())
def test_no_threshold_has_a_higher_f1(seed, count, rounded):
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(count, 2, generator=generator)
    if rounded:  # equal ones cannot be parted
        probabilities = (probabilities * 4).round() / 4
    labels = torch.randint(-1, 2, (count, 2), generator=generator).to(torch.int8)
    found = LabelOutputs(probabilities, labels)
    best = label_f1(found, best_thresholds(found, torch.full((2,), 0.5)))
    for other in torch.linspace(0, 1.01, 60):
        tried = label_f1(found, other.expand(2))
        assert (tried <= best + 1e-6)[~best.isnan()].all()


def test_batches_give_the_scores_of_the_whole():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(10, 3, generator=generator)
    labels = torch.randint(0, 2, (10, 3), generator=generator).to(torch.int8)
    metric = LabelPredictions()
    for rows in torch.arange(10).split(4):
        metric.update(probabilities[rows], labels[rows])
    found = metric.compute()
    assert torch.equal(found.probabilities, probabilities)
    assert torch.equal(found.labels, labels)

"""Rank correlations against SciPy's, and verdicts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zoo_lightning.analysis.agreement import (
    Pairs,
    agree,
    chance_of,
    compare_pairs,
    mean_and_error,
    ranks,
    spearman,
)

stats = pytest.importorskip("scipy.stats")


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=12))
def test_rank_correlations_are_scipys_ties_included(pairs):
    a, b = (torch.tensor(each, dtype=torch.float64) for each in zip(*pairs, strict=True))
    assert ranks(a).tolist() == stats.rankdata(a).tolist()
    if len(a.unique()) < 2 or len(b.unique()) < 2:
        assert spearman(a, b) is None
    else:
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-9)


def test_chance_is_small_where_every_layer_agrees_and_even_where_none_does():
    effects = torch.rand(8, 4)
    assert chance_of(effects, effects) < 0.001
    assert chance_of(-effects, effects) > 0.999
    # Layers differ, sources do not: all of the correlation is between layers.
    layers = torch.arange(8.0)[:, None].expand(8, 4)
    assert spearman(layers, layers) == pytest.approx(1)
    assert chance_of(layers, layers) == 1


def test_pairs_of_sources_are_compared_as_far_as_samples_tell_them_apart():
    noise = torch.randn(200)
    errors = torch.stack([noise + 3, noise + 1, noise + 0.5 * torch.randn(200) + 1])
    assert compare_pairs(torch.tensor([0.6, 0.3, 0.1]), errors) == Pairs(2, 0, 1)
    assert compare_pairs(torch.tensor([0.1, 0.3, 0.6]), errors) == Pairs(0, 2, 1)
    assert compare_pairs(torch.tensor([0.5, 0.5, 0.0]), errors) == Pairs(1, 0, 2)
    assert Pairs(1, 2, 3).total == 6


def test_a_mean_comes_with_its_standard_error():
    assert mean_and_error(torch.tensor([1.0, 3.0])) == pytest.approx((2.0, 1.0))
    assert mean_and_error(torch.tensor([4.0])) == (4.0, 0.0)


@pytest.fixture
def layers():
    """Effects of three sources in six layers, the first source counting most, and their errors."""
    effects = torch.tensor([3.0, 2.0, 1.0]) + 0.1 * torch.rand(6, 3)
    errors = torch.tensor([3.0, 2.0, 1.0])[:, None] + torch.randn(50)
    return effects, errors


def test_gates_that_follow_removal_are_trusted(layers):
    effects, errors = layers
    found = agree(effects / effects.sum(1, keepdim=True), effects, errors, effects)
    assert found.trusted
    assert found.within_layers == pytest.approx(1)
    assert found.values == 18
    assert found.verdict().startswith("Here the gates order the sources as removal does: of 3 pair")
    assert "(18 pairs, probability by chance 0.0002)" in found.verdict()


@pytest.mark.parametrize(
    ("shares_of", "effects_of", "words"),
    [
        (lambda e: e.flip(1), lambda e: e, "0 in the same order, 3 in the opposite one"),
        (lambda e: e, lambda e: e.flip(1), "3 in the same order, 0 in the opposite one"),
        (lambda e: e, lambda e: None, "effects by layer were not measured"),
        (torch.ones_like, lambda e: e, "by layer either gates or effects do not vary"),
    ],
)
def test_all_others_are_not(layers, shares_of, effects_of, words):
    effects, errors = layers
    shares = shares_of(effects)
    found = agree(shares / shares.sum(1, keepdim=True), effects, errors, effects_of(effects))
    assert not found.trusted
    assert found.verdict().startswith("Do not read the gates as worth; read the removal column: ")
    assert words in found.verdict()

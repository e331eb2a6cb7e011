"""The validation split of images with several labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo_lightning.data.multi_label.splitting import split_by_labels
from zoo_lightning.errors import DataError


def counts_by_group(groups, present):
    return np.stack([present[np.array(groups) == name].any(0) for name in sorted(set(groups))])


@given(
    st.integers(0, 10**6), st.integers(4, 60), st.integers(1, 6), st.floats(0.05, 0.5),
    st.booleans(),
)  # fmt: skip
def test_groups_stay_together_and_labels_are_on_both_sides(seed, count, labels, fraction, grouped):
    generator = np.random.default_rng(seed)
    present = generator.random((count, labels)) < generator.random(labels)
    groups = [f"{i // 2 if grouped else i}" for i in range(count)]
    train, val = split_by_labels(groups, present, fraction, seed)
    assert sorted([*train, *val]) == list(range(count))
    assert len(train)
    by_group = counts_by_group(groups, present)
    alone = by_group[:, by_group.sum(0) == 1].any(1)
    assert len(val) or alone.all()  # each group has a label that no other has
    named = np.array(groups)
    assert not {*named[train]} & {*named[val]}
    held = by_group.sum(0)
    for label in np.flatnonzero(held >= max(4, labels)):
        assert present[train][:, label].any()
        assert present[val][:, label].any()


def test_fractions_of_labels_and_of_images_without_any_are_alike():
    generator = np.random.default_rng(0)
    present = generator.random((2000, 8)) < np.array([0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005])
    present[:500] = False
    _, val = split_by_labels([str(i) for i in range(2000)], present, 0.2, 0)
    assert len(val) == pytest.approx(400, abs=40)
    shares = present[val].sum(0) / present.sum(0)
    assert shares[:5] == pytest.approx(0.2, abs=0.06)
    assert present[val].any(0).all()
    assert (~present[val].any(1)).mean() == pytest.approx((~present.any(1)).mean(), abs=0.05)


def test_a_label_of_two_images_is_on_both_sides_and_one_of_a_single_image_in_training():
    present = np.zeros((50, 2), bool)
    present[[3, 30], 0] = True
    present[7, 1] = True
    for seed in range(10):
        train, val = split_by_labels([str(i) for i in range(50)], present, 0.1, seed)
        assert present[train].any(0).tolist() == [True, True]
        assert present[val].any(0).tolist() == [True, False]


def test_another_seed_is_another_split():
    present = np.ones((40, 1), bool)
    groups = [str(i) for i in range(40)]
    first, again, other = (split_by_labels(groups, present, 0.25, s)[1] for s in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()


def test_a_single_group_cannot_be_split():
    with pytest.raises(DataError, match="group_pattern"):
        split_by_labels(["a", "a"], np.ones((2, 1), bool), 0.5, 0)

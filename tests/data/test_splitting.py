"""Splits in which groups stay whole."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_lightning.data.splitting import split_by_group_and_class


@given(st.integers(0, 2**31), st.integers(2, 30), st.integers(1, 4), st.floats(0.05, 0.9))
@settings(max_examples=100, deadline=None)
def test_groups_stay_whole_and_every_class_keeps_samples(seed, people, classes, fraction):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(people, 8 * people))
    groups = [str(person) for person in rng.integers(people, size=size)]
    labels = rng.integers(classes, size=size).tolist()
    train, val = split_by_group_and_class(groups, labels, fraction, seed)
    assert sorted([*train, *val]) == list(range(size))
    assert not {groups[i] for i in train} & {groups[i] for i in val}
    assert {labels[i] for i in train} == set(labels)
    again = split_by_group_and_class(groups, labels, fraction, seed)
    assert [each.tolist() for each in again] == [train.tolist(), val.tolist()]


def test_groups_of_one_size_give_each_class_its_fraction():
    groups = [f"{person}" for person in range(40) for _ in range(5)]
    labels = [person % 2 for person in range(40) for _ in range(5)]
    _, val = split_by_group_and_class(groups, labels, 0.2, 3)
    assert [labels[i] for i in val].count(0) == [labels[i] for i in val].count(1) == 20
    other = split_by_group_and_class(groups, labels, 0.2, 4)[1]
    assert val.tolist() != other.tolist()


def test_a_group_larger_than_the_fraction_is_taken_where_there_is_no_other():
    groups, labels = ["a"] * 10 + ["b"] * 10, [0, 1] * 10
    train, val = split_by_group_and_class(groups, labels, 0.1, 0)
    assert len(train) == len(val) == 10

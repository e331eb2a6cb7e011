"""Means over seeds and their differences, against scipy and by hand."""

import numpy as np
import pytest
from scipy import stats

from zoo_lightning.benchmarking.statistics import interval, paired


def test_an_interval_is_students():
    values = [70.1, 71.3, 69.8, 72.0, 70.9]
    found = interval(values)
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert found.mean == pytest.approx(np.mean(values))
    assert found.half == pytest.approx((high - low) / 2)
    assert found.seeds == 5


def test_one_number_has_no_interval_and_none_has_no_mean():
    assert interval([3.0])[0] == 3.0
    assert np.isnan(interval([3.0]).half)
    assert np.isnan(interval([]).mean)


def test_a_difference_is_that_of_the_paired_test_over_common_seeds():
    first = {0: 70.1, 1: 71.3, 2: 69.8, 3: 72.0, 9: 0.0}
    second = {0: 69.0, 1: 70.9, 2: 69.9, 3: 70.0, 8: 0.0}
    found = paired(first, second)
    pairs = np.array([(first[s], second[s]) for s in range(4)])
    assert found.mean == pytest.approx((pairs[:, 0] - pairs[:, 1]).mean())
    assert found.p == pytest.approx(stats.ttest_rel(pairs[:, 0], pairs[:, 1]).pvalue)
    assert found.seeds == 4
    assert found.low < found.mean < found.high
    assert found.low >= -0.1 - 1e-9
    assert found.high <= 2.0 + 1e-9


@pytest.mark.parametrize("second", [66.0, 66.00000763])
def test_equal_differences_are_certain_of_nothing(second):
    found = paired({0: 72.0, 1: second}, {0: 70.0, 1: 64.0})
    assert found.mean == pytest.approx(2.0, abs=1e-4)
    assert np.isnan([found.half, found.low, found.high, found.p]).all()


def test_equal_differences_from_nothing_are_certain_of_nothing_either():
    assert np.isnan(paired({0: 0.0, 1: 0.0}, {0: 1.0, 1: 1.0}).p)


def test_equal_figures_do_not_differ():
    assert paired({0: 2.0, 1: 3.0}, {0: 2.0, 1: 3.0}) == (0.0, 0.0, 0.0, 0.0, 1.0, 2)


def test_methods_without_a_common_seed_have_no_difference():
    found = paired({0: 1.0}, {1: 1.0})
    assert found.seeds == 0
    assert np.isnan(found.mean)


def test_an_interval_over_seeds_and_images_adds_both_variances():
    seeds = [70.0, 72.0, 71.0, 73.0]
    images = {str(k): 100.0 * (k % 4 != 0) for k in range(400)}
    found = interval(seeds, images)
    by_seeds = np.var(seeds, ddof=1) / 4
    by_images = np.var(list(images.values()), ddof=1) / 400
    degrees = (by_seeds + by_images) ** 2 / (by_seeds**2 / 3 + by_images**2 / 399)
    expected = stats.t.ppf(0.975, degrees) * np.sqrt(by_seeds + by_images)
    assert found == (71.5, pytest.approx(expected), 4)
    assert interval(seeds, {}) == interval(seeds)
    # Welch's approximation is exact where only one of them varies.
    same = dict.fromkeys(images, 5.0)
    assert interval(seeds, same).half == pytest.approx(interval(seeds).half)


def test_such_an_interval_covers_the_truth_on_other_images_and_seeds():
    rng = np.random.default_rng(0)
    covered = {"seeds": 0, "both": 0}
    for _ in range(400):
        hard, luck = rng.normal(0, 3, 100), rng.normal(0, 0.2, 3)
        scores = hard + luck[:, None] + rng.normal(0, 1, (3, 100))
        figures, images = scores.mean(axis=1), dict(enumerate(scores.mean(axis=0)))
        for name, given in (("seeds", None), ("both", images)):
            found = interval(figures, given)
            covered[name] += abs(found.mean) < found.half
    assert covered["both"] / 400 > 0.93
    assert covered["seeds"] / 400 < 0.8


def test_the_test_of_a_difference_belongs_to_its_interval():
    first, second = {0: 72.0, 1: 74.0, 2: 73.0}, {0: 70.0, 1: 71.0, 2: 72.0}
    images = {str(k): 2.0 + 30 * (k % 2 - 0.5) for k in range(100)}
    found = paired(first, second, images)
    assert found.half > paired(first, second).half * 0.5
    assert (found.p < 0.05) == (abs(found.mean) > found.half)
    alone = paired(first, second)
    assert alone.p == pytest.approx(float(stats.ttest_1samp([2.0, 3.0, 1.0], 0).pvalue))


def test_equal_seeds_say_nothing_of_other_images():
    equal = {0: 70.0, 1: 70.0}
    images = {str(k): 100.0 * ((k % 10 == 0) - (k % 10 == 1)) for k in range(200)}
    found = paired(equal, equal, images)
    assert found.mean == 0
    assert found.half > 1
    assert paired(equal, equal, dict.fromkeys(images, 0.0)).half == 0
    # Better by the same on every image and seed: nobody knows how far that goes.
    same = paired({0: 71.0, 1: 71.0}, equal, dict.fromkeys(images, 1.0))
    assert same.mean == 1.0
    assert np.isnan(same.half)
    constant = paired({0: 71.0, 1: 71.0}, equal, {k: 1.0 + v for k, v in images.items()})
    assert constant.half > 1

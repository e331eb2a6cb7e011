"""Figures of a classifier's errors render, name what matters, and can be read in grey."""

import numpy as np
import pytest

from zoo_lightning.plotting.classification import most_confused, plot_confusion, plot_mistakes


def rendered(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_the_most_confused_pairs_are_those_of_the_largest_share():
    matrix = [[90, 10, 0], [3, 3, 0], [0, 1, 9]]
    pairs = most_confused(matrix, 2)
    assert [(true, pred) for true, pred, _ in pairs] == [(1, 0), (0, 1)]
    assert pairs[0][2] == 0.5
    assert len(most_confused(matrix, 9)) == 3
    assert most_confused(np.eye(3), 5) == []


def test_few_classes_are_all_named_with_their_shares():
    figure = plot_confusion([[3, 1], [0, 0]], ["ant", "bee"])
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["ant", "bee"]
    assert texts(axes) == ["75", "25"]
    pixels = rendered(figure)
    assert (pixels.max(axis=2) - pixels.min(axis=2)).max() == 0, "not grey"


def test_of_many_classes_the_most_confused_pairs_are_named():
    matrix = 10 * np.eye(40, dtype=int)
    matrix[3, 7], matrix[30, 2] = 30, 5
    figure = plot_confusion(matrix, [f"class {i}" for i in range(40)])
    left, right = figure.axes[:2]
    assert texts(left) == ["1", "2"]
    names = [label.get_text() for label in right.get_yticklabels()]
    assert names == ["class 3 as class 7  1", "class 30 as class 2  2"]
    pixels = rendered(figure)
    assert (pixels.max(axis=2) - pixels.min(axis=2)).max() == 0, "not grey"


def test_many_classes_without_mistakes_render():
    rendered(plot_confusion(np.eye(40), [str(i) for i in range(40)]))


@pytest.mark.parametrize("matrix", [np.zeros((2, 3)), np.zeros((3, 3)), np.zeros((0, 0))])
def test_a_matrix_that_does_not_fit_the_names_is_refused(matrix):
    with pytest.raises(ValueError, match="square matrix"):
        plot_confusion(matrix, ["a", "b"] if len(matrix) else [])


@pytest.mark.parametrize("count", [1, 5, 24])
def test_mistakes_tell_both_classes_and_the_probability(count):
    images = np.random.default_rng(0).integers(0, 255, (count, 3, 16, 16), dtype=np.uint8)
    figure = plot_mistakes(images, ["$a_b$"] * count, ["x" * 40] * count, [0.987] * count)
    assert figure.axes[0].get_title() == r"\$a_b\$" + f"\nas {'x' * 21}…, 99 %"
    assert min(rendered(figure).shape[:2]) > 300


def test_mistakes_of_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="as many names"):
        plot_mistakes(np.zeros((2, 8, 8, 3)), ["a"], ["b"], [0.5])
    with pytest.raises(ValueError, match="as many names"):
        plot_mistakes(np.zeros((0, 8, 8, 3)), [], [], [])

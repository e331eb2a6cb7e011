"""Pictures of numbers: what they show, and what is refused."""

import io

import numpy as np
import pytest

from zoo_lightning.plotting.regression import plot_numbers, plot_scatter


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def test_every_target_has_its_plot_with_the_images_in_which_it_is_known():
    true = np.array([[1.0, 10.0], [2.0, np.nan], [3.0, 30.0]])
    figure = plot_scatter(
        true, true + np.array([0.5, 1.0]), ["age", "a $ name that is far too long"]
    )
    first, second = titles(figure)
    assert first == "age\nMAE 0.5, 3 images"
    assert second.endswith("…\nMAE 1, 2 images")
    points = figure.axes[1].lines[0]
    assert points.get_xydata().tolist() == [[10.0, 11.0], [30.0, 31.0]]
    figure.savefig(io.BytesIO(), format="png")
    many = plot_scatter(np.zeros((2, 40)), np.zeros((2, 40)), [f"t{k}" for k in range(40)])
    assert len(titles(many)) == 12
    with pytest.raises(ValueError, match="2 targets"):
        plot_scatter(true[:, :1], true[:, :1], ["age", "dose"])


def test_images_have_their_true_and_predicted_numbers():
    images = np.zeros((2, 3, 8, 8), np.uint8)
    true = np.array([[1.0, np.nan], [2.5, 4.0]])
    figure = plot_numbers(images, true, true * 0 + 7, ["age", "dose"])
    assert titles(figure)[0] == "age 1, predicted 7\ndose ?, predicted ?"
    assert titles(figure)[1] == "age 2.5, predicted 7\ndose 4, predicted 7"
    figure.savefig(io.BytesIO(), format="png")
    with pytest.raises(ValueError, match="images"):
        plot_numbers(images, true[:1], true[:1], ["age", "dose"])

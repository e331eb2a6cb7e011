"""Pictures of masks."""

import numpy as np

from zoo_lightning.data.segmentation.label_files import IGNORED
from zoo_lightning.plotting.masks import plot_masks


def _legend(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_predictions_in_padding_are_drawn_as_no_class():
    images = np.zeros((1, 6, 6, 3), np.uint8)
    true = np.full((6, 6), IGNORED)
    true[1:5] = 1
    true[2, 2] = IGNORED  # inside, where a prediction means something
    figure = plot_masks(images, [true], [np.ones((6, 6), np.uint8)], ["ground", "ball"])
    views = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert (views[2][[0, 5]] == views[1][0, 0]).all()
    assert (views[2][1:5] == views[1][1, 0]).all()
    assert _legend(figure) == ["ball", "no true class"]


def test_masks_without_any_true_class_can_be_drawn():
    images = np.zeros((1, 4, 4, 3), np.uint8)
    empty = np.full((4, 4), IGNORED)
    figure = plot_masks(images, [empty], [np.ones((4, 4), np.uint8)], ["ground", "ball"])
    assert "no true class" in _legend(figure)

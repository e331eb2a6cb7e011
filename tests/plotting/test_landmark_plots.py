"""Figures of errors on the mean face and of heat maps, also for those who print in grey."""

import numpy as np
import pytest
import torch

from zoo_lightning.data.landmarks.schemes import SCHEMES
from zoo_lightning.plotting.landmarks import (
    CONNECTIONS,
    combine_heatmaps,
    plot_heatmaps,
    plot_point_errors,
)

SHAPE = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.2, 1.0], [0.8, 1.0]])
LUMINANCE = np.array([0.299, 0.587, 0.114])


def rendered(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float)


def circles(figure):
    return next(c for c in figure.axes[0].collections if c.get_array() is not None)


def test_areas_of_circles_are_proportional_to_the_errors():
    errors = np.array([1.0, 2.0, 4.0, 3.0, 0.5])
    drawn = circles(plot_point_errors(SHAPE, errors))
    # The largest first, so that small circles lie over large ones.
    assert np.asarray(drawn.get_array()).tolist() == [4, 3, 2, 1, 0.5]
    assert np.allclose(drawn.get_sizes() / drawn.get_array(), drawn.get_sizes()[0] / 4)
    assert np.allclose(drawn.get_offsets(), SHAPE[[2, 3, 1, 0, 4]])


def test_larger_errors_are_darker():
    drawn = circles(plot_point_errors(SHAPE, np.linspace(0, 8, 5)))
    rendered(drawn.get_figure())
    grey = drawn.get_facecolors()[:, :3] @ LUMINANCE
    assert (np.diff(grey) > 0.05).all()
    ramp = drawn.cmap(np.linspace(0, 1, 256))[:, :3] @ LUMINANCE
    assert (np.diff(ramp) <= 1e-3).all()


def test_the_worst_points_are_numbered_and_the_mean_is_marked():
    figure = plot_point_errors(SHAPE, [1, 9, np.nan, 7, 3], worst=2)
    rendered(figure)
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["1", "3"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["mean 5.00"]
    assert "%" in figure.axes[1].get_ylabel()


def test_a_point_without_an_error_or_a_place_has_no_circle():
    shape = SHAPE.copy()
    shape[2] = np.nan
    figure = plot_point_errors(shape, [1, 9, np.nan, 7, 3], connections=[(0, 1), (1, 2)])
    rendered(figure)
    assert len(circles(figure).get_offsets()) == 4
    assert len(figure.axes[0].collections[0].get_segments()) == 1


def test_errors_of_nothing_are_zero_and_still_drawn():
    rendered(plot_point_errors(SHAPE, np.zeros(5)))
    rendered(plot_point_errors(SHAPE[:1], [3.0]))


@pytest.mark.parametrize("errors", [np.ones(4), np.full(5, np.nan)])
def test_errors_that_do_not_fit_the_shape_are_refused(errors):
    with pytest.raises(ValueError, match="mean shape"):
        plot_point_errors(SHAPE, errors)


def test_connections_name_points_of_known_schemes_and_are_their_own_mirror_images():
    for name, pairs in CONNECTIONS.items():
        scheme = SCHEMES[name]
        edges = {frozenset(pair) for pair in pairs}
        assert {frozenset(scheme.flip[k] for k in edge) for edge in edges} == edges
        assert {k for edge in edges for k in edge} == set(range(scheme.num_points))


def test_heat_maps_are_combined_relative_to_their_peaks():
    maps = np.zeros((1, 3, 2, 2))
    maps[0, 0] = [[4, 2], [0, 0]]
    maps[0, 1] = [[0.1, 0], [0, 0.05]]  # a weak point counts as much; the third is nowhere
    assert np.allclose(combine_heatmaps(torch.from_numpy(maps)), [[[1, 0.5], [0, 0.5]]])
    once = combine_heatmaps(maps)
    assert np.allclose(combine_heatmaps(once[:, None]), once)
    with pytest.raises(ValueError, match="heat maps"):
        combine_heatmaps(maps[0])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_heat_is_brighter_than_any_face_also_in_grey(dtype):
    images = torch.zeros(2, 3, 32, 32, dtype=dtype)
    images[..., 16:] = 255 if dtype == torch.uint8 else 1
    heat = torch.zeros(2, 1, 8, 8)
    heat[:, 0, 2, 4] = 1
    figure = plot_heatmaps(images, heat, pred=torch.full((2, 3, 2), 30.0))
    grey = rendered(figure) @ LUMINANCE / 255
    axes = figure.axes[0]
    height = grey.shape[0]

    def seen(x, y):
        column, row = axes.transData.transform((x, y))
        return grey[height - 1 - round(row), round(column)]

    peak, face, background = seen(18, 10), seen(28, 22), seen(5, 25)
    assert background < 0.05
    assert 0.5 < face < 0.7
    assert peak > face + 0.2


def test_heat_maps_lie_where_they_belong_at_any_resolution():
    figure = plot_heatmaps(np.zeros((1, 20, 40, 3)), np.ones((1, 2, 5, 10)))
    face, heat = figure.axes[0].images
    assert face.get_extent() == heat.get_extent() == [0, 40, 20, 0]


@pytest.mark.parametrize("wrong", ["none", "heat maps", "predictions"])
def test_heat_maps_of_other_images_are_refused(wrong):
    images, heat, pred = np.zeros((2, 8, 8, 3)), np.zeros((2, 5, 4, 4)), np.zeros((2, 5, 2))
    given = {
        "none": (images[:0], heat[:0], pred[:0]),
        "heat maps": (images, heat[:1], pred),
        "predictions": (images, heat, pred[:1]),
    }
    with pytest.raises(ValueError, match="as many images"):
        plot_heatmaps(*given[wrong])

"""Figures render, without a display and without touching pyplot."""

import numpy as np
import pytest
import torch
from PIL import Image

from zoo_lightning.plots import plot_error_curve, plot_landmarks, save_figure


def rendered(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


@pytest.fixture
def faces():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (3, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return images, torch.rand(3, 5, 2, generator=generator) * 32


def test_a_grid_of_faces_renders_with_all_its_marks(faces):
    images, points = faces
    figure = plot_landmarks(images, points, points + 2, errors=[1.0, 2.5, 30], titles=["a"] * 3)
    plain = plot_landmarks(images, points, points + 2)
    assert (rendered(figure) != 255).any()
    assert [axes.get_title() for axes in figure.axes[:3]] == ["a  1.0 %", "a  2.5 %", "a  30.0 %"]
    assert [text.get_text() for text in plain.legends[0].get_texts()] == ["true", "predicted"]
    assert len(figure.axes[0].images) == 1


def test_true_and_predicted_points_differ_in_grey_print(faces):
    images, points = faces
    grey = torch.full_like(images, 128)
    true, pred = (
        rendered(figure).mean(-1)
        for figure in (plot_landmarks(grey, points), plot_landmarks(grey, None, points))
    )
    assert true.shape == pred.shape
    assert (np.abs(true - pred) > 60).sum() > 100


def test_channels_may_come_first_or_last(faces):
    images, points = faces
    first = rendered(plot_landmarks(images, points))
    last = rendered(plot_landmarks(images.permute(0, 2, 3, 1), points))
    assert (first == last).all()
    floats = plot_landmarks(images.float() / 255, points)
    assert np.abs(rendered(floats) - first).max() <= 2


def test_points_are_drawn_at_continuous_coordinates(faces):
    images, _ = faces
    figure = plot_landmarks(images[:1], torch.tensor([[[0.0, 0.0], [32.0, 32.0]]]))
    axes = figure.axes[0]
    assert axes.images[0].get_extent() == [0, 32, 32, 0]
    assert axes.get_xlim() == (0, 32)
    assert axes.get_ylim() == (32, 0)


@pytest.mark.parametrize("wrong", ["none", "fewer points", "one channel"])
def test_images_that_do_not_fit_are_refused(faces, wrong):
    images, points = faces
    given = {
        "none": (images[:0], points[:0]),
        "fewer points": (images, points[:2]),
        "one channel": (images[:, :1], points),
    }
    with pytest.raises(ValueError, match=r"images"):
        plot_landmarks(*given[wrong])


def test_error_curves_end_at_the_share_of_images_below_the_threshold():
    errors = np.array([0.01, 0.03, 0.2, 0.04])
    figure = plot_error_curve({"adaptive": errors, "lite": torch.tensor([0.5])}, threshold=0.1)
    rendered(figure)
    first, second = figure.axes[0].lines
    assert first.get_ydata()[-1] == 75
    assert first.get_xdata()[-1] == 10
    assert second.get_ydata()[-1] == 0
    assert first.get_linestyle() != second.get_linestyle()
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels[0] == "adaptive: AUC 0.550, failures 25.0 %"
    assert labels[1] == "lite: AUC 0.000, failures 100.0 %"


def test_a_curve_without_errors_is_refused():
    for errors in ({}, {"a": []}):
        with pytest.raises(ValueError, match="Nothing to plot"):
            plot_error_curve(errors)


def test_saved_figures_replace_older_ones_and_leave_nothing_else(tmp_path):
    path = tmp_path / "figures" / "curve.png"
    for _ in range(2):
        save_figure(plot_error_curve({"a": [0.05]}), path)
    assert [file.name for file in path.parent.iterdir()] == ["curve.png"]
    assert Image.open(path).size[0] > 400


def test_a_figure_that_cannot_be_saved_leaves_the_old_file(tmp_path):
    path = tmp_path / "curve.nonsense"
    path.write_text("old")
    with pytest.raises(ValueError, match="nonsense"):
        save_figure(plot_error_curve({"a": [0.05]}), path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]

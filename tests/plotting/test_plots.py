"""Figures render, without a display and without touching pyplot."""

import numpy as np
import pytest
import torch
from PIL import Image

from zoo_lightning.metrics.functional import error_auc
from zoo_lightning.plotting.figures import (
    Faces,
    plot_error_curve,
    plot_landmarks,
    plot_ranked_faces,
    save_figure,
)


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


def test_true_points_that_do_not_count_get_no_circle(faces):
    images, points = faces
    visible = torch.tensor([[True] * 5, [True, False] * 2 + [True], [False] * 5])
    figure = plot_landmarks(images, points, points + 2, visible=visible)
    rendered(figure)
    for axes, mask in zip(figure.axes, visible, strict=False):
        circles = [line for line in axes.lines if line.get_marker() == "o"]
        crosses = [line for line in axes.lines if line.get_marker() == "x"]
        assert {len(line.get_xdata()) for line in circles} == {int(mask.sum())}
        assert {len(line.get_xdata()) for line in crosses} == {5}


def test_faces_are_ranked_in_three_labelled_rows(faces):
    images, points = faces
    visible = torch.ones(3, 5, dtype=torch.bool)
    visible[0, 0] = False
    one = Faces(images[:1], points[:1], points[:1] + 9, [30.0])
    three = Faces(images, points, points + 1, [1.0, 2.0, 3.25], visible)
    figure = plot_ranked_faces(three, three, one)
    rendered(figure)
    grid = np.array(figure.axes).reshape(3, 3)
    assert [row[0].get_ylabel() for row in grid] == ["best", "median", "worst"]
    assert [axes.get_title() for axes in grid[0]] == ["1.0 %", "2.0 %", "3.2 %"]
    assert [len(axes.images) for axes in grid[2]] == [1, 0, 0]
    assert [len(axes.collections[0].get_segments()) for axes in grid[0]] == [4, 5, 5]


def test_a_row_without_faces_or_of_different_lengths_is_refused(faces):
    images, points = faces
    good = Faces(images, points, points, [1.0, 2.0, 3.0])
    bad = (
        Faces(images[:0], points[:0], points[:0], []),
        Faces(images, points[:2], points, [1.0] * 3),
    )
    for one in bad:
        with pytest.raises(ValueError, match="images"):
            plot_ranked_faces(good, one, good)


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
    assert f"{float(error_auc(torch.from_numpy(errors), 0.1)):.3f}" == "0.550"
    assert labels[0] == "adaptive: AUC 0.550, failures 25.0 %"
    assert labels[1] == "lite: AUC 0.000, failures 100.0 %"


def test_many_curves_differ_without_colour_and_are_not_hidden_by_their_legend():
    figure = plot_error_curve({f"subset {i}": [0.01 * i, 0.05] for i in range(9)})
    axes = figure.axes[0]
    assert len({(str(line._dash_pattern), line.get_linewidth()) for line in axes.lines}) == 9
    assert axes.get_legend() is None
    rendered(figure)
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= axes.get_window_extent().x1
    assert box.x1 <= figure.bbox.x1


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

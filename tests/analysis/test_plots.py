"""The picture renders, and greys alone tell much from little."""

import numpy as np
import pytest

from zoo_lightning.analysis.plots import plot_gates
from zoo_lightning.analysis.report import gate_report
from zoo_lightning.plotting.figures import new_figure
from zoo_lightning.plotting.gates import COLUMNS, draw_table, plot_gate_history, plot_gates_now


@pytest.mark.parametrize(("samples", "panels"), [(6, 3), (0, 2)])
def test_a_panel_a_column_with_every_number(seeing_and_blind, colours, samples, panels):
    figure = plot_gates(gate_report(seeing_and_blind("lite"), colours, layer_samples=samples))
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    assert (pixels.max(-1) == pixels.min(-1)).all()  # grey throughout
    assert len(figure.axes) == panels
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert names == ["seeing", "blind", "dark"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.33"] * 3
    assert [text.get_text() for text in figure.axes[1].texts] == ["1.00", "0.00", "0.00"]


def test_negative_effects_are_hatched_and_much_is_dark():
    axes = new_figure(3, 3).subplots()
    draw_table(axes, np.array([[2.0, -1.0], [0.0, 0.25]]), ["a", "a$long$name" * 4], share=False)
    assert len(axes.patches) == 1
    assert [text.get_text() for text in axes.texts] == ["+2.00", "-1.00", "+0.00", "+0.25"]
    assert [text.get_color() for text in axes.texts] == ["white", "black", "black", "black"]
    shades = axes.images[0].get_array()
    assert shades[0, 0] > shades[0, 1] > shades[1, 1] > shades[1, 0]
    draw_table(new_figure(3, 3).subplots(), np.zeros((2, 2)), ["a", "b"], share=False)


def test_the_gates_of_now_have_their_numbers():
    figure = plot_gates_now(np.array([[0.25, 1.0], [0.0, 0.5]]), ["a", "b"], ["x", "y"], 7)
    figure.canvas.draw()
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["0.25", "1.00", "0.00", "0.50"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert "7" in axes.get_title()


@pytest.mark.parametrize("validations", [1, 3, 1000])
def test_the_history_has_a_panel_a_source_in_one_scale_of_greys(validations):
    history = np.linspace(0, 0.5, validations * 6).reshape(validations, 3, 2)
    steps = [100 * (k + 1) for k in range(validations)]
    figure = plot_gate_history(history, steps, ["a", "b", "c"], ["x", "y"])
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    assert (pixels.max(-1) == pixels.min(-1)).all()
    first, second, _ = figure.axes
    assert [first.get_title(), second.get_title()] == ["x", "y"]
    shown = first.images[0].get_array()
    assert shown.shape == (3, min(validations, COLUMNS))
    np.testing.assert_allclose(shown[:, [0, -1]].T, history[[0, -1], :, 0])
    assert first.images[0].get_clim() == second.images[0].get_clim() == (0, 0.5)
    labels = [label.get_text() for label in first.get_xticklabels()]
    assert (labels[0], labels[-1]) == ("100", f"{steps[-1]:,}")


def test_gates_that_are_no_numbers_are_drawn_nonetheless():
    gates = np.full((2, 2), np.nan)
    for figure in (
        plot_gates_now(gates, ["a", "b"], ["x", "y"], 1),
        plot_gate_history(gates[None], [1], ["a", "b"], ["x", "y"]),
    ):
        figure.canvas.draw()

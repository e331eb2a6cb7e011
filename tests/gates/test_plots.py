"""The picture renders, and greys alone tell much from little."""

import numpy as np
import pytest

from zoo_lightning.gates.plots import draw_table, plot_gates
from zoo_lightning.gates.report import gate_report
from zoo_lightning.plots import new_figure


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

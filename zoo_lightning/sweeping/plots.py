"""Figures of a sweep, readable in grey; in the manner of the package's ``plots``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from zoo_lightning.plots import new_figure
from zoo_lightning.sweeping.schema import Metric
from zoo_lightning.sweeping.showing import is_numeric, short_names, shown, text_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from zoo_lightning.sweeping.outcome import Result

DASHES = ("-", "--", "-.")
"""Of the three best."""


def plot_parallel_coordinates(
    best: Sequence[Result], metric: Metric, logarithmic: Collection[str] = ()
) -> Figure:
    """A line for each trial through its parameters and its figure, the best at the top, in black.

    Args:
        best: trials that are done, the best first.
        metric: their figure.
        logarithmic: names of parameters whose axis is logarithmic where all values are positive.

    Raises:
        ValueError: no trials, or none with parameters.
    """
    if not best or not best[0].parameters:
        raise ValueError("no trials with parameters; expected at least one")
    names = list(best[0].parameters)
    columns = [
        _scaled([each.parameters[name] for each in best], name in logarithmic) for name in names
    ]
    figures = [each.value or 0.0 for each in best]
    heights, marks = _scaled(figures, False)
    if not metric.rises:
        heights, marks = 1 - heights, [(1 - place, text) for place, text in marks]
    columns.append((heights, marks))
    lines = np.stack([column[0] for column in columns], axis=1)
    figure = new_figure(max(1.7 * len(columns), 5.0), 4.2)
    axes = figure.subplots()
    for rank in reversed(range(len(best))):  # the best drawn last
        top = rank < len(DASHES)
        shade = 0.0 if top else 0.45 + 0.4 * rank / len(best)
        axes.plot(
            lines[rank],
            DASHES[rank] if top else "-",
            color=str(shade),
            lw=1.8 - 0.3 * rank if top else 0.7,
            label=f"trial {best[rank].index:04d}" if top else None,
            zorder=3 if top else 1,
        )
    labels = [*short_names(names).values(), metric.name]
    for place, (_, ticks) in enumerate(columns):
        _draw_axis(axes, place, ticks)
    axes.set(xlim=(-0.3, len(columns) - 0.4), ylim=(-0.06, 1.06), yticks=[])
    axes.set_xticks(range(len(columns)), labels, fontsize=8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    handles, texts = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], texts[::-1], loc="outside upper right", ncols=3, fontsize=8,
                  handlelength=4)  # fmt: skip
    return figure


def _scaled(values: Sequence[Any], log: bool) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Places of values in [0, 1], and marks for the axis."""
    if not is_numeric(values):
        kinds = sorted({text_of(value) for value in values})
        places = {kind: i / max(len(kinds) - 1, 1) for i, kind in enumerate(kinds)}
        found = np.array([places[text_of(value)] for value in values])
        return found, [(place, _short(kind.strip('"'))) for kind, place in places.items()]
    numbers = np.array(values, dtype=float)
    log = log and bool(numbers.min() > 0)
    scale = np.log(numbers) if log else numbers
    low, high = float(scale.min()), float(scale.max())
    if low == high:
        return np.full(len(values), 0.5), [(0.5, shown(values[0]))]
    marks = []
    for place in (0.0, 0.5, 1.0):
        at = low + place * (high - low)
        marks.append((place, f"{float(np.exp(at)) if log else at:.3g}"))
    return (scale - low) / (high - low), marks


def _short(text: str) -> str:
    return text if len(text) <= 18 else f"{text[:8]}…{text[-8:]}"


def _draw_axis(axes: Axes, place: int, marks: Sequence[tuple[float, str]]) -> None:
    axes.axvline(place, color="black", lw=0.8, zorder=2)
    for height, text in marks:
        axes.annotate(
            text,
            (place, height),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8},
            zorder=4,
        )


def plot_importances(found: Mapping[str, float], metric: Metric) -> Figure:
    """Bars of the parameters' importances.

    Args:
        found: by name, the largest first.
        metric: that they are important for.

    Raises:
        ValueError: there are none.
    """
    if not found:
        raise ValueError("no importances; expected at least one")
    figure = new_figure(5.5, 0.4 * len(found) + 1.2)
    axes = figure.subplots()
    labels = list(short_names(list(found)).values())
    bars = axes.barh(labels, list(found.values()), color="0.6", edgecolor="black")
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.1), xlabel=f"importance for {metric.name} (PED-ANOVA)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure

"""Charts of a report as SVG, whose lines and text take the colour of the page around them.

matplotlib draws them; black becomes ``currentColor``, so that they can be read on light and dark
paper and in print. Lines differ in dash as well as in colour.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from zoo_lightning.reports.contents import Chart

COLOURS = ("#0f7fbf", "#d55e00", "#2a9d6f", "#b5589f", "#b8860b", "#777777", "#c0392b")
"""Colours that stand out on white and on black, and from each other for colour-blind readers."""

DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))

LABEL = 28
"""Longest label in a chart, characters; tables have the whole one."""

MOST_POINTS = 1500
"""Points of a curve that are drawn; of longer ones every second, third, ... and the last."""

Curve = Mapping[int, float]
"""Value by step."""


def curves(
    title: str, lines: Mapping[str, Curve], horizontal: str, joined: bool = True
) -> Chart | None:
    """Draw values over steps, a line for each label; ``None`` if there is no value.

    Args:
        title: title of the chart.
        lines: curves by label.
        horizontal: what the steps are.
        joined: whether to join the points of a curve by a line.
    """
    shown = {label: points for label, points in lines.items() if points}
    if not shown:
        return None
    figure = Figure(figsize=(5.4, 3.1), layout="constrained")
    axes = figure.subplots()
    for place, (label, points) in enumerate(shown.items()):
        steps = thinned(sorted(points))
        axes.plot(
            steps,
            [points[step] for step in steps],
            linestyle=DASHES[place % len(DASHES)] if joined else "",
            color=COLOURS[place % len(COLOURS)],
            marker="o" if len(steps) < 25 or not joined else "",
            markersize=3,
            linewidth=1.6,
            label=shortened(label),
        )
    axes.set_xlabel(horizontal)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _finish(axes)
    if len(shown) > 1:
        figure.legend(
            loc="outside lower center", ncols=2, frameon=False, fontsize=8, handlelength=3
        )
    return Chart(_svg(figure, title), title)


def thinned(steps: Sequence[int]) -> list[int]:
    """Every n-th of some steps, so that a page stays small, and the last one."""
    stride = -(-len(steps) // MOST_POINTS)
    return [*steps[:-1:stride], steps[-1]]


def intervals(
    title: str,
    rows: Sequence[tuple[str, float, float, float]],
    horizontal: str,
    zero: bool = False,
) -> Chart | None:
    """Draw means with intervals, one above the other; ``None`` without rows.

    Args:
        title: title of the chart.
        rows: label, mean, and both ends of the interval (NaN if unknown) of each row.
        horizontal: what is drawn, with its unit.
        zero: whether to draw a line at 0.
    """
    if not rows:
        return None
    figure = Figure(figsize=(5.4, 0.9 + 0.28 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, (_, mean, low, high) in enumerate(rows):
        if low == low:
            axes.plot([low, high], [place, place], color=COLOURS[0], linewidth=1.8)
        axes.plot(mean, place, marker="o", markersize=5, color=COLOURS[0])
    if zero:
        axes.axvline(0.0, color="black", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(rows)), [shortened(label) for label, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(horizontal)
    _finish(axes)
    return Chart(_svg(figure, title), title)


def bars(title: str, rows: Sequence[tuple[str, float]], horizontal: str) -> Chart | None:
    """Draw a bar for each row; ``None`` without rows.

    Args:
        title: title of the chart.
        rows: label and length of each bar.
        horizontal: what the length is, with its unit.
    """
    if not rows:
        return None
    figure = Figure(figsize=(5.4, 0.9 + 0.28 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.barh(
        range(len(rows)), [length for _, length in rows], color=COLOURS[0], height=0.6, zorder=2
    )
    axes.set_yticks(range(len(rows)), [shortened(label) for label, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel(horizontal)
    _finish(axes)
    return Chart(_svg(figure, title), title)


def shortened(label: str) -> str:
    """Shorten a label, keeping its end, by which names of runs and layers differ."""
    return label if len(label) <= LABEL else f"…{label[1 - LABEL :]}"


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.25, color="black", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        if isinstance(formatter := axis.get_major_formatter(), ScalarFormatter):
            formatter.set_useOffset(False)
    axes.xaxis.label.set_fontsize(9)


def _svg(figure: Figure, title: str) -> str:
    """SVG element of a figure, without what belongs to a file of its own."""
    # Names of users may have a dollar sign, which would begin a formula.
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    drawn = stream.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, count=1, flags=re.DOTALL)
    # Its rules would hold for the whole page, whose own style has them.
    drawn = re.sub(r"<style.*?</style>", "", drawn, flags=re.DOTALL)
    # Groups of several charts on a page would have the same names; nothing refers to them.
    drawn = re.sub(r'<g id="[^"]*">', "<g>", drawn)
    drawn = re.sub(r"#0{6}\b", "currentColor", drawn)
    return drawn

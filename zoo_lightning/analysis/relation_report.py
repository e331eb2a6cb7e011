"""Report on relations of sources: tables to print, JSON and a figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.plotting.figures import new_figure, save_figure
from zoo_lightning.plotting.gates import draw_table
from zoo_lightning.transfer.relations import Relations

FILES = ("relations.json", "relations.png")
"""Names of the report's files: all numbers, and the figure."""

MEANING = (
    "score: share of held-out targets that a linear probe of the frozen features explains; "
    "± is one standard error",
    "beside random: what the features of a network with random weights add to the source's",
    "midpoint: score of the averaged weights; barrier: midpoint minus the mean of both scores; "
    "kept: fraction of the better one's score above random weights",
    "D: score of concatenated features minus the better one's; over random: minus that of the "
    "better one with random weights",
)
"""Explanation of the tables' columns."""


def write_relations(experiment: str, found: Relations, folder: Path) -> None:
    """Write a report on relations of sources: ``relations.json`` and ``relations.png``.

    Args:
        experiment: name of the experiment.
        found: relations of the sources.
        folder: folder to write to; it is created if necessary.

    Raises:
        StorageError: the folder cannot be written to.
    """
    with atomic_file(folder / "relations.json") as part:
        part.write_text(relations_json(experiment, found) + "\n", **TEXT)
    save_figure(plot_relations(found), folder / "relations.png")


def relations_json(experiment: str, found: Relations) -> str:
    """Format the experiment's name and all relations as JSON."""
    return json.dumps({"experiment": experiment, **found.as_dict()}, indent=2, allow_nan=False)


def format_relations(experiment: str, found: Relations) -> str:
    """Format tables of sources and pairs, explanations of their columns, and the conclusion."""
    sources = [["source", "score", "over random", "beside random", "weights"]]
    for row in sorted(found.sources, key=lambda row: -row.score):
        figures = (f"{row.score:.3f}", str(row.over_random), str(row.beside_random))
        sources.append([row.name, *figures, row.weights])
    pairs = [["pair", "cosine", "", "midpoint", "barrier", "kept", "D", "over random"]]
    for pair in found.pairs:
        kept = "" if pair.kept is None else f"{100 * pair.kept:.0f} %"
        pairs.append(
            [
                f"{pair.first}, {pair.second}",
                f"{pair.cosine:.3f}",
                pair.relation,
                f"{pair.midpoint:.3f}",
                str(pair.barrier),
                kept,
                str(pair.complementarity),
                str(pair.over_random),
            ]
        )
    together = found.together
    shares = ", ".join(f"{name} {share:.2f}" for name, share in together.shares.items() if share)
    return "\n".join(
        [
            f"{experiment}: {found.samples} training samples, {found.architecture}, "
            f"{found.num_features} features; random weights score {found.untrained:.3f}",
            "",
            *aligned(sources, left=(0, 4)),
            "",
            *aligned(pairs, left=(0, 2)),
            "",
            f"all together: {together.score:.3f}, D = {together.complementarity}, over the best "
            f"pair {together.over_pair}; shares of the features: {shares}",
            "",
            *MEANING,
            "",
            *found.conclusion,
        ]
    )


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Format rows as lines of a table, columns ``left`` left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def plot_relations(found: Relations) -> Figure:
    """Plot two tables of all pairs of sources: cosine of the kernels, and complementarity ``D``.

    Darker cells have larger values, every cell shows its number, and values below 0 are hatched. On
    the diagonal, a source compared with itself has a cosine of 1 and a complementarity of 0.

    Args:
        found: relations of the sources.

    Returns:
        Figure whose size grows with the number of sources.
    """
    names = [row.name for row in found.sources]
    cosine, gain = np.eye(len(names)), np.zeros((len(names), len(names)))
    for pair in found.pairs:
        i, j = names.index(pair.first), names.index(pair.second)
        cosine[i, j] = cosine[j, i] = pair.cosine
        gain[i, j] = gain[j, i] = pair.complementarity.value
    side = 0.5 * len(names)
    figure = new_figure(2 * side + 3.0, side + 1.9)
    left, right = figure.subplots(1, 2, sharey=True)
    draw_table(left, cosine, names, share=True)
    left.set_title("cosine of the kernels", size=8)
    draw_table(right, gain, names, share=False)
    right.set_title("complementarity D\n(concatenated features minus the better)", size=8)
    left.set_yticks(range(len(names)), names, fontsize=7)
    return figure

"""The relations of sources as tables to print, as JSON and as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from zoo_lightning.gates.plots import draw_table
from zoo_lightning.plots import new_figure, save_figure
from zoo_lightning.text_files import TEXT
from zoo_lightning.transfer.relations import Relations
from zoo_lightning.whole_files import whole_file

FILES = ("relations.json", "relations.png")
"""What is written: all figures; the picture."""

MEANING = (
    "score: share of held-out targets that a linear probe of the frozen features explains; "
    "± is one standard error",
    "beside random: what a network of random weights' features add to the source's",
    "midpoint: score of the averaged weights; barrier: that less the mean of both; kept: of what "
    "the better one has above random weights",
    "D: score of concatenated features less the better one's; over random: less that of the better "
    "one beside random weights",
)
"""What the columns mean."""


def write_relations(experiment: str, found: Relations, folder: Path) -> None:
    """Write the :data:`FILES`.

    Args:
        experiment: its name.
        found: the relations.
        folder: made if it is absent.
    """
    with whole_file(folder / "relations.json") as part:
        part.write_text(relations_json(experiment, found) + "\n", **TEXT)
    save_figure(plot_relations(found), folder / "relations.png")


def relations_json(experiment: str, found: Relations) -> str:
    """All figures as JSON."""
    return json.dumps({"experiment": experiment, **found.as_dict()}, indent=2, allow_nan=False)


def format_relations(experiment: str, found: Relations) -> str:
    """Sources and pairs as tables, what the columns mean, and the conclusion last."""
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
            *_aligned(sources, left=(0, 4)),
            "",
            *_aligned(pairs, left=(0, 2)),
            "",
            f"all together: {together.score:.3f}, D = {together.complementarity}, over the best "
            f"pair {together.over_pair}; shares of the features: {shares}",
            "",
            *MEANING,
            "",
            *found.conclusion,
        ]
    )


def _aligned(rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Rows with some columns to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def plot_relations(found: Relations) -> Figure:
    """Two tables, sources by sources: cosine of the kernels, and complementarity ``D``.

    Dark is much, and every cell has its number; values below 0 are hatched. The diagonal has a
    source and itself: 1 and 0.

    Args:
        found: the relations.

    Returns:
        The figure; it grows with the number of sources.
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
    right.set_title("complementarity D\n(concatenated features less the better)", size=8)
    left.set_yticks(range(len(names)), names, fontsize=7)
    return figure

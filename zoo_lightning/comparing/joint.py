"""Comparisons of policies on several games, taken together.

Scores become comparable by normalising them with random play and a person's score of each game,
see :mod:`zoo_lightning.envs.reference_scores`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from zoo_lightning.comparing.grid import Comparison, cells_of
from zoo_lightning.comparing.interquartile import (
    Estimate,
    Scores,
    estimate,
    interquartile_mean,
    median_of_means,
    probability_of_improvement,
)
from zoo_lightning.comparing.report import HINDSIGHT, make_tables
from zoo_lightning.envs.reference_scores import human_normalised
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.recipes import find_recipes
from zoo_lightning.text_files import TEXT
from zoo_lightning.whole_files import whole_file

STATISTICS: Mapping[str, Callable[[Scores], Estimate]] = {
    "interquartile mean": lambda scores: estimate(scores, interquartile_mean),
    "mean": lambda scores: estimate(scores, lambda pooled: pooled.mean(axis=-1)),
    "median of the games' means": median_of_means,
}


def join(
    comparisons: Sequence[Comparison], methods: Sequence[str], seeds: Sequence[int], output: Path
) -> str:
    """Write ``joint.md`` and ``joint.json`` of several comparisons of policies.

    Args:
        comparisons: one for each game.
        methods: to look at.
        seeds: likewise.
        output: folder for the files.

    Returns:
        The table, Markdown.

    Raises:
        ConfigError: one is not of policies, two are of one game, a game has no reference scores, or
            no method has runs on all games.
    """
    games: dict[str, dict[str, dict[int, float]]] = {}
    for comparison in comparisons:
        game = _game(comparison)
        if game in games:
            folder = comparison.folder
            raise ConfigError(f"--join: {folder} is of {game}, as another of the folders is")
        games[game] = _normalised(comparison, game, methods, seeds)
    first = next(iter(games.values()))
    labels = [label for label in first if all(label in rows for rows in games.values())]
    if not labels:
        raise ConfigError(f"--join: no method has finished runs on all of {', '.join(games)}")
    scores = {
        label: [np.array(list(rows[label].values())) for rows in games.values()] for label in labels
    }
    reference = HINDSIGHT if HINDSIGHT in scores else None
    rows = {label: _row(of_label, scores.get(reference)) for label, of_label in scores.items()}
    text = format_joint(rows, scores, list(games), reference)
    with whole_file(output / "joint.md") as part:
        part.write_text(text, **TEXT)
    content = {
        "games": list(games),
        "reference": reference,
        "methods": {
            label: {
                "scores": dict(zip(games, map(list, scores[label]), strict=True)),
                **{name: found and found._asdict() for name, found in row.items()},
            }
            for label, row in rows.items()
        },
    }
    with whole_file(output / "joint.json") as part:
        part.write_text(json.dumps(content, indent=1) + "\n", **TEXT)
    return text


def _game(comparison: Comparison) -> str:
    if comparison.task != "PPOTask":
        raise ConfigError(
            f"--join takes comparisons of policies; {comparison.folder} is of {comparison.task}"
        )
    from zoo_lightning.envs.games import find_game

    return find_game(comparison.options["data"]["init_args"].get("game", "pong"))


def _normalised(
    comparison: Comparison, game: str, methods: Sequence[str], seeds: Sequence[int]
) -> dict[str, dict[int, float]]:
    """Human-normalised scores by method and seed."""
    if human_normalised(game, 0.0) is None:
        raise ConfigError(f"--join: the literature has no human score of {game}")
    recipes = find_recipes(methods, comparison.task)
    cells = cells_of(recipes, list(comparison.sources), seeds, [1.0])
    [table] = make_tables(comparison, cells)
    return {
        row.label: {seed: human_normalised(game, value) for seed, value in row.figures.items()}
        for row in table.rows
        if row.figures
    }


def _row(scores: Scores, reference: Scores | None) -> dict[str, Estimate | None]:
    row: dict[str, Estimate | None] = {
        name: statistic(scores) for name, statistic in STATISTICS.items()
    }
    same = reference is None or scores is reference
    row["improvement"] = None if same else probability_of_improvement(scores, reference)
    return row


def format_joint(
    rows: Mapping[str, Mapping[str, Estimate | None]],
    scores: Mapping[str, Scores],
    games: Sequence[str],
    reference: str | None,
) -> str:
    """Markdown."""
    heads = ["method", "runs", *STATISTICS, f"chance to beat {reference}"]
    heads = heads[: None if reference else -1]
    lines = [
        f"# {', '.join(games)}",
        "",
        "Human-normalised scores (0 random play, 1 a person), in brackets the 95 % interval by the "
        "bootstrap over runs, game by game (Agarwal et al. 2021).",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
    ]
    for label, row in rows.items():
        figures = [
            "" if found is None else f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
            for name, found in row.items()
            if reference or name != "improvement"
        ]
        count = sum(map(len, scores[label]))
        lines.append(f"| {' | '.join([label, str(count), *figures])} |")
    return "\n".join(lines) + "\n"

"""Joint tables of comparisons on several targets: ``compare --join``.

Scores of policies on several games are human-normalised, see
:mod:`zoo_lightning.rl.environments.reference_scores`. For comparisons on images, the data sets on
which Zoo-Tuning wins, ties and loses are counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean

import numpy as np

from zoo_lightning.benchmarking.grid import Comparison, cells_of
from zoo_lightning.benchmarking.report import (
    HINDSIGHT,
    Table,
    make_tables,
    markdown,
    outcome,
    unfinished_line,
)
from zoo_lightning.benchmarking.statistics import (
    BootstrapEstimate,
    Difference,
    Scores,
    estimate,
    interquartile_mean,
    mean_score,
    median_of_means,
    paired,
    probability_of_improvement,
    with_half,
)
from zoo_lightning.errors import ConfigError
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.methods.recipes import find_recipes
from zoo_lightning.rl.environments.reference_scores import human_normalised

JOINT = "joint.json"
"""Name of the file of all figures, beside the tables in ``joint.md``."""

STATISTICS: Mapping[str, Callable[..., np.ndarray]] = {
    "interquartile mean": interquartile_mean,
    "mean": mean_score,
    "median of the games' means": median_of_means,
}


def join_games(
    comparisons: Sequence[Comparison], methods: Sequence[str], seeds: Sequence[int], output: Path
) -> str:
    """Write ``joint.md`` and ``joint.json`` of comparisons of policies on several games.

    Args:
        comparisons: comparisons of policies, one for each game.
        methods: methods to compare.
        seeds: seeds to compare.
        output: folder for the files.

    Returns:
        The table in Markdown.

    Raises:
        ConfigError: a comparison is not of policies, two are of the same game, a game has no
            reference scores, or no method has runs on all games.
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
    rows = {
        label: _row(of_label, scores[reference] if reference not in (None, label) else None)
        for label, of_label in scores.items()
    }
    text = format_games(rows, scores, list(games), reference)
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
    _write(output, text, content)
    return text


def _write(output: Path, text: str, content: Mapping[str, object]) -> None:
    with atomic_file(output / "joint.md") as part:
        part.write_text(text, **TEXT)
    with atomic_file(output / JOINT) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", **TEXT)


def _game(comparison: Comparison) -> str:
    if comparison.task != "PPOTask":
        raise ConfigError(
            f"--join takes comparisons of policies or of images, not both; {comparison.folder} is "
            f"of {comparison.task}"
        )
    from zoo_lightning.rl.environments.atari import find_game

    return find_game(comparison.options["data"]["init_args"].get("game", "pong"))


def _normalised(
    comparison: Comparison, game: str, methods: Sequence[str], seeds: Sequence[int]
) -> dict[str, dict[int, float]]:
    """Human-normalised scores by method and seed."""
    recipes = find_recipes(methods, comparison.task)
    cells = cells_of(recipes, list(comparison.sources), seeds, [1.0])
    [table] = make_tables(comparison, cells)

    def normalised(value: float) -> float:
        score = human_normalised(game, value)
        if score is None:
            raise ConfigError(f"--join: the literature has no human score of {game}")
        return score

    normalised(0.0)
    return {
        row.label: {seed: normalised(value) for seed, value in row.figures.items()}
        for row in table.rows
        if row.figures
    }


def _row(scores: Scores, reference: Scores | None) -> dict[str, BootstrapEstimate | None]:
    row: dict[str, BootstrapEstimate | None] = {
        name: estimate(scores, statistic) for name, statistic in STATISTICS.items()
    }
    row["improvement"] = (
        None if reference is None else estimate([*scores, *reference], probability_of_improvement)
    )
    return row


def format_games(
    rows: Mapping[str, Mapping[str, BootstrapEstimate | None]],
    scores: Mapping[str, Scores],
    games: Sequence[str],
    reference: str | None,
) -> str:
    """Format the table of human-normalised scores in Markdown."""
    heads = ["method", "runs", *STATISTICS, f"chance to beat {reference}"]
    heads = heads[: None if reference else -1]
    lines = []
    for label, row in rows.items():
        figures = [
            "" if found is None else f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
            for name, found in row.items()
            if reference or name != "improvement"
        ]
        count = sum(map(len, scores[label]))
        lines.append([label, str(count), *figures])
    return (
        f"# {', '.join(games)}\n\n"
        "Human-normalised scores (0 random play, 1 a person), in brackets the 95 % interval by the "
        "bootstrap over runs, game by game (Agarwal et al. 2021).\n\n"
        f"{markdown(heads, lines)}"
    )


def join_targets(
    comparisons: Sequence[Comparison],
    methods: Sequence[str],
    seeds: Sequence[int],
    fractions: Sequence[float],
    output: Path,
    budgets: Sequence[float | None] = (None,),
) -> str:
    """Write ``joint.md`` and ``joint.json`` of comparisons on several data sets.

    Args:
        comparisons: comparisons in folders that are named after the targets.
        methods: methods to compare.
        seeds: seeds to compare.
        fractions: fractions of the training data; each counts as a separate target.
        output: folder for the files.
        budgets: budgets of the methods; each counts as a separate target.

    Returns:
        The tables in Markdown.

    Raises:
        ConfigError: a folder has no finished run, two folders have the same name, or no method has
            runs on all targets.
    """
    tables: dict[str, Table] = {}
    for comparison in comparisons:
        folder = comparison.folder
        recipes = find_recipes(methods, comparison.task, needed=None in budgets)
        cells = cells_of(recipes, list(comparison.sources), seeds, fractions, budgets)
        finished = [table for table in make_tables(comparison, cells) if table.rows]
        if not finished:
            raise ConfigError(
                f"--join: no run of {folder} has ended by these methods, seeds and budgets; give "
                "--methods, --seeds and --budgets as there"
            )
        for table in finished:
            name = folder.resolve().name + ("" if table.fraction == 1 else f" {table.fraction:g}")
            name += "" if table.budget is None else f", budget {table.budget:g}"
            if name in tables:
                raise ConfigError(f"--join: two folders are called {name}; rename one of them")
            tables[name] = table
    labels = common_labels(list(tables.values()))
    if not labels:
        raise ConfigError(f"--join: no method has finished runs on all of {', '.join(tables)}")
    text = format_targets(tables, labels) + _left_out(tables, labels)
    content = {
        name: {
            "metric": table.metric.name,
            "figures": {label: table.row(label).figures for label in labels},
            "intervals": {label: table.row(label).interval._asdict() for label in labels},
            "outcomes": {
                zoo: {label: _outcome(table, zoo, label) for label in _baselines(table, labels)}
                for zoo in _zoos(table, labels)
            },
        }
        for name, table in tables.items()
    }
    _write(output, text, content)
    return text


def _left_out(tables: Mapping[str, Table], labels: Sequence[str]) -> str:
    """Format lines on methods that not all tables have, and on seeds that a table lacks."""
    everything = [row.label for table in tables.values() for row in table.rows if row.figures]
    some = [label for label in dict.fromkeys(everything) if label not in labels]
    lines = (
        [f"left out, since not all have finished runs of them: {', '.join(some)}"] if some else []
    )
    for name, table in tables.items():
        known = {label: seeds for label, seeds in table.unfinished.items() if label in labels}
        lines += [f"{name}: {line}" for line in unfinished_line(known)]
    return "".join(f"\n- {line}" for line in lines) + ("\n" if lines else "")


def common_labels(tables: Sequence[Table]) -> list[str]:
    """Labels with results in all tables, in the order of the first table."""
    first, *others = [[row.label for row in table.rows if row.figures] for table in tables]
    return [label for label in first if all(label in each for each in others)]


def mean_ranks(tables: Sequence[Table], labels: Sequence[str]) -> dict[str, float]:
    """Mean rank of every method over the tables, 1 for the best.

    Rows that could be chosen only with the test data have no rank: named single sources, and the
    best one in hindsight.
    """
    methods = [label for label in labels if _is_method(label)]
    places: dict[str, list[int]] = {label: [] for label in methods}
    for table in tables:
        values = {label: table.metric.sign * table.row(label).interval.mean for label in methods}
        for label, value in values.items():
            places[label].append(1 + sum(other > value for other in values.values()))
    return {label: mean(found) for label, found in places.items()}


def less_error(tables: Sequence[Table], better: str, worse: str) -> Difference | None:
    """Reduction of the error from one method to a better one, in percent of the worse error.

    Relative reductions can be compared between targets, unlike differences of accuracy or NME. They
    are averaged over targets for each common seed, so that the interval reflects the spread over
    seeds, not over targets.

    Returns:
        The difference; ``None`` if no seed is common to all runs, or an error of the worse method
        is 0.
    """
    methods = [[_errors(table, label) for table in tables] for label in (better, worse)]
    seeds = set.intersection(*(set(errors) for found in methods for errors in found))
    if not seeds or any(errors[seed] <= 0 for errors in methods[1] for seed in seeds):
        return None
    pairs = list(zip(*methods, strict=True))
    gains = {seed: mean(100 * (1 - a[seed] / b[seed]) for a, b in pairs) for seed in seeds}
    return paired(gains, dict.fromkeys(seeds, 0.0))


def _errors(table: Table, label: str) -> dict[int, float]:
    figures = table.row(label).figures
    return {k: 100 - v for k, v in figures.items()} if table.metric.sign > 0 else dict(figures)


def format_targets(tables: Mapping[str, Table], labels: Sequence[str]) -> str:
    """Format tables in Markdown: results, then targets on which Zoo-Tuning wins and loses."""
    first = next(iter(tables.values()))
    ranks = mean_ranks(list(tables.values()), labels)
    units = [f"{name}, {table.metric.unit}" for name, table in tables.items()]
    best = {
        name: max(ranks, key=lambda k: table.metric.sign * table.row(k).interval.mean, default=None)
        for name, table in tables.items()
    }
    lines = [
        f"# {', '.join(tables)}",
        "",
        "Mean ± half of the 95 % interval (Student's t over seeds). Ranked are the methods that "
        "can be chosen without the test data, by their mean place; the best of them is bold.",
        "",
    ]
    rows = []
    for label in labels:
        figures = [
            f"**{text}**" if best[name] == label else text
            for name, table in tables.items()
            for text in [with_half(table.row(label).interval)]
        ]
        rank = f"{ranks[label]:.1f}" if label in ranks else ""
        rows.append([label, *figures, rank])
    lines.append(markdown(["method", *units, "mean rank"], rows).rstrip("\n"))
    zoos = _zoos(first, labels)
    if zoos:
        lines += [
            "",
            "Targets on which Zoo-Tuning wins / ties / loses: the 95 % interval of the difference, "
            "seed by seed, lies on one side of 0 or contains it. Beside it by how many per cent of "
            "the other's error its own is smaller (of an accuracy the error is what it lacks to "
            "100 %): the mean over the targets, ± half of its 95 % interval by Student's t over "
            "seeds. The interval is of these targets; it does not speak of others.",
            "",
        ]
        rows = []
        for label in _baselines(first, labels):
            cells = [
                cell
                for zoo in zoos
                for cell in (
                    _counts([_outcome(each, zoo, label) for each in tables.values()]),
                    _per_cent(less_error(list(tables.values()), zoo, label)),
                )
            ]
            rows.append([label, *cells])
        heads = [f"{zoo}{head}" for zoo in zoos for head in ("", ", less error")]
        lines.append(markdown(["against", *heads], rows).rstrip("\n"))
    return "\n".join(lines) + "\n"


def _outcome(table: Table, zoo: str, label: str) -> int:
    return outcome(table.metric, table.between(table.row(zoo), table.row(label)))


def _counts(outcomes: Sequence[int]) -> str:
    return " / ".join(str(outcomes.count(kind)) for kind in (1, 0, -1))


def _per_cent(found: Difference | None) -> str:
    return "" if found is None else f"{with_half(found, '+')} %"


def _zoos(table: Table, labels: Sequence[str]) -> list[str]:
    return [label for label in labels if table.row(label).zoo]


def _baselines(table: Table, labels: Sequence[str]) -> list[str]:
    return [label for label in labels if not table.row(label).zoo]


def _is_method(label: str) -> bool:
    return label != HINDSIGHT and not label.startswith("single ")

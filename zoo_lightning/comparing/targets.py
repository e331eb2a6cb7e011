"""Comparisons on several targets, taken together: who wins, ties and loses where."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from zoo_lightning.comparing.grid import Comparison, cells_of
from zoo_lightning.comparing.report import HINDSIGHT, Table, make_tables, outcome
from zoo_lightning.comparing.statistics import Difference, paired, with_half
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.recipes import find_recipes
from zoo_lightning.text_files import TEXT
from zoo_lightning.whole_files import whole_file


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
        comparisons: in folders called as their targets are.
        methods: to look at.
        seeds: likewise.
        fractions: of the training data, likewise; each is a target of its own.
        output: folder for the files.
        budgets: of the methods; each is a target of its own.

    Returns:
        The tables, Markdown.

    Raises:
        ConfigError: a folder has no finished run, two are called alike, or no method has runs on
            all targets.
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
    text = format_targets(tables, labels)
    content = {
        name: {
            "metric": table.metric.name,
            "figures": {label: table.row(label).figures for label in labels},
            "outcomes": {
                zoo: {label: _outcome(table, zoo, label) for label in _baselines(table, labels)}
                for zoo in _zoos(table, labels)
            },
        }
        for name, table in tables.items()
    }
    with whole_file(output / "joint.md") as part:
        part.write_text(text, **TEXT)
    with whole_file(output / "joint.json") as part:
        part.write_text(json.dumps(content, indent=1) + "\n", **TEXT)
    return text


def common_labels(tables: Sequence[Table]) -> list[str]:
    """Labels that have figures in all tables, of which there is one at least, in its order."""
    first, *others = [[row.label for row in table.rows if row.figures] for table in tables]
    return [label for label in first if all(label in each for each in others)]


def mean_ranks(tables: Sequence[Table], labels: Sequence[str]) -> dict[str, float]:
    """Mean place of every method by its mean figure, 1 for the best.

    What nobody can choose beforehand has no place: single sources by name, and the best by
    hindsight.
    """
    methods = [label for label in labels if _is_method(label)]
    places: dict[str, list[int]] = {label: [] for label in methods}
    for table in tables:
        values = {label: table.metric.sign * table.row(label).interval.mean for label in methods}
        for label, value in values.items():
            places[label].append(1 + sum(other > value for other in values.values()))
    return {label: mean(found) for label, found in places.items()}


def less_error(tables: Sequence[Table], better: str, worse: str) -> Difference | None:
    """By how many per cent of the second method's error the first one's is smaller.

    Errors are comparable as parts of each other, where points of accuracy and of NME are not. Of
    each seed that all runs of both methods have the mean over the targets is taken, so that the
    spread is that of the seeds and not that of the targets.

    Returns:
        ``None`` if no seed is common to all, or if there is no error to be a part of.
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
    """Markdown: the figures, then where Zoo-Tuning wins, ties and loses."""
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
        *_head(["method", *units, "mean rank"]),
    ]
    for label in labels:
        figures = [
            f"**{text}**" if best[name] == label else text
            for name, table in tables.items()
            for text in [with_half(table.row(label).interval)]
        ]
        rank = f"{ranks[label]:.1f}" if label in ranks else ""
        lines.append(_line([label, *figures, rank]))
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
            *_head(["against", *(f"{zoo}{head}" for zoo in zoos for head in ("", ", less error"))]),
        ]
        for label in _baselines(first, labels):
            cells = [
                cell
                for zoo in zoos
                for cell in (
                    _counts([_outcome(each, zoo, label) for each in tables.values()]),
                    _per_cent(less_error(list(tables.values()), zoo, label)),
                )
            ]
            lines.append(_line([label, *cells]))
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


def _head(cells: Sequence[str]) -> list[str]:
    return [_line(cells), f"|{'---|' * len(cells)}"]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

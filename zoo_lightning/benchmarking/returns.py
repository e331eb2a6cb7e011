"""Learning curves of policies: scores of the games that ended in training.

A test shows how good a policy is in the end, with its best checkpoint; these curves show how fast
it learns.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from zoo_lightning.benchmarking.grid import Cell, Comparison
from zoo_lightning.benchmarking.report import markdown
from zoo_lightning.benchmarking.statistics import interval, with_half
from zoo_lightning.files.text import TEXT
from zoo_lightning.runs.run_folder import METRICS, metric_by_step

RETURN, LOSS = "charts/episodic_return", "losses/policy_loss"
"""Metrics that are logged when games end, and at every rollout."""

WINDOWS = 20
"""Number of windows into which a training is divided."""

Curve = dict[int, float]
"""Mean score of the games that ended in each window, by the window's last step."""


def returns_in_training(metrics: Path, window: int, rollout: int = 1) -> Curve:
    """Read a run's unclipped training scores, averaged in windows of agent steps.

    Args:
        metrics: ``metrics.csv`` of the run, with a row for each rollout or for each game.
        window: number of agent steps in a window.
        rollout: number of agent steps in a rollout; rows of a rollout are averaged first, so that
            logs with a row per game and logs with a row per rollout give the same curve.

    Returns:
        The curve, without windows in which no game ended.
    """
    games: dict[int, list[float]] = defaultdict(list)
    with metrics.open(newline="", **TEXT) as stream:
        for row in csv.DictReader(stream):
            if row.get(RETURN):
                end = -(-int(float(row["step"])) // rollout) * rollout
                games[end].append(float(row[RETURN]))
    windows: dict[int, list[float]] = defaultdict(list)
    for end, scores in games.items():
        windows[-(-end // window) * window].append(mean(scores))
    return {end: mean(scores) for end, scores in sorted(windows.items())}


def training_curves(comparison: Comparison, cells: Sequence[Cell]) -> dict[str, dict[int, Curve]]:
    """Build the curves of a comparison's finished policies, by label and seed."""
    curves: dict[str, dict[int, Curve]] = {}
    for cell in cells:
        summary, metrics = comparison.summary(cell), comparison.run(cell) / METRICS
        if summary is None or not metrics.is_file():
            continue
        window = -(-max(metric_by_step(metrics.parent, LOSS)) // WINDOWS)
        if curve := returns_in_training(metrics, window):
            curves.setdefault(cell.label, {})[cell.seed] = curve
    return curves


def format_returns(curves: Mapping[str, Mapping[int, Curve]]) -> str:
    """Format average scores over the training and its last tenth as a Markdown table.

    Values are means ± half of the 95 % interval over the seeds.
    """
    heads = ["method", "seeds", "average over the training", "average over its last tenth"]
    rows = []
    runs = [run for by_seed in curves.values() for run in by_seed.values()]
    last = max((max(run) for run in runs), default=0)
    for label, by_seed in curves.items():
        whole = interval([mean(run.values()) for run in by_seed.values()])
        ends = [found for run in by_seed.values() if (found := _end(run, last))]
        end = with_half(interval([mean(scores) for scores in ends])) if ends else ""
        rows.append([label, str(len(by_seed)), with_half(whole), end])
    return markdown(heads, rows)


def _end(curve: Curve, last: int) -> list[float]:
    """Scores of a curve in the last tenth of a number of steps."""
    return [score for end, score in curve.items() if end > 0.9 * last]

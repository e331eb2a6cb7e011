"""What policies scored while they learned: the whole games that ended in training.

A test tells what a policy has become, after a choice among its checkpoints; this tells how soon.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from zoo_lightning.comparing.grid import Cell, Comparison
from zoo_lightning.comparing.statistics import interval, with_half
from zoo_lightning.run_folder import METRICS, metric_by_step
from zoo_lightning.text_files import TEXT

RETURN, LOSS = "charts/episodic_return", "losses/policy_loss"
"""As logged: when games end, and at every rollout."""

WINDOWS = 20
"""Into which a training is divided."""

Curve = dict[int, float]
"""Mean score of the games that ended in a window, by the window's last step."""


def returns_in_training(metrics: Path, window: int, rollout: int = 1) -> Curve:
    """Unclipped scores that a run logged, averaged in windows of agent steps.

    Args:
        metrics: the run's ``metrics.csv``, a row for each rollout or for each game.
        window: steps that are averaged over.
        rollout: steps whose rows are averaged first, so that a log with a row for each game and
            one with a row for each rollout give the same curve.

    Returns:
        The curve; a window in which no game ended is not in it.
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
    """Curves of a comparison's finished policies in whose training games ended, by label, seed."""
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
    """Markdown: for each method the average over the training and over its last tenth.

    Mean ± half of the 95 % interval over the seeds.
    """
    heads = ["method", "seeds", "average over the training", "average over its last tenth"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    runs = [run for by_seed in curves.values() for run in by_seed.values()]
    last = max((max(run) for run in runs), default=0)
    for label, by_seed in curves.items():
        whole = interval([mean(run.values()) for run in by_seed.values()])
        ends = [found for run in by_seed.values() if (found := _end(run, last))]
        end = with_half(interval([mean(scores) for scores in ends])) if ends else ""
        lines.append(f"| {label} | {len(by_seed)} | {with_half(whole)} | {end} |")
    return "\n".join(lines) + "\n"


def _end(curve: Curve, last: int) -> list[float]:
    """Scores in the last tenth of so many steps; windows in which no game ended are in no curve."""
    return [score for end, score in curve.items() if end > 0.9 * last]

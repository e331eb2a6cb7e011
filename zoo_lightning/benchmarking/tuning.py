"""Tune the learning rates of all methods with the same number of trials, by validation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from filelock import FileLock

from zoo_lightning.benchmarking.grid import CHOSEN, TRIAL_SEED, Cell, Comparison
from zoo_lightning.errors import ConfigError
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.methods.recipe import Recipe, Trained
from zoo_lightning.runs.run_folder import SUMMARY

REACH = 8.0
"""Ratio of the highest rate to the experiment's, and of the experiment's to the lowest."""


def rates(comparison: Comparison, trials: int) -> list[float]:
    """Compute the rates to try, evenly spaced on a logarithmic scale, the experiment's among them.

    An even number has one more below the experiment's rate than above, since fine-tuning suffers
    more from a rate that is too high.

    Raises:
        ConfigError: fewer than two trials, or the experiment sets no learning rate.
    """
    if trials < 2:
        raise ConfigError(f"--tune {trials}: expected at least 2 trials for every method")
    middle = comparison.options["model"]["init_args"].get("lr")
    if not middle:
        raise ConfigError("--tune varies model.lr, which the experiment does not set; set it")
    around = np.geomspace(middle / REACH, middle * REACH, trials + (trials + 1) % 2)
    found = [float(f"{rate:.3g}") for rate in around]
    found[len(found) // 2] = middle  # as it stands
    return found[:trials]


def trials_of(
    comparison: Comparison, recipes: Sequence[Recipe], fractions: Sequence[float], trials: int
) -> list[Cell]:
    """Create the cells of the trials for every variant of every trained method."""
    found = rates(comparison, trials)
    return [
        Cell(recipe.name, variant, TRIAL_SEED, fraction, rate)
        for recipe in recipes
        if isinstance(recipe, Trained)
        for fraction in fractions
        for variant in recipe.variants(list(comparison.sources))
        for rate in found
    ]


def check_untuned(comparison: Comparison, cells: Sequence[Cell]) -> None:
    """Check that no method to tune has untuned runs.

    Raises:
        ConfigError: a run was trained with a rate that was not tuned.
    """
    for cell in cells:
        if comparison.chosen_lr(cell) is None and (runs := _runs_like(comparison, cell)):
            raise ConfigError(
                f"--tune: {runs[0]} was trained without tuning, and would be averaged with tuned "
                "runs; give another --run_dir, or remove it"
            )


def choose(comparison: Comparison, cells: Sequence[Cell], higher_is_better: bool) -> None:
    """Save the best rate of each method, variant and fraction, from its finished trials.

    Rates of other methods that were chosen before are kept, and so is the rate of a method that has
    runs, because all of its seeds must have the same rate.
    """
    sign = 1 if higher_is_better else -1
    best: dict[str, dict[str, float]] = {}
    fixed: set[str] = set()
    for cell in cells:
        found = comparison.validation(cell)
        if found is None or cell.lr is None:
            continue
        key = cell.tuning_key
        if key not in best or sign * found > sign * best[key]["validation"]:
            best[key] = {"lr": cell.lr, "validation": found}
        if _runs_like(comparison, cell):
            fixed.add(key)
    path = comparison.folder / CHOSEN
    with FileLock(path.with_name(f"{CHOSEN}.lock")):
        before = json.loads(path.read_text(**TEXT)) if path.is_file() else {}
        kept = {key: value for key, value in before.items() if key in fixed}
        with atomic_file(path) as part:
            part.write_text(json.dumps(before | best | kept, indent=2) + "\n", **TEXT)


def _runs_like(comparison: Comparison, cell: Cell) -> list[Path]:
    """Summaries of all runs of a cell's method, variant and fraction, for any seed and budget."""
    method = comparison.run(replace(cell, lr=None)).parent
    data = method.parent
    folders = [data, *data.parent.glob(f"{data.name}-budget-*")]
    return sorted(path for each in folders for path in each.glob(f"{method.name}/*/{SUMMARY}"))

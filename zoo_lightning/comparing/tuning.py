"""Equal tuning: the same number of learning rates for every method, judged by validation."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from zoo_lightning.comparing.grid import CHOSEN, TRIAL_SEED, Cell, Comparison, tuning_key
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.recipe import Recipe, Trained
from zoo_lightning.whole_files import whole_file

REACH = 8.0
"""The highest and the lowest rate that are tried are the experiment's times and through this."""


def rates(comparison: Comparison, trials: int) -> list[float]:
    """Learning rates to try: the experiment's in the middle, evenly spaced on a logarithmic scale.

    Raises:
        ConfigError: fewer than two, or an experiment without a rate.
    """
    if trials < 2:
        raise ConfigError(f"--tune {trials}: expected at least 2 trials for every method")
    middle = comparison.options["model"]["init_args"].get("lr")
    if not middle:
        raise ConfigError("--tune varies model.lr, which the experiment does not set; set it")
    return [float(f"{rate:.3g}") for rate in np.geomspace(middle / REACH, middle * REACH, trials)]


def trials_of(
    comparison: Comparison, recipes: Sequence[Recipe], fractions: Sequence[float], trials: int
) -> list[Cell]:
    """Cells of the trials: of every method that is trained, and of each of its variants."""
    found = rates(comparison, trials)
    return [
        Cell(recipe.name, variant, TRIAL_SEED, fraction, rate)
        for recipe in recipes
        if isinstance(recipe, Trained)
        for fraction in fractions
        for variant in recipe.variants(list(comparison.sources))
        for rate in found
    ]


def choose(comparison: Comparison, cells: Sequence[Cell], higher_is_better: bool) -> None:
    """Note the best rate of each method, variant and fraction, from its finished trials."""
    sign = 1 if higher_is_better else -1
    best: dict[str, tuple[float, float]] = {}
    for cell in cells:
        found = comparison.validation(cell)
        if found is None:
            continue
        key = tuning_key(cell)
        if key not in best or sign * found > sign * best[key][1]:
            best[key] = (cell.lr, found)
    content = {key: {"lr": lr, "validation": found} for key, (lr, found) in best.items()}
    with whole_file(comparison.folder / CHOSEN) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")

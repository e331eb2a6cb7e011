"""Cells of a comparison, their folders, and which of them are finished.

A comparison is a folder: ``experiment.yaml`` (the options of ``fit`` that all cells share), a
folder for each cell below ``runs/``, and the tables. Which cells are finished is determined by the
files alone, so any number of processes and machines can work on a comparison, and can be
interrupted at any time.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.option_names import parts_under_present_names
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.methods.recipe import FinishedRun, Recipe, Setting, Trained
from zoo_lightning.methods.recipes import RECIPES
from zoo_lightning.models.architecture import vouch_for
from zoo_lightning.runs.options import differences, sources_of, task_of
from zoo_lightning.runs.pool import folder_name, rounded_budget, run_label
from zoo_lightning.runs.run_folder import SUMMARY, read_summary, seconds_of

EXPERIMENT, CHOSEN, REQUESTED = "experiment.yaml", "tuning.json", "requested.yaml"

TRIAL_SEED = 1000
"""Seed of all tuning trials; it differs from the comparison's usual seeds."""


@dataclass(frozen=True)
class Cell:
    """Cell of a comparison: one run of a method.

    Attributes:
        method: name of the method's recipe.
        variant: variant of the method, such as the name of a source; empty for most methods.
        seed: seed of the run.
        fraction: fraction of the training data; 1 for all.
        lr: learning rate of a tuning trial; ``None`` for a run, which takes the tuned rate or the
            experiment's.
        budget: cost limit of the run and all runs that it needs, in trainings of one ordinary
            network for the experiment's length; ``None``: each training has the experiment's
            length.
    """

    method: str
    variant: str = ""
    seed: int = 0
    fraction: float = 1.0
    lr: float | None = None
    budget: float | None = None

    @property
    def is_trial(self) -> bool:
        """Whether the cell is a tuning trial; trials are never tested."""
        return self.lr is not None

    @property
    def label(self) -> str:
        """Label in tables: method and variant."""
        return run_label(self.method, self.variant)

    @property
    def path(self) -> Path:
        """Path of the cell's folder, relative to the comparison's."""
        kind = "trials" if self.is_trial else "runs"
        last = f"lr-{self.lr:g}" if self.is_trial else str(self.seed)
        return Path(kind, target_name(self.fraction, self.budget), folder_name(self.label), last)

    @property
    def tuning_key(self) -> str:
        """Key of the tuned learning rate of the cell's method, variant and fraction."""
        return f"{self.label} on {self.fraction:g} of the data"


def target_name(fraction: float, budget: float | None) -> str:
    """Name of folders and files for a fraction of the training data and a budget."""
    return f"data-{fraction:g}" + ("" if budget is None else f"-budget-{budget:g}")


class TrainingCost(NamedTuple):
    """Training cost of a cell and all cells that it needs.

    Attributes:
        multiply_adds: total multiply-adds; ``None`` if they were not counted in all runs.
        seconds: total seconds.
        unit: multiply-adds of one ordinary network trained for the experiment's length; ``None``
            without a budget.
    """

    multiply_adds: int | None
    seconds: float
    unit: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Comparison: its folder, and the options that its cells share.

    Attributes:
        folder: folder of the comparison.
        options: shared options of ``fit`` in plain types.
        hold_out: whether the test data are not used, and methods are compared by validation.
    """

    folder: Path
    options: dict[str, Any]
    hold_out: bool = False

    def __post_init__(self) -> None:
        # The runs' checkpoints name the same architecture as the experiment.
        vouch_for(self.options["model"]["init_args"]["backbone"]["init_args"].get("architecture"))

    @property
    def task(self) -> str:
        """Class name of the task."""
        return task_of(self.options)

    @property
    def sources(self) -> dict[str, Any]:
        """Sources of the experiment by name."""
        return sources_of(self.options)

    def run(self, cell: Cell) -> Path:
        """Run folder of a cell."""
        return self.folder / cell.path

    def trained(self, cell: Cell) -> dict[str, Any] | None:
        """Summary of a trained cell, tested or not; ``None`` if it is not trained."""
        return read_summary(self.run(cell))

    def summary(self, cell: Cell) -> dict[str, Any] | None:
        """Summary of a finished cell; ``None`` if it is not finished.

        Without ``hold_out``, a cell is finished when it is tested; a trial, when it is trained.
        """
        found = self.trained(cell)
        wants_test = not (self.hold_out or cell.is_trial)
        return None if found is None or (wants_test and not found["test"]) else found

    def validation(self, cell: Cell) -> float | None:
        """Best validation metric of a trained cell; ``None`` if there is none."""
        summary = self.trained(cell)
        return None if summary is None else next(iter(summary.get("validation", {}).values()), None)

    def chosen_lr(self, cell: Cell) -> float | None:
        """Tuned learning rate of a cell's method and variant; ``None`` without tuning."""
        path = self.folder / CHOSEN
        found = json.loads(path.read_text(**TEXT)) if path.is_file() else {}
        return found.get(cell.tuning_key, {}).get("lr")

    def needed(self, recipe: Recipe, cell: Cell) -> list[Cell]:
        """Cells of a method that another cell needs, with the same seed and data.

        A trial needs the trials at the tuned rates. The method's budget for needed cells is divided
        equally among them.
        """
        variants = recipe.variants(list(self.sources))
        budget = None
        if cell.budget is not None:
            consumer = RECIPES[cell.method]
            runs = len(variants) * len(consumer.needs)
            budget = rounded_budget(cell.budget * consumer.needs_share / runs)
        cells = [
            Cell(recipe.name, variant, cell.seed, cell.fraction, budget=budget)
            for variant in variants
        ]
        return [replace(c, lr=self.chosen_lr(c)) for c in cells] if cell.is_trial else cells

    def closure(self, cell: Cell) -> list[Cell]:
        """All cells that a cell needs, each once, followed by the cell itself."""
        found: dict[Cell, None] = {}
        for name in RECIPES[cell.method].needs:
            for other in self.needed(RECIPES[name], cell):
                found |= dict.fromkeys(self.closure(other))
        return [*found, cell]

    def cost(self, cell: Cell) -> TrainingCost:
        """Training cost of a trained cell and all cells that it needs."""
        summaries = [each for c in self.closure(cell) if (each := self.trained(c)) is not None]
        computes = [each.get("compute") or {} for each in summaries]
        counted: int | None = None
        if all(computes):  # early versions wrote none
            # Teachers that the method needs are cells themselves; others are added.
            left_out = ("teachers",) if RECIPES[cell.method].needs else ()
            parts = [compute["parts"] for compute in computes]
            known = [v for each in parts for part, v in each.items() if part not in left_out]
            counted = None if None in known else sum(known)
        units = [compute["unit"] for compute in computes if "unit" in compute]
        seconds = sum(map(seconds_of, summaries))
        return TrainingCost(counted, seconds, units[0] if units else None)

    def tuning_seconds(self, cell: Cell) -> float:
        """Seconds of all tuning trials of a cell's method and variant."""
        trials = self.run(replace(cell, lr=0.0, budget=None)).parent
        summaries = [read_summary(path.parent) for path in trials.glob(f"*/{SUMMARY}")]
        return sum(seconds_of(each) for each in summaries if each is not None)

    def missing(self, cell: Cell) -> list[Cell]:
        """Cells that a cell needs and that are not trained yet."""
        needs = [RECIPES[name] for name in RECIPES[cell.method].needs]
        return [c for need in needs for c in self.needed(need, cell) if self.trained(c) is None]

    def finished(self, recipe: Recipe, cell: Cell) -> list[FinishedRun]:
        """Trained runs of a method that a cell needs.

        Raises:
            ConfigError: a run had no validation.
        """
        runs = []
        for other in self.needed(recipe, cell):
            if self.trained(other) is None:
                continue
            if (validation := self.validation(other)) is None:
                raise ConfigError(
                    f"{self.run(other)} has no validation metric, which {cell.label} needs; let "
                    "trainer.val_check_interval validate it"
                )
            runs.append(FinishedRun(self.run(other), other.variant, validation))
        return runs

    def configured(
        self, cell: Cell, setting: Setting, recipe: Trained, lr: float | None
    ) -> dict[str, Any]:
        """Build the options of ``fit`` for a cell."""
        options = copy.deepcopy(self.options)
        options["seed_everything"] = cell.seed
        if cell.fraction != 1:
            options["data"].setdefault("init_args", {})["train_fraction"] = cell.fraction
        if cell.budget is not None:
            options["budget"] = rounded_budget(cell.budget * (1 - recipe.needs_share))
        recipe.configure(options, setting)
        if lr is not None:
            options["model"]["init_args"]["lr"] = lr
        return options


def cells_of(
    recipes: Sequence[Recipe],
    sources: Sequence[str],
    seeds: Sequence[int],
    fractions: Sequence[float],
    budgets: Sequence[float | None] = (None,),
) -> list[Cell]:
    """Create all cells, seed by seed, so that an interrupted comparison has complete seeds."""
    return [
        Cell(recipe.name, variant, seed, fraction, budget=budget)
        for seed in seeds
        for fraction in fractions
        for budget in budgets
        for recipe in recipes
        for variant in recipe.variants(sources)
    ]


def with_needed(comparison: Comparison, cells: Sequence[Cell]) -> list[Cell]:
    """Add all cells that some cells need: each cell once, needed cells first."""
    found: dict[Cell, None] = {}
    for cell in cells:
        found |= dict.fromkeys(comparison.closure(cell))
    return list(found)


def open_comparison(
    folder: Path, options: dict[str, Any] | None, hold_out: bool = False
) -> Comparison:
    """Create a comparison, or open an existing one.

    Args:
        folder: folder of the comparison.
        options: shared options of ``fit``; ``None`` for those of the existing comparison.
        hold_out: whether not to use the test data.

    Raises:
        ConfigError: the existing comparison has other options, or there is none and no options are
            given.
    """
    path = folder / EXPERIMENT
    if path.is_file():
        before = parts_under_present_names(yaml.safe_load(path.read_text(**TEXT)))
        if options is not None and before != options:
            changed = ", ".join(sorted(differences(before, options)))
            raise ConfigError(
                f"{folder} was begun with other options: {changed}; leave them out to resume with "
                f"those of {path}, or give another --run_dir"
            )
        return Comparison(folder, before, hold_out)
    if options is None:
        raise ConfigError(f"{folder} is no comparison: it has no {EXPERIMENT}; give --experiment")
    with atomic_file(path) as part:
        part.write_text(yaml.safe_dump(options, sort_keys=False), **TEXT)
    return Comparison(folder, options, hold_out)


def requested_before(folder: Path) -> dict[str, Any]:
    """Read what the last command asked of a comparison: methods, seeds, and so on, by option.

    Raises:
        ConfigError: the file is no YAML mapping.
    """
    path = folder / REQUESTED
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text(**TEXT))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}; delete it, and give the options") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected options by name; delete it, and give the options")
    return found


def keep_request(folder: Path, request: Mapping[str, Any]) -> None:
    """Write what a command asks of a comparison, for commands that name the folder alone."""
    with atomic_file(folder / REQUESTED) as part:
        part.write_text(yaml.safe_dump(dict(request), sort_keys=False), **TEXT)

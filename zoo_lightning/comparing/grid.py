"""The grid of a comparison: its cells, their folders, and what is finished.

A comparison is a folder: ``experiment.yaml`` (the options of ``fit`` that all cells share), a
folder for each cell below ``runs/``, and the tables. What is finished is told by the files alone,
so any number of processes and machines may work on it and may be stopped at any time.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from zoo_lightning.architecture import vouch_for
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.recipe import FinishedRun, Recipe, Setting
from zoo_lightning.methods.recipes import RECIPES
from zoo_lightning.run_folder import SUMMARY
from zoo_lightning.runs.options import differences, sources_of, task_of
from zoo_lightning.text_files import TEXT
from zoo_lightning.whole_files import whole_file

EXPERIMENT, CHOSEN = "experiment.yaml", "tuning.json"

TRIAL_SEED = 1000
"""Of all trials of tuning; none of the comparison's own, so that no seed is chosen for."""


@dataclass(frozen=True)
class Cell:
    """One run of a comparison.

    Attributes:
        method: name of its recipe.
        variant: of the recipe, such as a source; empty for most.
        seed: of the run.
        fraction: of the training data; 1 for all.
        lr: learning rate of a trial; ``None`` takes the one that was chosen, or the experiment's.
        budget: what the run and all that it is made from may cost, in trainings of one ordinary
            network of the experiment's length; ``None`` trains that length whatever it costs.
    """

    method: str
    variant: str = ""
    seed: int = 0
    fraction: float = 1.0
    lr: float | None = None
    budget: float | None = None

    @property
    def is_trial(self) -> bool:
        """Whether it tries a learning rate: such a run never sees the test data."""
        return self.lr is not None

    @property
    def label(self) -> str:
        """Method and variant, for people to read."""
        return f"{self.method} {self.variant}".strip()

    @property
    def path(self) -> Path:
        """Of its folder, below the comparison's."""
        name = re.sub(r"[^\w.-]+", "-", self.label)
        kind = "trials" if self.is_trial else "runs"
        last = f"lr-{self.lr:g}" if self.is_trial else str(self.seed)
        data = f"data-{self.fraction:g}"
        if self.budget is not None:
            data += f"-budget-{self.budget:g}"
        return Path(kind, data, name, last)


class Spent(NamedTuple):
    """What a method has cost in training.

    Attributes:
        multiply_adds: of all that it needed; ``None`` if a run does not say.
        seconds: of all that it needed.
        unit: multiply-adds of one ordinary network trained for the experiment's length; ``None``
            without a budget.
    """

    multiply_adds: int | None
    seconds: float
    unit: int | None = None


@dataclass(frozen=True)
class Comparison:
    """A comparison's folder and the experiment that its cells share.

    Attributes:
        folder: of all of it.
        options: of ``fit``, in plain types.
        hold_out: whether the test data are left alone as yet, and methods judged by validation.
    """

    folder: Path
    options: dict[str, Any]
    hold_out: bool = False

    def __post_init__(self) -> None:
        # Its runs' checkpoints name the architecture that the experiment names.
        vouch_for(self.options["model"]["init_args"]["backbone"]["init_args"].get("architecture"))

    @property
    def task(self) -> str:
        """Name of the task's class."""
        return task_of(self.options)

    @property
    def sources(self) -> dict[str, Any]:
        """The experiment's sources by name."""
        return sources_of(self.options)

    def run(self, cell: Cell) -> Path:
        """Folder of a cell."""
        return self.folder / cell.path

    def trained(self, cell: Cell) -> dict[str, Any] | None:
        """``summary.json`` of a cell that is trained, tested or not; ``None`` of any other."""
        path = self.run(cell) / SUMMARY
        return json.loads(path.read_text(**TEXT)) if path.is_file() else None

    def summary(self, cell: Cell) -> dict[str, Any] | None:
        """``summary.json`` of a finished cell; ``None`` while it is not finished.

        Without ``hold_out`` a run is finished when it is tested.
        """
        found = self.trained(cell)
        wants_test = not (self.hold_out or cell.is_trial)
        return None if found is None or (wants_test and not found["test"]) else found

    def validation(self, cell: Cell) -> float | None:
        """Best validation figure of a trained cell; ``None`` of others."""
        summary = self.trained(cell)
        return None if summary is None else next(iter(summary.get("validation", {}).values()), None)

    def chosen_lr(self, cell: Cell) -> float | None:
        """The rate that tuning chose for a cell's method and variant; ``None`` without tuning."""
        path = self.folder / CHOSEN
        found = json.loads(path.read_text(**TEXT)).get(tuning_key(cell)) if path.is_file() else None
        return None if found is None else found["lr"]

    def needed(self, recipe: Recipe, cell: Cell) -> list[Cell]:
        """Cells of a recipe that another cell is made from: of its seed and its data.

        A trial is made from the trials of the rates that were chosen. Of a budget they get equal
        parts of what the cell's method has for them.
        """
        variants = recipe.variants(list(self.sources))
        budget = None
        if cell.budget is not None:
            consumer = RECIPES[cell.method]
            runs = len(variants) * len(consumer.needs)
            budget = rounded(cell.budget * consumer.needs_share / runs)
        cells = [
            Cell(recipe.name, variant, cell.seed, cell.fraction, budget=budget)
            for variant in variants
        ]
        return [replace(c, lr=self.chosen_lr(c)) for c in cells] if cell.is_trial else cells

    def closure(self, cell: Cell) -> list[Cell]:
        """A cell and all cells that it is made from, each once, the cell itself last."""
        found: dict[Cell, None] = {}
        for name in RECIPES[cell.method].needs:
            for other in self.needed(RECIPES[name], cell):
                found |= dict.fromkeys(self.closure(other))
        return [*found, cell]

    def cost(self, cell: Cell) -> Spent:
        """What a trained cell has cost in training, with all that it is made from."""
        summaries = [each for c in self.closure(cell) if (each := self.trained(c)) is not None]
        computes = [each.get("compute") for each in summaries]
        counted: int | None = None
        if all(computes):  # older versions wrote none
            # Teachers that a recipe chose are among the cells; others come on top.
            left_out = ("teachers",) if RECIPES[cell.method].needs else ()
            parts = [compute["parts"] for compute in computes]
            known = [v for each in parts for part, v in each.items() if part not in left_out]
            counted = None if None in known else sum(known)
        units = [compute["unit"] for compute in computes if compute and "unit" in compute]
        seconds = sum(each["seconds"] + each.get("start_seconds", 0.0) for each in summaries)
        return Spent(counted, seconds, units[0] if units else None)

    def tuning_seconds(self, cell: Cell) -> float:
        """Seconds of all trials from which the rate of a cell's method and variant was chosen."""
        trials = self.run(replace(cell, lr=0.0, budget=None)).parent
        summaries = [json.loads(path.read_text(**TEXT)) for path in trials.glob(f"*/{SUMMARY}")]
        return sum(each["seconds"] + each.get("start_seconds", 0.0) for each in summaries)

    def missing(self, needs: Sequence[Recipe], cell: Cell) -> list[Cell]:
        """Those of the cells a cell is made from that are not trained yet."""
        return [c for need in needs for c in self.needed(need, cell) if self.trained(c) is None]

    def finished(self, recipe: Recipe, cell: Cell) -> list[FinishedRun]:
        """Trained runs of a recipe that a cell is made from."""
        return [
            FinishedRun(self.run(other), other.variant, self.validation(other))
            for other in self.needed(recipe, cell)
            if self.trained(other) is not None
        ]

    def configured(self, cell: Cell, setting: Setting, recipe: Any, lr: float | None) -> dict:
        """Options of ``fit`` for a cell that is trained."""
        options = copy.deepcopy(self.options)
        options["seed_everything"] = cell.seed
        if cell.fraction != 1:
            options["data"].setdefault("init_args", {})["train_fraction"] = cell.fraction
        if cell.budget is not None:
            options["budget"] = rounded(cell.budget * (1 - recipe.needs_share))
        recipe.configure(options, setting)
        if lr is not None:
            options["model"]["init_args"]["lr"] = lr
        return options


def rounded(budget: float) -> float:
    """A budget as it stands in the names of folders."""
    return float(f"{budget:g}")


def tuning_key(cell: Cell) -> str:
    """What a learning rate is chosen for."""
    return f"{cell.label} on {cell.fraction:g} of the data"


def cells_of(
    recipes: Sequence[Recipe],
    sources: Sequence[str],
    seeds: Sequence[int],
    fractions: Sequence[float],
    budgets: Sequence[float | None] = (None,),
) -> list[Cell]:
    """All cells, seed by seed: what is stopped has whole seeds, and what is needed comes first."""
    return [
        Cell(recipe.name, variant, seed, fraction, budget=budget)
        for seed in seeds
        for fraction in fractions
        for budget in budgets
        for recipe in recipes
        for variant in recipe.variants(sources)
    ]


def with_needed(comparison: Comparison, cells: Sequence[Cell]) -> list[Cell]:
    """Cells and all that they are made from, each once, those that others need first."""
    found: dict[Cell, None] = {}
    for cell in cells:
        found |= dict.fromkeys(comparison.closure(cell))
    return list(found)


def open_comparison(
    folder: Path, options: dict[str, Any] | None, hold_out: bool = False
) -> Comparison:
    """Begin a comparison, or go on with one.

    Args:
        folder: of the comparison.
        options: shared options of ``fit``; ``None`` takes those of the comparison.
        hold_out: whether to leave the test data alone.

    Raises:
        ConfigError: the comparison was begun with other options, or there is none.
    """
    path = folder / EXPERIMENT
    if path.is_file():
        before = yaml.safe_load(path.read_text(**TEXT))
        if options is not None and before != options:
            changed = ", ".join(sorted(differences(before, options)))
            raise ConfigError(
                f"{folder} was begun with other options: {changed}; leave them out to go on with "
                f"those of {path}, or give another --run_dir"
            )
        return Comparison(folder, before, hold_out)
    if options is None:
        raise ConfigError(f"{folder} is no comparison: it has no {EXPERIMENT}; give --experiment")
    with whole_file(path) as part:
        part.write_text(yaml.safe_dump(options, sort_keys=False), **TEXT)
    return Comparison(folder, options, hold_out)

"""Train by a transfer method: the trainings that it needs, then its own, in one run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from zoo_lightning.cli.trainer import ZooCLI
from zoo_lightning.errors import ConfigError, ZooError
from zoo_lightning.experiments.resolving import run_data
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.methods.recipe import Derived, Recipe, Setting, Trained
from zoo_lightning.methods.recipes import RECIPES, SCRATCH, find_recipes
from zoo_lightning.pipelines.deriving import copy_records, derive
from zoo_lightning.pipelines.plan import Plan, sum_known
from zoo_lightning.pipelines.stage import STAGES, StageRun
from zoo_lightning.runs.options import higher_is_better
from zoo_lightning.runs.pool import Execution, fit_words, run_jobs
from zoo_lightning.runs.run_folder import (
    LOG,
    find_checkpoint,
    last_line_of_log,
    read_summary,
    seconds_of,
    write_summary,
)

FINAL = "final"
"""Folder of the options of the pipeline's own training, in the folder of its stages."""


def run_method(plan: Plan, folder: Path, execution: Execution) -> None:
    """Train by a method of :data:`~zoo_lightning.methods.recipes.RECIPES`.

    Finished stages are not repeated, and an interrupted pipeline is resumed. At the end, the folder
    is an ordinary run folder.

    Args:
        plan: plan of the pipeline.
        folder: folder of the pipeline.
        execution: processes for the stages.

    Raises:
        ConfigError: the method is unknown, has several variants, or is not for the task.
        ZooError: a training failed.
        WorkStopped: a signal was received while stages were trained; they have saved their state.
    """
    recipe, variant = find_method(plan)
    stages: list[StageRun] = []
    finished, share = {}, shares(plan)
    for name in recipe.needs:
        runs = stage_runs(plan, folder, RECIPES[name], share[name])
        train(runs, f"{name}, for {recipe.name}", execution)
        finished[name] = [each.finished() for each in runs]
        stages += runs
    setting = Setting(plan.sources, variant, finished, higher_is_better(plan.task))
    if isinstance(recipe, Derived):
        made_of = [each for name in recipe.needs for each in finished[name]]
        data = run_data(find_checkpoint(str(made_of[0].folder), None, ""))
        higher = setting.higher_is_better
        made = derive(recipe, made_of, data, higher, folder, plan.run_test)
        copy_records(made_of[0].folder, folder)
        seed = plan.options["seed_everything"]
        write_summary(folder, {"experiment": plan.experiment, "seed": seed, **made})
        add_costs(folder, stages, plan)
        return
    assert isinstance(recipe, Trained)
    budget = None if plan.budget is None else plan.budget * share[recipe.name]
    train_here(plan, folder, plan.configured(recipe, setting, budget))
    add_costs(folder, stages, plan)


def trainings(plan: Plan) -> float:
    """Estimate the cost of a plan, in trainings of one ordinary network."""
    recipe, _ = find_method(plan)
    if plan.budget is not None:
        return plan.budget
    names = list(plan.sources)
    needed = sum(len(RECIPES[name].variants(names)) for name in recipe.needs)
    return needed + isinstance(recipe, Trained)


def shares(plan: Plan) -> dict[str, float]:
    """Fraction of a plan's budget that each training of a method has, by the method's name."""
    recipe, _ = find_method(plan)
    names, number = list(plan.sources), len(recipe.needs)
    found = {
        name: recipe.needs_share / number / len(RECIPES[name].variants(names))
        for name in recipe.needs
    }
    own = {recipe.name: 1 - recipe.needs_share} if isinstance(recipe, Trained) else {}
    return found | own


def find_method(plan: Plan) -> tuple[Recipe, str]:
    """Find the recipe of a plan's method, and the variant to train.

    Raises:
        ConfigError: the method is unknown, not for the task, has several variants, or needs sources
            that are missing.
    """
    [recipe] = find_recipes([plan.method], plan.task, needed=False)
    variants = recipe.variants(list(plan.sources))
    if not variants or (not plan.sources and recipe.name != SCRATCH):
        raise ConfigError(f"--method {plan.method} needs sources; give --sources A,B")
    if len(variants) > 1:
        raise ConfigError(
            f"--method {plan.method} trains one network for each source; name one, such as "
            f"{plan.method}:{variants[0]}, or let short trainings decide: --method tried-single"
        )
    return recipe, variants[0]


def stage_runs(plan: Plan, folder: Path, recipe: Recipe, share: float) -> list[StageRun]:
    """Create the stages of a method that another method needs.

    Args:
        plan: plan of the pipeline.
        folder: folder of the pipeline.
        recipe: method of which each variant is trained.
        share: fraction of the budget for each of them, in [0, 1].
    """
    assert isinstance(recipe, Trained)
    variants = recipe.variants(list(plan.sources))
    budget = None if plan.budget is None else plan.budget * share
    return [
        plan.stage(
            folder,
            recipe.name,
            variant,
            plan.configured(recipe, Setting(plan.sources, variant), budget),
        )
        for variant in variants
    ]


def train(runs: Sequence[StageRun], title: str, execution: Execution) -> None:
    """Train the stages that are not finished, and report their results.

    Args:
        runs: stages, independent of each other.
        title: description of the stages in progress lines.
        execution: processes for the stages.

    Raises:
        ZooError: a training failed.
        WorkStopped: a signal was received; the stages have saved their state.
    """
    names = ", ".join(each.name for each in runs)
    execution.report(f"stage         {title}: {names}")
    ready = [each.is_finished() for each in runs]
    failed = run_jobs([runs], replace(execution, report=lambda line: None))
    for each, before in zip(runs, ready, strict=True):
        if each in failed or not each.is_finished():
            reason = last_line_of_log(each.folder, "no output")
            raise ZooError(
                f"{each.folder} failed: {reason} (see {each.folder / LOG}); give the same command "
                "to resume"
            )
        execution.report(f"  {described(each)}{' (already trained)' if before else ''}")


def described(stage: StageRun) -> str:
    """Format a line on a finished stage: validation metric, steps and seconds."""
    summary = stage.summary()
    [(name, value)] = summary["validation"].items()
    return f"{stage.name}: {name} {value:.4g}, {summary['steps']} steps, {summary['seconds']:.0f} s"


def train_here(plan: Plan, folder: Path, options: dict[str, Any]) -> None:
    """Run the pipeline's own training in this process, as ``fit`` does.

    Args:
        plan: plan of the pipeline.
        folder: folder of the pipeline.
        options: options of ``fit``.
    """
    # The run is called by the name of its configuration.
    config = folder / STAGES / FINAL / f"{Path(plan.experiment).name}.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(config) as part:
        part.write_text(yaml.safe_dump(options, sort_keys=False), **TEXT)
    if read_summary(folder) is None:  # else only the costs are still to be added
        ZooCLI(fit_words(config, folder, plan.run_test))


def add_costs(folder: Path, stages: Sequence[StageRun], plan: Plan) -> None:
    """Add the cost of the stages and the method to the pipeline's summary.

    Args:
        folder: folder of the pipeline.
        stages: stages whose cost is added.
        plan: plan of the pipeline.
    """
    summary = read_summary(folder)
    if summary is None:  # another rank writes it
        return
    costs = [own_cost(each.summary()) for each in stages]
    parts = own_parts(summary)
    if stages:
        parts["stages"] = sum_known([multiply_adds for multiply_adds, _ in costs])
    _, alone = own_cost(summary)
    units = [each.summary()["compute"].get("unit") for each in stages]
    summary["compute"] = {
        **({"unit": units[0]} if units and units[0] else {}),  # of the budget, the same for all
        **summary["compute"],
        "multiply_adds": sum_known(list(parts.values())),
        "seconds": round(alone + sum(seconds for _, seconds in costs), 1),
        "parts": parts,
    }
    # A run of a stage is named after the file of its options.
    write_summary(folder, {**summary, "experiment": plan.experiment, "pipeline": plan.method})


def own_cost(summary: Mapping[str, Any]) -> tuple[int | None, float]:
    """Multiply-adds and seconds of a run, without those of the runs that it needed.

    Args:
        summary: summary of the run; multiply-adds are ``None`` if a part was not counted.
    """
    return sum_known(list(own_parts(summary).values())), seconds_of(summary)


def own_parts(summary: Mapping[str, Any]) -> dict[str, int | None]:
    """Multiply-adds of a run by part, without ``teachers`` and ``init_from``, which are stages."""
    parts = summary["compute"]["parts"]
    return {part: v for part, v in parts.items() if part not in ("teachers", "init_from")}

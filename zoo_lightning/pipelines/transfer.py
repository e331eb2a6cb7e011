"""A transfer method carried out: the trainings it is made from, then its own, in one run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from zoo_lightning.errors import ConfigError, ZooError
from zoo_lightning.experiment_sources import run_data
from zoo_lightning.methods.deriving import derive
from zoo_lightning.methods.recipe import Derived, Recipe, Setting, Trained
from zoo_lightning.methods.recipes import RECIPES, find_recipes
from zoo_lightning.pipelines.plan import Plan, sum_known
from zoo_lightning.pipelines.publishing import BEST, copy_records
from zoo_lightning.pipelines.stage import STAGES, StageRun, fit_words
from zoo_lightning.run_folder import SUMMARY, last_line_of_log, write_summary
from zoo_lightning.runs.options import higher_is_better
from zoo_lightning.runs.pool import Job, Say, run_here
from zoo_lightning.text_files import TEXT
from zoo_lightning.trainer_cli import run
from zoo_lightning.whole_files import whole_file

FINAL = "final.yaml"
"""Options of the pipeline's own training, below its stages."""


@dataclass(frozen=True)
class Hands:
    """By what trainings are carried out.

    Attributes:
        workers: processes at a time.
        devices: numbers of GPUs, given to the workers in turn; empty leaves it to Lightning.
        say: gets lines that report progress.
    """

    workers: int
    devices: Sequence[str]
    say: Say


def carry_out(plan: Plan, folder: Path, hands: Hands) -> None:
    """Carry out a method that :data:`~zoo_lightning.methods.recipes.RECIPES` has.

    What is finished stays; a stopped pipeline continues. At the end the folder is that of
    any run.

    Args:
        plan: what to do.
        folder: of the pipeline.
        hands: by what.

    Raises:
        ConfigError: the method is no single training, or not for the task.
        ZooError: a training failed.
        WorkStopped: by a signal, while stages are trained; they have saved where they were.
    """
    recipe, variant = find_method(plan)
    stages: list[StageRun] = []
    finished = {}
    for name in recipe.needs:
        runs = stage_runs(plan, folder, RECIPES[name], recipe.needs_share / len(recipe.needs))
        train(runs, f"{name}, for {recipe.name}", hands)
        finished[name] = [each.finished() for each in runs]
        stages += runs
    setting = Setting(plan.sources, variant, finished, higher_is_better(plan.task))
    if isinstance(recipe, Derived):
        made_of = [each for name in recipe.needs for each in finished[name]]
        data = run_data(made_of[0].folder / BEST)
        higher = setting.higher_is_better
        made = derive(recipe, made_of, data, higher, folder, plan.run_test)
        copy_records(made_of[0].folder, folder)
        seed = plan.options["seed_everything"]
        write_summary(folder, {"experiment": plan.experiment, "seed": seed, **made})
        add_costs(folder, stages, plan)
        return
    assert isinstance(recipe, Trained)
    budget = None if plan.budget is None else plan.budget * (1 - recipe.needs_share)
    train_finally(plan, folder, plan.configured(recipe, setting, budget))
    add_costs(folder, stages, plan)


def trainings(plan: Plan) -> float:
    """How many trainings of one ordinary network's cost a plan comes to, about."""
    recipe, _ = find_method(plan)
    if plan.budget is not None:
        return plan.budget
    names = list(plan.sources)
    needed = sum(len(RECIPES[name].variants(names)) for name in recipe.needs)
    return needed + isinstance(recipe, Trained)


def find_method(plan: Plan) -> tuple[Recipe, str]:
    """The recipe of a plan's method, and which of its variants is meant.

    Raises:
        ConfigError: unknown, not for the task, or one of several trainings of which none is named.
    """
    [recipe] = find_recipes([plan.method], plan.task, needed=False)
    variants = recipe.variants(list(plan.sources))
    if not variants:
        raise ConfigError(f"--method {plan.method} needs sources; give --sources A,B")
    if len(variants) > 1:
        raise ConfigError(
            f"--method {plan.method} trains one network for each source; name one, such as "
            f"{plan.method}:{variants[0]}, or let short trainings decide: --method tried-single"
        )
    return recipe, variants[0]


def stage_runs(plan: Plan, folder: Path, recipe: Recipe, share: float) -> list[StageRun]:
    """Trainings of a recipe that another is made from.

    Args:
        plan: of the pipeline.
        folder: of the pipeline.
        recipe: to be trained, each of its variants.
        share: of the budget that they get together.
    """
    assert isinstance(recipe, Trained)
    variants = recipe.variants(list(plan.sources))
    budget = None if plan.budget is None else plan.budget * share / len(variants)
    return [
        plan.stage(
            folder,
            f"{recipe.name}-{variant}" if variant else recipe.name,
            variant,
            plan.configured(recipe, Setting(plan.sources, variant), budget),
        )
        for variant in variants
    ]


def train(runs: Sequence[StageRun], title: str, hands: Hands) -> None:
    """Train what is not trained yet, and say what came out.

    Args:
        runs: to be trained, none made from another.
        title: of the stage.
        hands: by what.

    Raises:
        ZooError: a training failed.
        WorkStopped: by a signal.
    """
    names = ", ".join(each.name for each in runs)
    hands.say(f"stage         {title}: {names}")
    failed: list[Job] = run_here([runs], hands.workers, hands.devices, lambda line: None)
    for each in runs:
        if each in failed or not each.is_finished():
            said = last_line_of_log(each.folder, "no output")
            raise ZooError(
                f"{each.folder} failed: {said} (all of it is in {each.folder / 'log.txt'}); give "
                "the same command to go on"
            )
        hands.say(f"  {described(each)}")


def described(stage: StageRun) -> str:
    """A finished training in a line: its validation figure, steps and seconds."""
    summary = stage.summary()
    [(name, value)] = summary["validation"].items()
    return f"{stage.name}: {name} {value:.4g}, {summary['steps']} steps, {summary['seconds']:.0f} s"


def train_finally(plan: Plan, folder: Path, options: dict[str, Any]) -> None:
    """Train in the pipeline's own folder, in this process, as ``fit`` does.

    Args:
        plan: of the pipeline.
        folder: of the pipeline.
        options: of ``fit``.
    """
    config = folder / STAGES / FINAL
    config.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(config) as part:
        part.write_text(yaml.safe_dump(options, sort_keys=False), **TEXT)
    if (folder / SUMMARY).is_file():  # only the costs were not added yet
        return
    words = fit_words(config, folder)
    run(words if plan.run_test else [*words, "--run_test", "false"])


def add_costs(folder: Path, stages: Sequence[StageRun], plan: Plan) -> None:
    """Add to the pipeline's summary what its stages have cost, and its method.

    Args:
        folder: of the pipeline.
        stages: whose runs its own training is made from.
        plan: of the pipeline.
    """
    path = folder / SUMMARY
    if not path.is_file():  # another rank writes it
        return
    summary = json.loads(path.read_text(**TEXT))
    costs = [own_cost(each.summary()) for each in stages]
    parts = own_parts(summary)
    if stages:
        parts["stages"] = sum_known([multiply_adds for multiply_adds, _ in costs])
    _, alone = own_cost(summary)
    summary["compute"] = {
        **summary["compute"],
        "multiply_adds": sum_known(list(parts.values())),
        "seconds": round(alone + sum(seconds for _, seconds in costs), 1),
        "parts": parts,
    }
    # Runs in stages call themselves after the file of their options.
    write_summary(folder, {**summary, "experiment": plan.experiment, "pipeline": plan.method})


def own_cost(summary: Mapping[str, Any]) -> tuple[int | None, float]:
    """Multiply-adds and seconds of a run without those of runs that it is made from.

    Args:
        summary: of the run; multiply-adds are ``None`` if a part was not counted.
    """
    seconds = summary["seconds"] + summary.get("start_seconds", 0.0)
    return sum_known(list(own_parts(summary).values())), seconds


def own_parts(summary: Mapping[str, Any]) -> dict[str, int | None]:
    """Multiply-adds of a run's parts; teachers and starts that are stages are counted as such."""
    parts = summary["compute"]["parts"]
    return {part: v for part, v in parts.items() if part not in ("teachers", "init_from")}

"""``fit --method NAME``: train by a transfer method, with its trainings as stages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from zoo_lightning.callbacks.checkpoints import TrainingInterrupted
from zoo_lightning.cli.run_summary import describe_result
from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.experiments.option_names import OF_RUNS, CommandParser
from zoo_lightning.experiments.resolving import resolve
from zoo_lightning.methods.checking import check_networks, check_sources, sources_read
from zoo_lightning.methods.recipe import Recipe, Trained
from zoo_lightning.methods.recipes import RECIPES
from zoo_lightning.pipelines.auto import (
    AUTO,
    BUDGET,
    budget_of,
    check_auto,
    check_race,
    run_auto,
)
from zoo_lightning.pipelines.estimate import estimate
from zoo_lightning.pipelines.plan import Plan, begin, check_shared
from zoo_lightning.pipelines.race import AVERAGE, SINGLE
from zoo_lightning.pipelines.stage import STAGES
from zoo_lightning.pipelines.transfer import FINAL, find_method, run_method, shares, trainings
from zoo_lightning.reports.writing import leave_report
from zoo_lightning.runs.faults import raise_on_sigterm
from zoo_lightning.runs.folders import shared_run_folder
from zoo_lightning.runs.pool import add_pool_options, execution_of
from zoo_lightning.runs.run_folder import PLAN, read_summary
from zoo_lightning.runs.stopping import WorkStopped
from zoo_lightning.tasks import PPOTask

ABOUT = f"""\
Train by a transfer method. The trainings that it is made from, such as teachers or trials of
sources, come first, as stages in the run's folder. Finished stages are not repeated: give the same
command with the same --run_dir to resume. The result is a run folder like any other.

methods: {AUTO}, which makes the best network of sources and budget; {", ".join(RECIPES)};
single:SOURCE fine-tunes that source
"""


def main(arguments: Sequence[str]) -> int:
    """Run ``fit --method``.

    Returns:
        Exit status: 0, or 129, 130 or 143 after a signal.

    Raises:
        ConfigError: an option is invalid.
        ZooError: a training failed.
    """
    parser = _parser()
    words, rest = parser.parse_known_args(arguments)
    if words.inference < 1:
        raise ConfigError(f"--inference must be at least 1, got {words.inference}")
    if words.inference > 1 and words.method != AUTO:
        raise ConfigError(
            f"--inference {words.inference} is for --method {AUTO}, which may then result in an "
            f"ensemble; leave it out for --method {words.method}"
        )
    execution = execution_of(words)
    resolved = resolve(overrides=rest, command_options=parser.option_names())
    given = resolved.options
    check_shared(given, rest, "fit --method")
    shared = resolved.shared()
    # A plain number, since jsonargparse's restricted ones cannot be written as YAML.
    budget = None if given.budget is None else float(given.budget)
    if words.method == AUTO and budget is None:
        budget = BUDGET
    plan = Plan(words.method, resolved.name, shared, budget, words.inference, given.run_test)
    variant, known = "", (AUTO, *RECIPES)
    if words.method.startswith(f"{AUTO}:"):
        raise ConfigError(f"method {words.method!r}: {AUTO} is for all sources; give {AUTO}")
    if (name := words.method.partition(":")[0]) not in known:
        raise ConfigError(
            f"unknown method {name!r}; expected one of {', '.join(known)}.{nearest(name, known)}"
        )
    if words.method == AUTO:
        check_auto(plan)
        recipes: list[Recipe] = [RECIPES[AVERAGE], RECIPES[SINGLE]]
    else:
        recipe, variant = find_method(plan)
        recipes = [recipe]
    check_networks(recipes, plan.options, plan.sources)
    folder = Path(given.run_dir or shared_run_folder(f"{resolved.name}-{words.method}"))
    finished = _is_finished(folder)
    if not (folder / PLAN).is_file():  # a pipeline that goes on has read what it needs
        read = sources_read([(recipes[0].name, variant)], plan.sources)
        note = check_sources(plan.options, read)
        alone = isinstance(recipes[0], Trained) and not recipes[0].needs
        if note and (words.method == AUTO or not alone):  # a training in this process says it
            print(f"note          {note}")
    # The steps of a policy are those of a game.
    expected = None if finished or plan.task == PPOTask.__name__ else estimate(given)
    if expected is not None:
        if words.method == AUTO:
            check_race(plan, expected.steps)
            expected.check(1.0, budget_of(plan), AUTO)
        elif plan.budget is not None:
            share, name = min((share, name) for name, share in shares(plan).items())
            expected.check(share, plan.budget, name)
    begin(folder, plan)
    if finished:
        print(f"finished      {folder}; give another --run_dir for another run")
        return 0
    print(f"method        {words.method}\nrun folder    {folder}", flush=True)
    if expected is not None:
        cost = budget_of(plan) if words.method == AUTO else trainings(plan)
        print(expected.line(cost), flush=True)
    try:
        with raise_on_sigterm():
            if words.method == AUTO:
                run_auto(plan, folder, execution, None if expected is None else expected.steps)
            else:
                run_method(plan, folder, execution)
            rank_zero_only(leave_report)(folder)
            rank_zero_only(_say_result)(folder)
    except (WorkStopped, TrainingInterrupted) as stop:
        print(
            f"\n{stop}\nResume with the same command and --run_dir {folder}",
            file=sys.stderr,
        )
        return 128 + stop.signal_number
    return 0


def _say_result(folder: Path) -> None:
    """Print the end of a pipeline whose result is chosen from stages: that of training does so."""
    summary = read_summary(folder)
    if summary is None or (folder / STAGES / FINAL).is_dir():
        return
    seconds = (summary.get("compute") or {}).get("seconds") or summary.get("seconds") or 0.0
    print(describe_result(summary, folder, folder / summary["checkpoint"], seconds))


def _parser() -> CommandParser:
    parser = CommandParser(
        "fit",
        OF_RUNS,
        description=ABOUT,
        epilog="Further options are those of fit: python -m zoo_lightning fit --help.",
    )
    parser.add_argument("--method", required=True, help="name of the transfer method")
    parser.add_argument(
        "--inference",
        type=int,
        default=1,
        metavar="K",
        help="for auto: cost limit of the result per image, in networks of the architecture; from "
        "2 the result may be an ensemble (default: 1)",
    )
    add_pool_options(parser)
    return parser


def _is_finished(folder: Path) -> bool:
    return "pipeline" in (read_summary(folder) or {})

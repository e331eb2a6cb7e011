"""``compare``: transfer methods side by side, with honest statistics."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo_lightning.comparing.costs import measure_costs
from zoo_lightning.comparing.diagnosis import diagnose
from zoo_lightning.comparing.grid import (
    Cell,
    Comparison,
    cells_of,
    open_comparison,
    with_needed,
)
from zoo_lightning.comparing.joint import join
from zoo_lightning.comparing.plots import plot_learning_curves, plot_quality_against_compute
from zoo_lightning.comparing.report import (
    FILES,
    Table,
    learning_curves,
    make_tables,
    metric_of,
    write_tables,
)
from zoo_lightning.comparing.returns import format_returns, training_curves
from zoo_lightning.comparing.running import (
    has_failed,
    run_cells,
    run_on_cluster,
    startable,
)
from zoo_lightning.comparing.targets import join_targets
from zoo_lightning.comparing.tuning import check_untuned, choose, trials_of
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiment_sources import ExperimentReader
from zoo_lightning.methods.ensembles import joint_task
from zoo_lightning.methods.recipe import Derived, Recipe
from zoo_lightning.methods.recipes import RECIPES, find_recipes
from zoo_lightning.plots import save_figure
from zoo_lightning.run_folder import read_checkpoint
from zoo_lightning.runs.length import check_length_options
from zoo_lightning.runs.options import higher_is_better, shared_options
from zoo_lightning.stopping import WorkStopped
from zoo_lightning.tasks import BaseTask
from zoo_lightning.tasks.loading import load_task
from zoo_lightning.text_files import TEXT
from zoo_lightning.trainer_cli import run
from zoo_lightning.whole_files import whole_file

ABOUT = f"""\
Train transfer methods on the same data, steps and augmentation, and say which is better and how
sure that is. Every run has a folder of its own below --run_dir; what is finished is not repeated,
so the same command goes on with a comparison that was stopped, and several may work on one folder.

methods: {", ".join(RECIPES)};
single:SOURCE fine-tunes that one source only
"""


def main(arguments: Sequence[str]) -> int:
    """Command line of ``compare``.

    Returns:
        Exit status 0; 1 if runs failed.

    Raises:
        ConfigError: options that cannot be right.
    """
    options, rest = _parser().parse_known_args(arguments)
    seeds = _numbers(options.seeds, int, "--seeds")
    fractions = _numbers(options.fractions, float, "--fractions")
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise ConfigError(f"--fractions {options.fractions}: expected numbers in (0, 1]")
    budgets: list[float | None] = [None]
    if options.budgets:
        budgets = _numbers(options.budgets, float, "--budgets")
        if not all(budget > 0 for budget in budgets):
            raise ConfigError(f"--budgets {options.budgets}: expected numbers above 0")
    if options.workers < 1:
        raise ConfigError(f"--workers must be at least 1, got {options.workers}")
    if options.join:
        if rest:
            raise ConfigError(f"--join reads what there is; it takes no options of fit: {rest[0]}")
        print(_joined(options, seeds, fractions, budgets), end="")
        print(f"wrote joint.md, joint.json to {options.run_dir}")
        return 0
    if rest:
        given = run(["fit", *rest], ExperimentReader).options
        _check_given(given, rest)
        shared = shared_options(given)
        comparison = Comparison(options.run_dir, shared, options.hold_out)
    else:
        comparison = open_comparison(options.run_dir, None, options.hold_out)
    # With a budget, what a method is made from has a part of it, not the same budget once more.
    without = budgets == [None]
    recipes = find_recipes(options.methods.split(","), comparison.task, needed=without)
    metric_of(comparison)
    if comparison.task == "PPOTask" and fractions != [1.0]:
        raise ConfigError(
            f"--fractions {options.fractions}: a game has no training data to take a part of; set "
            "data.total_steps in comparisons of their own"
        )
    if comparison.task == "PPOTask" and not without:
        raise ConfigError(
            f"--budgets {options.budgets}: they are counted in optimizer steps over images; set "
            "data.total_steps in comparisons of their own"
        )
    if not comparison.sources and any(recipe.by_source for recipe in recipes):
        raise ConfigError("the experiment has no sources to compare; give --sources A,B")
    cells = cells_of(recipes, list(comparison.sources), seeds, fractions, budgets)
    open_comparison(options.run_dir, comparison.options)
    failed: list[Cell] = []
    try:
        if options.tune and not _tune(comparison, fractions, options, failed):
            return 0
        if not options.report:
            failed += _work(comparison, with_needed(comparison, cells), options)
    except WorkStopped as stop:
        print(f"{stop}; the same command goes on", file=sys.stderr)
        return 128 + stop.signal_number
    _report(comparison, cells, recipes, not options.no_costs)
    if options.diagnose:
        print(f"wrote {diagnose(comparison, cells, print)}")
    for cell in failed:
        print(f"failed: {cell.path}, see {comparison.run(cell) / 'log.txt'}", file=sys.stderr)
    return int(bool(failed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zoo_lightning compare",
        description=ABOUT,
        epilog="Further options are those of fit, --experiment among them; a comparison that goes "
        "on needs none.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--run_dir", type=Path, required=True, help="folder of the comparison")
    parser.add_argument(
        "--methods", default="scratch,single,soup,lite,full", help="(default: %(default)s)"
    )
    parser.add_argument("--seeds", default="0,1,2", help="(default: %(default)s)")
    parser.add_argument(
        "--fractions", default="1", help="of the training data, for instance 0.1,1 (default: 1)"
    )
    parser.add_argument(
        "--budgets",
        metavar="B,B",
        help="give every method these total training costs, in trainings of one ordinary network "
        "of the experiment's length: single sources train longer, members of an ensemble share it "
        "(default: every training has the experiment's length, whatever it costs)",
    )
    parser.add_argument("--workers", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--devices", default="", help="GPUs to give to the workers, such as 0,1")
    parser.add_argument(
        "--tune",
        type=int,
        default=0,
        metavar="N",
        help="try N learning rates for every method on the validation data first",
    )
    parser.add_argument(
        "--slurm",
        metavar="KEY=VALUE,...",
        help="submit jobs through submitit, such as slurm_partition=gpu,timeout_min=600",
    )
    parser.add_argument(
        "--cluster", help="submitit's name of the cluster; local for this machine (default: found)"
    )
    parser.add_argument(
        "--diagnose",
        action="store_true",
        help="also write how alike the sources are and what each is worth to the zoos",
    )
    parser.add_argument(
        "--hold_out",
        action="store_true",
        help="leave the test data alone and judge by validation, while methods and options are "
        "still being chosen; without it, the same command tests what is trained",
    )
    parser.add_argument("--report", action="store_true", help="only write the tables")
    parser.add_argument(
        "--join",
        type=lambda text: [Path(word) for word in text.split(",")],
        metavar="DIR,DIR",
        help="only take comparisons on several games or data sets together, into --run_dir",
    )
    parser.add_argument("--no_costs", action="store_true", help="leave inference costs out")
    return parser


FOREIGN = {
    "run_test": (True, "--hold_out leaves the test data alone"),
    "init_from": (None, "every method has its own start; a run can be a source"),
    "ckpt_path": (None, "what was stopped goes on by itself"),
    "budget": (None, "--budgets gives every method its budget"),
    "samples": (2000, "it is of sources rank"),
    "json": (False, "tables are written as JSON, too"),
}
"""Options of ``fit`` that a comparison cannot have: their defaults, and what to do instead."""


def _check_given(options: Any, arguments: Sequence[str]) -> None:
    """Refuse options that would have no effect, and lengths that contradict each other.

    Args:
        options: the resolved options of ``fit``.
        arguments: the words that they were given by.

    Raises:
        ConfigError: with the option's name.
    """
    for name, (default, instead) in FOREIGN.items():
        if options.get(name, default) != default:
            raise ConfigError(f"--{name}: no option of compare; {instead}: leave it out")
    check_length_options(options, arguments)
    if options.trainer.limit_val_batches == 0 or options.trainer.fast_dev_run:
        raise ConfigError(
            "compare keeps each run's best checkpoint by validation: leave out "
            "trainer.limit_val_batches 0 and trainer.fast_dev_run"
        )


def _joined(
    options: argparse.Namespace,
    seeds: list[int],
    fractions: list[float],
    budgets: list[float | None],
) -> str:
    """Table of several comparisons, all of policies or none."""
    methods = options.methods.split(",")
    comparisons = [open_comparison(folder, None, options.hold_out) for folder in options.join]
    if "PPOTask" in [each.task for each in comparisons]:  # one of another task is refused by name
        return join(comparisons, methods, seeds, options.run_dir)
    return join_targets(comparisons, methods, seeds, fractions, options.run_dir, budgets)


def _numbers(text: str, kind: Any, option: str) -> list:
    try:
        found = [kind(word) for word in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{option} {text!r}: expected numbers with commas between") from error
    return list(dict.fromkeys(found))


def _tune(
    comparison: Comparison,
    fractions: Sequence[float],
    options: argparse.Namespace,
    failed: list[Cell],
) -> bool:
    """Try learning rates, first of the methods that others are made from; note the best.

    Returns:
        Whether all that could be tried has been: jobs on a cluster, and trials that another command
        works on, have to end first.
    """
    # Also of what others are made from, which with budgets is not among the recipes.
    everything = find_recipes(options.methods.split(","), comparison.task)
    trials = trials_of(comparison, everything, fractions, options.tune)
    check_untuned(comparison, trials)
    if options.report:
        return True
    for needing in (False, True):
        part = [cell for cell in trials if bool(RECIPES[cell.method].needs) == needing]
        jobs = part if options.slurm is not None else []
        lost = [cell for cell in jobs if has_failed(comparison, cell)]
        lost += _work(comparison, [cell for cell in part if cell not in lost], options)
        failed += lost
        waiting = [cell for cell in startable(comparison, part) if cell not in lost]
        if waiting:
            print(
                f"{len(waiting)} trials, such as {waiting[0].path}, have not ended; the same "
                "command goes on when they have"
            )
            return False
        choose(comparison, trials, higher_is_better(comparison.task))
    return True


def _work(comparison: Comparison, cells: Sequence[Cell], options: argparse.Namespace) -> list[Cell]:
    if options.slurm is not None:
        pairs = [word.partition("=") for word in options.slurm.split(",") if word]
        settings = {key: int(v) if v.isdigit() else v for key, _, v in pairs}
        jobs = run_on_cluster(comparison, cells, settings, options.cluster)
        print(
            f"{len(jobs)} jobs submitted; when they have ended, the same command submits what is "
            "made from them, and writes the tables"
        )
        return []
    devices = [word for word in options.devices.split(",") if word]
    workers = max(options.workers, len(devices))
    return run_cells(comparison, cells, workers, devices, lambda line: print(line, flush=True))


def _report(
    comparison: Comparison, cells: Sequence[Cell], recipes: Sequence[Recipe], costs: bool
) -> None:
    tables = [table for table in make_tables(comparison, cells) if table.rows]
    if not tables:
        print(f"no run of {comparison.folder} has ended yet")
        return
    folder = comparison.folder / "pictures"
    for table in tables:
        if costs:
            _add_costs(comparison, cells, table)
        curves = learning_curves(comparison, cells, table)
        if curves:
            name = table.metric.in_validation.name
            steps = "agent steps" if comparison.task == "PPOTask" else "optimizer steps"
            figure = plot_learning_curves(curves, name, steps)
            save_figure(figure, folder / f"{table.stem}-curves.png")
        if comparison.task == "PPOTask":
            _report_returns(comparison, cells)
    for fraction in dict.fromkeys(table.fraction for table in tables):
        alike = [table for table in tables if table.fraction == fraction]
        if any(row.multiply_adds for table in alike for row in table.rows):
            figure = plot_quality_against_compute(alike)
            save_figure(figure, folder / f"data-{fraction:g}-compute.png")
    write_tables(comparison, tables)
    print((comparison.folder / "table.md").read_text(**TEXT), end="")
    print(f"wrote {', '.join(FILES)} and pictures/ to {comparison.folder}")


def _report_returns(comparison: Comparison, cells: Sequence[Cell]) -> None:
    """Table and picture of what policies scored while they learned."""
    curves = training_curves(comparison, cells)
    if not curves:
        return
    shown = {label: list(by_seed.values()) for label, by_seed in curves.items()}
    figure = plot_learning_curves(shown, "episodic return in training", "agent steps")
    save_figure(figure, comparison.folder / "pictures" / "training.png")
    with whole_file(comparison.folder / "returns.md") as part:
        part.write_text(format_returns(curves), **TEXT)


def _add_costs(comparison: Comparison, cells: Sequence[Cell], table: Table) -> None:
    """Measure one run of each method; choices among single sources cost what those do."""
    tasks: dict[str, BaseTask] = {}
    for cell in cells:
        if not table.holds(cell) or cell.label in tasks or not comparison.summary(cell):
            continue
        tasks[cell.label] = _task_of(comparison, cell)
    if not tasks:
        return
    size = _input_size(comparison, cells, table)
    found = measure_costs(tasks, size)
    for row in table.rows:
        singles = [cost for label, cost in found.items() if label.startswith("single ")]
        row.cost = singles[0] if row.chosen and singles else found.get(row.label)


def _task_of(comparison: Comparison, cell: Cell) -> BaseTask:
    recipe = RECIPES[cell.method]
    if not isinstance(recipe, Derived):
        return load_task(comparison.run(cell))
    runs = [run for need in recipe.needs for run in comparison.finished(RECIPES[need], cell)]
    members = [load_task(run.folder) for run in runs]
    # A soup is one network like its members.
    return joint_task(members) if recipe.name == "ensemble" else members[0]


def _input_size(comparison: Comparison, cells: Sequence[Cell], table: Table) -> tuple[int, ...]:
    """``(C, H, W)`` of what a finished run's network sees."""
    for cell in with_needed(comparison, cells):
        path = comparison.run(cell) / "checkpoints" / "best.ckpt"
        if cell.fraction == table.fraction and path.is_file():
            if comparison.task == "PPOTask":
                backbone = load_task(path).backbone
                return tuple(backbone.architecture.example_input(backbone.net).shape[1:])
            facts = read_checkpoint(path)["zoo_lightning"]["data"]
            return (3, facts["image_size"], facts["image_size"])
    raise ConfigError(f"no checkpoint is left in {comparison.folder} to measure costs with")

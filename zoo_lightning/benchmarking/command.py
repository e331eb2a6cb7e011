"""``compare``: train transfer methods on the same data and compare them statistically."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from zoo_lightning.benchmarking.cell import has_failed, run_cells, run_on_cluster, startable
from zoo_lightning.benchmarking.costs import measure_costs
from zoo_lightning.benchmarking.diagnosis import diagnose
from zoo_lightning.benchmarking.grid import (
    EXPERIMENT,
    Cell,
    Comparison,
    cells_of,
    keep_request,
    open_comparison,
    requested_before,
    with_needed,
)
from zoo_lightning.benchmarking.joint import JOINT, join_games, join_targets
from zoo_lightning.benchmarking.plots import plot_learning_curves, plot_quality_against_compute
from zoo_lightning.benchmarking.report import (
    TABLE_FILES,
    Table,
    learning_curves,
    make_tables,
    metric_of,
    write_tables,
)
from zoo_lightning.benchmarking.returns import format_returns, training_curves
from zoo_lightning.benchmarking.tuning import check_untuned, choose, trials_of
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.option_names import OF_RUNS, CommandParser
from zoo_lightning.experiments.resolving import resolve
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.methods.checking import check_networks, check_sources, sources_read
from zoo_lightning.methods.ensembles import joint_task
from zoo_lightning.methods.recipe import Derived, Recipe, Trained
from zoo_lightning.methods.recipes import RECIPES, SCRATCH, find_recipes
from zoo_lightning.pipelines.estimate import TimeEstimate, estimate
from zoo_lightning.pipelines.plan import check_shared
from zoo_lightning.plotting.figures import save_figure
from zoo_lightning.reports.writing import leave_report
from zoo_lightning.runs.options import higher_is_better
from zoo_lightning.runs.pool import Execution, add_pool_options, execution_of
from zoo_lightning.runs.run_folder import LOG, PAGE, PICTURES, find_checkpoint, read_checkpoint
from zoo_lightning.runs.stopping import WorkStopped
from zoo_lightning.tasks import BaseTask, PPOTask
from zoo_lightning.tasks.loading import task_from

Number = TypeVar("Number", int, float)

ABOUT = f"""\
Train transfer methods on the same data, steps and augmentation, and report which is better, with
confidence intervals. Every run has a folder of its own below --run_dir. Finished runs are not
repeated: the same command, or --run_dir alone, resumes a stopped comparison, and several commands
may share one folder.

methods: {", ".join(RECIPES)};
single:SOURCE fine-tunes that one source only
"""


def main(arguments: Sequence[str]) -> int:
    """Run ``compare``.

    Returns:
        Exit status: 0, 1 if runs failed, or 129, 130 or 143 after a signal.

    Raises:
        ConfigError: an option is invalid.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    _complete(options)
    seeds = _numbers(options.seeds, int, "--seeds")
    fractions = _numbers(options.fractions, float, "--fractions", 1.0)
    budgets: list[float | None] = [None]
    if options.budgets is not None:
        budgets = [*_numbers(options.budgets, float, "--budgets")]
    execution = execution_of(options)
    if options.join:
        if rest:
            raise ConfigError(f"--join reads finished runs and takes no options of fit: {rest[0]}")
        print(_joined(options, seeds, fractions, budgets), end="")
        files = ["joint.md", JOINT, *([PAGE] if leave_report(options.run_dir) else [])]
        print(f"wrote {', '.join(files)} to {options.run_dir}")
        return 0
    resolved = None
    if rest:
        resolved = resolve(overrides=rest, command_options=parser.option_names())
        check_shared(resolved.options, rest, "compare", REFUSED)
        comparison = Comparison(options.run_dir, resolved.shared(), options.hold_out)
    else:
        comparison = open_comparison(options.run_dir, None, options.hold_out)
    # With a budget, the cells that a method is made from share it, and are no rows of their own.
    needed = budgets == [None]
    recipes = find_recipes(options.methods.split(","), comparison.task, needed)
    metric_of(comparison)
    if comparison.task == "PPOTask" and (fractions != [1.0] or options.budgets):
        raise ConfigError(
            "--fractions and --budgets count training images and steps over them; compare policies "
            "with other values of data.total_steps in other folders"
        )
    if not comparison.sources and any(recipe.name != SCRATCH for recipe in recipes):
        raise ConfigError("the experiment has no sources to compare; give --sources A,B")
    cells = cells_of(recipes, list(comparison.sources), seeds, fractions, budgets)
    if not options.report:
        check_networks(recipes, comparison.options, comparison.sources)
        trials: list[Cell] = []
        if options.tune:
            everything = find_recipes(options.methods.split(","), comparison.task)
            trials = trials_of(comparison, everything, fractions, options.tune)
        given = None if resolved is None else resolved.options
        check_inputs(comparison, cells, trials, given)
    open_comparison(options.run_dir, comparison.options)
    if not options.report:
        keep_request(options.run_dir, {name: getattr(options, name) for name in REQUEST})
    failed: list[Cell] = []
    try:
        if options.tune and not _tune(comparison, fractions, options, execution, failed):
            return 0
        if not options.report:
            failed += _work(comparison, with_needed(comparison, cells), options, execution)
    except WorkStopped as stop:
        print(
            f"{stop}; to resume give the same command or only --run_dir {options.run_dir}",
            file=sys.stderr,
        )
        return 128 + stop.signal_number
    _report(comparison, cells, recipes, not options.no_costs)
    if options.diagnose:
        print(f"wrote {diagnose(comparison, cells, print)}")
    for cell in failed:
        print(f"failed: {cell.path}, see {comparison.run(cell) / LOG}", file=sys.stderr)
    return int(bool(failed))


def check_inputs(
    comparison: Comparison, cells: Sequence[Cell], trials: Sequence[Cell], options: Any | None
) -> None:
    """Read the sources and the data once, before all cells read them, and print an estimate.

    Args:
        comparison: comparison of the cells.
        cells: cells, finished or not.
        trials: trials of learning rates, finished or not.
        options: resolved options of ``fit``; ``None`` reads those of the comparison's folder.

    Raises:
        ConfigError: the experiment has no length, the data cannot be used in part, or a budget is
            less than a step.
        DataError: the data cannot be read.
        SourceError: a source cannot be read, or does not fit the network.
    """
    untrained = [
        cell
        for cell in [*trials, *with_needed(comparison, cells)]
        if isinstance(RECIPES[cell.method], Trained) and comparison.trained(cell) is None
    ]
    begun = [(cell.method, cell.variant) for cell in untrained]
    if note := check_sources(comparison.options, sources_read(begun, comparison.sources)):
        print(f"note: {note}")
    if not untrained or comparison.task == PPOTask.__name__:  # whose steps are those of a game
        return
    if options is None:
        options = resolve(comparison.folder / EXPERIMENT).options
    for fraction in dict.fromkeys(cell.fraction for cell in untrained):
        part = options.clone()
        part.run_test = not comparison.hold_out
        if fraction != 1:
            part.data.init_args.train_fraction = fraction
        try:
            expected = estimate(part)
        except argparse.ArgumentError as error:
            if fraction == 1:
                raise
            kind = part.data.class_path.rpartition(".")[2]
            raise ConfigError(
                f"--fractions {fraction:g} needs data with train_fraction, which {kind} has not; "
                "leave it out"
            ) from error
        if expected is None:
            return
        _check_budgets(comparison, [c for c in cells if c.fraction == fraction], expected)
        lengths = [_length(cell) for cell in untrained if cell.fraction == fraction]
        print(expected.line(sum(lengths)), flush=True)


def _check_budgets(comparison: Comparison, cells: Sequence[Cell], expected: TimeEstimate) -> None:
    """Check that every training of cells with a budget has at least a step."""
    shares = [
        (length, cell.budget, each.label)
        for cell in cells
        for each in comparison.closure(cell)
        if cell.budget is not None and (length := _length(each))
    ]
    if shares:
        length, budget, label = min(shares)
        expected.check(length / budget, budget, label)


def _length(cell: Cell) -> float:
    """Length of a cell's own training, in trainings of one ordinary network."""
    recipe = RECIPES[cell.method]
    if not isinstance(recipe, Trained):
        return 0.0
    return 1.0 if cell.budget is None else cell.budget * (1 - recipe.needs_share)


def _parser() -> CommandParser:
    parser = CommandParser(
        "compare",
        OF_RUNS,
        description=ABOUT,
        usage="%(prog)s --run_dir DIR [--experiment NAME] [--methods M,M] [options]",
        epilog="Further options are those of fit: --experiment NAME, --sources A,B and so on. In "
        "the folder of a comparison that has begun,\nwhat is left out is as in the last command "
        "there.",
    )
    parser.add_argument("--run_dir", type=Path, required=True, help="folder of the comparison")
    parser.add_argument(
        "--methods",
        metavar="M,M",
        help="transfer methods, separated by commas, of those above "
        f"(default: {REQUEST['methods']})",
    )
    parser.add_argument(
        "--seeds",
        metavar="N,N",
        help=f"random seeds, each of which trains every method once (default: {REQUEST['seeds']})",
    )
    parser.add_argument(
        "--fractions",
        help="fractions of the training data, for instance 0.1,1 "
        f"(default: {REQUEST['fractions']})",
    )
    parser.add_argument(
        "--budgets",
        metavar="B,B",
        help="total training costs of every method, in trainings of one ordinary network of the "
        "experiment's length: single sources train longer, members of an ensemble share a budget "
        "(default: every training has the experiment's length, whatever the cost)",
    )
    add_pool_options(parser)
    parser.add_argument(
        "--tune",
        type=int,
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
        help="also write the similarity of the sources and the value of each to the zoos",
    )
    parser.add_argument(
        "--hold_out",
        action="store_true",
        help="leave the test data unused and compare by validation, while methods and options are "
        "still being chosen; without it, the same command tests the trained runs",
    )
    parser.add_argument("--report", action="store_true", help="only write the tables")
    parser.add_argument(
        "--join",
        type=lambda text: [Path(word) for word in text.split(",")],
        metavar="DIR,DIR",
        help="only write a joint table of comparisons on several games or data sets to --run_dir",
    )
    parser.add_argument("--no_costs", action="store_true", help="leave out costs of inference")
    return parser


REQUEST: dict[str, Any] = {
    "methods": "scratch,single,soup,lite,full",
    "seeds": "0,1,2",
    "fractions": "1",
    "budgets": None,
    "tune": 0,
}
"""Options that a comparison's folder keeps from one command to the next, with their defaults."""


def _complete(options: argparse.Namespace) -> None:
    """Fill in options that were left out: those of the last command in the folder, or defaults.

    A joint table has all that the last commands in its comparisons' folders asked for.
    """
    before = requested_in(options.join) if options.join else requested_before(options.run_dir)
    where = "the comparisons" if options.join else options.run_dir
    filled = []
    for name, default in REQUEST.items():
        if getattr(options, name) is None:
            setattr(options, name, before.get(name, default))
            if name in before and before[name] != default:
                filled.append(f"--{name} {before[name]}")
    if filled:
        print(f"as in the last command in {where}: {' '.join(filled)}")


def requested_in(folders: Sequence[Path]) -> dict[str, str]:
    """Collect what the last commands in comparisons' folders asked for, by option.

    Args:
        folders: folders of comparisons.

    Returns:
        The words of each option with a list, each word once, separated by commas.
    """
    found: dict[str, dict[str, None]] = {}
    for folder in folders:
        for name, given in requested_before(folder).items():
            if isinstance(given, str):
                found.setdefault(name, {}).update(dict.fromkeys(given.split(",")))
    return {name: ",".join(words) for name, words in found.items()}


REFUSED = {
    "run_test": (True, "--hold_out leaves the test data unused"),
    "budget": (None, "--budgets gives every method its budget"),
}
"""Further options of ``fit`` that ``compare`` refuses: default, and what to do instead."""


def _joined(
    options: argparse.Namespace,
    seeds: list[int],
    fractions: list[float],
    budgets: list[float | None],
) -> str:
    """Joint table of several comparisons, either of policies or of images."""
    methods = options.methods.split(",")
    comparisons = [open_comparison(folder, None, options.hold_out) for folder in options.join]
    if "PPOTask" in [each.task for each in comparisons]:  # one of another task is refused by name
        return join_games(comparisons, methods, seeds, options.run_dir)
    return join_targets(comparisons, methods, seeds, fractions, options.run_dir, budgets)


def _numbers(
    text: str, kind: Callable[[str], Number], option: str, most: float = math.inf
) -> list[Number]:
    """Numbers of an option, each once; fractional ones are above 0 and at most ``most``."""
    try:
        found = [kind(word) for word in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{option} {text!r}: expected numbers separated by commas") from error
    if kind is float and not all(0 < number <= most and number < math.inf for number in found):
        upper = "" if most == math.inf else f" and at most {most:g}"
        raise ConfigError(f"{option} {text}: expected finite numbers above 0{upper}")
    return list(dict.fromkeys(found))


def _tune(
    comparison: Comparison,
    fractions: Sequence[float],
    options: argparse.Namespace,
    execution: Execution,
    failed: list[Cell],
) -> bool:
    """Try learning rates, first for the methods that others are made from, and save the best.

    Returns:
        Whether all trials have ended, and none waits for a cluster or for another command.
    """
    # Methods that others are made from are tuned, too; with budgets they have no rows.
    everything = find_recipes(options.methods.split(","), comparison.task)
    trials = trials_of(comparison, everything, fractions, options.tune)
    check_untuned(comparison, trials)
    if options.report:
        return True
    for needing in (False, True):
        part = [cell for cell in trials if bool(RECIPES[cell.method].needs) == needing]
        jobs = part if options.slurm is not None else []
        lost = [cell for cell in jobs if has_failed(comparison, cell)]
        rest = [cell for cell in part if cell not in lost]
        lost += _work(comparison, rest, options, execution)
        failed += lost
        waiting = [cell for cell in startable(comparison, part) if cell not in lost]
        if waiting:
            print(
                f"{len(waiting)} trials, such as {waiting[0].path}, have not ended; give the same "
                "command again when they have"
            )
            return False
        choose(comparison, trials, higher_is_better(comparison.task))
    return True


def _work(
    comparison: Comparison,
    cells: Sequence[Cell],
    options: argparse.Namespace,
    execution: Execution,
) -> list[Cell]:
    if options.slurm is not None:
        pairs = [word.partition("=") for word in options.slurm.split(",") if word]
        settings = {key: int(v) if v.isdigit() else v for key, _, v in pairs}
        jobs = run_on_cluster(comparison, cells, settings, options.cluster)
        if jobs:
            print(
                f"{len(jobs)} jobs submitted; when they have ended, the same command submits the "
                "runs that are made from them, and writes the tables"
            )
        return []
    return run_cells(comparison, cells, execution)


def _report(
    comparison: Comparison, cells: Sequence[Cell], recipes: Sequence[Recipe], costs: bool
) -> None:
    tables = [table for table in make_tables(comparison, cells) if table.rows]
    if not tables:
        print(f"no run of {comparison.folder} has {_what_is_missing(comparison, cells)}")
        return
    folder = comparison.folder / PICTURES
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
    files = [*TABLE_FILES, *([PAGE] if leave_report(comparison.folder) else [])]
    print(f"wrote {', '.join(files)} and pictures/ to {comparison.folder}")


def _what_is_missing(comparison: Comparison, cells: Sequence[Cell]) -> str:
    """What none of the cells has, so that there is no table."""
    if comparison.hold_out or all(comparison.trained(cell) is None for cell in cells):
        return "ended yet"
    return "been tested: give --hold_out to compare by validation, or leave out --report to test"


def _report_returns(comparison: Comparison, cells: Sequence[Cell]) -> None:
    """Write the table and the plot of the policies' scores in training."""
    curves = training_curves(comparison, cells)
    if not curves:
        return
    shown = {label: list(by_seed.values()) for label, by_seed in curves.items()}
    figure = plot_learning_curves(shown, "episodic return in training", "agent steps")
    save_figure(figure, comparison.folder / PICTURES / "training.png")
    with atomic_file(comparison.folder / "returns.md") as part:
        part.write_text(format_returns(curves), **TEXT)


def _add_costs(comparison: Comparison, cells: Sequence[Cell], table: Table) -> None:
    """Measure one run of each method; choices among single sources have their cost."""
    tasks: dict[str, BaseTask] = {}
    trained = _Trained(comparison)
    for cell in cells:
        if not table.holds(cell) or cell.label in tasks or not comparison.summary(cell):
            continue
        tasks[cell.label] = trained.of(cell)
    if not tasks:
        return
    found = measure_costs(tasks, trained.sizes[0])
    for row in table.rows:
        singles = [cost for label, cost in found.items() if label.startswith("single ")]
        row.cost = singles[0] if row.chosen and singles else found.get(row.label)


@dataclass
class _Trained:
    """Trained models of a comparison, each read once.

    Attributes:
        comparison: comparison with finished runs.
        tasks: tasks by run folder.
        sizes: input shape ``(C, H, W)`` of each task's network.
    """

    comparison: Comparison
    tasks: dict[Path, BaseTask] = field(default_factory=dict)
    sizes: list[tuple[int, ...]] = field(default_factory=list)

    def of(self, cell: Cell) -> BaseTask:
        """Model of a cell, which may be made from other cells' models."""
        recipe = RECIPES[cell.method]
        if not isinstance(recipe, Derived):
            return self._read(self.comparison.run(cell))
        found = self.comparison.finished
        runs = [run for need in recipe.needs for run in found(RECIPES[need], cell)]
        # A soup is one network and costs as much as a member.
        wanted = runs if recipe.name == "ensemble" else runs[:1]
        members = [self._read(run.folder) for run in wanted]
        return joint_task(members) if recipe.name == "ensemble" else members[0]

    def _read(self, run: Path) -> BaseTask:
        if run in self.tasks:
            return self.tasks[run]
        path = find_checkpoint(str(run), None, "")
        content = read_checkpoint(path)
        task = self.tasks[run] = task_from(content, path)
        if isinstance(task, PPOTask):
            backbone = task.backbone
            size = tuple(backbone.architecture.example_input(backbone.net).shape[1:])
        else:
            side = content["zoo_lightning"]["data"]["image_size"]
            size = (3, side, side)
        self.sizes.append(size)
        return task

"""Race of ``fit --method auto``: trainings that begin together, and of which one is finished.

All candidates begin a training of full length. After a small fraction of it, the one that is
expected to end best and the one that is best so far go on to the next fraction, and at last one is
left, which goes on to its end. Nothing of its training is lost, since it is never begun again.
Averaged weights are compared, because weights at a high learning rate hardly say how good the
network will be.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from zoo_lightning.benchmarking.plots import COLOURS, MARKS
from zoo_lightning.errors import ConfigError
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.methods.recipe import Setting, Trained
from zoo_lightning.methods.recipes import RECIPES
from zoo_lightning.pipelines.plan import Plan
from zoo_lightning.pipelines.stage import STAGES, StageRun
from zoo_lightning.pipelines.transfer import train
from zoo_lightning.plotting.figures import new_figure
from zoo_lightning.runs.pool import Execution

AVERAGE, SINGLE = "start", "single"
"""Methods that begin at the informed average of the sources and at one source."""

FIRST, SECOND = 1 / 16, 1 / 8
"""Fractions of the training after which candidates are compared: all, and the finalists."""

FINALISTS = 2
"""Number of candidates that go on after the first comparison."""

FURTHER = 0.5
"""Fraction of the logarithmic reduction of the loss in the last doubling of the steps that is
expected of each further doubling. A source that is far from the task gains most from training; by
its loss alone, CIFAR-10's best source would be its worst at the first comparison
(``results/auto``)."""

NOTHING = 1e-12
"""Loss that is taken for any smaller one, such as 0 of a network that is always sure and right."""

LEAST_STEPS = 4
"""Least number of optimiser steps before the first comparison, whose half is validated, too."""

RACE, INFORMED, OPENING = "race.json", "informed", "opening"
"""Name of the file of the race's losses, in ``stages``: the trainings go on, and lose them; and its
keys for the cost of the informed average's shares and for the average's losses when it is judged
alone."""


@dataclass(frozen=True)
class Beginning:
    """Where a training begins.

    Attributes:
        method: :data:`AVERAGE` or :data:`SINGLE`.
        source: name of the source for :data:`SINGLE`.
    """

    method: str
    source: str = ""


@dataclass(frozen=True)
class Racer:
    """Candidate after a fraction of its training.

    Attributes:
        run: the training.
        steps: number of optimiser steps so far.
        before: validation loss after half of the steps so far, positive.
        after: validation loss after all steps so far, positive.
        fraction: fraction of the training that these steps are, in (0, 1].
    """

    run: StageRun
    steps: int
    before: float
    after: float
    fraction: float

    def expected(self, fraction: float = 1.0) -> float:
        """Loss that is expected after a larger fraction of the training.

        Learning curves are nearly straight in logarithms of loss and length, but for their end:
        each doubling of the steps is expected to repeat :data:`FURTHER` of the last reduction.
        """
        doublings = math.log2(fraction / self.fraction)
        return self.after * (self.after / self.before) ** (FURTHER * doublings)

    def line(self) -> str:
        """Format the losses for a progress line."""
        return (
            f"  {self.run.name}: validation loss {self.before:.4g} after half of these steps, "
            f"{self.after:.4g} after all, {self.expected():.4g} expected at the end"
        )


def beginnings(plan: Plan) -> list[Beginning]:
    """List the candidates of a plan: the informed average, and each source alone."""
    return [Beginning(AVERAGE), *(Beginning(SINGLE, name) for name in plan.sources)]


def full_budget(budget: float, candidates: int, finished: int = 1) -> float:
    """Budget of one full training, if all trainings together are to cost ``budget``.

    Args:
        budget: budget of all trainings.
        candidates: number of candidates, at least 2.
        finished: number of candidates that are trained to the end.
    """
    finished = min(finished, candidates)
    return budget / (raced(candidates, finished) + finished * (1 - SECOND))


def raced(candidates: int, finished: int = 1) -> float:
    """Cost of the race up to its second comparison, in full trainings."""
    finalists = min(max(FINALISTS, finished), candidates)
    return candidates * FIRST + finalists * (SECOND - FIRST)


def first_comparison(plan: Plan, budget: float) -> float:
    """Compute when a race of all compares first, in trainings of one ordinary network."""
    return full_budget(budget, len(beginnings(plan)), plan.inference) * FIRST


def check_steps(plan: Plan, budget: float, steps: int) -> None:
    """Check that the first comparison comes after at least a few optimiser steps.

    Args:
        plan: plan of the pipeline; ``inference`` candidates are trained to the end.
        budget: budget of all trainings.
        steps: number of optimiser steps of one training of the experiment's length.

    Raises:
        ConfigError: there would be fewer than :data:`LEAST_STEPS` steps.
    """
    candidates, first = len(beginnings(plan)), steps * first_comparison(plan, budget)
    if first < LEAST_STEPS:
        raise ConfigError(
            f"--method {plan.method} with --budget {budget:g} compares {candidates} candidates, "
            f"the average and every source, after {first:.1f} steps; give at "
            f"least --budget {math.ceil(LEAST_STEPS * budget / first)}, a longer training, or "
            "fewer --sources"
        )


def beginning(plan: Plan, folder: Path, place: Beginning, budget: float) -> StageRun:
    """Create a stage that trains one network from a beginning, with averaged weights.

    Args:
        plan: plan of the pipeline.
        folder: folder of the pipeline.
        place: where the training begins.
        budget: budget of the training.
    """
    recipe = RECIPES[place.method]
    assert isinstance(recipe, Trained)
    options = plan.configured(recipe, Setting(plan.sources, place.source), budget)
    if (options["trainer"].get("check_val_every_n_epoch") or 1) > 1:
        options["trainer"]["check_val_every_n_epoch"] = 1  # in whatever epoch comparisons fall
    return plan.stage(folder, place.method, place.source, options)


def up_to(run: StageRun, fraction: float) -> StageRun:
    """The same training, which ends after a fraction of its steps."""
    options: dict[str, Any] = copy.deepcopy(dict(run.options))
    options.pop("stop_after", None)
    return StageRun(
        run.folder, run.variant, options | ({"stop_after": fraction} if fraction < 1 else {})
    )


@dataclass(frozen=True)
class Race:
    """Outcome of a race.

    Attributes:
        racers: all candidates, the finalists first, each after the last fraction it was trained
            for; the one with the lowest expected loss is the first.
        wholes: cost of each candidate's full training without an informed start, by name.
    """

    racers: list[Racer]
    wholes: dict[str, float]

    def spent(self) -> float:
        """Cost of all trainings so far, without informed starts."""
        return sum(self.wholes[each.run.name] * each.fraction for each in self.racers)


def open_with_average(
    plan: Plan, folder: Path, budget: float, fraction: float, execution: Execution
) -> tuple[StageRun, float]:
    """Train the informed average for a fraction of its training, and find the cost of its shares.

    Args:
        plan: plan of the pipeline.
        folder: folder of the pipeline.
        budget: budget of its full training, with the cost of the shares.
        fraction: fraction of the training.
        execution: receives a line.

    Returns:
        The full training, and the cost of the shares in trainings of one ordinary network.
    """
    begun = beginning(plan, folder, Beginning(AVERAGE), budget)
    kept = _kept(folder)
    if INFORMED not in kept:
        train([up_to(begun, fraction)], f"{fraction:.1%} of the training", execution)
        kept |= {INFORMED: informed_cost(begun), OPENING: _losses(begun)}
        _keep(folder, kept)
    return begun, kept[INFORMED]


def judge_average(
    plan: Plan, folder: Path, budget: float, execution: Execution
) -> tuple[Racer, float]:
    """Train the informed average alone, as far as the second comparison of a race.

    Args:
        plan: plan of the pipeline.
        folder: folder of the pipeline.
        budget: budget of its full training, which may use all of it.
        execution: receives a line.

    Returns:
        The average, and the cost of its shares.

    Raises:
        ConfigError: the folder is that of an earlier version, which did not judge the average.
    """
    begun, informed = open_with_average(plan, folder, budget, SECOND, execution)
    found = _kept(folder).get(OPENING)
    if found is None:
        raise ConfigError(
            f"{folder} was begun by another version of --method {plan.method}; give another "
            "--run_dir"
        )
    average = Racer(begun, found["steps"], found["half"], found["loss"], SECOND)
    execution.report(average.line())
    return average, informed


def race_sources(
    plan: Plan, folder: Path, average: Racer, budget: float, execution: Execution
) -> Race:
    """Race all sources alone, with the informed average as it is so far.

    Args:
        plan: plan of the pipeline.
        folder: folder of the pipeline.
        average: informed average, which is not trained further.
        budget: budget of all trainings, that of the average included, without informed starts.
        execution: receives lines.

    Raises:
        ZooError: a training failed.
        WorkStopped: a signal was received; the trainings have saved their state.
    """
    whole = full_budget(budget * (1 - average.fraction), len(plan.sources))
    runs = [beginning(plan, folder, Beginning(SINGLE, name), whole) for name in plan.sources]
    racers = _knock_out(folder, runs, FINALISTS, execution, [average])
    wholes = {each.name: whole for each in runs}
    return Race(racers, wholes | {average.run.name: budget})


def race_all(plan: Plan, folder: Path, budget: float, execution: Execution) -> list[Racer]:
    """Race all candidates of a plan of which several are trained to the end.

    The average is the first to be trained, since the cost of its shares is known only then; the
    sources' trainings are as much shorter.

    Args:
        plan: plan of the pipeline.
        folder: folder of the pipeline.
        budget: budget of all trainings.
        execution: receives lines.

    Returns:
        All candidates, the finalists first; the one with the lowest expected loss is the first.

    Raises:
        ZooError: a training failed.
        WorkStopped: a signal was received; the trainings have saved their state.
    """
    number = len(plan.sources) + 1
    average = full_budget(budget, number, plan.inference)
    begun, informed = open_with_average(plan, folder, average, FIRST, execution)
    whole = full_budget(budget - informed, number, plan.inference)
    singles = [beginning(plan, folder, Beginning(SINGLE, name), whole) for name in plan.sources]
    finalists = max(FINALISTS, plan.inference)
    return _knock_out(folder, [begun, *singles], finalists, execution)


def _knock_out(
    folder: Path,
    runs: Sequence[StageRun],
    number: int,
    execution: Execution,
    ready: Sequence[Racer] = (),
) -> list[Racer]:
    """Compare candidates twice; ``ready`` ones take part without being trained.

    Returns:
        The ``number`` finalists, the one with the lowest expected loss first, then the others.
    """
    first = sorted([*ready, *compare(folder, runs, FIRST, execution)], key=Racer.expected)
    finalists = choose_finalists(first, number)
    going = [each.run for each in finalists if each not in ready]
    again = [each for each in finalists if each in ready]
    second = sorted([*again, *compare(folder, going, SECOND, execution)], key=Racer.expected)
    execution.report(f"winner        {second[0].run.name}")
    return [*second, *(each for each in first if each not in finalists)]


def informed_cost(run: StageRun) -> float:
    """Cost of the shares of an informed average, in trainings of one ordinary network."""
    compute = run.summary()["compute"]
    return float(compute["parts"].get("start", 0) / compute["unit"])


def choose_finalists(racers: Sequence[Racer], number: int) -> list[Racer]:
    """Choose the candidates that go on: those expected to end best, and the best one so far.

    The curves of the first steps bend much, so a source that is near to the task and learns little
    in them may be expected behind strangers that begin far off, and end ahead of them.

    Args:
        racers: candidates, the one with the lowest expected loss first.
        number: number of finalists, at least 2.
    """
    best = min(racers, key=lambda each: each.after)
    rest = [each for each in racers if each is not best]
    chosen = [best, *rest[: number - 1]]
    return [each for each in racers if each in chosen]


def compare(
    folder: Path, runs: Sequence[StageRun], fraction: float, execution: Execution
) -> list[Racer]:
    """Train candidates for a fraction of their training, and compare their validation losses.

    The losses are kept, since the trainings may have gone on when the pipeline is resumed.

    Args:
        folder: folder of the pipeline.
        runs: candidates.
        fraction: fraction of the training.
        execution: receives a line for each candidate.

    Returns:
        The candidates, the one with the lowest expected loss first.
    """
    kept, key = _kept(folder), f"{fraction:g}"
    runs = [up_to(each, fraction) for each in runs]
    if key not in kept:
        train(runs, f"race, {fraction:.1%} of the training", execution)
        kept[key] = {each.name: _losses(each) for each in runs}
        _keep(folder, kept)
    found = [kept[key][each.name] for each in runs]
    racers = [
        Racer(run, each["steps"], each["half"], each["loss"], fraction)
        for run, each in zip(runs, found, strict=True)
    ]
    for each in racers:
        execution.report(each.line())
    return sorted(racers, key=Racer.expected)


def _kept(folder: Path) -> dict[str, Any]:
    """Losses of a race so far by fraction and name, and the cost of the informed shares."""
    path = folder / STAGES / RACE
    found: dict[str, Any] = json.loads(path.read_text(**TEXT)) if path.is_file() else {}
    return found


def _keep(folder: Path, found: dict[str, Any]) -> None:
    with atomic_file(folder / STAGES / RACE) as part:
        part.write_text(json.dumps(found, indent=2) + "\n", **TEXT)


def _losses(run: StageRun) -> dict[str, float]:
    """Validation losses of a stopped stage, after half of its ``steps`` and after all of them.

    Raises:
        ConfigError: it was not validated after its last step.
    """
    summary = run.summary()
    losses = {int(step): max(loss, NOTHING) for step, loss in summary["losses"].items()}
    steps = summary["steps"]
    if steps not in losses:
        raise ConfigError(
            f"{run.folder} ended after {steps} steps without a validation; leave out "
            "trainer.min_steps, trainer.min_epochs and trainer.check_val_every_n_epoch"
        )
    half = min(losses, key=lambda step: abs(step - steps / 2))
    return {"half": losses[half], "loss": losses[steps], "steps": steps}


def plot_race(racers: Sequence[Racer]) -> Figure:
    """Plot each candidate's last two losses, and where they are expected to lead (dashed).

    Args:
        racers: candidates, the winner first.
    """
    figure = new_figure(6.5, 4.0)
    axes = figure.subplots()
    for place, each in enumerate(racers):
        colour, mark = COLOURS[place % len(COLOURS)], MARKS[place % len(MARKS)]
        seen = [each.fraction / 2, each.fraction]
        label = each.run.name + (", the winner" if place == 0 and len(racers) > 1 else "")
        axes.plot(
            seen, [each.before, each.after], marker=mark, color=colour, label=label, markersize=4
        )
        axes.plot([each.fraction, 1.0], [each.after, each.expected()], "--", color=colour, lw=0.8)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = [1.0 / 2**power for power in range(6)]
    axes.set_xticks(ticks, [f"{Fraction(tick)}" for tick in ticks])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="y", which="both", labelsize=7)
    axes.set(xlabel="fraction of each one's full training", ylabel="validation loss")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return figure

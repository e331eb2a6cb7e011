"""``fit --method auto``: train the best network from several sources within a budget.

1. The informed average of the sources (method ``start``) begins a training with the whole budget.
   After an eighth of it, its learning curve tells whether the rest is expected to gain anything; if
   so, or if that is too early to say, it is trained to its end.
2. Otherwise the sources race with it (:mod:`zoo_lightning.pipelines.race`), and the winner is
   taught by itself and by the other finalist, provided that the two are better together.
3. The result is selected among all of these by validation.

With ``inference`` above 1 several networks are trained to their ends, those that win a race of all.

Scores of frozen features do not choose: on CIFAR-10 and on flowers the source whose features
explained least was the best one after training, by 2 to 3 points (``results/auto``). The folder's
``decisions.json`` has the decision and its reasons.
"""

from __future__ import annotations

import copy
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from zoo_lightning.analysis.measuring import measure_of
from zoo_lightning.analysis.relation_report import plot_relations
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.parts import architecture_of, plain_data, resolve_bands
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.plain_yaml import read_yaml
from zoo_lightning.files.text import TEXT
from zoo_lightning.models.backbone import load_architecture
from zoo_lightning.nn.multiply_adds import counting
from zoo_lightning.pipelines.deriving import publish
from zoo_lightning.pipelines.plan import Plan
from zoo_lightning.pipelines.race import (
    AVERAGE,
    FINALISTS,
    SECOND,
    SINGLE,
    Beginning,
    Race,
    Racer,
    beginning,
    check_steps,
    first_comparison,
    judge_average,
    plot_race,
    race_all,
    race_sources,
    up_to,
)
from zoo_lightning.pipelines.selection import (
    SURE,
    Gain,
    candidates_of,
    gain,
    joint_scores,
    plot_gains,
    select,
)
from zoo_lightning.pipelines.stage import STAGES, StageRun
from zoo_lightning.pipelines.transfer import add_costs, own_parts, train
from zoo_lightning.plotting.figures import save_figure
from zoo_lightning.runs.pool import Execution, Report, rounded_budget
from zoo_lightning.runs.run_folder import CONFIG, PICTURES, read_summary
from zoo_lightning.sources.spec import parse_sources
from zoo_lightning.tasks.loading import load_task
from zoo_lightning.transfer.relations import Relations, relate

AUTO = "auto"
"""Name of the method on the command line."""

BUDGET = 4.0
"""Default budget, in trainings of one ordinary network for the experiment's length."""

TASKS = ("ClassificationTask", "LandmarkTask", "MultiLabelTask", "RegressionTask")

DECISIONS = "decisions.json"
"""Name of the file of decisions, in the pipeline's folder."""

RELATIONS, TEACH = "look.json", "teach.json"
"""Names of the files of the sources' relations and of the teachers' gain, in ``stages``."""

SAMPLES = 1000
"""Largest number of training images for computing the sources' relations."""

PAYS = 0.05
"""Expected reduction of the average's loss by the second half of the training, as a fraction, from
which longer training pays. After an eighth of 4,800 steps it is 8 to 20 % on four targets where
four times the default length gains much, and -1 to 1.5 % on CIFAR-10, where it gains little, and
one network taught by two is ahead (``results/auto``)."""

JUDGED_AFTER = 400
"""Optimiser steps of the average before which its curve cannot say that longer training gains
little: after 120 steps curves promised 6 and 8 % on faces and traffic signs, where it gains much,
and taught networks were far behind. The limit of :data:`PAYS` was found at 480 steps."""

COMPARED_AFTER = 100
"""Optimiser steps of the candidates before which a race says little: races that compared after 54
to 75 steps ended behind the informed average on all of six targets, three seeds
(``results/auto``)."""

TEACHERS_AFTER = 1 / 4
"""Fraction of their training after which finalists teach; the informed average teaches as it is,
since its curve is flat."""

MEMBERS = 5
"""Number of the best networks among which an ensemble is searched."""

TEACHING: dict[str, dict[str, Any]] = {
    "ClassificationTask": {"teacher_weight": 0.9, "temperature": 4.0, "mixup": 0.2},
    "LandmarkTask": {"teacher_weight": 0.5},
    "RegressionTask": {"teacher_weight": 0.5},
    "MultiLabelTask": {"teacher_weight": 0.5},
}
"""Task options of the student's training, by task."""


def run_auto(plan: Plan, folder: Path, execution: Execution, steps: int | None) -> None:
    """Run or resume the pipeline of ``auto``; finished stages are not repeated.

    Args:
        plan: plan with the budget of all trainings; the costs of relating the sources and of
            validation are additional, and are recorded.
        folder: folder of the pipeline.
        execution: processes for the stages.
        steps: number of optimiser steps of one training of the experiment's length; ``None`` if it
            is unknown.

    Raises:
        ZooError: a training failed.
        WorkStopped: a signal was received while stages were trained; they have saved their state.
    """
    execution = replace(execution, report=DecisionLog(execution.report))
    if plan.options.get("average_weights") is False:
        execution.report(
            "averages      weights are averaged all the same: the candidates are compared by "
            "averages in the middle of their trainings"
        )
    plan = replace(plan, options=plan.options | {"average_weights": True})
    if len(plan.sources) == 1:
        place = Beginning(SINGLE, next(iter(plan.sources)))
        alone = [beginning(plan, folder, place, budget_of(plan))]
        train(alone, "one source", execution)
        decide(plan, folder, alone, [], execution)
        return
    relate_sources(plan, folder, execution)
    if plan.inference > 1:
        finish_several(plan, folder, execution, steps)
        return
    if steps is not None and (judged_at := steps * budget_of(plan) * SECOND) < JUDGED_AFTER:
        execution.report(
            f"longer        is assumed to pay, so all of the budget is for the informed average: "
            f"its curve is judged after an eighth of the training, if that is {JUDGED_AFTER} steps "
            f"or more, and here it is {judged_at:.0f}"
        )
        alone = [beginning(plan, folder, Beginning(AVERAGE), budget_of(plan))]
        train(alone, "the informed average", execution)
        say_shares(plan, alone[0], execution)
        decide(plan, folder, alone, [], execution)
        return
    average, informed = judge_average(plan, folder, budget_of(plan), execution)
    say_shares(plan, average.run, execution)
    if longer_pays(average, execution):
        results = [average.run]
        train(results, "to the end", execution)
        decide(plan, folder, results, [average], execution)
        return
    whole = budget_of(plan) - informed
    found = race_sources(plan, folder, average, whole, execution)
    winner, second = found.racers[:FINALISTS]
    if teach(folder, winner, second, execution):
        results = taught(plan, folder, found, whole, execution)
    else:
        # That of the average was to have all of the budget.
        left = (whole - found.spent()) / whole
        end = winner.fraction + left if winner is average else 1.0
        results = [up_to(winner.run, end)]
        train(results, "to the end", execution)
    decide(plan, folder, results, found.racers, execution)


def finish_several(plan: Plan, folder: Path, execution: Execution, steps: int | None) -> None:
    """Race all candidates, train the best ``plan.inference`` of them to their ends, and decide.

    Args:
        plan: plan of the pipeline.
        folder: folder of the pipeline.
        execution: processes for the stages.
        steps: number of optimiser steps of one training of the experiment's length; ``None`` if it
            is unknown.
    """
    first = None if steps is None else steps * first_comparison(plan, budget_of(plan))
    if first is not None and first < COMPARED_AFTER:
        execution.report(
            f"race          compares first after {first:.0f} steps, too few to tell which "
            "candidate will end best; a larger budget or a longer training gives it "
            f"{COMPARED_AFTER} or more"
        )
    racers = race_all(plan, folder, budget_of(plan), execution)
    [average] = [each.run for each in racers if each.run.name == AVERAGE]
    say_shares(plan, average, execution)
    results = [up_to(each.run, 1.0) for each in racers[: plan.inference]]
    train(results, "to the end", execution)
    decide(plan, folder, results, racers, execution)


def say_shares(plan: Plan, average: StageRun, execution: Execution) -> None:
    """Report how much of each source the informed average contains.

    Args:
        plan: plan of the pipeline.
        average: training of the informed average, which has begun.
        execution: receives a line.
    """
    path = average.folder / CONFIG
    if not path.is_file():  # somebody has removed the stage
        return
    shares = read_yaml(path)["model"]["init_args"]["backbone"]["init_args"].get("weights")
    if isinstance(shares, list) and len(shares) == len(plan.sources):
        named = [f"{name} {share:.2f}" for name, share in zip(plan.sources, shares, strict=True)]
        execution.report(f"average       {', '.join(named)}")


@dataclass
class DecisionLog:
    """Passes progress lines on, and keeps those that are decisions for ``decisions.json``.

    Args:
        report: function that receives the lines.

    Attributes:
        lines: decisions so far. A resumed pipeline reports those of its finished stages again.
    """

    report: Report
    lines: list[str] = field(default_factory=list)

    def __call__(self, line: str) -> None:
        """Receive a line; those of trainings begin with a space or with ``stage``."""
        self.report(line)
        if not line.startswith((" ", "stage")):
            head, _, rest = line.partition(" ")
            self.lines.append(f"{head}: {rest.strip()}")


def taught(
    plan: Plan, folder: Path, found: Race, budget: float, execution: Execution
) -> list[StageRun]:
    """Train the two finalists of a race on, and then a student that both teach.

    Args:
        plan: plan of the pipeline.
        folder: folder of the pipeline.
        found: outcome of the race.
        budget: budget of all trainings, without informed starts.
        execution: processes for the stages.

    Returns:
        The student and its teachers.
    """
    finalists = found.racers[:FINALISTS]
    ends = [each.fraction if each.run.name == AVERAGE else TEACHERS_AFTER for each in finalists]
    teachers = [up_to(each.run, end) for each, end in zip(finalists, ends, strict=True)]
    train(teachers, "the teachers", execution)
    more = sum(
        found.wholes[each.run.name] * (end - each.fraction)
        for each, end in zip(finalists, ends, strict=True)
    )
    pupil = student(plan, folder, teachers, budget - found.spent() - more)
    train([pupil], "the winner, taught", execution)
    return [pupil, *teachers]


def check_auto(plan: Plan) -> None:
    """Check that ``auto`` can run a plan.

    Raises:
        ConfigError: the task is not supported, or there are no sources.
    """
    if plan.task not in TASKS:
        raise ConfigError(
            f"--method {AUTO} is for {' and '.join(TASKS)}, not for {plan.task}; give one of the "
            "other methods"
        )
    if not plan.sources:
        raise ConfigError(f"--method {AUTO} needs sources; give --sources A,B")


def check_race(plan: Plan, steps: int) -> None:
    """Check that a race for several networks has a few optimiser steps for each candidate.

    Args:
        plan: plan of the pipeline.
        steps: number of optimiser steps of one training of the experiment's length.

    Raises:
        ConfigError: there are too few steps before the first comparison.
    """
    if len(plan.sources) > 1 and plan.inference > 1:
        check_steps(plan, budget_of(plan), steps)


def budget_of(plan: Plan) -> float:
    """Budget of a plan; without one, :data:`BUDGET`."""
    return BUDGET if plan.budget is None else plan.budget


def longer_pays(average: Racer, execution: Execution) -> bool:
    """Whether the second half of a training is expected to gain enough.

    After fewer than :data:`JUDGED_AFTER` steps it is assumed to.

    Args:
        average: informed average after a fraction of its training.
        execution: receives a line with the decision.
    """
    share = 1 - average.expected() / average.expected(0.5)
    pays = share > PAYS or average.steps < JUDGED_AFTER
    reason = (
        f"the second half of the training is expected to take {share:.1%} off its loss; more than "
        f"{PAYS:.0%} pays"
    )
    if average.steps < JUDGED_AFTER:
        reason = f"{average.steps} steps, fewer than {JUDGED_AFTER}, cannot say that it does not"
    execution.report(f"longer        {'pays' if pays else 'does not pay'}: {reason}")
    return pays


def teach(folder: Path, winner: Racer, second: Racer, execution: Execution) -> bool:
    """Whether the two finalists are better together, and are to teach.

    If they are not, they would make a student worse: half-trained networks, and those far from the
    task. The decision is kept, since the trainings may have gone on when the pipeline is resumed.

    Args:
        folder: folder of the pipeline.
        winner: winner of the race.
        second: the other finalist.
        execution: receives a line with the decision.
    """
    path = folder / STAGES / TEACH
    if not path.is_file():
        alone, joint = joint_scores([[winner.run], [winner.run, second.run]])
        found = gain(joint.loss, alone.loss)
        with atomic_file(path) as part:
            part.write_text(json.dumps(asdict(found), indent=2) + "\n", **TEXT)
    found = Gain(**json.loads(path.read_text(**TEXT)))
    verdict = "so they teach" if found.mean > 0 else "so they do not teach"
    verdict += " (the mean decides, as no network is given up for them)"
    execution.report(
        f"teachers      {winner.run.name} and {second.run.name} together have {found} less loss "
        f"than {winner.run.name}, {verdict}"
    )
    return found.mean > 0


def student(plan: Plan, folder: Path, teachers: Sequence[StageRun], budget: float) -> StageRun:
    """Create the stage that trains the first of two finished stages on, taught by both.

    Args:
        plan: plan of the pipeline.
        folder: folder of the pipeline.
        teachers: finished stages.
        budget: budget of the training.
    """
    options: dict[str, Any] = copy.deepcopy(dict(teachers[0].options))
    options.pop("stop_after", None)
    options |= {"budget": rounded_budget(budget), "init_from": str(teachers[0].folder)}
    options["model"]["init_args"] |= {
        "teachers": [str(each.folder) for each in teachers],
        **TEACHING[plan.task],
    }
    return plan.stage(folder, "student", "", options)


def relate_sources(plan: Plan, folder: Path, execution: Execution) -> None:
    """Compute the sources' relations on the training data, once and without training.

    They are told and kept in ``stages`` as ``relations``, see
    :class:`~zoo_lightning.transfer.relations.Relations`, with ``seconds`` and ``multiply_adds``.

    Args:
        plan: plan of the pipeline.
        folder: folder of the pipeline.
        execution: receives lines with the conclusions.
    """
    path = folder / STAGES / RELATIONS
    if not path.is_file():
        began = time.monotonic()
        with counting() as spent:
            found = _relations(plan)
        content = {
            "relations": found.as_dict(),
            "seconds": round(time.monotonic() - began, 1),
            "multiply_adds": spent.multiply_adds,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        save_figure(plot_relations(found), folder / PICTURES / "sources.png")
        with atomic_file(path) as part:
            part.write_text(json.dumps(content, indent=2) + "\n", **TEXT)
    execution.report(
        "sources       compared by their frozen features; D is what some explain of the training "
        "data beyond the best of them"
    )
    for line in json.loads(path.read_text(**TEXT))["relations"]["conclusion"]:
        execution.report(f"sources       {line}")


def _relations(plan: Plan) -> Relations:
    options = copy.deepcopy(plan.options)
    resolve_bands(options)
    init_args, described = options["model"]["init_args"]["backbone"]["init_args"], options["data"]
    architecture = architecture_of(init_args, described)
    sources = parse_sources(list(plan.sources.values()))
    described["init_args"]["seed"] = plan.options["seed_everything"]  # the split that is trained on
    networks = load_architecture(architecture, sources)
    return relate(architecture, networks, plain_data(described), SAMPLES)


def decide(
    plan: Plan,
    folder: Path,
    runs: Sequence[StageRun],
    racers: Sequence[Racer],
    execution: Execution,
) -> None:
    """Select the result among finished stages by validation, and publish it.

    The first stage is replaced by another one, and a single network by an ensemble of up to
    ``plan.inference`` networks, only if that is surely better by loss and by error.

    Args:
        plan: plan of the pipeline.
        folder: folder of the pipeline.
        runs: finished stages.
        racers: all candidates of the race, the winner first; empty without a race. Those that are
            not among the finished stages cost something, and cannot be the result.
        execution: receives lines with the decisions.
    """
    began, relations = time.monotonic(), _relations_cost(folder)
    task = load_task(runs[0].folder)
    measure = measure_of(task)
    with counting() as spent:
        single = candidates_of([(each,) for each in runs])
        best_ones = sorted(single, key=lambda each: each.loss)[:MEMBERS]
        joint = candidates_of(
            [
                tuple(run for each in chosen for run in each.runs)
                for size in range(2, min(plan.inference, len(best_ones)) + 1)
                for chosen in combinations(best_ones, size)
            ]
        )
    execution.report(f"validation    {len(single[0].scores.loss)} images")
    choice, comparisons = select(single, joint, execution.report)
    content = {
        "result": [each.name for each in choice.runs],
        "course": execution.report.lines if isinstance(execution.report, DecisionLog) else [],
        "measure": measure.label,
        "loss": measure.loss,
        "candidates": [
            {"name": each.name, "value": measure.of(each.scores), "loss": each.loss}
            for each in [*single, *joint]
        ],
        "gains": {
            name: asdict(found.loss) | {"error": asdict(found.error), "replaces": found.replaces}
            for name, found in comparisons.items()
        },
        "sure": SURE,
        "race": [
            {
                "name": each.run.name,
                "fraction": each.fraction,
                "half": each.before,
                "loss": each.after,
                "expected": each.expected(),
            }
            for each in racers
        ],
    }
    with atomic_file(folder / DECISIONS) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", **TEXT)
    against = {
        f"{each.name}\n{measure.label} {measure.of(each.scores):.2f}": gain(
            choice.scores.loss, each.scores.loss
        )
        for each in [*single, *joint]
    }
    if len(against) > 1:
        figure = plot_gains(against, f"{measure.loss} above that of the result, {choice.name}")
        save_figure(figure, folder / PICTURES / "decision.png")
    if racers:
        save_figure(plot_race(racers), folder / PICTURES / "race.png")
    execution.report(
        f"result        {choice.name}: validation {measure.label} {measure.of(choice.scores):.2f}"
    )
    value = measure.of(choice.scores) / (100 if measure.rises else 1)
    publish(
        folder,
        [each.folder for each in choice.runs],
        plan.run_test,
        {
            "method": AUTO,
            "result": content["result"],
            "validation": {task.monitor: value},
            "seconds": round(time.monotonic() - began + relations["seconds"], 1),
            "compute": {
                "parts": {
                    "relations": relations["multiply_adds"],
                    "validation": spent.multiply_adds,
                }
            },
        },
    )
    folders = {each.folder for each in runs}
    stages = [*runs, *(each.run for each in racers if each.run.folder not in folders)]
    add_costs(folder, stages, plan)
    if line := cost_line(folder, stages, budget_of(plan)):
        execution.report(line)


def cost_line(folder: Path, stages: Sequence[StageRun], budget: float) -> str:
    """Format what a finished pipeline cost, in trainings of one ordinary network.

    Args:
        folder: folder of the pipeline.
        stages: its finished stages.
        budget: its budget, which is for training steps and informed starts. Teachers' features
            that are computed before the first step come out of it, but count as preparation here.

    Returns:
        A progress line; empty if something was not counted.
    """
    summary = read_summary(folder)
    if summary is None:  # another rank has written it
        return ""
    compute = summary["compute"]
    if not compute.get("unit") or compute["multiply_adds"] is None:
        return ""
    spent = Counter({part: n for part, n in compute["parts"].items() if part != "stages"})
    for each in stages:
        spent.update(own_parts(each.summary()))
    units = {part: count / compute["unit"] for part, count in spent.items()}
    steps, start = units.pop("training", 0.0), units.pop("start", 0.0)
    on_top = ", ".join(f"{part} {cost:.2g}" for part, cost in units.items() if cost >= 0.005)
    return (
        f"cost          {steps + start:.3g} of the budget of {budget:g} trainings: steps "
        f"{steps:.2g}, informed start {start:.2g}" + (f"; on top {on_top}" if on_top else "")
    )


def _relations_cost(folder: Path) -> dict[str, Any]:
    """``multiply_adds`` and ``seconds`` of relating the sources; 0 for a single source."""
    path = folder / STAGES / RELATIONS
    found = json.loads(path.read_text(**TEXT)) if path.is_file() else {}
    return {name: found.get(name, 0) for name in ("multiply_adds", "seconds")}

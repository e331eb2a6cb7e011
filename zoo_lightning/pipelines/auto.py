"""``fit --method auto``: train the best network from several sources within a budget.

1. Short tries decide where to begin: at the plain average of the sources, at the average by the
   shares that the training data suggest, or at the best source.
2. A member is trained from there. If it is much better than the try, longer training pays, and it
   is trained on with what is left of the budget. If all sources are relatives of the best one,
   there is only one training, with all that is left.
3. If longer training does not pay, a second member is trained from a source of another origin, and
   the better member is trained on, taught by both if they are better together.
4. The result is selected among members and last training by validation.

The folder's ``decisions.json`` has the decision and its reasons.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from zoo_lightning.analysis.measuring import Scores, measure_of, validation_scores
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.parts import architecture_of, plain_data, resolve_bands
from zoo_lightning.experiments.resolving import run_data
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.methods.ensembles import joint_task
from zoo_lightning.methods.recipe import Setting, Trained
from zoo_lightning.methods.recipes import RECIPES
from zoo_lightning.models.backbone import load_architecture
from zoo_lightning.nn.multiply_adds import counting
from zoo_lightning.pipelines.deriving import publish
from zoo_lightning.pipelines.plan import Plan
from zoo_lightning.pipelines.stage import STAGES, StageRun
from zoo_lightning.pipelines.transfer import add_costs, train
from zoo_lightning.plotting.figures import new_figure, save_figure
from zoo_lightning.runs.pool import Execution, rounded_budget, run_label
from zoo_lightning.runs.run_folder import PICTURES, find_checkpoint
from zoo_lightning.sources.spec import parse_sources
from zoo_lightning.tasks.loading import load_task
from zoo_lightning.transfer.relations import Relations, relate
from zoo_lightning.transfer.starts import find_start

AUTO = "auto"
"""Name of the method on the command line."""

BUDGET = 4.0
"""Default budget, in trainings of one ordinary network for the experiment's length."""

LEAST_BUDGET = 2.0
"""Least budget, below which the members' and the student's trainings would be too short."""

TASKS = ("ClassificationTask", "LandmarkTask", "MultiLabelTask", "RegressionTask")

PLAIN, INFORMED, SINGLE = "soup", "start", "single"
"""Methods that begin at the plain average of the sources, at the average by shares, and at one
source."""

DECISIONS, RELATIONS = "decisions.json", "look.json"
"""Names of the file of decisions, in the pipeline's folder, and of relations, in ``stages``."""

SAMPLES = 1000
"""Largest number of training images for computing the sources' relations."""

TRY = 0.25
"""Budget of a try, in trainings of the experiment's length. After a quarter of the default length
the better of the two averages was that at the full length on three of four targets, one seed
each, and level on the fourth (``results/budgets``)."""

PAYS = 0.05
"""Reduction of the validation loss from try to member, as a fraction of the loss, from which longer
training pays. Seed 0, after 300 and 1,050 steps: 0.26 and 0.28 on two targets where four times the
default length gained 1 to 9 points, 0.01 on one where it gained up to 1.7 (``results/auto``)."""

MEMBERS_SHARE = 0.5
"""Fraction of what the tries leave of the budget for all members together; the rest is for the
student."""

DRAWS = 2000
"""Number of bootstrap samples for comparing two models."""

SURE = 0.8
"""Share of bootstrap samples in favour of a candidate from which it replaces a model."""

TEACHING: dict[str, dict[str, Any]] = {
    "ClassificationTask": {"teacher_weight": 0.9, "temperature": 4.0, "mixup": 0.2},
    "LandmarkTask": {"teacher_weight": 0.5},
    "RegressionTask": {"teacher_weight": 0.5},
    "MultiLabelTask": {"teacher_weight": 0.5},
}
"""Task options of the student's training, by task."""


def run_auto(plan: Plan, folder: Path, execution: Execution) -> None:
    """Run or resume the pipeline of ``auto``; finished stages are not repeated.

    Args:
        plan: plan with the budget of all trainings; the costs of relating the sources and of
            validation are additional, and are recorded.
        folder: folder of the pipeline.
        execution: processes for the stages.

    Raises:
        ZooError: a training failed.
        WorkStopped: a signal was received while stages were trained; they have saved their state.
    """
    if len(plan.sources) == 1:
        alone = Beginning(SINGLE, next(iter(plan.sources)))
        members = [beginning(plan, folder, alone, budget_of(plan))]
        train(members, "one source", execution)
        decide(plan, folder, members, [], execution)
        return
    found = related_sources(plan, folder, execution)
    places = beginnings(best_source(found["relations"]), found["shares"])
    tries = [beginning(plan, folder, each, TRY, "try-") for each in places]
    train(tries, "tries", execution)
    chosen = better_beginning(tries, execution)
    rest = budget_of(plan) - TRY * len(tries)
    if found["relatives"] and plan.inference == 1:
        execution.report(
            "members       none: all sources are relatives of the best one, which have little to "
            "teach each other; the beginning gets what is left of the budget"
        )
        runs = [beginning(plan, folder, places[chosen], rest)]
        train(runs, "one network", execution)
        decide(plan, folder, runs, tries, execution)
        return
    each = rest * MEMBERS_SHARE / 2
    members = [beginning(plan, folder, places[chosen], each)]
    train(members, "first member", execution)
    if plan.inference == 1 and longer_pays(tries[chosen], members[0], execution):
        last = trained_on(plan, folder, members[0], rest - each)
    else:
        members.append(beginning(plan, folder, Beginning(SINGLE, found["partner"]), each))
        train(members[1:], "second member, from a source of another origin", execution)
        last = last_training(plan, folder, members, rest - 2 * each, execution)
    train([last], "last training", execution)
    decide(plan, folder, [last, *members], tries, execution)


def check_auto(plan: Plan) -> None:
    """Check that ``auto`` can run a plan.

    Raises:
        ConfigError: the task is not supported, there are no sources, or the budget is too small.
    """
    if plan.task not in TASKS:
        raise ConfigError(
            f"--method {AUTO} is for {' and '.join(TASKS)}, not for {plan.task}; give one of the "
            "other methods"
        )
    if not plan.sources:
        raise ConfigError(f"--method {AUTO} needs sources; give --sources A,B")
    if budget_of(plan) < LEAST_BUDGET:
        raise ConfigError(
            f"--method {AUTO} trains several networks, for which --budget {plan.budget:g} is too "
            f"small: give at least {LEAST_BUDGET:g}, or --method start"
        )


def budget_of(plan: Plan) -> float:
    """Budget of a plan; without one, :data:`BUDGET`."""
    return BUDGET if plan.budget is None else plan.budget


@dataclass(frozen=True)
class Beginning:
    """Where a training begins.

    Attributes:
        method: :data:`PLAIN`, :data:`INFORMED` or :data:`SINGLE`.
        source: name of the source for :data:`SINGLE`.
        shares: share of each source for :data:`INFORMED`.
    """

    method: str
    source: str = ""
    shares: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """Name for the user."""
        return run_label(self.method, self.source)


def beginnings(best: str, shares: Sequence[float]) -> list[Beginning]:
    """List the places where training may begin, the plain average first.

    Args:
        best: name of the best source by its probe.
        shares: share of each source in the informed average, which is left out if all are equal.
    """
    informed = [Beginning(INFORMED, shares=tuple(shares))] if len(set(shares)) > 1 else []
    return [Beginning(PLAIN), *informed, Beginning(SINGLE, best)]


def better_beginning(tries: Sequence[StageRun], execution: Execution) -> int:
    """Select the beginning by validation: the plain average, unless another one is better.

    In doubt it is the plain average, which gains more from a long training.

    Args:
        tries: at least two finished tries, that of the plain average first.
        execution: receives a line with the decision.

    Returns:
        Index of the try.
    """
    plain, *others = scores_of(tries)
    best = min(range(len(others)), key=lambda index: float(others[index].loss.mean()))
    found = gain(others[best].loss, plain.loss)
    chosen = best + 1 if found.is_sure else 0
    execution.report(
        f"beginning     {tries[chosen].name}: {tries[best + 1].name} has {found} less validation "
        f"loss than {tries[0].name}, {found.share:.0%} sure"
    )
    return chosen


def longer_pays(tried: StageRun, member: StageRun, execution: Execution) -> bool:
    """Whether a member is so much better than its try that it should be trained longer.

    Args:
        tried: try from the member's beginning.
        member: finished member.
        execution: receives a line with the decision.
    """
    before, after = (scores.loss for scores in scores_of([tried, member]))
    found = gain(after, before)
    share = found.mean / float(before.mean())
    pays = found.is_sure and share > PAYS
    execution.report(
        f"longer        {'pays' if pays else 'does not pay'}: {member.name} has {share:.1%} less "
        f"validation loss than after the try, {found.share:.0%} sure; more than {PAYS:.0%} pays"
    )
    return pays


def last_training(
    plan: Plan, folder: Path, members: Sequence[StageRun], budget: float, execution: Execution
) -> StageRun:
    """Create the stage that trains the better member on.

    All members together are its teachers if they are better than the better one alone: a source
    that is far from the task makes them worse, and would make the student worse.

    Args:
        plan: plan of the pipeline.
        folder: folder of the pipeline.
        members: finished members.
        budget: budget of the training.
        execution: receives lines with the choices.
    """
    best, joint = best_and_joint(members)
    found = gain(joint.scores.loss, best.scores.loss)
    [run] = best.runs
    execution.report(
        f"student       begins as {run.name}, the better member by validation; both members "
        f"together have {found} less loss, {found.share:.0%} sure"
    )
    if found.mean > 0:
        return trained_on(plan, folder, run, budget, members)
    execution.report("student       without teachers: together they are no better than it is")
    return trained_on(plan, folder, run, budget)


def trained_on(
    plan: Plan, folder: Path, run: StageRun, budget: float, teachers: Sequence[StageRun] = ()
) -> StageRun:
    """Create the stage that trains a finished stage's network on.

    Args:
        plan: plan of the pipeline.
        folder: folder of the pipeline.
        run: finished stage.
        budget: budget of the training.
        teachers: finished stages that teach the network.
    """
    options = copy.deepcopy(dict(run.options))
    options |= {"budget": rounded_budget(budget), "init_from": str(run.folder)}
    if not teachers:
        return plan.stage(folder, "longer", "", options)
    options["model"]["init_args"] |= {
        "teachers": [str(each.folder) for each in teachers],
        **TEACHING[plan.task],
    }
    return plan.stage(folder, "student", "", options)


def best_and_joint(members: Sequence[StageRun]) -> tuple[Candidate, Candidate]:
    """Compute the validation scores of the better member, and of all members together."""
    data = run_data(find_checkpoint(str(members[0].folder), None, ""))
    tasks = [load_task(each.folder) for each in members]
    single = [
        Candidate((run,), validation_scores(task, data))
        for run, task in zip(members, tasks, strict=True)
    ]
    joint = Candidate(tuple(members), validation_scores(joint_task(tasks), data))
    return min(single, key=lambda each: each.loss), joint


def scores_of(runs: Sequence[StageRun]) -> list[Scores]:
    """Compute the validation scores of finished stages."""
    data = run_data(find_checkpoint(str(runs[0].folder), None, ""))
    return [validation_scores(load_task(each.folder), data) for each in runs]


def beginning(
    plan: Plan, folder: Path, place: Beginning, budget: float, prefix: str = ""
) -> StageRun:
    """Create a stage that trains one network from a beginning.

    Args:
        plan: plan of the pipeline.
        folder: folder of the pipeline.
        place: where the training begins.
        budget: budget of the training.
        prefix: prefix of the stage's name.
    """
    recipe = RECIPES[place.method]
    assert isinstance(recipe, Trained)
    options = plan.configured(recipe, Setting(plan.sources, place.source), budget)
    if place.shares:  # found once for all stages
        options["model"]["init_args"]["backbone"]["init_args"]["weights"] = list(place.shares)
    return plan.stage(folder, prefix + place.method, place.source, options)


def related_sources(plan: Plan, folder: Path, execution: Execution) -> dict[str, Any]:
    """Compute the sources' relations on the training data, once and without training.

    Args:
        plan: plan of the pipeline.
        folder: folder of the pipeline.
        execution: receives lines with the conclusions.

    Returns:
        Content of the file: ``partner``, the source that complements the best source;
        ``relatives``, whether all others are relatives of the best source; ``shares``
        of the sources in their informed average;
        ``relations``, see :class:`~zoo_lightning.transfer.relations.Relations`; ``seconds`` and
        ``multiply_adds``.
    """
    path = folder / STAGES / RELATIONS
    if not path.is_file():
        began = time.monotonic()
        with counting() as spent:
            found, shares = _relations(plan)
        content = {
            "partner": partner(found),
            "relatives": all_related(found),
            "shares": shares,
            "relations": found.as_dict(),
            "seconds": round(time.monotonic() - began, 1),
            "multiply_adds": spent.multiply_adds,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as part:
            part.write_text(json.dumps(content, indent=2) + "\n", **TEXT)
    content = json.loads(path.read_text(**TEXT))
    for line in content["relations"]["conclusion"]:
        execution.report(f"sources       {line}")
    return content


def _relations(plan: Plan) -> tuple[Relations, list[float]]:
    """Relate the sources, and find their shares in the informed average."""
    options = copy.deepcopy(plan.options)
    resolve_bands(options)
    init_args, described = options["model"]["init_args"]["backbone"]["init_args"], options["data"]
    architecture = architecture_of(init_args, described)
    sources = parse_sources(list(plan.sources.values()))
    described["init_args"]["seed"] = plan.options["seed_everything"]  # the split that is trained on
    data = plain_data(described)
    found = relate(architecture, load_architecture(architecture, sources), data, SAMPLES)
    data.setup("fit")
    return found, find_start(architecture, sources, data).gate_init


def all_related(found: Relations) -> bool:
    """Whether all other sources are relatives of the best one, see :func:`partner`."""
    best = max(found.sources, key=lambda row: row.score).name
    pairs = [pair for pair in found.pairs if best in (pair.first, pair.second)]
    return all(pair.relation == "relatives" for pair in pairs)


def best_source(relations: Mapping[str, Any]) -> str:
    """Name of the source with the highest score in the saved relations."""
    return max(relations["sources"], key=lambda row: row["score"])["name"]


def partner(found: Relations) -> str:
    """Select the source that complements the best one.

    Of the pairs with the best source, the pair with the best joint score is selected. Relatives of
    the best source, whose features are mostly the same, are selected only if there are no others.

    Args:
        found: relations of at least two sources.
    """
    best = max(found.sources, key=lambda row: row.score).name
    pairs = [pair for pair in found.pairs if best in (pair.first, pair.second)]
    others = [pair for pair in pairs if pair.relation != "relatives"] or pairs
    pair = max(others, key=lambda pair: pair.joint)
    return pair.second if pair.first == best else pair.first


@dataclass(frozen=True)
class Gain:
    """Reduction of the mean loss from an incumbent to a candidate, on the same images.

    Attributes:
        mean: mean loss of the incumbent minus that of the candidate; positive if the candidate is
            better.
        low: 2.5 % quantile of the bootstrap over images.
        high: 97.5 % quantile of the bootstrap over images.
        share: share of the bootstrap samples in which the candidate is better, in [0, 1].
    """

    mean: float
    low: float
    high: float
    share: float

    @property
    def is_sure(self) -> bool:
        """Whether the candidate is better in enough bootstrap samples to replace the incumbent."""
        return self.share >= SURE

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ({self.low:+.4f} to {self.high:+.4f})"


def gain(candidate: Tensor, incumbent: Tensor) -> Gain:
    """Compare two models by a paired bootstrap (Efron and Tibshirani 1993, section 6).

    It does not need scipy, an optional dependency, and is reproducible by a fixed seed.

    Args:
        candidate: ``(N,)`` losses of the candidate, one for each image.
        incumbent: ``(N,)`` losses of the incumbent on the same images in the same order.
    """
    better = (incumbent - candidate).double()
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(better), (DRAWS, len(better)), generator=generator)
    means = better[chosen].mean(dim=1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
    return Gain(float(better.mean()), low, high, float((means > 0).double().mean()))


@dataclass(frozen=True)
class Candidate:
    """Network or ensemble that may become the result.

    Attributes:
        runs: stages of its networks.
        scores: scores on the validation images.
    """

    runs: tuple[StageRun, ...]
    scores: Scores

    @property
    def name(self) -> str:
        """Names of the runs, joined by plus signs."""
        return " + ".join(each.name for each in self.runs)

    @property
    def loss(self) -> float:
        """Mean loss over the validation images."""
        return float(self.scores.loss.mean())


def decide(
    plan: Plan,
    folder: Path,
    runs: Sequence[StageRun],
    tries: Sequence[StageRun],
    execution: Execution,
) -> None:
    """Select the result among finished stages by validation, and publish it.

    The first stage is replaced by another one, and a single network by an ensemble of up to
    ``plan.inference`` networks, only if the bootstrap shows a gain with share ``SURE``.

    Args:
        plan: plan of the pipeline.
        folder: folder of the pipeline.
        runs: finished stages.
        tries: further stages, which cost something and are no candidates.
        execution: receives lines with the decisions.
    """
    began, start_cost = time.monotonic(), _relations_cost(folder)
    data = run_data(find_checkpoint(str(runs[0].folder), None, ""))
    tasks = {each: load_task(each.folder) for each in runs}
    measure = measure_of(tasks[runs[0]])

    def candidate(*chosen: StageRun) -> Candidate:
        members = [tasks[each] for each in chosen]
        task = members[0] if len(members) == 1 else joint_task(members)
        return Candidate(chosen, validation_scores(task, data))

    with counting() as spent:
        single = [candidate(each) for each in runs]
        joint = [
            candidate(*chosen)
            for size in range(2, min(plan.inference, len(runs)) + 1)
            for chosen in combinations(runs, size)
        ]
    execution.report(f"validation    {measure.loss} of {len(single[0].scores.loss)} images")
    choice, gains = single[0], {}
    for group in (single[1:], joint):
        if not group:
            continue
        best = min(group, key=lambda each: each.loss)
        gains[best.name] = found = gain(best.scores.loss, choice.scores.loss)
        verdict = "replaces" if found.is_sure else "does not replace"
        execution.report(
            f"  {best.name} {verdict} {choice.name}: {found} less, {found.share:.0%} sure"
        )
        choice = best if found.is_sure else choice
    content = {
        "result": [each.name for each in choice.runs],
        "measure": measure.label,
        "loss": measure.loss,
        "candidates": [
            {"name": each.name, "value": measure.of(each.scores), "loss": each.loss}
            for each in [*single, *joint]
        ],
        "gains": {name: asdict(found) for name, found in gains.items()},
    }
    with atomic_file(folder / DECISIONS) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", **TEXT)
    against = {
        f"{each.name}\n{measure.label} {measure.of(each.scores):.2f}": gain(
            choice.scores.loss, each.scores.loss
        )
        for each in [*single, *joint]
    }
    figure = plot_gains(against, f"{measure.loss} above that of the result, {choice.name}")
    save_figure(figure, folder / PICTURES / "decision.png")
    execution.report(
        f"result        {choice.name}: validation {measure.label} {measure.of(choice.scores):.2f}"
    )
    value = measure.of(choice.scores) / (100 if measure.rises else 1)
    monitor = tasks[runs[0]].monitor
    publish(
        folder,
        [each.folder for each in choice.runs],
        plan.run_test,
        {
            "validation": {monitor: value},
            "seconds": round(time.monotonic() - began + start_cost["seconds"], 1),
            "compute": {
                "parts": {"start": start_cost["multiply_adds"], "validation": spent.multiply_adds}
            },
        },
    )
    add_costs(folder, [*runs, *tries], plan)


def _relations_cost(folder: Path) -> dict[str, Any]:
    """``multiply_adds`` and ``seconds`` of relating the sources; 0 for a single source."""
    path = folder / STAGES / RELATIONS
    found = json.loads(path.read_text(**TEXT)) if path.is_file() else {}
    return {name: found.get(name, 0) for name in ("multiply_adds", "seconds")}


def plot_gains(gains: Mapping[str, Gain], label: str) -> Figure:
    """Plot the gain of a result over each candidate with 95 % intervals over validation images.

    Args:
        gains: gains by candidate name.
        label: label of the horizontal axis.
    """
    figure = new_figure(5.5, 0.8 + 0.45 * len(gains))
    axes = figure.subplots()
    for place, found in enumerate(gains.values()):
        axes.plot([found.low, found.high], [place, place], color="0.4", linewidth=1.5)
        axes.plot(found.mean, place, marker="o" if found.low > 0 else "D", color="black")
    axes.axvline(0.0, color="0.7", linewidth=0.8)
    axes.set_yticks(range(len(gains)), list(gains), fontsize=7)
    axes.set_ylim(len(gains) - 0.5, -0.5)
    axes.set_xlabel(label, fontsize=8)
    return figure

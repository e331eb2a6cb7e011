"""``fit --method auto``: from several sources and a budget to the best network that they make.

Members are trained first, each from another start; then they teach one network together; then the
validation images decide which of them is the result. What was decided, and why, is in the folder's
``decisions.json``.
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

from matplotlib.figure import Figure

from zoo_lightning.backbone import load_architecture
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiment_parts import architecture_of, plain_data
from zoo_lightning.experiment_sources import run_data
from zoo_lightning.gates.measuring import Scores, measure_of, validation_scores
from zoo_lightning.layers.multiply_adds import counting
from zoo_lightning.methods.ensembles import joint_task
from zoo_lightning.methods.recipe import Setting
from zoo_lightning.methods.recipes import RECIPES
from zoo_lightning.pipelines.guard import Gain, gain
from zoo_lightning.pipelines.plan import Plan
from zoo_lightning.pipelines.publishing import BEST, publish
from zoo_lightning.pipelines.stage import STAGES, StageRun
from zoo_lightning.pipelines.transfer import Hands, add_costs, train
from zoo_lightning.plots import new_figure, save_figure
from zoo_lightning.run_folder import PICTURES
from zoo_lightning.sources.spec import parse_sources
from zoo_lightning.tasks.loading import load_task
from zoo_lightning.text_files import TEXT
from zoo_lightning.transfer.relations import Relations, relate
from zoo_lightning.whole_files import whole_file

AUTO = "auto"
"""Name of the method."""

BUDGET = 4.0
"""Where none is given, in trainings of one network of the experiment's length."""

LEAST_BUDGET = 2.0
"""Below it, members and the network that they teach would be too short to be worth anything."""

TASKS = ("ClassificationTask", "LandmarkTask")

DECISIONS, LOOK = "decisions.json", "look.json"
"""Files of what was decided, in the pipeline's folder, and of how sources are related, below it."""

SAMPLES = 1000
"""Training images by which sources are related, at most."""

MEMBERS_SHARE = 0.5
"""Of the budget, for the members together; the rest is for the network that they teach."""

TEACHING: dict[str, dict[str, Any]] = {
    "ClassificationTask": {"teacher_weight": 0.9, "temperature": 4.0, "mixup": 0.2},
    "LandmarkTask": {"teacher_weight": 0.5},
}
"""Options of the task while the members teach."""


def carry_out_auto(plan: Plan, folder: Path, hands: Hands) -> None:
    """Carry out the pipeline; what is finished stays, and what was stopped continues.

    Args:
        plan: with a budget, which is for the trainings; relating the sources and judging what was
            trained come on top and are counted.
        folder: of the pipeline.
        hands: by what.

    Raises:
        ZooError: a training failed.
        WorkStopped: by a signal, while stages are trained; they have saved where they were.
    """
    members = member_runs(plan, folder, hands)
    train(members, "members", hands)
    runs = list(members)
    if len(members) > 1:
        student = student_run(plan, folder, members)
        train([student], "student, taught by the members", hands)
        runs.insert(0, student)
    decide(plan, folder, runs, hands)


def check_auto(plan: Plan) -> None:
    """Refuse what the pipeline cannot do.

    Raises:
        ConfigError: another task, no sources, or a budget that pays for no stages.
    """
    if plan.task not in TASKS:
        raise ConfigError(
            f"--method {AUTO} is for {' and '.join(TASKS)}, not for {plan.task}; give one of the "
            "other methods"
        )
    if not plan.sources:
        raise ConfigError(f"--method {AUTO} needs sources; give --sources A,B")
    if plan.budget < LEAST_BUDGET:
        raise ConfigError(
            f"--method {AUTO} trains several networks, for which --budget {plan.budget:g} is too "
            f"small: give at least {LEAST_BUDGET:g}, or --method start"
        )


def member_runs(plan: Plan, folder: Path, hands: Hands) -> list[StageRun]:
    """Trainings of the members, each from another start: the first from what suits the data best.

    Args:
        plan: of the pipeline.
        folder: of the pipeline.
        hands: gets a line of what the sources are found to be.
    """
    names = list(plan.sources)
    if len(names) == 1:
        return [_member(plan, folder, "single", names[0], plan.budget)]
    found = look(plan, folder, hands)
    share = plan.budget * MEMBERS_SHARE / 2
    return [
        _member(plan, folder, "start", "", share),
        _member(plan, folder, "single", found["partner"], share),
    ]


def _member(plan: Plan, folder: Path, method: str, variant: str, budget: float) -> StageRun:
    setting = Setting(plan.sources, variant)
    name = f"{method}-{variant}" if variant else method
    return plan.stage(folder, name, variant, plan.configured(RECIPES[method], setting, budget))


def student_run(plan: Plan, folder: Path, members: Sequence[StageRun]) -> StageRun:
    """Training of the network that the members teach, from the first one's start.

    Args:
        plan: of the pipeline.
        folder: of the pipeline.
        members: finished.
    """
    options = plan.configured(
        RECIPES["start"],
        Setting(plan.sources),
        plan.budget * (1 - MEMBERS_SHARE),
        teachers=[str(each.folder) for each in members],
        **TEACHING[plan.task],
    )
    return plan.stage(folder, "student", "student", options)


def look(plan: Plan, folder: Path, hands: Hands) -> dict[str, Any]:
    """What the sources are on these data, from passes without training; kept in the folder.

    Args:
        plan: of the pipeline.
        folder: of the pipeline.
        hands: gets a line of what was found.

    Returns:
        ``partner``, the source that complements the start best; ``relations`` as
        :class:`~zoo_lightning.transfer.relations.Relations` has them; ``seconds`` and
        ``multiply_adds``.
    """
    path = folder / STAGES / LOOK
    if not path.is_file():
        began = time.monotonic()
        with counting() as spent:
            found = _relations(plan)
        content = {
            "partner": partner(found),
            "relations": found.as_dict(),
            "seconds": round(time.monotonic() - began, 1),
            "multiply_adds": spent.multiply_adds,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            part.write_text(json.dumps(content, indent=2) + "\n", **TEXT)
    content = json.loads(path.read_text(**TEXT))
    for line in content["relations"]["conclusion"]:
        hands.say(f"sources       {line}")
    return content


def _relations(plan: Plan) -> Relations:
    init_args = plan.options["model"]["init_args"]["backbone"]["init_args"]
    architecture = architecture_of(init_args)
    sources = load_architecture(architecture, parse_sources(list(plan.sources.values())))
    described = copy.deepcopy(plan.options["data"])
    described["init_args"]["seed"] = plan.options["seed_everything"]  # whose part is trained on
    data = plain_data(described)
    return relate(architecture, sources, data, SAMPLES)


def partner(found: Relations) -> str:
    """Source that complements the one that suits the data best.

    Args:
        found: relations of two sources or more.

    Returns:
        Its name: of the pairs with the best source the one whose features explain most together,
        beside relatives, which mostly know the same.
    """
    best = max(found.sources, key=lambda row: row.score).name
    pairs = [pair for pair in found.pairs if best in (pair.first, pair.second)]
    others = [pair for pair in pairs if pair.relation != "relatives"] or pairs
    pair = max(others, key=lambda pair: pair.joint)
    return pair.second if pair.first == best else pair.first


@dataclass(frozen=True)
class Candidate:
    """A network, or an ensemble of some, that may become the result.

    Attributes:
        runs: that it is.
        scores: of the validation images.
    """

    runs: tuple[StageRun, ...]
    scores: Scores

    @property
    def name(self) -> str:
        """Names of the runs, joined by plus signs."""
        return " + ".join(each.name for each in self.runs)

    @property
    def loss(self) -> float:
        """Mean over the validation images."""
        return float(self.scores.loss.mean())


def decide(plan: Plan, folder: Path, runs: Sequence[StageRun], hands: Hands) -> None:
    """Choose among finished trainings by the validation images, and publish what is chosen.

    The first training is what others have to be better than: one replaces it, and an ensemble of up
    to ``plan.inference`` networks the single one, if the bootstrap is sure enough of a gain.

    Args:
        plan: of the pipeline.
        folder: of the pipeline.
        runs: finished.
        hands: gets lines of what is decided.
    """
    began, looked = time.monotonic(), _look_cost(folder)
    data = run_data(runs[0].folder / BEST)
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
    hands.say(f"validation    {measure.loss} of {len(data.val_set)} images")
    choice, gains = single[0], {}
    for group in (single[1:], joint):
        if not group:
            continue
        best = min(group, key=lambda each: each.loss)
        gains[best.name] = found = gain(best.scores.loss, choice.scores.loss)
        verdict = "replaces" if found.is_sure else "does not replace"
        hands.say(f"  {best.name} {verdict} {choice.name}: {found} less, {found.share:.0%} sure")
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
    with whole_file(folder / DECISIONS) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", **TEXT)
    against = {
        f"{each.name}\n{measure.label} {measure.of(each.scores):.2f}": gain(
            choice.scores.loss, each.scores.loss
        )
        for each in [*single, *joint]
    }
    figure = plot_gains(against, f"{measure.loss} above that of the result, {choice.name}")
    save_figure(figure, folder / PICTURES / "decision.png")
    hands.say(f"result        {choice.name}: {measure.label} {measure.of(choice.scores):.2f}")
    value = measure.of(choice.scores) / (100 if measure.rises else 1)
    monitor = tasks[runs[0]].monitor
    publish(
        folder,
        [each.folder for each in choice.runs],
        plan.run_test,
        {
            "validation": {monitor: value},
            "seconds": round(time.monotonic() - began + looked["seconds"], 1),
            "compute": {
                "parts": {"start": looked["multiply_adds"], "validation": spent.multiply_adds}
            },
        },
    )
    add_costs(folder, runs, plan)


def _look_cost(folder: Path) -> dict[str, Any]:
    """``multiply_adds`` and ``seconds`` of relating the sources; 0 of a single one."""
    path = folder / STAGES / LOOK
    found = json.loads(path.read_text(**TEXT)) if path.is_file() else {}
    return {name: found.get(name, 0) for name in ("multiply_adds", "seconds")}


def plot_gains(gains: Mapping[str, Gain], label: str) -> Figure:
    """What a result gains over each candidate, with 95 % intervals over the validation images.

    Args:
        gains: by the candidates' names.
        label: of the axis.
    """
    figure = new_figure(5.5, 0.8 + 0.45 * len(gains))
    axes = figure.subplots()
    for place, found in enumerate(gains.values()):
        axes.plot([found.low, found.high], [place, place], color="0.4", linewidth=1.5)
        axes.plot(found.mean, place, marker="o" if found.low > 0 else "D", color="black")
    axes.axvline(0.0, color="0.7", linewidth=0.8)
    axes.set_yticks(range(len(gains)), list(gains), fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel(label, fontsize=8)
    return figure

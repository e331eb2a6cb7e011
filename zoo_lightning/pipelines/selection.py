"""Select one of several finished stages, or an ensemble of them, by their validation scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from zoo_lightning.analysis.measuring import Scores, validation_scores
from zoo_lightning.experiments.resolving import run_data
from zoo_lightning.methods.ensembles import joint_task
from zoo_lightning.pipelines.stage import StageRun
from zoo_lightning.plotting.figures import new_figure
from zoo_lightning.runs.pool import Report
from zoo_lightning.runs.run_folder import find_checkpoint
from zoo_lightning.tasks.base import BaseTask
from zoo_lightning.tasks.loading import load_task

DRAWS = 2000
"""Number of bootstrap samples for comparing two models."""

SURE = 0.8
"""Share of bootstrap samples in favour of a candidate from which it replaces a model."""


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
class Comparison:
    """Comparison of a candidate with an incumbent on the same images.

    Attributes:
        loss: gain by loss.
        error: gain by error, in percent of the images, or of the error's own unit.
    """

    loss: Gain
    error: Gain

    @property
    def replaces(self) -> bool:
        """Whether the candidate is surely better by loss and by error, and replaces the incumbent.

        The loss alone has less noise, but it may rise while classes are learned for long: a network
        that is right more often, and too sure of itself, would be replaced by a half-trained one.
        """
        return self.loss.is_sure and self.error.is_sure

    def __str__(self) -> str:
        text = f"{self.loss} less loss, {100 * self.loss.share:.0f} % sure"
        if self.error == self.loss:  # of landmarks and numbers
            return f"{text}; {100 * SURE:.0f} % are needed"
        return (
            f"{text}, and {self.error.mean:+.2f} less error, {100 * self.error.share:.0f} % sure; "
            f"both must reach {100 * SURE:.0f} %"
        )


def compared(candidate: Scores, incumbent: Scores) -> Comparison:
    """Compare a candidate with an incumbent by their scores on the same images."""
    return Comparison(gain(candidate.loss, incumbent.loss), gain(candidate.error, incumbent.error))


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


def candidates_of(groups: Sequence[tuple[StageRun, ...]]) -> list[Candidate]:
    """Compute the validation scores of finished stages and ensembles; none of none."""
    scores = joint_scores(groups) if groups else []
    return [Candidate(*each) for each in zip(groups, scores, strict=True)]


def select(
    single: Sequence[Candidate], joint: Sequence[Candidate], report: Report
) -> tuple[Candidate, dict[str, Comparison]]:
    """Select one of several candidates; the first is replaced only by one that is surely better.

    Args:
        single: networks, at least one.
        joint: ensembles of them, which have to be better than the best network, too.
        report: receives a line for each comparison.

    Returns:
        The selected candidate, and the comparison of each other one that was the best of its
        kind with what was selected before, by its name.
    """
    choice, found = single[0], {}
    for group in (single[1:], joint):
        if not group:
            continue
        best = min(group, key=lambda each: each.loss)
        found[best.name] = each = compared(best.scores, choice.scores)
        verdict = "replaces" if each.replaces else "does not replace"
        report(f"  {best.name} {verdict} {choice.name}: {each}")
        choice = best if each.replaces else choice
    return choice, found


def joint_scores(groups: Sequence[Sequence[StageRun]]) -> list[Scores]:
    """Compute the validation scores of single finished stages and of ensembles of them."""
    data = run_data(find_checkpoint(str(groups[0][0].folder), None, ""))
    tasks = {run: load_task(run.folder) for group in groups for run in group}

    def task_of_group(group: Sequence[StageRun]) -> BaseTask:
        members = [tasks[run] for run in group]
        return members[0] if len(members) == 1 else joint_task(members)

    return [validation_scores(task_of_group(group), data) for group in groups]


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

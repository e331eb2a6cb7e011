"""Several trained models as one: their joint prediction, and soups of their weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from zoo_lightning.errors import ConfigError
from zoo_lightning.heads import HeatmapHead
from zoo_lightning.tasks import BaseTask, ClassificationTask, LandmarkTask


class JointOutput(nn.Module):
    """The mean output of several networks.

    Args:
        members: each gives ``(B, ...)`` for images, all of one shape.
        shares: whether outputs are scores of which a softmax over the last dimension, of heat maps
            ``(B, K, h, w)`` over the last two, makes shares: the mean is then of the shares.
    """

    def __init__(self, members: Sequence[nn.Module], shares: bool) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.shares = shares

    def forward(self, images: Tensor) -> Tensor:
        """Output ``(B, ...)``, to be understood as that of a single member."""
        outputs = torch.stack([member(images).float() for member in self.members])
        if not self.shares:
            return outputs.mean(dim=0)
        # Scores whose softmax is the mean of the members' shares.
        maps = outputs.flatten(3) if outputs.dim() == 5 else outputs
        joint = maps.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(outputs))
        return joint.view_as(outputs[0])


class Ensemble(JointOutput):
    """The mean prediction of several models: of class probabilities, points or heat maps.

    Dietterich, *Ensemble Methods in Machine Learning*, 2000, section 1.

    Args:
        tasks: trained alike, on the same classes or points.

    Raises:
        ConfigError: fewer than one, or tasks of different kinds.
    """

    def __init__(self, tasks: Sequence[BaseTask]) -> None:
        check_alike(tasks)
        first = tasks[0]
        shares = isinstance(first, ClassificationTask) or (
            isinstance(first.head, HeatmapHead) and first.head.decode == "soft_argmax"
        )
        super().__init__(tasks, shares)

    def fold(self) -> JointOutput:
        """The members' ordinary networks with their heads, and the mean of their outputs."""
        return JointOutput([task.fold() for task in self.members], self.shares).eval()


def joint_task(tasks: Sequence[BaseTask]) -> BaseTask:
    """A task that tests, validates and predicts with the ensemble of several.

    Args:
        tasks: as :class:`Ensemble` takes them; the new task holds them, not copies.

    Returns:
        A new task that is not for training.

    Raises:
        ConfigError: as :class:`Ensemble` raises it.
    """
    check_alike(tasks)
    first = tasks[0]
    kept = {id(module): module for module in (first.backbone, first.head)}
    joint = copy.deepcopy(first, kept)
    join(joint, tasks)
    return joint.eval()


def join(task: BaseTask, members: Sequence[BaseTask]) -> None:
    """Let a task predict with the ensemble of several in place of its own network.

    Args:
        task: of the members' kind; changed.
        members: as :class:`Ensemble` takes them; the first one's backbone and head become the
            task's.

    Raises:
        ConfigError: as :class:`Ensemble` raises it.
    """
    task.ensemble = Ensemble(members)
    task.backbone, task.head = members[0].backbone, members[0].head
    task.made_by = "ensemble"


def average_tasks(tasks: Sequence[BaseTask]) -> BaseTask:
    """A task with the mean of the weights of several (Wortsman et al., *Model soups*, ICML 2022).

    Statistics of norm layers are averaged as well; estimate them anew before the task is used.

    Args:
        tasks: trained from one start, or from matched sources.

    Raises:
        ConfigError: fewer than one, or tasks of different kinds.
    """
    check_alike(tasks)
    soup = copy.deepcopy(tasks[0])
    states = [task.state_dict() for task in tasks]
    mean = {
        key: torch.stack([state[key] for state in states]).mean(dim=0)
        if value.is_floating_point()
        else value
        for key, value in states[0].items()
    }
    soup.load_state_dict(mean)
    return soup.eval()


def greedy_soup(
    tasks: Sequence[BaseTask], score: Callable[[BaseTask], float], higher_is_better: bool
) -> tuple[BaseTask, list[int]]:
    """Average as many models as improve the validation score (Wortsman et al. 2022, recipe 1).

    Models join in the order of their own scores, and stay if the average of all that stay is then
    at least as good.

    Args:
        tasks: trained models.
        score: of a task on validation data; it may change the task's norm statistics.
        higher_is_better: of the score.

    Returns:
        The soup, and the indices of the tasks in it, the best one first.
    """
    sign = 1 if higher_is_better else -1
    alone = [sign * score(task) for task in tasks]
    order = sorted(range(len(tasks)), key=lambda i: alone[i], reverse=True)
    chosen, soup, best = [order[0]], tasks[order[0]], alone[order[0]]
    for index in order[1:]:
        wider = average_tasks([tasks[i] for i in [*chosen, index]])
        found = sign * score(wider)
        if found >= best:
            chosen, soup, best = [*chosen, index], wider, found
    return soup, chosen


def check_alike(tasks: Sequence[BaseTask]) -> None:
    """Refuse tasks that have nothing in common to average.

    Raises:
        ConfigError: none, or of different kinds, classes, points or decodings.
    """
    if not tasks:
        raise ConfigError("an average needs at least one trained model, got none")
    described = [_described(task) for task in tasks]
    if len(set(described)) > 1:
        kinds = "; ".join(dict.fromkeys(described))
        raise ConfigError(f"models to average must be alike, got {kinds}")
    if not isinstance(tasks[0], (ClassificationTask, LandmarkTask)):
        raise ConfigError(
            f"models of classes and of landmarks are averaged, not {type(tasks[0]).__name__}"
        )


def _described(task: BaseTask) -> str:
    """What the outputs of tasks have to have in common."""
    outputs = getattr(task, "num_classes", None) or getattr(task, "num_points", None)
    decode = getattr(task.head, "decode", None)
    return (
        f"{type(task).__name__} of {outputs} outputs by a {type(task.head).__name__}"
        f"{f' with decode: {decode}' if decode else ''}, in_chans: "
        f"{task.backbone.architecture.in_chans}"
    )

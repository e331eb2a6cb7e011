"""Combine several trained models: ensembles of predictions, and soups of weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch

from zoo_lightning.methods.joint_output import check_alike
from zoo_lightning.tasks.base import BaseTask


def joint_task(tasks: Sequence[BaseTask]) -> BaseTask:
    """Create a task that validates, tests and predicts with an ensemble of tasks.

    Args:
        tasks: trained tasks of one kind with the same classes or points; they are not copied.

    Returns:
        A new task, which cannot be trained.

    Raises:
        ConfigError: no tasks, or tasks of different kinds.
    """
    check_alike(tasks)
    first = tasks[0]
    kept = {id(module): module for module in (first.backbone, first.head)}
    joint = copy.deepcopy(first, kept)
    joint.join(tasks)
    return joint.eval()


def average_tasks(tasks: Sequence[BaseTask]) -> BaseTask:
    """Average the weights of several tasks (Wortsman et al., *Model soups*, ICML 2022).

    Statistics of norm layers are averaged as well; recalibrate them before the task is used.

    Args:
        tasks: tasks fine-tuned from the same weights, or from sources matched by ``rebasin``.

    Raises:
        ConfigError: no tasks, or tasks of different kinds.
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
    """Average the models that improve the validation score (Wortsman et al. 2022, recipe 1).

    Models are tried in the order of their own scores; each is kept if the average of all kept
    models is then at least as good.

    Args:
        tasks: trained tasks, at least one.
        score: function that computes a task's validation score; it may change the task's norm
            statistics.
        higher_is_better: whether a higher score is a better one.

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

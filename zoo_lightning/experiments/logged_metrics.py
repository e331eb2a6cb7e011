"""Names of the metrics that a run will log, and which of them are better if they are higher.

By them, unknown monitors and those that would keep the worst are refused before a run starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.experiments.parser_errors import known_classes
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.tasks import BaseTask

ALWAYS = ("epoch", "step")
"""Names that Lightning logs in every run."""

RISES = re.compile(
    r"(acc\w*|auc\w*|m?iou\w*|dice|map|f1(_macro|_micro)?|exact_match|r2|spearman|episodic_return)"
    r"([@/].*)?"
)
FALLS = re.compile(r"(loss|nme\w*|failure_rate\w*|n?mae|r?mse)([@/].*)?")
"""Patterns of metric names, without ``val/``, that are better if higher, and if lower."""


def better_mode(name: str) -> Literal["max", "min"] | None:
    """Return whether a metric is better if it is higher, ``max``, or lower, ``min``.

    Args:
        name: name of the metric, such as ``val/acc``.

    Returns:
        ``None`` for a metric of which that is not known, such as a user's own.
    """
    part, _, rest = name.partition("/")
    if part not in ("train", "val", "test"):
        return None
    if RISES.fullmatch(rest):
        return "max"
    return "min" if FALLS.fullmatch(rest) else None


def logged_names(task: type, model: Mapping[str, Any], run: Mapping[str, Any]) -> list[str] | None:
    """List the names of the metrics that a run of a task logs, including its test.

    Args:
        task: class of the task.
        model: options of the task, ``backbone`` as ``class_path`` and ``init_args``.
        run: options of the subcommand, some of which add metrics.

    Returns:
        Names, with ``*`` for sources, layers or subsets of the data; ``None`` for a class that does
        not declare them, such as a user's own.
    """
    if not issubclass(task, BaseTask) or "logged_metrics" not in vars(task):
        return None
    names = [*task.logged_metrics(model)]
    backbone = str((model.get("backbone") or {}).get("class_path")).rpartition(".")[2]
    if issubclass(known_classes().get(backbone, object), ZooBackbone):
        names.append("gates/*")
    if run.get("gradient_norms"):
        names.append("gradients/*")
    if run.get("on_nonfinite") == "skip":
        names.append("skipped_steps")
    return names


def is_logged(name: str, names: list[str]) -> bool:
    """Return whether a name is among those that a run logs."""
    return name in ALWAYS or any(fnmatchcase(name, each) for each in names)


def check_logged(name: str, names: list[str] | None, place: str) -> None:
    """Check that a metric is logged during training.

    Args:
        name: name of the metric.
        names: names that the run logs; ``None`` if they are unknown.
        place: option that names the metric.

    Raises:
        ConfigError: the run does not log the metric; the message lists what it logs.
    """
    if names is None:
        return
    known = [each for each in names if not each.startswith("test/")]
    if not is_logged(name, known):
        raise ConfigError(
            f"{place}: a run logs no {name!r}.{nearest(name, known)} It logs {', '.join(known)}"
        )

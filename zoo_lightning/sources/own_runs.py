"""Run folders and ensembles of this package as sources."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECKPOINTS, SUMMARY = "checkpoints", "summary.json"
"""Names of the checkpoint folder and the summary in a run folder."""

MEMBERS = "members"
"""Key of an ensemble's checkpoint for the checkpoints of its networks, by their numbers."""


def run_of(checkpoint: Path) -> Path | None:
    """Run folder that contains a checkpoint, or ``None``.

    A user's own ``ModelCheckpoint`` may save in another folder of the run than ``checkpoints``.
    """
    parent = checkpoint.resolve().parent
    if parent.name == CHECKPOINTS:
        return parent.parent
    above = [parent, *parent.parents]
    runs = (each for each in above if (each / SUMMARY).is_file() and (each / CHECKPOINTS).is_dir())
    return next(runs, None)


def networks_in(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Contents of an ensemble's networks; empty for a checkpoint of one network.

    Args:
        content: content of a checkpoint that was read.

    Returns:
        For each network the entries of its run's checkpoint on model and data, and in ``run`` the
        path of that run.
    """
    return list(content.get(MEMBERS, {}).values())


def describe_ensemble(content: Mapping[str, Any]) -> str:
    """Describe an ensemble in a phrase: its number of networks and their runs.

    Args:
        content: content of any checkpoint.

    Returns:
        ``an ensemble of 2 networks (RUN, RUN)``; empty for anything else.
    """
    members = content.get(MEMBERS)
    if "zoo_lightning" not in content or not isinstance(members, Mapping):
        return ""
    given = [each.get("run") for each in members.values() if isinstance(each, Mapping)]
    runs = ", ".join(run for run in given if isinstance(run, str))
    described = f"an ensemble of {len(members)} network{'' if len(members) == 1 else 's'}"
    return f"{described} ({runs})" if runs else described

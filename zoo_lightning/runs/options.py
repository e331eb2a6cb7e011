"""Options of ``fit`` that several runs of one command share."""

from __future__ import annotations

import json
from typing import Any

from zoo_lightning.sources.spec import parse_sources

SHARED = ("seed_everything", "trainer", "model", "data")
"""Options of ``fit`` that runs of one command share."""

OF_EVERY_RUN = {
    "gradient_norms": False,
    "on_nonfinite": "stop",
    "average_weights": False,
    "select": "auto",
    "length": "default",
    "length_from_data": None,
    "wandb": False,
    "wandb_project": None,
    "wandb_entity": None,
    "wandb_group": None,
    "wandb_tags": None,
    "wandb_notes": None,
    "wandb_checkpoint": True,
    "wandb_sources": False,
}
"""Options with their defaults that they share where they are others."""

FROM_DATA = ("num_points", "num_classes", "num_actions")
"""Options of the task that come from the data."""


def shared_options(options: Any) -> dict[str, Any]:
    """Of resolved options of ``fit`` those that several runs share, in plain types."""
    content = json.loads(json.dumps(options.as_dict(), default=str))
    kept = {key: content[key] for key in SHARED}
    kept |= {k: content[k] for k, default in OF_EVERY_RUN.items() if content[k] != default}
    kept["data"].setdefault("init_args", {}).pop("seed", None)  # the run's
    for name in FROM_DATA:
        kept["model"]["init_args"].pop(name, None)
    return kept


def task_of(options: dict[str, Any]) -> str:
    """Name of the task's class in shared options."""
    return options["model"]["class_path"].rpartition(".")[2]


def sources_of(options: dict[str, Any]) -> dict[str, Any]:
    """The sources in shared options, as they are given, by their names."""
    init_args = options["model"]["init_args"]["backbone"]["init_args"]
    given = init_args.get("sources") or []
    names = [source.name for source in parse_sources(given)]
    return dict(zip(names, given, strict=True))


def higher_is_better(task: str) -> bool:
    """Whether the figure that a task keeps its best checkpoint by is better where it is higher.

    Args:
        task: name of the task's class.
    """
    from zoo_lightning import tasks  # slow to import

    return getattr(tasks, task).monitor_mode == "max"


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Dotted names of what differs in two nested dictionaries, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            found
            for key in {**before, **now}
            for found in differences(
                before.get(key), now.get(key), f"{name}.{key}".removeprefix(".")
            )
        ]
    return [] if before == now else [f"{name} ({before!r}, now {now!r})"]

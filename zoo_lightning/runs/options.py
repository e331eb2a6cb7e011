"""Options of ``fit`` that the runs of a comparison, a pipeline or a sweep share."""

from __future__ import annotations

from typing import Any

from zoo_lightning.sources.spec import parse_sources


def task_of(options: dict[str, Any]) -> str:
    """Class name of the task in the options that runs share."""
    return options["model"]["class_path"].rpartition(".")[2]


def sources_of(options: dict[str, Any]) -> dict[str, Any]:
    """Sources in the options that runs share, by name, as given in the experiment."""
    init_args = options["model"]["init_args"]["backbone"]["init_args"]
    given = init_args.get("sources") or []
    names = [source.name for source in parse_sources(given)]
    return dict(zip(names, given, strict=True))


def higher_is_better(task: str) -> bool:
    """Whether a higher validation metric is better for a task.

    Args:
        task: name of the task's class.
    """
    from zoo_lightning import tasks  # slow to import

    return getattr(tasks, task).monitor_mode == "max"


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """List the entries that differ in two nested dictionaries: dotted name and both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            found
            for key in {**before, **now}
            for found in differences(
                before.get(key), now.get(key), f"{name}.{key}".removeprefix(".")
            )
        ]
    return [] if before == now else [f"{name} ({before!r}, now {now!r})"]

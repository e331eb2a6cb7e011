"""Where experiments are: YAML files by name. Light: nothing heavy is imported here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from zoo_lightning.errors import ConfigError, nearest

SHIPPED = (Path(__file__).parent / "_experiments", Path(__file__).parents[1] / "experiments")
"""Folder of the installed copy, and of a plain checkout, in which the former does not exist."""


SWEEPS = "sweeps"
"""Folder of sweep files, below that of experiments; these are none."""


def experiment_folders() -> list[Path]:
    """Folders that are searched, the present folder's own ``experiments`` first."""
    return [folder for folder in (Path("experiments"), *SHIPPED) if folder.is_dir()]


def known_experiments() -> list[str]:
    """Names of all experiments that can be found, sorted; folders inside are part of a name."""
    names = {
        str(file.relative_to(folder).with_suffix("").as_posix())
        for folder in experiment_folders()
        for file in folder.rglob("*.yaml")
        if file.parent != folder / SWEEPS
    }
    return sorted(names)


def find_experiment(name: str) -> Path:
    """File of an experiment.

    Args:
        name: of an experiment, or a path to a YAML file.

    Raises:
        ConfigError: there is none of that name; the message lists those that there are.
    """
    if Path(name).suffix in (".yaml", ".yml", ".json") and os.path.isfile(name):
        return Path(name)
    for folder in experiment_folders():
        file = folder / f"{name}.yaml"
        if os.path.isfile(file):  # unlike Path's, no error for names that cannot be
            return file
    known = known_experiments()
    raise ConfigError(
        f"unknown experiment {name!r}.{nearest(name, known)} Known are: "
        f"{', '.join(known) or 'none'}; a path to a YAML file works too."
    )


def experiment_name(file: Path) -> str:
    """Name under which an experiment's file is found, else the file's own name."""
    for folder in experiment_folders():
        if file.resolve().is_relative_to(folder.resolve()):
            return file.resolve().relative_to(folder.resolve()).with_suffix("").as_posix()
    return file.stem


def joint_name(files: Sequence[Path]) -> str:
    """Name of what several files make together.

    JSON files among others are no part of it: as such a sweep hands over its parameters.
    """
    named = [file for file in files if file.suffix != ".json"] or files
    return "+".join(map(experiment_name, named)) or "custom"

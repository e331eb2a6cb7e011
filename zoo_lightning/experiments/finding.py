"""Find experiments, which are YAML files, by name, without importing torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from zoo_lightning.errors import ConfigError, nearest

SHIPPED = (Path(__file__).parents[1] / "_experiments", Path(__file__).parents[2] / "experiments")
"""Folders of the shipped experiments: in an installation, and in a checkout of the repository."""

SWEEPS = "sweeps"
"""Subfolder of the experiments that holds sweep files, which are not experiments."""


def experiment_folders() -> list[Path]:
    """List the folders searched for experiments, the working directory's ``experiments`` first."""
    return [folder for folder in (Path("experiments"), *SHIPPED) if folder.is_dir()]


def known_experiments() -> list[str]:
    """List the names of all experiments, sorted; names include subfolders."""
    names = {
        str(file.relative_to(folder).with_suffix("").as_posix())
        for folder in experiment_folders()
        for file in folder.rglob("*.yaml")
        if file.parent != folder / SWEEPS
    }
    return sorted(names)


def find_experiment(name: str) -> Path:
    """Find the file of an experiment.

    Args:
        name: name of the experiment, or a path to a YAML file.

    Raises:
        ConfigError: no experiment has that name; the message lists the known names.
    """
    if Path(name).suffix in (".yaml", ".yml", ".json") and os.path.isfile(name):
        return Path(name)
    for folder in experiment_folders():
        file = folder / f"{name}.yaml"
        if os.path.isfile(file):  # unlike Path's, no error for names that cannot be
            return file
    known = known_experiments()
    near = nearest(name, known) or f" Known are: {', '.join(known) or 'none'};"
    raise ConfigError(f"unknown experiment {name!r}.{near} A path to a YAML file works too.")


def experiment_name(file: Path) -> str:
    """Return the name that finds an experiment's file, or the file's stem if there is none."""
    for folder in experiment_folders():
        if file.resolve().is_relative_to(folder.resolve()):
            return file.resolve().relative_to(folder.resolve()).with_suffix("").as_posix()
    return file.stem


def joint_name(files: Sequence[Path]) -> str:
    """Join the names of several experiments by ``+``; ``custom`` without any.

    JSON files next to others are left out, because a sweep passes its parameters in one.
    """
    named = [file for file in files if file.suffix != ".json"] or files
    return "+".join(map(experiment_name, named)) or "custom"

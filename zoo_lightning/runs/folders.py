"""Choose the folder of a new run, unique to the run and common to its processes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from zoo_lightning.errors import ConfigError
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT

HANDED = "ZOO_LIGHTNING_RUN_DIR"
"""Environment variable that passes the run folder to the processes that Lightning starts."""

PATIENCE = 120.0
"""Seconds that a launcher's process waits for the first process to choose the folder."""

DAY = 86_400.0


def is_first_rank() -> bool:
    """Whether this process has local rank 0, which claims the run and writes its files."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def claim_run_folder(experiment: str) -> Path:
    """Create ``runs/EXPERIMENT/DATE-TIME``, a folder unique to a run.

    Two runs that start in the same second get two folders.

    Args:
        experiment: name of the experiment.
    """
    base = Path("runs") / experiment / datetime.now().strftime("%Y%m%d-%H%M%S")
    base.parent.mkdir(parents=True, exist_ok=True)
    folder, number = base, 2
    while True:
        try:
            folder.mkdir()
        except FileExistsError:  # checking first would leave time for another run
            folder, number = base.with_name(f"{base.name}-{number}"), number + 1
        else:
            return folder


def shared_run_folder(experiment: str) -> Path:
    """Choose the folder of a new run, the same in all processes of the training.

    The first process creates it. Processes that Lightning starts get its path from an environment
    variable; those of ``torchrun`` or SLURM read it from a file in ``runs/EXPERIMENT``.

    Args:
        experiment: name of the experiment.

    Raises:
        ConfigError: the processes run on several machines under a launcher that does not identify
            the training, or the first process names no folder in time.
    """
    from lightning.pytorch.utilities import rank_zero_only  # slow to import

    notes = _notes(experiment, os.environ)
    if not getattr(rank_zero_only, "rank", None):
        folder = claim_run_folder(experiment)
        os.environ[HANDED] = str(folder)
        if notes is not None:
            _remove_old(notes.parent)
            with atomic_file(notes) as part:
                part.write_text(str(folder), **TEXT)
        return folder
    if notes is None and HANDED in os.environ:
        return Path(os.environ[HANDED])
    if notes is None:
        raise ConfigError(
            "processes of one training on several machines need a folder in common: give --run_dir"
        )
    deadline = time.monotonic() + PATIENCE
    while not notes.is_file():
        if time.monotonic() > deadline:
            raise ConfigError(
                f"the first process of this training has named no run folder within "
                f"{PATIENCE:.0f} s ({notes} does not exist); give --run_dir"
            )
        time.sleep(0.1)
    return Path(notes.read_text(**TEXT))


def remove_if_unused(folder: Path) -> None:
    """Remove a run folder if it is empty, and its parents if they are empty.

    Args:
        folder: run folder; only parents of a ``runs/EXPERIMENT/DATE-TIME`` are removed.
    """
    above = folder.parents if folder.parts[:1] == ("runs",) else []
    for each in (folder, *above):
        if each == Path() or not each.is_dir() or any(each.iterdir()):
            return
        each.rmdir()


def _remove_old(folder: Path) -> None:
    """Remove files in which first processes named their folder a day ago or earlier."""
    for path in [*folder.glob(".torchrun-*"), *folder.glob(".slurm-*")]:
        if time.time() - path.stat().st_mtime > DAY:
            path.unlink(missing_ok=True)


def _notes(experiment: str, environment: Mapping[str, str]) -> Path | None:
    """File through which a launcher's processes find the run folder.

    Returns:
        ``None`` where nothing distinguishes this training from others.
    """
    folder = Path("runs") / experiment
    if "TORCHELASTIC_RUN_ID" in environment:
        if environment.get("GROUP_WORLD_SIZE", "1") != "1":
            return None  # the names of such jobs are often alike
        again = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
        return folder / f".torchrun-{os.getppid()}-{again}"
    if int(environment.get("SLURM_NTASKS", "1")) > 1 and "SLURM_JOB_ID" in environment:
        step, again = (environment.get(f"SLURM_{n}", "0") for n in ("STEP_ID", "RESTART_COUNT"))
        return folder / f".slurm-{environment['SLURM_JOB_ID']}-{step}-{again}"
    return None

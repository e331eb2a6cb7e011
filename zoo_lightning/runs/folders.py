"""Which folder a new run writes to: claimed by one run, and the same for all of its processes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from zoo_lightning.errors import ConfigError
from zoo_lightning.text_files import TEXT
from zoo_lightning.whole_files import whole_file

HANDED = "ZOO_LIGHTNING_RUN_DIR"
"""Environment variable by which the first process of a run names the folder to those it starts."""

PATIENCE = 120.0
"""Seconds that a process waits for the first one, which another program has started."""

DAY = 86_400.0


def claim_run_folder(experiment: str) -> Path:
    """Make ``runs/EXPERIMENT/DATE-TIME``, a folder that no other run takes.

    Two runs that begin in the same second get two folders.

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
    """The folder of a new run, the same in all processes of the training.

    The first process claims it. Processes that Lightning starts from it find its name in their
    environment; those that ``torchrun`` or SLURM start beside it find it in a file below
    ``runs/EXPERIMENT``.

    Args:
        experiment: name of the experiment.

    Raises:
        ConfigError: the first process is on another machine under a launcher whose trainings cannot
            be told apart, or it does not say a folder in time.
    """
    notes = _notes(experiment, os.environ)
    if not rank_zero_only.rank:
        folder = claim_run_folder(experiment)
        os.environ[HANDED] = str(folder)
        if notes is not None:
            _remove_old(notes.parent)
            with whole_file(notes) as part:
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
                f"the first process of this training has not said where it writes within "
                f"{PATIENCE:.0f} s ({notes} is not there); give --run_dir"
            )
        time.sleep(0.1)
    return Path(notes.read_text(**TEXT))


def remove_if_unused(folder: Path) -> None:
    """Remove a folder that was claimed and that nothing was written to, and those above it.

    Args:
        folder: of a run; of ``runs/EXPERIMENT/DATE-TIME`` the two above are removed if they are
            empty, too.
    """
    above = folder.parents if folder.parts[:1] == ("runs",) else []
    for each in (folder, *above):
        if each == Path() or not each.is_dir() or any(each.iterdir()):
            return
        each.rmdir()


def _remove_old(folder: Path) -> None:
    """Remove what first processes have noted a day ago or earlier."""
    for path in [*folder.glob(".torchrun-*"), *folder.glob(".slurm-*")]:
        if time.time() - path.stat().st_mtime > DAY:
            path.unlink(missing_ok=True)


def _notes(experiment: str, environment: Mapping[str, str]) -> Path | None:
    """File by which processes that another program started find the folder.

    Returns:
        ``None`` where nothing tells this training from others.
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

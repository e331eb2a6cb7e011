"""The folder of one run: what is in it, and how to find one again.

``config.yaml`` (resolved), ``metrics.csv``, ``checkpoints/{best,last}.ckpt``, ``pictures/``,
``summary.json``.
"""

from __future__ import annotations

import csv
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from zoo_lightning.errors import ConfigError

CHECKPOINTS, PICTURES, SUMMARY, METRICS = "checkpoints", "pictures", "summary.json", "metrics.csv"


def new_run_folder(experiment: str) -> Path:
    """``runs/EXPERIMENT/DATE-TIME``, not yet taken by another run."""
    base = Path("runs") / experiment / datetime.now().strftime("%Y%m%d-%H%M%S")
    folder, number = base, 2
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder


def run_of(checkpoint: Path) -> Path | None:
    """Run folder that a checkpoint lies in, or ``None``."""
    parent = checkpoint.resolve().parent
    return parent.parent if parent.name == CHECKPOINTS else None


def find_checkpoint(given: str, run_dir: str | None, experiment: str) -> Path:
    """Checkpoint that a user means.

    Args:
        given: a file; a run folder, whose best is meant; or ``last`` or ``best``, of ``run_dir`` or
            else of the experiment's newest run.
        run_dir: the run folder, if one was given.
        experiment: the experiment's name.

    Raises:
        ConfigError: nothing there.
    """
    if given in ("last", "best"):
        runs = sorted(Path("runs", experiment).glob(f"*/{CHECKPOINTS}/{given}.ckpt"))
        if run_dir is not None:
            path = Path(run_dir) / CHECKPOINTS / f"{given}.ckpt"
        elif runs:
            path = runs[-1]
        else:
            raise ConfigError(
                f"--ckpt_path {given}: no run of {experiment!r} under {Path('runs', experiment)}; "
                "give --run_dir, or the path of a checkpoint"
            )
    else:
        path = Path(given)
        if path.is_dir():
            path = path / CHECKPOINTS / "best.ckpt"
    if not path.is_file():
        raise ConfigError(
            f"--ckpt_path {given}: there is no file {path}; expected a checkpoint, a run folder, "
            "'last' or 'best'"
        )
    return path


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write ``summary.json`` so that a reader never finds half of it."""
    temporary = folder / f".{SUMMARY}.{os.getpid()}"
    temporary.write_text(json.dumps(summary, indent=2) + "\n")
    temporary.replace(folder / SUMMARY)


def earlier_metrics(folder: Path, until_step: int) -> list[dict[str, float]]:
    """Rows of a run's ``metrics.csv`` up to a step, for a run that goes on from there."""
    file = folder / METRICS
    if not file.is_file():
        return []
    with file.open(newline="") as stream:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(stream)]
    return [row for row in rows if row.get("step", 0) <= until_step]

"""Finished trainings as the result of a pipeline: its folder becomes that of a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_lightning.experiment_sources import run_data
from zoo_lightning.methods.deriving import test_task
from zoo_lightning.methods.saving import save_ensemble
from zoo_lightning.run_folder import CHECKPOINTS, METRICS, SUMMARY, write_summary
from zoo_lightning.tasks.loading import load_task
from zoo_lightning.text_files import TEXT
from zoo_lightning.whole_files import whole_file

BEST = Path(CHECKPOINTS, "best.ckpt")

COPIED = (Path("config.yaml"), Path(METRICS))
"""Files that a pipeline's folder has from a run, besides the checkpoint."""


def publish(folder: Path, runs: Sequence[Path], run_test: bool, facts: Mapping[str, Any]) -> None:
    """Make a pipeline's folder that of a run whose network was trained in others.

    Args:
        folder: of the pipeline.
        runs: folders of the trainings; of several the result is their ensemble.
        run_test: whether the result is tested.
        facts: what ``summary.json`` has in place of what the first run's has.
    """
    copy_records(runs[0], folder)
    summary = json.loads((runs[0] / SUMMARY).read_text(**TEXT))
    summary.pop("start_seconds", None)  # of a stage
    if len(runs) > 1:
        save_ensemble(runs, folder)
    else:
        _copy(runs[0], folder, BEST)
    task = load_task(folder)
    if len(runs) > 1:
        members = [run.name for run in runs]
        counts = task.parameter_counts()
        summary |= {"method": task.method, "members": members, "parameters": counts}
    test = test_task(task, run_data(runs[0] / BEST), folder) if run_test else {}
    write_summary(folder, {**summary, "checkpoint": BEST.as_posix(), **facts, "test": test})


def copy_records(run: Path, folder: Path) -> None:
    """Copy a run's configuration and curves to a pipeline's folder."""
    for name in COPIED:
        _copy(run, folder, name)


def _copy(run: Path, folder: Path, name: Path) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / name) as part:
        shutil.copyfile(run / name, part)

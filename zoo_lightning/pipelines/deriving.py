"""Run folders of models that are made from finished runs without training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from zoo_lightning.analysis.measuring import judge, measure_of, recalibrate
from zoo_lightning.callbacks.sample_count import SampleCount
from zoo_lightning.experiments.resolving import run_data
from zoo_lightning.files.atomic import copy_file
from zoo_lightning.methods.recipe import Derived, FinishedRun
from zoo_lightning.methods.saving import member_of, save_ensemble, save_like, save_members
from zoo_lightning.nn.multiply_adds import counting
from zoo_lightning.runs.length import peak_memory_mb
from zoo_lightning.runs.run_callbacks import file_callbacks
from zoo_lightning.runs.run_folder import (
    BEST,
    CONFIG,
    METRICS,
    PICTURES,
    find_checkpoint,
    read_summary,
    write_summary,
)
from zoo_lightning.tasks import BaseTask
from zoo_lightning.tasks.loading import load_task, task_from


def derive(
    recipe: Derived,
    runs: Sequence[FinishedRun],
    data: pl.LightningDataModule,
    higher_is_better: bool,
    folder: Path,
    run_test: bool,
) -> dict[str, Any]:
    """Make a model from finished runs, save it, and test it.

    Args:
        recipe: method that makes the model.
        runs: finished runs to make it from.
        data: data of the runs, set up for ``fit``.
        higher_is_better: whether a higher validation metric is better.
        folder: folder for ``checkpoints/best.ckpt`` and, after a test, pictures and tables.
        run_test: whether to test the model.

    Returns:
        Content of the model's ``summary.json``.
    """
    start = time.monotonic()
    contents = [member_of(each.folder) for each in runs]
    tasks = [task_from(content, Path(content["run"])) for content in contents]
    scores: dict[int, float] = {}

    def score(task: BaseTask) -> float:
        if task not in tasks:
            recalibrate(task, data)
        scores[id(task)] = judge(task, data)
        return scores[id(task)]

    with counting() as spent:
        made, members = recipe.make(tasks, score, higher_is_better)
        validation = scores.get(id(made)) or judge(made, data)
    if made.ensemble is not None:
        checkpoint = save_members([contents[i] for i in members], folder)
    else:
        checkpoint = save_like(made, contents[members[0]], folder, recipe.name)
    # An ensemble's networks run one after the other, and the parameters of all are stored.
    count = sum(p.numel() for p in made.parameters())
    seconds = round(time.monotonic() - start, 1)
    pictures = drew_pictures([each.folder for each in runs])
    test, counts = test_task(made, data, folder, pictures) if run_test else ({}, {})
    scale = 100 if measure_of(made).rises else 1
    return {
        "method": recipe.name,
        "steps": 0,
        "members": [runs[i].variant for i in members],
        "seconds": seconds,
        "checkpoint": str(checkpoint.relative_to(folder)),
        "parameters": {"training": count, "folded": count},
        "preprocessing": (read_summary(runs[0].folder) or {}).get("preprocessing", {}),
        "peak_memory_mb": peak_memory_mb(made.device),
        "compute": {
            "multiply_adds": spent.multiply_adds,
            "seconds": seconds,
            "parts": {"validation": spent.multiply_adds},
        },
        "validation": {made.monitor: validation / scale},
        **counts,
        "test": test,
    }


def publish(folder: Path, runs: Sequence[Path], run_test: bool, facts: Mapping[str, Any]) -> None:
    """Turn a pipeline's folder into the run folder of its result.

    Args:
        folder: folder of the pipeline.
        runs: run folders of the result's networks; several become an ensemble.
        run_test: whether to test the result.
        facts: entries of ``summary.json`` that replace those of the first run.
    """
    copy_records(runs[0], folder)
    summary = dict(read_summary(runs[0]) or {})
    for name in ("start_seconds", "stop_after", "losses"):  # of a stage
        summary.pop(name, None)
    best = find_checkpoint(str(runs[0]), None, "")
    if len(runs) > 1:
        save_ensemble(runs, folder)
    else:
        copy_file(best, folder / BEST)
    task = load_task(folder)
    if len(runs) > 1:
        members = [run.name for run in runs]
        counts = task.parameter_counts()
        summary |= {"method": task.method, "members": members, "parameters": counts}
    test: dict[str, float] = {}
    images: dict[str, int] = {}
    if run_test:
        test, images = test_task(task, run_data(best), folder, drew_pictures(runs))
    write_summary(folder, {**summary, "checkpoint": BEST, **facts, **images, "test": test})


def copy_records(run: Path, folder: Path) -> None:
    """Copy a run's ``config.yaml`` and ``metrics.csv`` to a pipeline's folder."""
    for name in (CONFIG, METRICS):
        if (run / name).is_file():  # without a logger there are no curves
            copy_file(run / name, folder / name)


def drew_pictures(runs: Sequence[Path]) -> bool:
    """Whether any of the runs has pictures."""
    return any((run / PICTURES).is_dir() for run in runs)


def test_task(
    task: BaseTask, data: pl.LightningDataModule, folder: Path, pictures: bool
) -> tuple[dict[str, float], dict[str, int]]:
    """Test a model on one device, with a Trainer of its own.

    Args:
        task: task in evaluation mode.
        data: data with a test part.
        folder: folder for pictures and tables.
        pictures: whether to draw pictures.

    Returns:
        Test metrics by name, and counts of test images, see
        :class:`~zoo_lightning.callbacks.sample_count.SampleCount`.
    """
    counter = SampleCount()
    trainer = pl.Trainer(
        accelerator="auto", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
        callbacks=[counter, *file_callbacks(task, folder, pictures)],
    )  # fmt: skip
    [results] = trainer.test(task, datamodule=data)
    return {name: value for name, value in results.items() if name != "step"}, counter.counts

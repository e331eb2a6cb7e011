"""Models that are made of finished runs without training: kept, tested and described."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch import LightningDataModule

from zoo_lightning.gates.measuring import judge, measure_of, recalibrate
from zoo_lightning.layers.multiply_adds import counting
from zoo_lightning.memory import peak_memory_mb
from zoo_lightning.methods.recipe import Derived, FinishedRun
from zoo_lightning.methods.saving import save_ensemble, save_task
from zoo_lightning.run_callbacks import files_of
from zoo_lightning.tasks import BaseTask
from zoo_lightning.tasks.loading import load_task


def derive(
    recipe: Derived,
    runs: Sequence[FinishedRun],
    data: LightningDataModule,
    higher_is_better: bool,
    folder: Path,
    run_test: bool,
) -> dict[str, Any]:
    """Make a model of finished runs, keep it, and test it.

    Args:
        recipe: by which it is made.
        runs: that it is made of.
        data: that they were trained on, set up for ``fit``.
        higher_is_better: of their validation figure.
        folder: that gets ``checkpoints/best.ckpt`` and, of a test, pictures and tables.
        run_test: whether to test it.

    Returns:
        What ``summary.json`` says of it.
    """
    start = time.monotonic()
    tasks = [load_task(each.folder) for each in runs]
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
        checkpoint = save_ensemble([runs[i].folder for i in members], folder)
    else:
        checkpoint = save_task(made, runs[members[0]].folder, folder, recipe.name)
    # Several models are asked one after the other; their parameters have to be stored.
    count = sum(p.numel() for p in made.parameters())
    seconds = round(time.monotonic() - start, 1)
    test = test_task(made, data, folder) if run_test else {}
    scale = 100 if measure_of(made).rises else 1
    return {
        "method": recipe.name,
        "steps": 0,
        "members": [runs[i].variant for i in members],
        "seconds": seconds,
        "checkpoint": str(checkpoint.relative_to(folder)),
        "parameters": {"training": count, "folded": count},
        "preprocessing": {"mean": list(data.mean), "std": list(data.std)},
        "peak_memory_mb": peak_memory_mb(),
        "compute": {
            "multiply_adds": spent.multiply_adds,
            "seconds": seconds,
            "parts": {"validation": spent.multiply_adds},
        },
        "validation": {made.monitor: validation / scale},
        "test": test,
    }


def test_task(task: BaseTask, data: LightningDataModule, folder: Path) -> dict[str, float]:
    """Figures of the test data of a model that no Trainer trained, on one device.

    Args:
        task: in evaluation mode.
        data: with a test part.
        folder: that gets pictures and tables.
    """
    trainer = pl.Trainer(
        accelerator="auto", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=files_of(task, folder),
    )  # fmt: skip
    [results] = trainer.test(task, datamodule=data, verbose=False)
    return {name: value for name, value in results.items() if name != "step"}

"""One cell of a comparison, in a process of its own: ``python -m zoo_lightning.comparing.cell``."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml

from zoo_lightning.cli import main as zoo_lightning
from zoo_lightning.comparing.grid import Cell, Comparison, open_comparison
from zoo_lightning.comparing.tuning import chosen_lr
from zoo_lightning.errors import ConfigError, ZooError, message_of
from zoo_lightning.experiment_parts import plain_data
from zoo_lightning.experiment_sources import ExperimentReader
from zoo_lightning.gates.measuring import judge, measure_of, recalibrate
from zoo_lightning.memory import peak_memory_mb
from zoo_lightning.methods.recipes import RECIPES, Derived, Setting
from zoo_lightning.run_folder import SUMMARY, write_summary
from zoo_lightning.tasks import BaseTask
from zoo_lightning.tasks.loading import load_task
from zoo_lightning.trainer_cli import run
from zoo_lightning.whole_files import whole_file


def run_cell(comparison: Comparison, cell: Cell) -> int:
    """Train or make a cell.

    Returns:
        Exit status: 0 if it is finished.

    Raises:
        ZooError: it cannot be done.
    """
    recipe = RECIPES[cell.method]
    finished = {name: comparison.finished(RECIPES[name], cell) for name in recipe.needs}
    if not all(finished.values()):
        raise ConfigError(
            f"{cell.label} is made from runs of {', '.join(recipe.needs)}; none ended"
        )
    higher = higher_is_better(comparison)
    setting = Setting(comparison.sources, cell.variant, finished, higher)
    folder = comparison.run(cell)
    if isinstance(recipe, Derived):
        derive(recipe, setting, comparison, folder, cell)
        return 0
    tuned = cell
    if recipe.needs:  # begins where the best of those began, and learns at its rate
        tuned = dataclasses.replace(
            cell, method=recipe.needs[0], variant=setting.best(recipe.needs[0]).variant
        )
    lr = cell.lr if cell.lr is not None else chosen_lr(comparison, tuned)
    config = folder / "cell.yaml"
    options = comparison.configured(cell, setting, recipe, lr)
    with whole_file(config) as part:
        part.write_text(yaml.safe_dump(options, sort_keys=False))
    words = ["fit", "--config", str(config), "--run_dir", str(folder)]
    if (folder / "checkpoints" / "last.ckpt").is_file():
        words += ["--ckpt_path", "last"]
    return zoo_lightning(words)


def higher_is_better(comparison: Comparison) -> bool:
    """Whether the comparison's task is better where its monitored figure is higher."""
    from zoo_lightning import tasks

    return getattr(tasks, comparison.task).monitor_mode == "max"


def derive(
    recipe: Derived, setting: Setting, comparison: Comparison, folder: Path, cell: Cell
) -> None:
    """Make a model of finished runs, test it, and write its summary."""
    start = time.monotonic()
    runs = [each for name in recipe.needs for each in setting.finished[name]]
    tasks = [load_task(each.folder) for each in runs]
    config = runs[0].folder / "cell.yaml"
    data = plain_data(run(["fit", "--config", str(config)], ExperimentReader).options.data)
    scores: dict[int, float] = {}

    def score(task: BaseTask) -> float:
        if task not in tasks:
            recalibrate(task, data)
        scores[id(task)] = judge(task, data)
        return scores[id(task)]

    made, members = recipe.make(tasks, score, setting.higher_is_better)
    # Several models are asked one after the other; their parameters have to be stored.
    count = sum(p.numel() for p in made.parameters())
    validation = scores.get(id(made)) or judge(made, data)
    seconds = time.monotonic() - start
    trainer = pl.Trainer(
        accelerator="auto", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    [results] = trainer.test(made, datamodule=data, verbose=False)
    scale = 100 if measure_of(made).rises else 1
    write_summary(
        folder,
        {
            "experiment": "compare",
            "method": recipe.name,
            "seed": cell.seed,
            "steps": 0,
            "members": [runs[i].variant for i in members],
            "seconds": round(seconds, 1),
            "parameters": {"training": count, "folded": count},
            "peak_memory_mb": peak_memory_mb(),
            "validation": {made.monitor: validation / scale},
            "test": {key: value for key, value in results.items() if key != "step"},
        },
    )


def words_of(comparison: Comparison, cell: Cell) -> list[str]:
    """Command line of a cell's process."""
    described = json.dumps(dataclasses.asdict(cell))
    return [sys.executable, "-m", __name__, str(comparison.folder), described]


def main(arguments: Sequence[str]) -> int:
    """Folder of the comparison, and the cell as JSON."""
    folder, described = arguments
    content: dict[str, Any] = json.loads(described)
    comparison, cell = open_comparison(Path(folder), None), Cell(**content)
    try:
        status = run_cell(comparison, cell)
    except ZooError as error:
        print(f"error: {message_of(error)}", file=sys.stderr)
        return 2
    if status == 0 and not (comparison.run(cell) / SUMMARY).is_file():
        print("error: the run left no summary", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

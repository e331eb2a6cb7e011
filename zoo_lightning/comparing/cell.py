"""One cell of a comparison, in a process of its own: ``python -m zoo_lightning.comparing.cell``."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml

from zoo_lightning.cli import main as zoo_lightning
from zoo_lightning.comparing.grid import Cell, Comparison, open_comparison
from zoo_lightning.errors import ConfigError, ZooError, message_of
from zoo_lightning.experiment_parts import plain_data
from zoo_lightning.experiment_sources import ExperimentReader
from zoo_lightning.methods.deriving import derive
from zoo_lightning.methods.recipe import Derived, Setting
from zoo_lightning.methods.recipes import RECIPES
from zoo_lightning.run_folder import SUMMARY, TEST_ERRORS, write_summary
from zoo_lightning.runs.claims import claimed, is_first_rank
from zoo_lightning.runs.options import higher_is_better
from zoo_lightning.runs.pool import TAKEN
from zoo_lightning.text_files import TEXT
from zoo_lightning.trainer_cli import run
from zoo_lightning.whole_files import whole_file

CONFIG = "cell.yaml"


def run_cell(comparison: Comparison, cell: Cell) -> int:
    """Train or make a cell.

    Returns:
        Exit status: 0 if it is finished.

    Raises:
        ZooError: it cannot be done.
    """
    recipe = RECIPES[cell.method]
    needs = [RECIPES[name] for name in recipe.needs]
    if missing := comparison.missing(needs, cell):
        names = ", ".join(str(other.path) for other in missing)
        raise ConfigError(f"{cell.label} is made from runs that have not ended: {names}")
    finished = {need.name: comparison.finished(need, cell) for need in needs}
    higher = higher_is_better(comparison.task)
    setting = Setting(comparison.sources, cell.variant, finished, higher)
    folder = comparison.run(cell)
    if isinstance(recipe, Derived):
        runs = [each for name in recipe.needs for each in setting.finished[name]]
        words = ["fit", "--config", str(runs[0].folder / CONFIG)]
        data = plain_data(run(words, ExperimentReader).options.data)
        made = derive(recipe, runs, data, higher, folder, not comparison.hold_out)
        write_summary(folder, {"experiment": "compare", "seed": cell.seed, **made})
        return 0
    config = folder / CONFIG
    if comparison.trained(cell) is not None:
        return add_test(folder)
    lr = cell.lr if cell.is_trial else comparison.chosen_lr(cell)
    options = comparison.configured(cell, setting, recipe, lr)
    with whole_file(config) as part:
        part.write_text(yaml.safe_dump(options, sort_keys=False), **TEXT)
    words = ["fit", "--config", str(config), "--run_dir", str(folder)]
    if comparison.hold_out or cell.is_trial:
        words += ["--run_test", "false"]
    if (folder / "checkpoints" / "last.ckpt").is_file():
        words += ["--ckpt_path", "last"]
    return zoo_lightning(words)


def add_test(folder: Path) -> int:
    """Test a run that was trained while the test data were held out, and add it to its summary.

    Returns:
        Exit status of the test.
    """
    summary = json.loads((folder / SUMMARY).read_text(**TEXT))
    checkpoint, aside = folder / summary["checkpoint"], folder / "test"
    status = zoo_lightning(
        ["test", "--config", str(folder / CONFIG), "--ckpt_path", str(checkpoint), "--run_dir",
         str(aside)]
    )  # fmt: skip
    if status == 0 and is_first_rank():
        tested = json.loads((aside / SUMMARY).read_text(**TEXT))["test"]
        if (aside / TEST_ERRORS).is_file():
            shutil.copyfile(aside / TEST_ERRORS, folder / TEST_ERRORS)
        write_summary(folder, {**summary, "test": tested})
    return status


def arguments_of(comparison: Comparison, cell: Cell) -> list[str]:
    """What :func:`main` gets for a cell."""
    described = json.dumps({"cell": dataclasses.asdict(cell), "hold_out": comparison.hold_out})
    return [str(comparison.folder), described]


def main(arguments: Sequence[str]) -> int:
    """Folder of the comparison, and the cell as JSON.

    Returns:
        Exit status: 0 if the cell is finished, ``TAKEN`` if another process works on it.
    """
    folder, described = arguments
    content: dict[str, Any] = json.loads(described)
    comparison = open_comparison(Path(folder), None, content["hold_out"])
    cell = Cell(**content["cell"])
    first = is_first_rank()
    with claimed(comparison.run(cell)) if first else nullcontext(True) as free:
        if not free:
            return TAKEN
        if comparison.summary(cell) is not None:
            return 0
        try:
            status = run_cell(comparison, cell)
        except ZooError as error:
            print(f"error: {message_of(error)}", file=sys.stderr)
            return 2
        if status == 0 and first and comparison.summary(cell) is None:
            print("error: the run left no summary", file=sys.stderr)
            return 2
        return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

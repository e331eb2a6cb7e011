"""Run cells of a comparison, each in its own process, locally or on a cluster.

A cell is claimed by a lock that the operating system releases when its process ends, so several
commands can work on one comparison without repeating finished cells.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from zoo_lightning.benchmarking.grid import Cell, Comparison, open_comparison
from zoo_lightning.callbacks.sample_count import GAMES, IMAGES
from zoo_lightning.cli import trainer
from zoo_lightning.cli.exit_status import exit_status
from zoo_lightning.errors import ConfigError, ZooError, message_of
from zoo_lightning.experiments.parts import plain_data
from zoo_lightning.experiments.resolving import resolve
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.methods.recipe import Derived, Setting, Trained
from zoo_lightning.methods.recipes import RECIPES
from zoo_lightning.pipelines.deriving import derive
from zoo_lightning.runs.folders import is_first_rank
from zoo_lightning.runs.options import higher_is_better
from zoo_lightning.runs.pool import Execution, Job, fit_words, outcome, run_jobs, work_on
from zoo_lightning.runs.run_folder import LOG, TEST_ERRORS, read_summary, write_summary

CELL_CONFIG = "cell.yaml"

FAILED = "failed"
"""Marker file in the folder of a cell whose cluster job failed."""


class CellJob(Job):
    """Job of the process pool that runs a cell of a comparison.

    Args:
        comparison: comparison of the cell.
        cell: cell to train, or to make from other cells.
    """

    module = "zoo_lightning.benchmarking.cell"

    def __init__(self, comparison: Comparison, cell: Cell) -> None:
        self.comparison, self.cell = comparison, cell
        self.name, self.folder = str(cell.path), comparison.run(cell)

    def arguments(self) -> list[str]:
        """The comparison's folder, and the cell and ``hold_out`` as JSON."""
        content = {
            "cell": dataclasses.asdict(self.cell),
            "hold_out": self.comparison.hold_out,
        }
        return [str(self.comparison.folder), json.dumps(content)]

    def is_finished(self) -> bool:
        """Whether the cell is trained and, unless the test data are held out, tested."""
        return self.comparison.summary(self.cell) is not None

    def missing_runs(self) -> list[str]:
        """Paths of untrained cells that this cell needs."""
        return [str(other.path) for other in self.comparison.missing(self.cell)]


def main(arguments: Sequence[str]) -> int:
    """Run a cell.

    Args:
        arguments: see :meth:`CellJob.arguments`.

    Returns:
        Exit status: 0 if the cell is finished, ``TAKEN`` if another process works on it.
    """
    folder, described = arguments
    content: dict[str, Any] = json.loads(described)
    comparison = open_comparison(Path(folder), None, content["hold_out"])
    cell = Cell(**content["cell"])

    def work() -> int:
        try:
            status = run_cell(comparison, cell)
        except ZooError as error:
            print(f"error: {message_of(error)}", file=sys.stderr)
            return 2
        if status == 0 and is_first_rank() and comparison.summary(cell) is None:
            print("error: the run left no summary", file=sys.stderr)
            return 2
        return status

    return work_on(comparison.run(cell), lambda: comparison.summary(cell) is not None, work)


def run_cell(comparison: Comparison, cell: Cell) -> int:
    """Train a cell, or make it from other cells, in this process.

    Returns:
        Exit status: 0 if the cell is finished.

    Raises:
        ZooError: the cell cannot be run.
    """
    recipe = RECIPES[cell.method]
    if missing := comparison.missing(cell):
        names = ", ".join(str(other.path) for other in missing)
        raise ConfigError(f"{cell.label} is made from runs that have not ended: {names}")
    finished = {name: comparison.finished(RECIPES[name], cell) for name in recipe.needs}
    higher = higher_is_better(comparison.task)
    setting = Setting(comparison.sources, cell.variant, finished, higher)
    folder = comparison.run(cell)
    if isinstance(recipe, Derived):
        runs = [each for name in recipe.needs for each in finished[name]]
        data = plain_data(resolve(runs[0].folder / CELL_CONFIG).options.data)
        made = derive(recipe, runs, data, higher, folder, not comparison.hold_out)
        write_summary(folder, {"experiment": "compare", "seed": cell.seed, **made})
        return 0
    assert isinstance(recipe, Trained)
    config = folder / CELL_CONFIG
    if (summary := comparison.trained(cell)) is not None:
        return add_test(folder, summary)
    lr = cell.lr if cell.is_trial else comparison.chosen_lr(cell)
    options = comparison.configured(cell, setting, recipe, lr)
    with atomic_file(config) as part:
        part.write_text(yaml.safe_dump(options, sort_keys=False), **TEXT)
    words = fit_words(config, folder, not (comparison.hold_out or cell.is_trial))
    return exit_status(lambda: trainer.main(words))


def add_test(folder: Path, summary: dict[str, Any]) -> int:
    """Test a run that was trained with held-out test data, and add the results to its summary.

    Args:
        folder: run folder.
        summary: content of its ``summary.json``.

    Returns:
        Exit status of the test.
    """
    checkpoint, aside = folder / summary["checkpoint"], folder / "test"
    words = ["test", "--config", str(folder / CELL_CONFIG), "--ckpt_path", str(checkpoint)]
    status = exit_status(lambda: trainer.main([*words, "--output", str(aside)]))
    if status == 0 and is_first_rank() and (found := read_summary(aside)) is not None:
        counts = {k: v for k, v in found.items() if k.startswith((IMAGES, GAMES))}
        if (aside / TEST_ERRORS).is_file():
            shutil.copyfile(aside / TEST_ERRORS, folder / TEST_ERRORS)
        write_summary(folder, {**summary, **counts, "test": found["test"]})
    return status


def run_cells(comparison: Comparison, cells: Sequence[Cell], execution: Execution) -> list[Cell]:
    """Run cells in several concurrent processes, with cells that others need first.

    Args:
        comparison: comparison of the cells.
        cells: cells, finished or not.
        execution: processes to use, and the function that receives a line for each cell that ends.

    Returns:
        The cells that failed.

    Raises:
        WorkStopped: a signal was received; running cells saved their state and exited.
    """
    jobs = [CellJob(comparison, cell) for cell in cells]
    finished = sum(job.is_finished() for job in jobs)
    if finished < len(jobs):
        execution.report(
            f"runs    {len(jobs)}, {finished} of them finished; each writes its output to {LOG} in "
            f"its folder below {comparison.folder}"
        )
    waves = [
        [job for job in jobs if bool(RECIPES[job.cell.method].needs) == needing]
        for needing in (False, True)
    ]
    return [job.cell for job in run_jobs(waves, execution) if isinstance(job, CellJob)]


def startable(comparison: Comparison, cells: Sequence[Cell]) -> list[Cell]:
    """List unfinished cells whose needed cells are all trained."""
    jobs = [CellJob(comparison, cell) for cell in cells]
    return [job.cell for job in jobs if not job.is_finished() and not job.missing_runs()]


def run_on_cluster(
    comparison: Comparison, cells: Sequence[Cell], options: dict[str, Any], cluster: str | None
) -> list[Any]:
    """Submit a cluster job through submitit for each unfinished cell that can start.

    Cells that need others are submitted when the command is given again, after the others have
    ended.

    Args:
        comparison: comparison of the cells, in a folder that is shared with the cluster's nodes.
        cells: cells, finished or not.
        options: options of submitit's executor, such as ``timeout_min`` and ``slurm_partition``.
        cluster: submitit's name of the cluster; ``None`` detects it, ``local`` uses processes on
            this machine.

    Returns:
        The submitted submitit jobs.

    Raises:
        ConfigError: submitit is not installed, or it refuses the options.
    """
    try:
        import submitit
    except ImportError as error:
        raise ConfigError(
            f"--slurm needs submitit, which cannot be imported ({error}): pip install -e '.[slurm]'"
        ) from error
    try:
        executor = submitit.AutoExecutor(folder=comparison.folder / "jobs", cluster=cluster)
        executor.update_parameters(**options)
    except (NameError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"--slurm {options}: {' '.join(str(error).split())}") from error
    return [
        executor.submit(run_cluster_job, comparison, cell) for cell in startable(comparison, cells)
    ]


def run_cluster_job(comparison: Comparison, cell: Cell) -> str:
    """Run a cell in a cluster job, and return its outcome: ``done``, ``failed`` or ``taken``.

    A job that fails leaves a marker file for :func:`has_failed`; an interrupted job does not.
    """
    mark = comparison.run(cell) / FAILED
    mark.unlink(missing_ok=True)
    status = CellJob(comparison, cell).start(None).wait()
    ended_as = outcome(status)
    if ended_as == "failed" and 0 < status < 128:
        mark.touch()
    return ended_as


def has_failed(comparison: Comparison, cell: Cell) -> bool:
    """Whether an unfinished cell failed in its last cluster job."""
    return comparison.summary(cell) is None and (comparison.run(cell) / FAILED).is_file()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Working through a comparison's cells: in processes here, or as jobs of a cluster.

A cell is claimed by a lock that the system frees when its process dies, so several commands may
work on one folder, and none repeats what another has finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoo_lightning.comparing.cell import arguments_of
from zoo_lightning.comparing.grid import Cell, Comparison
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.recipes import RECIPES
from zoo_lightning.runs.pool import Job, Say, outcome, run_here

FAILED = "failed"
"""File in the folder of a cell whose job failed."""


class CellJob(Job):
    """A cell of a comparison.

    Args:
        comparison: of the cell.
        cell: to train, or to make.
    """

    module = "zoo_lightning.comparing.cell"

    def __init__(self, comparison: Comparison, cell: Cell) -> None:
        self.comparison, self.cell = comparison, cell
        self.name, self.folder = str(cell.path), comparison.run(cell)

    def arguments(self) -> list[str]:
        """The comparison's folder and the cell."""
        return arguments_of(self.comparison, self.cell)

    def is_finished(self) -> bool:
        """Whether it is trained and, unless test data are held out, tested."""
        return self.comparison.summary(self.cell) is not None

    def lacks(self) -> list[str]:
        """Paths of cells that are not trained yet."""
        needs = [RECIPES[name] for name in RECIPES[self.cell.method].needs]
        return [str(other.path) for other in self.comparison.missing(needs, self.cell)]


def attempt(comparison: Comparison, cell: Cell) -> str:
    """Carry out a cell; the function that a cluster's job calls.

    A job that fails leaves a mark for :func:`has_failed`, one that is stopped does not.
    """
    mark = comparison.run(cell) / FAILED
    mark.unlink(missing_ok=True)
    process = CellJob(comparison, cell).start(None)
    became = outcome(process)
    if became == "failed" and 0 < process.wait() < 128:
        mark.touch()
    return became


def has_failed(comparison: Comparison, cell: Cell) -> bool:
    """Whether a cell that is not finished failed in its last job."""
    return comparison.summary(cell) is None and (comparison.run(cell) / FAILED).is_file()


def startable(comparison: Comparison, cells: Sequence[Cell]) -> list[Cell]:
    """Cells that are not finished and wait for no others that they are made from."""
    jobs = [CellJob(comparison, cell) for cell in cells]
    return [job.cell for job in jobs if not job.is_finished() and not job.lacks()]


def run_cells(
    comparison: Comparison, cells: Sequence[Cell], workers: int, devices: Sequence[str], say: Say
) -> list[Cell]:
    """Run cells in several processes at a time, those first that others need.

    Args:
        comparison: of the cells.
        cells: all of them, finished or not.
        workers: processes at a time.
        devices: numbers of GPUs, given to the workers in turn; empty leaves it to Lightning.
        say: gets a line for each cell that ends.

    Returns:
        The cells that failed.

    Raises:
        WorkStopped: by a signal; running cells were asked to save and have ended.
    """
    jobs = [CellJob(comparison, cell) for cell in cells]
    waves = [
        [job for job in jobs if bool(RECIPES[job.cell.method].needs) == needing]
        for needing in (False, True)
    ]
    return [job.cell for job in run_here(waves, workers, devices, say) if isinstance(job, CellJob)]


def run_on_cluster(
    comparison: Comparison, cells: Sequence[Cell], options: dict[str, Any], cluster: str | None
) -> list[Any]:
    """Submit a job for each cell that is not finished, through submitit.

    Those that are made from other runs are submitted when the command is given again and the others
    have ended.

    Args:
        comparison: of the cells; its folder is seen by the cluster's nodes.
        cells: all of them, finished or not.
        options: of submitit's executor, such as ``timeout_min`` and ``slurm_partition``.
        cluster: ``None`` for the one that is found, ``local`` for processes on this machine.

    Returns:
        The jobs.

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
    return [executor.submit(attempt, comparison, cell) for cell in startable(comparison, cells)]

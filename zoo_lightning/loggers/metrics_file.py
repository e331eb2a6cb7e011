"""Logger of ``metrics.csv``: all logged values of a run, one row per logging call.

Lightning's writer truncates the file to add a column, and deletes the file of a resumed run. This
one replaces the file atomically.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from zoo_lightning.errors import StorageError
from zoo_lightning.files.atomic import atomic_file, storage_error
from zoo_lightning.files.text import TEXT
from zoo_lightning.runs.run_folder import METRICS

Row = dict[str, Any]


class MetricsWriter:
    """Append rows to a run's ``metrics.csv``.

    Args:
        folder: the run's folder.
        rows: rows of the existing file that a resumed run keeps; its other rows are dropped.
    """

    def __init__(self, folder: Path, rows: Sequence[Row] = ()) -> None:
        self.path = folder / METRICS
        self._kept: list[Row] = list(rows)
        self._waiting: list[Row] = []
        self._columns: list[str] = []

    def log_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Buffer a row until the next :meth:`save`."""
        plain = {k: v.item() if isinstance(v, torch.Tensor) else v for k, v in metrics.items()}
        self._waiting.append({**plain, "step": step})

    def save(self) -> None:
        """Write the rows that were logged since the last call.

        Raises:
            StorageError: the file cannot be written.
        """
        if not self._waiting:
            return
        # Only with new rows: a training that is refused leaves the file alone.
        rows = self._kept + self._waiting
        self._kept = []
        new = set().union(*rows) - set(self._columns)
        if new:
            rows = (self._written() if self._columns else []) + rows
            self._columns = sorted({*self._columns, *new})
            with atomic_file(self.path) as part:
                self._write(part, "w", rows)
        else:
            try:
                self._write(self.path, "a", rows)
            except OSError as error:
                raise storage_error(error, self.path) or error from error
        self._waiting = []

    def _written(self) -> list[Row]:
        with self.path.open(newline="", **TEXT) as stream:
            return list(csv.DictReader(stream))

    def _write(self, path: Path, mode: str, rows: Sequence[Row]) -> None:
        with path.open(mode, newline="", **TEXT) as stream:
            writer = csv.DictWriter(stream, self._columns)
            if mode == "w":
                writer.writeheader()
            writer.writerows(rows)


class MetricsFile(CSVLogger):
    """Lightning logger that writes ``metrics.csv`` with :class:`MetricsWriter`.

    Args:
        folder: the run's folder.
        rows: rows of the existing file that a resumed run keeps.
    """

    def __init__(self, folder: Path, rows: Sequence[Row] = ()) -> None:
        super().__init__(str(folder), name="", version="")
        self._writer = MetricsWriter(folder, rows)

    @property
    @override
    def experiment(self) -> MetricsWriter:
        """Writer of ``metrics.csv``."""
        return self._writer

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self._writer.log_metrics(metrics, step or 0)

    @override
    def log_hyperparams(self, params: Any = None) -> None:
        """Do nothing: hyper-parameters are in ``config.yaml``."""

    @override
    @rank_zero_only
    def save(self) -> None:
        self._writer.save()

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the remaining rows; if the run failed, ignore a storage error."""
        with suppress(StorageError) if status == "failed" else nullcontext():
            self._writer.save()

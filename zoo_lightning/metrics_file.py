"""``metrics.csv``: every logged value of a run, a row for each time of logging.

Lightning's writer empties the file to write it anew when a new column comes, and deletes that of a
run that goes on. Here what was written stays until what replaces it is whole.
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
from zoo_lightning.run_folder import METRICS
from zoo_lightning.text_files import TEXT
from zoo_lightning.whole_files import storage_error, whole_file

Row = dict[str, Any]


class MetricsWriter:
    """Appends rows to a run's ``metrics.csv``.

    Args:
        folder: of the run.
        rows: that a run which goes on begins with; what else is in the file is left out.
    """

    def __init__(self, folder: Path, rows: Sequence[Row] = ()) -> None:
        self.path = folder / METRICS
        self._waiting: list[Row] = list(rows)
        self._columns: list[str] = []

    def log_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Note a row; :meth:`save` writes it."""
        plain = {k: v.item() if isinstance(v, torch.Tensor) else v for k, v in metrics.items()}
        self._waiting.append({**plain, "step": step})

    def save(self) -> None:
        """Write what was noted.

        Raises:
            StorageError: the disk or the folder does not take it.
        """
        if not self._waiting:
            return
        rows = self._waiting
        new = set().union(*rows) - set(self._columns)
        if new:
            rows = (self._written() if self._columns else []) + rows
            self._columns = sorted({*self._columns, *new})
            with whole_file(self.path) as part:
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
    """Lightning's logger with :class:`MetricsWriter`.

    Args:
        folder: of the run.
        rows: that a run which goes on begins with.
    """

    def __init__(self, folder: Path, rows: Sequence[Row] = ()) -> None:
        super().__init__(str(folder), name="", version="")
        self._writer = MetricsWriter(folder, rows)

    @property
    @override
    def experiment(self) -> MetricsWriter:
        """The writer."""
        return self._writer

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self._writer.log_metrics(metrics, step or 0)

    @override
    def log_hyperparams(self, params: Any = None) -> None:
        """Nothing: ``config.yaml`` has them."""

    @override
    @rank_zero_only
    def save(self) -> None:
        self._writer.save()

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left; a run that fails for want of space has none for this either."""
        with suppress(StorageError) if status == "failed" else nullcontext():
            self._writer.save()

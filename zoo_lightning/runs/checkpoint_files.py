"""Atomic checkpoint writes by the Trainer.

Lightning writes a checkpoint to the system's temporary folder and moves it. Between file systems,
moving is copying, and an interrupted copy leaves half a checkpoint; also, it does not flush to
disk.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import Strategy
from typing_extensions import override

from zoo_lightning.files.atomic import atomic_file


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoint plugin that writes to a file in the same folder, flushes it, and renames it."""

    def __init__(self) -> None:
        self._preloaded: tuple[str, dict[str, Any]] | None = None

    def preload(self, path: str, content: dict[str, Any]) -> None:
        """Store a checkpoint's content for the next load, which then does not read the file.

        Args:
            path: checkpoint file.
            content: content of the file, on the CPU; released by the load.
        """
        self._preloaded = (path, content)

    @override
    def load_checkpoint(self, path: str | Path, *args: Any, **options: Any) -> dict[str, Any]:
        """Load a checkpoint to the CPU, unless the Trainer asks for another device."""
        (known, content), self._preloaded = self._preloaded or ("", {}), None
        if known == str(path):
            return content
        return super().load_checkpoint(path, *args, **options)

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Save a checkpoint atomically.

        Raises:
            StorageError: the disk or the folder cannot be written to.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        # Not straight into the file: torch crashes on a full disk.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with atomic_file(Path(path)) as part:
            part.write_bytes(content.getbuffer())


def write_checkpoints_atomically(trainer: pl.Trainer) -> pl.Trainer:
    """Set a Trainer's checkpoint plugin to :class:`AtomicCheckpointIO` unless it has another."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    return trainer


def preload_checkpoint(trainer: pl.Trainer, path: str, content: dict[str, Any]) -> None:
    """Pass a checkpoint's content to a Trainer, so that it does not read the file again.

    Args:
        trainer: Trainer that will load the checkpoint.
        path: checkpoint file, as the Trainer gets it.
        content: content of the file, see :meth:`AtomicCheckpointIO.preload`.
    """
    usual = type(trainer.strategy).load_checkpoint is Strategy.load_checkpoint
    if usual and isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO):
        trainer.strategy.checkpoint_io.preload(path, content)

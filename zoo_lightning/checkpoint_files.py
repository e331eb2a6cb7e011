"""Checkpoints that are whole or not there: how the Trainer writes them.

Lightning writes a checkpoint into the system's folder for temporary files and moves it; where that
is another file system, moving is copying, and who stops the copying leaves half a checkpoint. Nor
does it wait for the disk.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from typing_extensions import override

from zoo_lightning.whole_files import whole_file


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's way to save, but beside the file, to disk, and then under its name."""

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Save a checkpoint.

        Raises:
            StorageError: the disk or the folder does not take it.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        # Not straight into the file: torch does not get over a disk that is full.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with whole_file(Path(path)) as part:
            part.write_bytes(content.getbuffer())


def write_whole_checkpoints(trainer: pl.Trainer) -> pl.Trainer:
    """Have a Trainer write its checkpoints so, unless the user has given it a way of his own."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeCheckpointIO()
    return trainer

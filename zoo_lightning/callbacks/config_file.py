"""Save a run's resolved configuration to ``config.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from zoo_lightning.files.atomic import atomic_file


class ConfigFile(SaveConfigCallback):
    """Save a run's ``config.yaml`` atomically; a resumed run's only after its checkpoint loaded.

    Lightning's callback empties the file of a resumed run before it writes. Here the file is kept
    until the checkpoint is restored, so that options that do not fit the checkpoint are never
    saved.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        options["save_to_log_dir"] = False
        super().__init__(*args, **options)
        self._waits = False

    @override
    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and self._file(trainer).is_file():
            self._waits = True
        else:
            self._write(trainer)

    @override
    @rank_zero_only
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._waits:
            self._write(trainer)
            self._waits = False

    def _file(self, trainer: pl.Trainer) -> Path:
        return Path(trainer.default_root_dir) / self.config_filename

    def _write(self, trainer: pl.Trainer) -> None:
        with atomic_file(self._file(trainer)) as part:
            self.parser.save(
                self.config, str(part), skip_unset=False, overwrite=True, multifile=False
            )

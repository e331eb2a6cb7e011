"""``config.yaml`` of a run, whole or not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.cli import SaveConfigCallback
from typing_extensions import override

from zoo_lightning.whole_files import whole_file


class ConfigFile(SaveConfigCallback):
    """Lightning's callback, which would empty the file of a run that goes on before it writes."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options, save_to_log_dir=False)

    @override
    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        with whole_file(Path(trainer.default_root_dir) / self.config_filename) as part:
            self.parser.save(
                self.config, str(part), skip_none=False, overwrite=True, multifile=False
            )

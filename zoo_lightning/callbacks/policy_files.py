"""Save the test scores of a policy and a video of a game to its run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from zoo_lightning.loggers.figures_and_tables import save_table
from zoo_lightning.rl.environments.reference_scores import SOURCE
from zoo_lightning.rl.video import write_film


class PolicyFiles(Callback):
    """Save the scores of the test games, and a video of a game.

    After a test: ``test_games.csv`` (``game,score,length``, lengths in agent steps). After
    ``predict``: ``game.mp4``, or ``game.gif`` where PyAV is not installed.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = Path(folder)

    @override
    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        *args: Any,
    ) -> None:
        if not trainer.is_global_zero:
            return
        pairs = zip(outputs["scores"].tolist(), outputs["lengths"].tolist(), strict=True)
        rows = ([k, f"{score:g}", int(length)] for k, (score, length) in enumerate(pairs))
        file = self.folder / "test_games.csv"
        save_table(trainer, pl_module, file, ["game", "score", "length"], rows)
        if "test/human_return" in trainer.callback_metrics:
            rank_zero_info(f"human_return and reference_random_return: {SOURCE}")

    @override
    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any
    ) -> None:
        if trainer.is_global_zero:
            path = write_film(outputs, self.folder / "game")
            rank_zero_info(f"{path}: {len(outputs.frames)} frames, score {outputs.score:g}")

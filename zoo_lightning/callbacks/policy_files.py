"""Files that a run of a policy leaves for people to look at: games' scores, curves, a film."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from zoo_lightning.envs.reference_scores import SOURCE
from zoo_lightning.exhibits import show_table
from zoo_lightning.rl.filming import write_film


class PolicyFiles(Callback):
    """Scores of the test's games and a film of a game.

    After a test: ``test_games.csv`` (``game,score,length``, lengths in decisions of the agent).
    After ``predict``: ``game.mp4``, or ``game.gif`` where PyAV is not installed.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = Path(folder)

    @override
    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: dict[str, Any],
        *args: Any,
    ) -> None:
        if not trainer.is_global_zero:
            return
        pairs = zip(outputs["scores"].tolist(), outputs["lengths"].tolist(), strict=True)
        rows = ([k, f"{score:g}", int(length)] for k, (score, length) in enumerate(pairs))
        file = self.folder / "test_games.csv"
        show_table(trainer, pl_module, file, ["game", "score", "length"], rows)
        if "test/human_return" in trainer.callback_metrics:
            rank_zero_info(f"human_return and reference_random_return: {SOURCE}")

    @override
    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *args: Any
    ) -> None:
        if trainer.is_global_zero:
            path = write_film(outputs, self.folder / "game")
            rank_zero_info(f"{path}: {len(outputs.frames)} frames, score {outputs.score:g}")

"""Count the images, or games, that the metrics of a test are computed on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from zoo_lightning.callbacks.trainer_access import data_module, gathered

IMAGES, GAMES = "test_images", "test_games"

BY_DISTANCE = "test_images_by_distance"
"""Prefix of the counts by distance, and their name in the result."""


class SampleCount(Callback):
    """Count the images or games that a test was computed on, over all processes.

    Images are counted batch by batch, so that the count is correct for parts of the data
    (``limit_test_batches``, skipped broken images).

    Attributes:
        counts: counts of the last test: ``test_images``, and ``test_images/SUBSET`` for each subset
            that has images; ``test_images_by_distance``, numbers of faces by normalisation
            distance, if some faces lack one; or ``test_games``. Empty before a test, and for data
            with neither images nor games.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, Any] = {}
        self._seen: Counter[str] = Counter()
        self._games = 0

    @override
    def on_test_epoch_start(self, *_: Any) -> None:
        self.counts, self._seen, self._games = {}, Counter(), 0

    @override
    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        *_: Any,
    ) -> None:
        if isinstance(outputs, dict) and "scores" in outputs:  # games of all processes
            self._games += len(outputs["scores"])
        elif isinstance(batch, dict) and torch.is_tensor(batch.get("image")):
            self._seen[IMAGES] += len(batch["image"])
            if torch.is_tensor(batch.get("subsets")):
                names = getattr(data_module(trainer), "subset_names", ())
                members = batch["subsets"].sum(dim=0).tolist()
                for name, number in zip(names, members, strict=True):
                    self._seen[f"{IMAGES}/{name}"] += int(number)
            for name, distance in (batch.get("distances") or {}).items():
                self._seen[f"{BY_DISTANCE}/{name}"] += int((~distance.isnan()).sum())

    @override
    def on_test_epoch_end(self, *_: Any) -> None:
        total: Counter[str] = Counter()
        for each in gathered(self._seen):
            total.update(each)
        by_distance = {
            name.partition("/")[2]: total.pop(name)
            for name in [*total]
            if name.startswith(BY_DISTANCE)
        }
        games = {GAMES: self._games} if self._games else {}
        self.counts = {**{name: total[name] for name in total if total[name]}, **games}
        if any(count < total[IMAGES] for count in by_distance.values()):
            self.counts[BY_DISTANCE] = by_distance

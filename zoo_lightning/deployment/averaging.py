"""A full zoo by its average gates: one ordinary network, and what that costs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningDataModule

from zoo_lightning.gates.measuring import measure_of, score_batch, some_batches
from zoo_lightning.layers.norm_statistics import estimate_norms
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.ranking import training_batches
from zoo_lightning.rl.playing import play_games
from zoo_lightning.sources.zoo import without_weights
from zoo_lightning.tasks import BaseTask, PPOTask

CALIBRATION = 1000
"""Training images to estimate norm statistics from."""


class Averaged(NamedTuple):
    """A full zoo folded by its average gates.

    Attributes:
        task: with an ordinary network.
        label: what it was judged by on the validation data.
        before: of the full zoo.
        after: of the ordinary network.
    """

    task: BaseTask
    label: str
    before: float
    after: float


def fold_by_average(task: BaseTask, data: Any) -> Averaged:
    """Fold a full zoo by its gates' moving averages; norm statistics are estimated anew.

    Args:
        task: full, trained.
        data: of its training: a data module of images, set up for ``fit``, or an ``AtariData``.
    """
    plain = as_plain(task)
    if isinstance(task, PPOTask):
        return Averaged(plain, "val/episodic_return", _returns(task, data), _returns(plain, data))
    images = (batch["image"] for batch in training_batches(data, CALIBRATION))
    estimate_norms(plain, (_normalised(data, {"image": each})["image"] for each in images))
    measure = measure_of(task)
    return Averaged(plain, f"val, {measure.label}", _judged(task, data), _judged(plain, data))


def as_plain(task: BaseTask) -> BaseTask:
    """The same task with an ordinary network of the folded weights in place of the zoo."""
    architecture = task.backbone.architecture
    options = {key: value for key, value in task.hparams.items() if key != "backbone"}
    with without_weights():
        backbone = PlainBackbone(
            architecture.name, None, "uniform", architecture.output, architecture.in_chans
        )
    backbone.sources = task.backbone.sources
    plain = type(task)(backbone, **options)
    backbone.net.load_state_dict(task.backbone.folded_state())
    others = {k: v for k, v in task.state_dict().items() if not k.startswith("backbone.")}
    plain.load_state_dict(others, strict=False)
    return plain.eval()


@torch.no_grad()
def _judged(task: BaseTask, data: LightningDataModule) -> float:
    """The metric on the validation data, percent."""
    batches = some_batches(data, data.val_set, len(data.val_set))
    scores = [score_batch(task, _normalised(data, batch)) for batch in batches]
    measure = measure_of(task)
    error = float(torch.cat([each.error for each in scores]).mean())
    return 100 - error if measure.rises else error


def _normalised(data: LightningDataModule, batch: dict[str, Any]) -> dict[str, Any]:
    return data.on_after_batch_transfer(move_data_to_device(batch, "cpu"), 0)


def _returns(task: PPOTask, data: Any) -> float:
    """Mean score of the validation's games."""
    envs, seed = data.judging_envs(data.val_games), data.judging_seed
    games = play_games(envs, task.player(seed), data.val_games, seed)
    return sum(game.score for game in games) / len(games)

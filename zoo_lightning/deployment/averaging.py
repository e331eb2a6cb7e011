"""A full zoo by its average gates: one ordinary network, and what that costs."""

from __future__ import annotations

from typing import Any, NamedTuple

from zoo_lightning.gates.measuring import judge, measure_of, recalibrate
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.rl.playing import play_games
from zoo_lightning.sources.zoo import without_weights
from zoo_lightning.tasks import BaseTask, PPOTask


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
    recalibrate(plain, data)
    label = measure_of(task).label
    return Averaged(plain, f"val, {label}", judge(task, data), judge(plain, data))


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


def _returns(task: PPOTask, data: Any) -> float:
    """Mean score of the validation's games."""
    envs, seed = data.judging_envs(data.val_games), data.judging_seed
    games = play_games(envs, task.player(seed), data.val_games, seed)
    return sum(game.score for game in games) / len(games)

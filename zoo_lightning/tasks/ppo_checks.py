"""What a training or a test of a policy refuses before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from zoo_lightning.backbone import Backbone
from zoo_lightning.errors import ConfigError


def check_game(before: Mapping[str, Any], here: Mapping[str, Any], learning: bool) -> None:
    """Check a checkpoint's game and environment against those that are given.

    Args:
        before: facts of the data in the checkpoint.
        here: facts of the data that are given.
        learning: whether the training goes on, for which everything has to be the same; a policy
            may be judged in a changed environment, of which a line tells.

    Raises:
        ConfigError: another game, or, if ``learning``, another environment.
    """
    if before["game"] != here["game"]:
        raise ConfigError(
            f"the checkpoint's policy learned {before['game']}, and data.game is {here['game']}; "
            f"give --data.game {before['game']}"
        )
    then, now = before["environment"], here["environment"]
    changed = [
        f"data.{name} is {then[name]!r} in the checkpoint, {now[name]!r} here"
        for name in then
        if name != "num_threads" and name in now and then[name] != now[name]
    ]
    if changed and learning:
        raise ConfigError(
            f"the checkpoint has another environment: {'; '.join(changed)}; going on with a run "
            "takes its own options"
        )
    if changed:
        rank_zero_warn(
            f"the policy plays in an environment it did not learn in: {'; '.join(changed)}"
        )


def check_length(trainer: Trainer) -> None:
    """Refuse what would end a training elsewhere than the learning rate's schedule."""
    for name, default in (("max_epochs", 1), ("max_steps", -1), ("limit_train_batches", 1.0)):
        found = getattr(trainer, name)
        # One batch is 1, all of them are 1.0.
        if found != default or type(found) is not type(default):
            raise ConfigError(
                f"trainer.{name} is {found!r}: the length of a training on games is "
                "data.total_steps, all of it one epoch; leave the option out or set "
                "trainer.max_epochs 1"
            )


def check_numbers(
    discount: float,
    smoothing: float,
    epochs: int,
    minibatches: int,
    clip: float,
    max_grad_norm: float,
) -> None:
    """Refuse hyper-parameters outside of their ranges."""
    for name, value in (("discount", discount), ("smoothing", smoothing)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} must lie in [0, 1], got {value}")
    for name, value in (("epochs", epochs), ("minibatches", minibatches)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    if clip <= 0:
        raise ConfigError(f"clip must be above 0, got {clip}")
    if max_grad_norm < 0:
        raise ConfigError(f"max_grad_norm must be at least 0, got {max_grad_norm}")


def check_backbone(backbone: Backbone) -> None:
    """Refuse layers that compute otherwise in training than in evaluation."""
    kinds = (torch.nn.modules.batchnorm._BatchNorm, torch.nn.modules.dropout._DropoutNd)
    for name, module in backbone.named_modules():
        if isinstance(module, kinds):
            raise ConfigError(
                f"layer {name!r} is a {type(module).__name__}, which computes otherwise in "
                "training than in evaluation, so the policy would learn from another function than "
                "it acts by; use an architecture without it, such as nature_cnn"
            )

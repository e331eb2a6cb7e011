"""Options of Lightning's Trainer that a run decides by itself, refused rather than overridden."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from zoo_lightning.errors import ConfigError

SAMPLER = "--trainer.use_distributed_sampler"

UNDONE = {
    "overfit_batches": (
        "the order of the data and their variations belong to the position in training, which it "
        "would replace; leave it out, and train on few images with --data.train_fraction or "
        "--trainer.limit_train_batches"
    ),
    "barebones": (
        "a run logs, saves checkpoints and says what it does, which it would turn off; leave it out"
    ),
    "reload_dataloaders_every_n_epochs": (
        "a reloaded loader would begin with the first epoch's order and variations again; leave it "
        "out: every epoch has its own by itself"
    ),
}
"""Options of the Trainer that a run would undo or be undone by, and what to do instead."""

RISES = re.compile(r"(acc\w*|auc\w*|m?iou\w*|episodic_return)(@.*)?")
FALLS = re.compile(r"(loss|nme\w*|failure_rate\w*)(@.*)?")
"""Names of our metrics, without their part, that are better where they are higher, and lower."""


def check_trainer_options(options: Any, arguments: Sequence[str]) -> None:
    """Refuse options that would have no effect, or none but an error later on.

    Args:
        options: the Trainer's, parsed.
        arguments: the words of the command line. Where an option's default is what a run does not
            do, only they tell whether anybody wants it.

    Raises:
        ConfigError: with what to use instead.
    """
    if options.default_root_dir is not None:
        raise ConfigError(
            f"trainer.default_root_dir {options.default_root_dir}: all that a run writes goes to "
            "its run folder; leave it out and give --run_dir"
        )
    if options.enable_checkpointing is False and not options.fast_dev_run:
        raise ConfigError(
            "trainer.enable_checkpointing false: a run saves its best and its last checkpoint, "
            "from which it is tested and goes on; leave it out, or try a few steps without "
            "checkpoints with --trainer.fast_dev_run"
        )
    kinds = {
        "gpu": (CUDAAccelerator, MPSAccelerator),
        "cuda": (CUDAAccelerator,),
        "mps": (MPSAccelerator,),
    }.get(options.accelerator, ())
    if kinds and not any(kind.is_available() for kind in kinds):
        raise ConfigError(
            f"trainer.accelerator {options.accelerator}: torch finds none on this machine; use "
            "auto, which takes what there is, or install a torch that is made for it"
        )
    for name, reason in UNDONE.items():
        if options.get(name):
            raise ConfigError(f"trainer.{name} {options[name]}: {reason}")
    given = any(word.partition("=")[0] == SAMPLER for word in arguments)
    if given and options.use_distributed_sampler:
        raise ConfigError(
            f"{SAMPLER} true: the data's own loaders divide the samples among processes, and a "
            "second division would leave some out; leave it out"
        )


def check_monitors(callbacks: Sequence[Callback]) -> None:
    """Refuse callbacks that would keep or wait for the worst: Lightning's default mode is ``min``.

    Args:
        callbacks: the user's.

    Raises:
        ConfigError: a metric that rises is taken for an error, or the other way round.
    """
    for each in callbacks:
        if not isinstance(each, (EarlyStopping, ModelCheckpoint)) or not each.monitor:
            continue
        part, _, name = each.monitor.partition("/")
        if part not in ("train", "val", "test"):
            continue
        if RISES.fullmatch(name):
            mode = "max"
        elif FALLS.fullmatch(name):
            mode = "min"
        else:  # of the user's own
            continue
        if each.mode != mode:
            better = "higher" if mode == "max" else "lower"
            raise ConfigError(
                f"{type(each).__name__} has mode {each.mode!r} for {each.monitor}, which is better "
                f"where it is {better}: set mode: {mode}"
            )

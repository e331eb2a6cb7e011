"""Options of Lightning's Trainer that a run decides by itself, refused rather than overridden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoo_lightning.errors import ConfigError

SAMPLER = "--trainer.use_distributed_sampler"


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
    given = any(word.partition("=")[0] == SAMPLER for word in arguments)
    if given and options.use_distributed_sampler:
        raise ConfigError(
            f"{SAMPLER} true: the data's own loaders divide the samples among processes, and a "
            "second division would leave some out; leave it out"
        )

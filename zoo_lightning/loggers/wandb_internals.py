"""Wrappers of private names of Weights & Biases that have no public equivalent.

``tests/loggers/test_wandb_internals.py`` fails if a version of wandb or Lightning changes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import WandbLogger

if TYPE_CHECKING:
    import wandb


def set_offline(logger: WandbLogger) -> None:
    """Make an existing logger start its run offline.

    ``WandbLogger(offline=True)`` is public, but whether the server can be reached is known only
    when the run starts.
    """
    logger._wandb_init["mode"] = "offline"


def log_input(run: Any, artifact: wandb.Artifact) -> None:
    """Log a new artifact as an input of a run.

    ``run.use_artifact`` does the same, but fails offline, and online waits for the server without a
    timeout, which would block a training.
    """
    if hasattr(run, "_log_artifact"):
        run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
    else:
        run.use_artifact(artifact)

"""What became of a trial, as the study's database has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo_lightning.errors import ConfigError

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

INDEX, AGAIN, ERROR = "index", "again", "error"
"""Attributes of a trial: which of the sweep it is; the number of the one that it goes on with; why
it failed."""

ALIVE, HOST, FOLDER = "alive", "host", "folder"
"""Attributes of a trial that is worked on: when its worker was last heard of, and where it is."""

SURPLUS = "one more than the sweep has"


def import_optuna() -> Any:
    """Optuna.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna
        import sqlalchemy  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"a sweep that runs here needs Optuna, which cannot be imported ({error}): "
            "pip install -e '.[sweeps]'"
        ) from error
    return optuna


def is_fresh(trial: FrozenTrial) -> bool:
    """Whether a trial goes on with no other one."""
    return AGAIN not in trial.user_attrs


def is_put_back(trial: FrozenTrial) -> bool:
    """Whether a trial was interrupted, so that another one goes on with it."""
    return trial.state.name == "FAIL" and ERROR not in trial.user_attrs


def is_surplus(trial: FrozenTrial) -> bool:
    """Whether a trial was begun by mistake, when there was nothing left to try."""
    return trial.user_attrs.get(ERROR) == SURPLUS

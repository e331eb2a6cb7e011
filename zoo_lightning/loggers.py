"""Where a run is logged: ``metrics.csv`` always, Weights & Biases by option, a user's own loggers.

Nothing here and nothing that is logged through here may stop a training: the run's folder has
everything, the rest is a convenience. What is logged of figures and tables is in ``exhibits``, what
of weights in ``lineage``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from typing_extensions import override

from zoo_lightning.metrics_file import MetricsFile
from zoo_lightning.run_folder import earlier_metrics

PROJECT = "zoo_lightning"
"""Project of Weights & Biases where none is named."""

PATIENCE = 1800.0
"""Seconds that the end of a run waits for its upload, where ``WANDB_FINISH_TIMEOUT`` is not set."""

OPTIONS: tuple[tuple[str, Any, Any, str], ...] = (
    (
        "wandb",
        bool,
        False,
        "Log to Weights & Biases as well; WANDB_MODE=offline and disabled are honoured. On by "
        "itself under a sweep agent.",
    ),
    ("wandb_project", str | None, None, f"Its project (default: WANDB_PROJECT or {PROJECT})."),
    ("wandb_entity", str | None, None, "User or team that the project belongs to."),
    (
        "wandb_group",
        str | None,
        None,
        "Runs that belong together (default: WANDB_RUN_GROUP or the experiment's name).",
    ),
    ("wandb_tags", str | list[str] | None, None, "Tags with commas between."),
    ("wandb_notes", str | None, None, "What is to be remembered of the run."),
    (
        "wandb_checkpoint",
        bool,
        True,
        "Whether the best checkpoint goes there as an artifact; its lineage names the sources.",
    ),
    (
        "wandb_sources",
        bool,
        False,
        "Whether the sources' weights go there, too; otherwise only where they are and their "
        "checksums.",
    ),
)
"""Name, type, default and help of each option; flat, so that sweeps can set them."""

_failed: set[str] = set()


def add_logger_options(parser: LightningArgumentParser) -> None:
    """Add the options of Weights & Biases to a parser."""
    for name, kind, default, words in OPTIONS:
        parser.add_argument(f"--{name}", type=kind, default=default, help=words)


@contextmanager
def unharmed(what: str) -> Iterator[None]:
    """Let a run go on if a logger fails, with one line about it, however often it fails.

    Args:
        what: is not logged then.
    """
    try:
        yield
    except Exception as error:  # the client, its process, the disk and the network all have theirs
        if what not in _failed:
            _failed.add(what)
            rank_zero_info(
                f"warning       {what} not logged ({reason_of(error)}); the run goes on, and its "
                "folder has everything"
            )


def reason_of(error: Exception) -> str:
    """An error as part of a line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:200]}" if words else type(error).__name__


class SteadyWandbLogger(WandbLogger):
    """Lightning's logger, but what it cannot hand over does not stop the training."""

    @override
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with unharmed("metrics to Weights & Biases"):
            super().log_metrics(metrics, step)

    @override
    def log_hyperparams(self, params: Any) -> None:
        with unharmed("hyper-parameters to Weights & Biases"):
            super().log_hyperparams(params)


def make_loggers(
    options: Any,
    given: Logger | Sequence[Logger] | bool | None,
    run_dir: Path,
    experiment: str,
    goes_on_after: int | None = None,
) -> list[Logger] | bool:
    """Loggers of a run, the one of ``metrics.csv`` first.

    Args:
        options: of the subcommand.
        given: the user's ``trainer.logger``.
        run_dir: the run's folder.
        experiment: its name.
        goes_on_after: for a run that goes on, the step of the log at which it does.

    Returns:
        ``False`` if nothing is to be logged.
    """
    if given is False or options.trainer.fast_dev_run:
        return False
    rows = [] if goes_on_after is None else earlier_metrics(run_dir, goes_on_after)
    loggers: list[Logger] = [MetricsFile(run_dir, rows)]
    if isinstance(given, Logger):
        loggers.append(given)
    elif isinstance(given, Sequence):
        loggers += given
    wanted = options.wandb or "WANDB_SWEEP_ID" in os.environ
    if wanted and not any(isinstance(logger, WandbLogger) for logger in loggers):
        loggers.append(_wandb_logger(options, run_dir, experiment, goes_on_after is not None))
    return loggers


def _wandb_logger(options: Any, run_dir: Path, experiment: str, goes_on: bool) -> WandbLogger:
    run_dir.mkdir(parents=True, exist_ok=True)
    # What a sweep's agent has set, Weights & Biases takes from the environment.
    agent = "WANDB_SWEEP_ID" in os.environ
    project = None if agent else options.wandb_project
    settings = {}
    if "WANDB_FINISH_TIMEOUT" not in os.environ:
        settings = {"settings": {"finish_timeout": PATIENCE}}
    return SteadyWandbLogger(
        project=project or os.environ.get("WANDB_PROJECT") or PROJECT,
        entity=None if agent else options.wandb_entity,
        group=options.wandb_group or os.environ.get("WANDB_RUN_GROUP") or experiment,
        tags=split_tags(options.wandb_tags),
        notes=options.wandb_notes,
        id=None if agent or not goes_on else earlier_run_id(run_dir),
        save_dir=str(run_dir),
        **settings,
    )


def split_tags(given: str | Sequence[str] | None) -> list[str] | None:
    """Tags with commas between, or a list of them, as a list; ``None`` leaves ``WANDB_TAGS``."""
    if given is None:
        return None
    words = given.strip("[]").split(",") if isinstance(given, str) else given
    return [word.strip() for word in words if word.strip()]


def earlier_run_id(run_dir: Path) -> str | None:
    """Id under which Weights & Biases knows a run that goes on; ``None`` if it was never online."""
    folders = sorted((run_dir / "wandb").glob("run-*-*"))
    return folders[-1].name.rpartition("-")[2] if folders else None


def reached(loggers: Sequence[Logger]) -> list[Logger]:
    """Begin the runs at Weights & Biases, and leave out the loggers that cannot.

    A run that cannot begin online, for want of a network or a key, begins offline; it can be
    uploaded later.
    """
    return [each for each in loggers if not isinstance(each, WandbLogger) or _begins(each)]


def _begins(logger: WandbLogger) -> bool:
    try:
        _ = logger.experiment  # begins the run
        return True
    except Exception as error:
        reason = reason_of(error)
    logger._wandb_init["mode"] = "offline"  # the only place for it once the logger exists
    with unharmed("Weights & Biases"):
        folder = Path(logger.experiment.dir).parent
        rank_zero_info(
            f"warning       Weights & Biases cannot be reached ({reason}); the run is logged "
            f"offline, and `wandb sync {folder}` uploads it"
        )
        return True
    return False


def wandb_runs(loggers: Sequence[Logger]) -> Iterator[tuple[WandbLogger, Any]]:
    """Loggers of Weights & Biases with the runs they log to; disabled ones are left out."""
    for logger in loggers:
        if isinstance(logger, WandbLogger) and rank_zero_only.rank == 0:
            run = logger.experiment
            if not run.disabled:
                yield logger, run


@rank_zero_only
def log_config(loggers: Sequence[Logger], config: Mapping[str, Any]) -> None:
    """Log the whole resolved configuration, of which Lightning logs the model's part alone."""
    with unharmed("the configuration"):
        for _, run in wandb_runs(loggers):
            run.config.update(dict(config), allow_val_change=True)


@rank_zero_only
def log_summary(loggers: Sequence[Logger], summary: Mapping[str, Any]) -> None:
    """Log a run's figures beside its curves: ``best/METRIC``, ``test/METRIC``, times, sizes."""
    figures: dict[str, Any] = {
        key: value for key, value in summary.items() if isinstance(value, (str, int, float))
    }
    for name, value in summary.get("validation", {}).items():
        figures[f"best/{name}"] = value
    for name, value in summary["parameters"].items():
        figures[f"parameters/{name}"] = value
    with unharmed("the summary"):
        for _, run in wandb_runs(loggers):
            run.summary.update(figures | summary["test"])


@rank_zero_only
def finish(loggers: Sequence[Logger]) -> None:
    """End the runs of ``--wandb``, so that the next one in this process is another."""
    with unharmed("the last of the run"):
        for logger, run in wandb_runs(loggers):
            if isinstance(logger, SteadyWandbLogger):
                run.finish()

"""Create a run's loggers: ``metrics.csv``, Weights & Biases by option, the user's own.

No failure of Weights & Biases stops a training, because the run's folder has everything. Figures
and tables are logged in ``figures_and_tables``, sources and checkpoints in ``lineage``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from typing_extensions import override

from zoo_lightning.loggers.metrics_file import MetricsFile
from zoo_lightning.loggers.wandb_internals import set_offline
from zoo_lightning.runs.run_folder import earlier_metrics

PROJECT = "zoo_lightning"
"""Default Weights & Biases project."""

PATIENCE = 1800.0
"""Seconds to wait for the upload at the end of a run, unless ``WANDB_FINISH_TIMEOUT`` is set."""

OPTIONS: tuple[tuple[str, Any, Any, str], ...] = (
    (
        "wandb",
        bool,
        False,
        "Log to Weights & Biases as well; WANDB_MODE=offline and disabled are honoured. Always on "
        "under a sweep agent.",
    ),
    (
        "wandb_project",
        str | None,
        None,
        f"Weights & Biases project (default: WANDB_PROJECT or {PROJECT}).",
    ),
    (
        "wandb_entity",
        str | None,
        None,
        "Weights & Biases user or team that the project belongs to.",
    ),
    (
        "wandb_group",
        str | None,
        None,
        "Weights & Biases group of the run (default: WANDB_RUN_GROUP or the experiment's name).",
    ),
    (
        "wandb_tags",
        str | list[str] | None,
        None,
        "Weights & Biases tags of the run, separated by commas.",
    ),
    ("wandb_notes", str | None, None, "Weights & Biases notes on the run."),
    (
        "wandb_checkpoint",
        bool,
        True,
        "Log the best checkpoint to Weights & Biases, as an artifact whose lineage names the "
        "sources.",
    ),
    (
        "wandb_sources",
        bool,
        False,
        "Upload the sources' weights to Weights & Biases, too; otherwise only their places and "
        "checksums are logged.",
    ),
)
"""Name, type, default and help of each W&B option; not nested, so that sweeps can set them."""

_failed: set[str] = set()


def add_logger_options(parser: LightningArgumentParser) -> None:
    """Add the options of Weights & Biases to a parser."""
    for name, kind, default, words in OPTIONS:
        parser.add_argument(f"--{name}", type=kind, default=default, help=words)


@contextmanager
def tolerate_failures(what: str) -> Iterator[None]:
    """Context manager that continues if logging fails, with one message for all failures.

    Args:
        what: description of what is logged, for the message.
    """
    try:
        yield
    except Exception as error:  # of the client, its process, the disk, the network
        if what not in _failed:
            _failed.add(what)
            rank_zero_info(
                f"warning       {what} not logged ({reason_of(error)}); the run continues, and "
                "its folder has everything"
            )


def reason_of(error: Exception) -> str:
    """Describe an error in one line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:200]}" if words else type(error).__name__


class SteadyWandbLogger(WandbLogger):
    """Weights & Biases logger whose failures do not stop the training."""

    @override
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with tolerate_failures("metrics to Weights & Biases"):
            super().log_metrics(metrics, step)

    @override
    def log_hyperparams(self, params: Any) -> None:
        with tolerate_failures("hyper-parameters to Weights & Biases"):
            super().log_hyperparams(params)


def make_loggers(
    options: Any,
    given: Logger | Sequence[Logger] | bool | None,
    run_dir: Path,
    experiment: str,
    resumed_at: int | None = None,
) -> list[Logger] | bool:
    """Create the loggers of a run, with that of ``metrics.csv`` first.

    Args:
        options: options of the subcommand.
        given: the user's ``trainer.logger``.
        run_dir: the run's folder.
        experiment: the experiment's name.
        resumed_at: step up to which a resumed run has logged; ``None`` for a new run.

    Returns:
        The loggers, or ``False`` if nothing is to be logged.
    """
    if given is False:
        return False
    if options.trainer.fast_dev_run:
        return [DummyLogger()]  # for callbacks that log
    rows = [] if resumed_at is None else earlier_metrics(run_dir, resumed_at)
    loggers: list[Logger] = [MetricsFile(run_dir, rows)]
    if isinstance(given, Logger):
        loggers.append(given)
    elif isinstance(given, Sequence):
        loggers += given
    wanted = options.wandb or "WANDB_SWEEP_ID" in os.environ
    if wanted and not any(isinstance(logger, WandbLogger) for logger in loggers):
        loggers.append(_wandb_logger(options, run_dir, experiment, resumed_at is not None))
    return loggers


def _wandb_logger(options: Any, run_dir: Path, experiment: str, resumed: bool) -> WandbLogger:
    run_dir.mkdir(parents=True, exist_ok=True)
    # What a sweep's agent has set, Weights & Biases takes from the environment.
    agent = "WANDB_SWEEP_ID" in os.environ
    project = None if agent else options.wandb_project
    settings: dict[str, Any] = {}
    if "WANDB_FINISH_TIMEOUT" not in os.environ:
        settings = {"settings": {"finish_timeout": PATIENCE}}
    return SteadyWandbLogger(
        project=project or os.environ.get("WANDB_PROJECT") or PROJECT,
        entity=None if agent else options.wandb_entity,
        group=options.wandb_group or os.environ.get("WANDB_RUN_GROUP") or experiment,
        tags=split_tags(options.wandb_tags),
        notes=options.wandb_notes,
        id=None if agent or not resumed else earlier_run_id(run_dir),
        save_dir=str(run_dir),
        **settings,
    )


def split_tags(given: str | Sequence[str] | None) -> list[str] | None:
    """Split comma-separated tags; ``None`` stays ``None``, so that ``WANDB_TAGS`` applies."""
    if given is None:
        return None
    words = given.strip("[]").split(",") if isinstance(given, str) else given
    return [word.strip() for word in words if word.strip()]


def earlier_run_id(run_dir: Path) -> str | None:
    """Find the W&B id of a resumed run; ``None`` if it was never online."""
    folders = sorted((run_dir / "wandb").glob("run-*-*"))
    return folders[-1].name.rpartition("-")[2] if folders else None


def begin_runs(loggers: Sequence[Logger]) -> list[Logger]:
    """Start the W&B runs, and return the loggers without those that failed to start.

    A run that cannot start online, for lack of a network or a key, starts offline; it can be
    uploaded later.
    """
    return [each for each in loggers if not isinstance(each, WandbLogger) or _begin_run(each)]


def _begin_run(logger: WandbLogger) -> bool:
    try:
        _ = logger.experiment  # begins the run
        return True
    except Exception as error:
        reason = reason_of(error)
    with tolerate_failures("Weights & Biases"):
        set_offline(logger)
        folder = Path(logger.experiment.dir).parent
        rank_zero_info(
            f"warning       Weights & Biases cannot be reached ({reason}); the run is logged "
            f"offline, and `wandb sync {folder}` uploads it"
        )
        return True
    return False


def wandb_runs(loggers: Sequence[Logger]) -> Iterator[tuple[WandbLogger, Any]]:
    """Iterate over W&B loggers with their runs on the first process, without disabled ones."""
    for logger in loggers:
        if isinstance(logger, WandbLogger) and getattr(rank_zero_only, "rank", 0) == 0:
            run = logger.experiment
            if not run.disabled:
                yield logger, run


@rank_zero_only
def log_config(loggers: Sequence[Logger], config: Mapping[str, Any]) -> None:
    """Log the whole resolved configuration to W&B; Lightning logs only the model's."""
    with tolerate_failures("the configuration"):
        for _, run in wandb_runs(loggers):
            run.config.update(dict(config), allow_val_change=True)


@rank_zero_only
def log_summary(loggers: Sequence[Logger], summary: Mapping[str, Any]) -> None:
    """Log a run's summary to W&B: ``best/METRIC``, ``test/METRIC``, times, sizes."""
    figures: dict[str, Any] = {
        key: value for key, value in summary.items() if isinstance(value, (str, int, float))
    }
    for name, value in summary.get("validation", {}).items():
        figures[f"best/{name}"] = value
    for name, value in summary["parameters"].items():
        figures[f"parameters/{name}"] = value
    with tolerate_failures("the summary"):
        for _, run in wandb_runs(loggers):
            run.summary.update(figures | summary["test"])


@rank_zero_only
def finish(loggers: Sequence[Logger]) -> None:
    """Finish the W&B runs of ``--wandb``, so that the next run in this process is a new one."""
    with tolerate_failures("the last of the run"):
        for logger, run in wandb_runs(loggers):
            if isinstance(logger, SteadyWandbLogger):
                run.finish()

"""``fit``, ``validate``, ``test``, ``predict``: LightningCLI with experiments and run folders."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ModelSummary, Timer
from lightning.pytorch.cli import ArgsType
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from zoo_lightning.callbacks.checkpoints import LastValidation, TrainingInterrupted
from zoo_lightning.callbacks.config_file import ConfigFile
from zoo_lightning.callbacks.sample_count import SampleCount
from zoo_lightning.callbacks.training_compute import TrainingCompute
from zoo_lightning.cli.exit_status import ignore_library_warnings
from zoo_lightning.cli.first_image import check_first_image, example_images
from zoo_lightning.cli.given_checkpoints import (
    check_continued,
    load_weights,
    named_run_dir,
    refuse_results_in_run,
    refuse_used_folder,
    run_to_resume,
    start_cost,
)
from zoo_lightning.cli.run_summary import (
    describe_result,
    one_network_note,
    preprocessing_of,
    teacher_lines,
    total_compute,
)
from zoo_lightning.errors import ConfigError, ZooError, cause_of
from zoo_lightning.experiments.parser_errors import one_line
from zoo_lightning.experiments.parsing import ExperimentCLI
from zoo_lightning.experiments.parts import resolve_bands, resolve_start
from zoo_lightning.experiments.refused_callbacks import check_callbacks, given_callbacks
from zoo_lightning.experiments.refused_options import (
    REFUSALS,
    check_fit,
    check_from_data,
    check_limits,
    check_tests,
    check_trainer_options,
    refusal,
)
from zoo_lightning.experiments.short_form import apply_short_form
from zoo_lightning.loggers.figures_and_tables import log_table, step_of
from zoo_lightning.loggers.lineage import log_checkpoint, log_report, log_sources, log_start
from zoo_lightning.loggers.selection import (
    begin_runs,
    finish,
    log_config,
    log_summary,
    make_loggers,
)
from zoo_lightning.reports.writing import leave_report
from zoo_lightning.runs.checkpoint_files import preload_checkpoint, write_checkpoints_atomically
from zoo_lightning.runs.faults import explained_faults, raise_on_sigterm
from zoo_lightning.runs.folders import remove_if_unused, shared_run_folder
from zoo_lightning.runs.length import Length, peak_memory_mb, resolve_length
from zoo_lightning.runs.run_callbacks import (
    FEW_IMAGES,
    FINAL,
    resume_callback_options,
    run_callbacks,
)
from zoo_lightning.runs.run_folder import (
    LAST,
    find_checkpoint,
    metric_by_step,
    read_checkpoint,
    read_summary,
    remove_leftovers,
    write_summary,
)
from zoo_lightning.sources.zoo import without_weights
from zoo_lightning.tasks import BaseTask
from zoo_lightning.tasks.compatibility import take_value_range

METHOD_HELP = """
Transfer methods, which may take several trainings:
  --method            Train by a transfer method; names: fit --method auto --help
  --inference         Cost of the result per image, in networks, for --method auto (default: 1)
  --workers           Trainings at a time (default: 1)
  --devices           GPUs to give to the workers, such as 0,1
"""
"""Options of ``zoo_lightning.pipelines.command``, which its own parser reads."""


def main(arguments: Sequence[str]) -> int:
    """Run a subcommand of Lightning's Trainer.

    Args:
        arguments: words of the command line, the subcommand first.

    Returns:
        Exit status 0; 129, 130 or 143 after a signal.

    Raises:
        ZooError: an option, a file or the data are invalid.
    """
    ignore_library_warnings()
    try:
        with raise_on_sigterm():
            ZooCLI(list(arguments))
    except TrainingInterrupted as stop:
        option = f" with --ckpt_path {stop.checkpoint}" if stop.checkpoint else ""
        print(f"\n{stop}\nTo resume, repeat the command{option}", file=sys.stderr)
        return 128 + stop.signal_number
    return 0


class ZooCLI(ExperimentCLI):
    """LightningCLI of the Trainer's subcommands, with run folders, summaries and tests.

    It adds to :class:`~zoo_lightning.experiments.parsing.ExperimentCLI` a run folder with a
    summary, and a test of the best checkpoint at the end of ``fit``.

    Args:
        args: words of the command line, the subcommand first; ``None`` takes those of the process.

    Attributes:
        run_dir: folder that the run writes to.
        start_cost: seconds and multiply-adds of the informed start; empty without one.
        length: resolved length of the training; ``None`` if the Trainer's options set it.
    """

    model: BaseTask
    datamodule: LightningDataModule
    trainer: Trainer

    def __init__(self, args: ArgsType = None) -> None:
        self.start_cost: dict[str, float] = {}
        self.length: Length | None = None
        # Contents of the checkpoints that are given, from reading to use.
        self._resumed: dict[str, Any] | None = None
        self._initial: dict[str, Any] | None = None
        super().__init__(args, appendix=METHOD_HELP, save_config_callback=ConfigFile)

    @property
    def fits(self) -> bool:
        """Whether the subcommand trains."""
        return self.subcommand == "fit"

    def before_instantiate_classes(self) -> None:
        """Check options, read checkpoints, compute the informed start and choose the run folder."""
        options = self.options
        options.ckpt_path = self.given_checkpoint
        options.weights_only = True  # a checkpoint may come from anybody
        self.callbacks = self._check_options()
        for line in apply_short_form(options, self.arguments):
            rank_zero_info(line)
        self._imply_wandb()
        if self.asked_run is not None:
            self._take_from_run(self.asked_run)
        self._check_folder()
        if options.ckpt_path:
            self._read_checkpoint()
        if options.init_from:
            self._read_initial_weights()
        resolve_bands(options)
        self._find_start()
        self.run_dir = Path(options.run_dir or shared_run_folder(self.experiment))

    def _check_options(self) -> list[Callback]:
        """Check all options that can be judged without reading anything; return the callbacks."""
        options = self.options
        if self.fits:
            return check_fit(options, self.arguments, named_run_dir(options))
        callbacks = given_callbacks(options.trainer.callbacks)
        check_callbacks(callbacks)
        check_trainer_options(options.trainer, self.arguments)
        if self.subcommand == "test":
            check_tests(options.trainer)
        return callbacks

    def _imply_wandb(self) -> None:
        """Log to Weights & Biases where the command line has an option that only it has."""
        given = [word.partition("=")[0] for word in self.arguments if word.startswith("--wandb")]
        if given and "--wandb" not in given and not self.options.wandb:
            self.options.wandb = True
            rank_zero_info(
                f"{given[0]}: an option of Weights & Biases, so the run is logged there, as with "
                "--wandb true"
            )

    def _take_from_run(self, run: Path) -> None:
        """Take a run's name, and remove from its configuration what belongs to its training."""
        options = self.options
        given = {word.partition("=")[0] for word in self.arguments}
        if self.fits and "--budget" in given:
            raise ConfigError(
                f"--budget is no option of a run that is resumed: the length of {run} was chosen "
                "when it began; leave the option out"
            )
        if self.fits:
            options.run_dir = options.run_dir if "--run_dir" in given else str(run)
        elif "--output" not in given:
            options.run_dir = None  # a test is not to overwrite the training's summary
        options.init_from = None
        summary = read_summary(run) or {}
        self.experiment = summary.get("experiment", self.experiment)

    def _check_folder(self) -> None:
        """Refuse to write over a training, and to evaluate without a checkpoint."""
        options = self.options
        if not self.fits:
            refuse_results_in_run(options.run_dir)
            if not options.ckpt_path:
                raise ConfigError(
                    f"{self.subcommand} needs --ckpt_path: a checkpoint, a run folder, 'last' or "
                    "'best'"
                )
        elif not options.ckpt_path and not options.trainer.fast_dev_run:
            refuse_used_folder(options.run_dir)

    def _read_checkpoint(self) -> None:
        """Read the checkpoint to resume or to evaluate, and take from it what belongs together."""
        options = self.options
        given = options.ckpt_path
        path = find_checkpoint(
            given, options.run_dir if self.fits else None, self.experiment, resuming=self.fits
        )
        content = self._resumed = read_checkpoint(path)
        ours = content["zoo_lightning"]
        self.steps_before = content["global_step"]
        self.logged_until = ours.get("logged_until", self.steps_before)
        if self.asked_run is not None:
            self.experiment = ours.get("experiment", self.experiment)
        options.ckpt_path = str(path)
        take_value_range(options.data, ours)
        if not self.fits:
            return
        check_continued(run_to_resume(path), options)
        self.start_cost = start_cost(ours)
        resume_callback_options(options, content, self.callbacks)
        if options.run_dir is None:
            # A ModelCheckpoint of the user's own may save elsewhere than in the named folder.
            run = run_to_resume(Path(given) if Path(given).is_dir() else path)
            options.run_dir = str(run or "") or None

    def _read_initial_weights(self) -> None:
        """Read the checkpoint whose weights a new training starts from.

        A run that is resumed has its own weights; one that started from others keeps their cost.
        """
        options = self.options
        if options.ckpt_path:
            if any(word.partition("=")[0] == "--init_from" for word in self.arguments):
                raise ConfigError(
                    "--ckpt_path resumes a run, --init_from starts a new one; give one of them"
                )
            with suppress(ZooError):  # it may be gone
                options.init_from = str(find_checkpoint(options.init_from, None, self.experiment))
            return
        path = find_checkpoint(options.init_from, None, self.experiment, "--init_from")
        options.init_from = str(path)
        self._initial = read_checkpoint(path)

    def _find_start(self) -> None:
        """Find numbers that the training data decide, such as ``gate_init: greedy``, and log it."""
        content = self._resumed if self._initial is None else self._initial
        if start := resolve_start(self.options, self.experiment, content):
            self.start_cost = {
                "seconds": round(start.seconds, 1),
                "multiply_adds": start.multiply_adds,
            }
            rank_zero_info("\n".join(start.lines()))

    def instantiate_classes(self) -> None:
        """Build data, model and Trainer; sources are read only if no checkpoint is given."""
        restored = self.options.ckpt_path or self.options.init_from
        try:
            with without_weights() if restored else nullcontext():
                super().instantiate_classes()
            check_from_data(self.options.model, self.arguments, self.model, self.datamodule)
            if self._initial is not None:
                load_weights(self.model, self._initial)
                self._initial = None
        except Exception as error:
            remove_if_unused(self.run_dir)
            # jsonargparse tries each type an option may have, and reports them all.
            ours = cause_of(error)
            if ours is not None:
                raise ours from None
            if isinstance(error, ValueError) and str(error).startswith("Does not validate"):
                raise ConfigError(one_line(str(error), [])) from error  # a library's own check
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build a Trainer that writes to the run folder."""
        if not self.fits:  # nothing is saved then, and the folder may well be another
            warnings.filterwarnings("ignore", message="The dirpath has changed")
            # Those that made the checkpoint are not needed to evaluate it.
            warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`")
        options = self.options
        resumed = options.ckpt_path and self.fits
        if resumed:
            warnings.filterwarnings("ignore", message="Checkpoint directory .* is not empty")
        given = self.callbacks
        self.model.start_cost, self.model.experiment = self.start_cost, self.experiment
        if self.fits:
            kwargs |= self._resolved_length()
        few = options.average_weights and self._has_few_validation_images()
        self._compute = TrainingCompute(self.length.unit if self.length else None)
        self._samples = SampleCount()
        ours = run_callbacks(self.model, options, self.run_dir, given, few)
        self._validation = next(
            (each for each in ours if isinstance(each, LastValidation)), LastValidation()
        )
        self._timer = next((each for each in [*given, *ours] if isinstance(each, Timer)), None)
        try:
            trainer = super().instantiate_trainer(
                logger=make_loggers(
                    options,
                    self.config_init[self.subcommand].trainer.logger,
                    self.run_dir,
                    self.experiment,
                    resumed_at=self.logged_until if resumed else None,
                ),
                # First of all, because it counts what the others compute in their hooks.
                callbacks=[self._compute, self._samples, *given, *ours],
                default_root_dir=str(self.run_dir),
                use_distributed_sampler=False,  # the loaders of this package share the work
                max_time=None,  # the timer has it
                **kwargs,
            )
        except REFUSALS as error:
            raise refusal(error) from error
        write_checkpoints_atomically(trainer)
        if self._resumed is not None:
            preload_checkpoint(trainer, options.ckpt_path, self._resumed)
            self._resumed = None
        return trainer

    def _has_few_validation_images(self) -> bool:
        if not hasattr(self.datamodule, "train_dataloader") or not self.fits:
            return False
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        return len(getattr(self.datamodule, "val_set", ())) < FEW_IMAGES

    def _resolved_length(self) -> dict[str, Any]:
        """Return the Trainer's options for the training's length, noted in ``config.yaml``, too."""
        options = self.options
        spent = int(self.start_cost.get("multiply_adds", 0))
        self.length = resolve_length(options, self.model, self.datamodule, spent)
        if self.length is None:
            return {}
        found: dict[str, Any] = {"max_steps": self.length.steps, "max_epochs": -1}
        if self.length.val_check_interval is not None:
            found["val_check_interval"] = self.length.val_check_interval
            if isinstance(self.length.val_check_interval, int):
                found["check_val_every_n_epoch"] = None  # counted over all epochs
        for name, value in found.items():
            options.trainer[name] = value
        # The same configuration again is the same length, not a multiple of it.
        options.length, options.length_from_data, options.budget = "default", None, None
        return found

    def fit(self, model: BaseTask, **kwargs: Any) -> None:
        """Train, test the best checkpoint unless ``run_test`` is false, and write the summary."""
        with self._explained_faults():
            self._prepare_training()
            self.trainer.fit(model, ckpt_path=self.options.ckpt_path, **kwargs)
        with self._explained_faults(trained=True):
            self._end_training()

    def validate(self, model: BaseTask, **kwargs: Any) -> None:
        """Evaluate a checkpoint on the validation data."""
        with self._explained_faults():
            self._begin_logging()
            self.trainer.validate(model, ckpt_path=self.options.ckpt_path, **kwargs)
            finish(self.trainer.loggers)

    def predict(self, model: BaseTask, **kwargs: Any) -> None:
        """Write the predictions of a checkpoint for the test data."""
        with self._explained_faults():
            self._begin_logging()
            self.trainer.predict(model, ckpt_path=self.options.ckpt_path, **kwargs)
            finish(self.trainer.loggers)

    def test(self, model: BaseTask, **kwargs: Any) -> None:
        """Test a checkpoint and write the summary."""
        with self._explained_faults():
            self._begin_logging()
            start = time.monotonic()
            checkpoint = self.options.ckpt_path
            results = self.trainer.test(model, ckpt_path=checkpoint, **kwargs)
            seconds = time.monotonic() - start
            self._finish(Path(checkpoint), results, self.steps_before, seconds, model.facts())

    @contextmanager
    def _explained_faults(self, trained: bool = False) -> Iterator[None]:
        """Turn what stops a run from outside, and Lightning's own refusals, into one line."""
        with explained_faults(self.run_dir, trained):
            try:
                yield
            except MisconfigurationException as error:  # of a callback's own checks, for instance
                raise refusal(error) from error
            except RuntimeError as error:
                if not str(error).startswith("Early stopping conditioned on metric"):
                    raise
                raise refusal(error) from error

    def _prepare_training(self) -> None:
        """Check all data that will be read, and print what will be trained."""
        if any(isinstance(each, ModelSummary) for each in self.callbacks):
            self.model.example_input_array = example_images(self.model, self.datamodule)
        if self.options.trainer.fast_dev_run:
            return
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        stages = ["train", "val"]
        if self.options.run_test:
            self.datamodule.setup("test")
            stages.append("test")
        check_limits(self.trainer, self.datamodule, stages)
        check_first_image(self.model, self.datamodule)
        if self.trainer.is_global_zero:
            remove_leftovers(self.run_dir)
        lines = ["", self.model.backbone.describe(), *teacher_lines(self.model)]
        lines += one_network_note(self.model)
        lines += [self.length.line] if self.length else []
        lines += [f"run folder    {self.run_dir}", ""]
        rank_zero_info("\n".join(lines))
        self._begin_logging()

    def _begin_logging(self) -> None:
        """Begin the runs of loggers that have some, and log configuration and sources there."""
        self.trainer.loggers = loggers = begin_runs(self.trainer.loggers)
        log_config(loggers, yaml.safe_load(self.parser.dump(self.config))[self.subcommand])
        options = self.options
        log_sources(loggers, self.model.backbone, self.run_dir, upload=options.wandb_sources)
        if options.init_from:
            log_start(loggers, Path(options.init_from))

    def _end_training(self) -> None:
        """Test the best checkpoint if wanted, write the summary, and print where things are."""
        if self.options.trainer.fast_dev_run:
            remove_if_unused(self.run_dir)
            return
        assert self._timer is not None  # every run has one, but for fast_dev_run
        seconds, steps = self._timer.time_elapsed("train"), self.trainer.global_step
        # Before a test restores the callbacks, and an agent's steps, of the best checkpoint.
        compute, facts = self._total_compute(seconds), self.model.facts()
        best, validation = self._best_checkpoint()
        fitted: dict[str, Any] = {"compute": compute, "validation": validation}
        if self.options.stop_after < 1:
            fitted["stop_after"] = self.options.stop_after
            fitted["losses"] = dict(self._validation.losses)
        results: Any = [{}]
        if self.options.run_test:
            with _without_repeated_callbacks():
                results = self.trainer.test(
                    self.model, datamodule=self.datamodule, ckpt_path=str(best), weights_only=True
                )
        self._finish(best, results, steps, seconds, facts, fitted)

    def _best_checkpoint(self) -> tuple[Path, dict[str, float]]:
        """Find the checkpoint that the run ends with, and its figure of the validation."""
        keeper = next(
            each
            for each in self.trainer.checkpoint_callbacks
            if isinstance(each, ModelCheckpoint) and each.monitor is not None
        )
        # Without any validation there is no best one.
        best = Path(keeper.best_model_path or self.run_dir / LAST)
        score: Any = keeper.best_model_score
        monitor = str(keeper.monitor)
        if monitor == FINAL:  # kept for being the newest, whatever its figure
            monitor = self.model.monitor
            # A resumed run that had no step left has logged it before.
            logged = metric_by_step(self.run_dir, monitor)
            score = self.trainer.callback_metrics.get(monitor, logged.get(max(logged, default=0)))
        return best, {} if score is None else {monitor: float(score)}

    def _total_compute(self, seconds: float) -> dict[str, Any]:
        """Add up the cost of the training, its start, its teachers and its initial weights."""
        earlier = {"teachers": self.model.teacher_runs()}
        if self.options.init_from:
            earlier["init_from"] = [self.options.init_from]
        processes = self.trainer.world_size
        return total_compute(self._compute, seconds, self.start_cost, earlier, processes)

    @rank_zero_only
    def _finish(
        self,
        checkpoint: Path,
        results: Any,
        steps: int,
        seconds: float,
        facts: Mapping[str, Any],
        fitted: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the summary, log it, and print where things are.

        Args:
            checkpoint: checkpoint that was tested.
            results: results of the test, as the Trainer returns them.
            steps: optimizer steps of the training.
            seconds: duration of the training, or of the test alone.
            facts: entries of the task after those steps.
            fitted: entries that only a training has.
        """
        summary = {
            "experiment": self.experiment,
            "method": self.model.method,
            "seed": self.options.seed_everything,
            "steps": steps,
            **facts,
            "seconds": round(seconds, 1),
            **({"start_seconds": self.start_cost["seconds"]} if self.start_cost else {}),
            "checkpoint": os.path.relpath(checkpoint, self.run_dir),
            "parameters": self.model.parameter_counts(),
            "preprocessing": preprocessing_of(self.datamodule),
            "peak_memory_mb": peak_memory_mb(self.trainer.strategy.root_device),
            **{key: value for key, value in (fitted or {}).items() if value},
            **self._samples.counts,
            "test": {name: value for name, value in results[0].items() if name != "step"},
        }
        write_summary(self.run_dir, summary)
        self._log_results(checkpoint, summary, leave_report(self.run_dir))
        print(describe_result(summary, self.run_dir, checkpoint, seconds))
        finish(self.trainer.loggers)

    def _log_results(self, checkpoint: Path, summary: dict[str, Any], report: Path | None) -> None:
        """Log summary, test's table, report and checkpoint to the loggers that take them."""
        loggers = self.trainer.loggers
        log_summary(loggers, summary)
        step = step_of(self.trainer, self.model)
        log_table(self.trainer, step, "test", ["metric", "value"], [*summary["test"].items()])
        if report is not None:
            log_report(loggers, report)
        if self.fits and self.options.wandb_checkpoint:
            log_checkpoint(loggers, checkpoint, summary)


@contextmanager
def _without_repeated_callbacks() -> Iterator[None]:
    """Leave out Lightning's line on a task's callbacks, which it has attached in training."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")

    def is_other(record: logging.LogRecord) -> bool:
        return "returned in `LightningModule.configure_callbacks`" not in record.getMessage()

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)

"""``fit``, ``validate``, ``test``, ``predict``: LightningCLI with experiments and run folders."""

from __future__ import annotations

import inspect
import itertools
import json
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import set_parsing_settings
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

# data and methods are imported so that short class names in YAML and on the command line resolve.
from zoo_lightning import __version__, data, methods  # noqa: F401
from zoo_lightning.backbone import ZooBackbone
from zoo_lightning.callbacks.config_file import ConfigFile
from zoo_lightning.callbacks.training_compute import TrainingCompute
from zoo_lightning.checkpoint_files import write_whole_checkpoints
from zoo_lightning.errors import ConfigError, cause_of
from zoo_lightning.exhibits import log_table, step_of
from zoo_lightning.experiment_parts import resolve_start
from zoo_lightning.experiments import joint_name
from zoo_lightning.faults import told
from zoo_lightning.lineage import log_checkpoint, log_sources, log_start
from zoo_lightning.loggers import (
    add_logger_options,
    finish,
    log_config,
    log_summary,
    make_loggers,
    reached,
)
from zoo_lightning.memory import peak_memory_mb
from zoo_lightning.parsing import ExperimentAction, OneLineParser, named_interpolations
from zoo_lightning.paths import expand_all
from zoo_lightning.refused_options import check_monitors, check_trainer_options
from zoo_lightning.run_callbacks import (
    FEW_IMAGES,
    FINAL,
    add_callback_options,
    chooses_best,
    resume_callback_options,
    run_callbacks,
)
from zoo_lightning.run_folder import (
    CHECKPOINTS,
    METRICS,
    PICTURES,
    SUMMARY,
    compute_of,
    find_checkpoint,
    metric_by_step,
    read_checkpoint,
    remove_leftovers,
    run_of,
    write_summary,
)
from zoo_lightning.runs.folders import remove_if_unused, shared_run_folder
from zoo_lightning.runs.length import (
    Length,
    LengthFromData,
    Scale,
    check_length_options,
    resolve_length,
)
from zoo_lightning.short_form import add_short_form, apply_short_form
from zoo_lightning.sources.zoo import check_normalisation, without_weights
from zoo_lightning.strategies import check_strategy_option, check_sync
from zoo_lightning.tasks import BaseTask, PPOTask
from zoo_lightning.text_files import TEXT
from zoo_lightning.yaml_files import check_files

COUNTS = ("num_points", "num_classes", "num_actions")
"""Options of the task that it takes from the data."""


class ZooCLI(LightningCLI):
    """The Trainer's subcommands for our tasks.

    Adds to LightningCLI: ``--experiment``, ``--sources``, ``--architecture``, ``--run_dir``,
    ``--init_from``, ``--run_test``, ``--on_nonfinite``, ``--wandb`` and its kin; a run folder
    with a summary; a test of the best checkpoint at the end of ``fit``.
    """

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Parser whose ``--config`` is also called ``--experiment``."""
        kwargs.setdefault("dump_header", [f"zoo_lightning=={__version__}"])
        kwargs.setdefault("prog", "python -m zoo_lightning")
        parser = self.parser_class(**kwargs)
        parser.add_argument(
            "-c",
            "--config",
            "--experiment",
            action=ExperimentAction,
            help="An experiment's name (see experiments/) or a YAML file. Several may be given; "
            "later ones, and options after them, override earlier ones.",
        )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add our options, and what the model takes from the data."""
        add_short_form(parser)
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="Folder of this run (default: runs/EXPERIMENT/DATE-TIME, or with fit --ckpt_path "
            "the folder of the run that goes on).",
        )
        parser.add_argument(
            "--init_from",
            type=str | None,
            default=None,
            help="Start a new training from the weights of this checkpoint or run folder.",
        )
        parser.add_argument(
            "--run_test",
            type=bool,
            default=True,
            help="Whether fit tests its best checkpoint at the end; false leaves the test data "
            "alone, while options are still being chosen.",
        )
        parser.add_argument(
            "--length",
            type=Scale,
            default="default",
            help="How long to train: the experiment's own length, a quarter of it (short) or four "
            "times as long (long).",
        )
        parser.add_argument(
            "--length_from_data",
            type=LengthFromData | None,
            default=None,
            help="The experiment's length by the number of training images, where neither "
            "trainer.max_steps nor trainer.max_epochs is set.",
        )
        parser.add_argument(
            "--budget",
            type=float | None,
            default=None,
            help="What the run may cost, its start included, in trainings of one ordinary network "
            "of the experiment's length; sets the number of steps (default: that length, whatever "
            "it costs).",
        )
        add_callback_options(parser)
        add_logger_options(parser)
        for name in COUNTS:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        parser.link_arguments(
            "seed_everything", "data.init_args.seed", compute_fn=_data_seed, apply_on="parse"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and keep the words: what is on the command line itself is not second-guessed."""
        self.arguments = list(map(str, sys.argv[1:] if args is None else args))
        self.asked_run = run_without_experiment(self.arguments)
        if self.asked_run is not None:
            subcommand, *rest = self.arguments
            args = [subcommand, "--config", str(self.asked_run / "config.yaml"), *rest]
        for word in self.arguments:
            check_files(word.partition("=")[2] if word.startswith("--") else word)
        with named_interpolations():
            super().parse_arguments(parser, args)
        expand_all(self.config)  # of YAML files, too

    def _parse_ckpt_path(self) -> None:
        # Lightning would silently let the checkpoint's options override those given now. The task
        # compares them instead and refuses what differs.
        pass

    def config_files(self) -> list[Path]:
        """Files of the experiments that were given."""
        return [Path(str(path)) for path in self.config[self.subcommand].config or []]

    def before_instantiate_classes(self) -> None:
        """Find the checkpoint that is meant, the start, and decide on the run folder."""
        options = self.config[self.subcommand]
        options.weights_only = True  # a checkpoint may come from anybody
        check_trainer_options(options.trainer, self.arguments)
        check_strategy_option(options.trainer.strategy)
        check_sync(options.trainer.sync_batchnorm, options.trainer.accelerator)
        if self.subcommand == "fit":
            check_length_options(options, self.arguments)
        for line in apply_short_form(options, self.arguments):
            rank_zero_info(line)
        self.experiment, content = joint_name(self.config_files()), None
        if self.asked_run is not None:
            self._take_from_run(options)
        self.start_cost: dict[str, float] = {}
        self.length: Length | None = None
        if options.ckpt_path:
            ckpt = find_checkpoint(options.ckpt_path, options.run_dir, self.experiment)
            content = read_checkpoint(ckpt)
            self.steps_before = content["global_step"]
            self.logged_until = content["zoo_lightning"].get("logged_until", self.steps_before)
            options.ckpt_path = str(ckpt)
            if self.subcommand == "fit":
                self.start_cost = start_cost(content["zoo_lightning"])
                resume_callback_options(options, content)
            if options.run_dir is None and self.subcommand == "fit":
                options.run_dir = str(run_of(ckpt) or "") or None
        elif self.subcommand != "fit":
            raise ConfigError(
                f"{self.subcommand} needs --ckpt_path: a checkpoint, a run folder, 'last' or 'best'"
            )
        if options.init_from:
            if options.ckpt_path:
                raise ConfigError(
                    "--ckpt_path goes on with a run, --init_from starts anew: give one"
                )
            init = find_checkpoint(options.init_from, None, self.experiment, "--init_from")
            options.init_from = str(init)
            content = read_checkpoint(init)
        if start := resolve_start(options, self.experiment, content):
            self.start_cost = {
                "seconds": round(start.seconds, 1),
                "multiply_adds": start.multiply_adds,
            }
            rank_zero_info("\n".join(start.lines()))
        self.run_dir = Path(options.run_dir or shared_run_folder(self.experiment))

    def _take_from_run(self, options: Any) -> None:
        """Leave out of a run's configuration what is of its training, and take its name."""
        given = {word.partition("=")[0] for word in self.arguments}
        if "--run_dir" not in given:
            options.run_dir = None  # a test is not to overwrite the training's summary
        options.init_from = None
        path = self.asked_run / SUMMARY
        if path.is_file():
            self.experiment = json.loads(path.read_text(**TEXT)).get("experiment", self.experiment)

    def instantiate_classes(self) -> None:
        """Build data, model, trainer; sources are read only if no checkpoint brings weights."""
        options = self.config[self.subcommand]
        restored = options.ckpt_path or options.init_from
        try:
            with without_weights() if restored else nullcontext():
                super().instantiate_classes()
            self._check_counts()
            if options.init_from:
                init_from(self.model, options.init_from)
        except Exception as error:
            remove_if_unused(self.run_dir)
            # jsonargparse tries each type an option may have, and reports them all.
            ours = cause_of(error)
            if ours is None:
                raise
            raise ours from None

    def _check_counts(self) -> None:
        """Refuse a number of classes or points that is not the data's, which the head takes."""
        given = self.config[self.subcommand].model.init_args
        options = inspect.signature(type(self.model).__init__).parameters
        for name in COUNTS:
            words = any(re.match(rf"--model\.(init_args\.)?{name}\b", w) for w in self.arguments)
            if name not in given or not (words or given[name] != options[name].default):
                continue
            ours = getattr(self.datamodule, name, given[name])
            if given[name] != ours:
                raise ConfigError(
                    f"model.{name} is {given[name]}, but the data have {ours}; leave it out, for "
                    "the number comes from the data, or give other data"
                )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Trainer that writes into the run folder."""
        if self.subcommand != "fit":  # nothing is saved then, and the folder may well be another
            warnings.filterwarnings("ignore", message="The dirpath has changed")
        options = self.config[self.subcommand]
        goes_on = options.ckpt_path and self.subcommand == "fit"
        given = self._get(self.config_init, "trainer").callbacks or []
        given = given if isinstance(given, list) else [given]
        check_monitors(given)
        self.model.start_cost = self.start_cost
        if self.subcommand == "fit":
            kwargs |= self._resolved_length()
        few = options.average_weights and self._has_few_validation_images()
        try:
            trainer = super().instantiate_trainer(
                logger=make_loggers(
                    options,
                    self._get(self.config_init, "trainer").logger,
                    self.run_dir,
                    self.experiment,
                    goes_on_after=self.logged_until if goes_on else None,
                ),
                # First of all, for it counts what the others compute in their hooks.
                callbacks=[
                    TrainingCompute(self.length.unit if self.length else None),
                    *given,
                    *run_callbacks(self.model, options, self.run_dir, given, few),
                ],
                default_root_dir=str(self.run_dir),
                use_distributed_sampler=False,  # our loaders share the work themselves
                max_time=None,  # our timer has it
                **kwargs,
            )
        except (MisconfigurationException, TypeError, ValueError) as error:
            said = " ".join(str(error).split())
            raise ConfigError(f"the Trainer refuses its options: {said}") from error
        return write_whole_checkpoints(trainer)

    def _has_few_validation_images(self) -> bool:
        if not hasattr(self.datamodule, "train_dataloader") or self.subcommand != "fit":
            return False
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        return len(getattr(self.datamodule, "val_set", ())) < FEW_IMAGES

    def _resolved_length(self) -> dict[str, Any]:
        """The Trainer's options for the length of the training, noted in ``config.yaml``, too."""
        options = self.config["fit"]
        spent = int(self.start_cost.get("multiply_adds", 0))
        self.length = resolve_length(options, self.model, self.datamodule, spent)
        if self.length is None:
            return {}
        found = {"max_steps": self.length.steps, "max_epochs": -1}
        if self.length.val_check_interval is not None:
            found["val_check_interval"] = self.length.val_check_interval
            if isinstance(self.length.val_check_interval, int):
                found["check_val_every_n_epoch"] = None  # counted over all epochs
        for name, value in found.items():
            options.trainer[name] = value
        # The same configuration again is the same length, not a multiple of it.
        options.length, options.length_from_data, options.budget = "default", None, None
        return found

    def _run_subcommand(self, subcommand: str) -> None:
        with told(self.run_dir):
            super()._run_subcommand(subcommand)

    def before_fit(self) -> None:
        """Check all data that will be read, and say what will be trained."""
        if self.trainer.fast_dev_run:
            return
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        if self._tests():
            self.datamodule.setup("test")
        check_first_image(self.model, self.datamodule)
        if self.trainer.is_global_zero:
            remove_leftovers(self.run_dir)
        lines = ["", self.model.backbone.describe()]
        lines += one_network_note(self.model)
        lines += [self.length.line] if self.length else []
        lines += [f"run folder    {self.run_dir}", ""]
        noted = self._preprocessing()
        if noted and (warning := check_normalisation(self.model.backbone.loaded, **noted)):
            lines.insert(2, f"warning       {warning}")
        rank_zero_info("\n".join(lines))
        self._begin_logging()

    def before_validate(self) -> None:
        """Begin what is logged elsewhere."""
        self._begin_logging()

    before_test = before_predict = before_validate

    def after_validate(self) -> None:
        """End it."""
        finish(self.trainer.loggers)

    after_predict = after_validate

    def _begin_logging(self) -> None:
        """Begin the runs of loggers that have some, and log configuration and sources there."""
        self.trainer.loggers = loggers = reached(self.trainer.loggers)
        parser, options = self._parser(self.subcommand), self.config[self.subcommand]
        log_config(loggers, yaml.safe_load(parser.dump(options)))
        log_sources(loggers, self.model.backbone, self.run_dir, upload=options.wandb_sources)
        if options.init_from:
            log_start(loggers, Path(options.init_from))

    def _tests(self) -> bool:
        """Whether the test data are wanted after the training."""
        return self.config[self.subcommand].run_test

    def _preprocessing(self) -> dict[str, list[float]]:
        """How the data's images are normalised, for those who take this run as a source."""
        names = ("mean", "std")
        if not all(hasattr(self.datamodule, name) for name in names):
            return {}
        return {name: list(getattr(self.datamodule, name)) for name in names}

    def after_fit(self) -> None:
        """Test the best checkpoint if wanted, write the summary, say where things are."""
        if self.trainer.fast_dev_run:
            remove_if_unused(self.run_dir)
            return
        timer = next(c for c in self.trainer.callbacks if isinstance(c, Timer))
        seconds, steps = timer.time_elapsed("train"), self.trainer.global_step
        compute = self._compute(seconds)  # before a test restores the callbacks of the best step
        keeper = next(filter(chooses_best, self.trainer.checkpoint_callbacks))
        # Without any validation there is no best one.
        best = Path(keeper.best_model_path or self.run_dir / CHECKPOINTS / "last.ckpt")
        score, monitor = keeper.best_model_score, keeper.monitor
        if monitor == FINAL:  # kept for being the newest, whatever its figure
            monitor = self.model.monitor
            # A resumed run that had no step left has logged it before.
            logged = metric_by_step(self.run_dir, monitor)
            score = self.trainer.callback_metrics.get(monitor, logged.get(max(logged, default=0)))
        validation = {} if score is None else {monitor: float(score)}
        results: Any = [{}]
        if self._tests():
            results = self.trainer.test(
                self.model, datamodule=self.datamodule, ckpt_path=str(best), weights_only=True
            )
        self._finish(best, results, steps, seconds, {"compute": compute, "validation": validation})

    def test(self, model: BaseTask, **kwargs: Any) -> None:
        """Test a checkpoint and write the summary."""
        self.model = model
        start = time.monotonic()
        results = self.trainer.test(model, **kwargs)
        seconds = time.monotonic() - start
        self._finish(Path(kwargs["ckpt_path"]), results, self.steps_before, seconds)

    @rank_zero_only
    def _finish(
        self,
        checkpoint: Path,
        results: Any,
        steps: int,
        seconds: float,
        fitted: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the summary, hand it to the loggers, and say where things are.

        Args:
            checkpoint: that was tested.
            results: of the test, as the Trainer gives them.
            steps: optimizer steps of the training.
            seconds: of the training, or of the test alone.
            fitted: what a summary has of a training besides.
        """
        seed = self.config[self.subcommand].seed_everything
        summary = {
            "experiment": self.experiment,
            "method": self.model.method,
            "seed": seed,
            "steps": steps,
            **self.model.facts(),
            "seconds": round(seconds, 1),
            **({"start_seconds": self.start_cost["seconds"]} if self.start_cost else {}),
            "checkpoint": os.path.relpath(checkpoint, self.run_dir),
            "parameters": self.model.parameter_counts(),
            "preprocessing": self._preprocessing(),
            "peak_memory_mb": peak_memory_mb(),
            **{key: value for key, value in (fitted or {}).items() if value},
            **self._test_images(),
            "test": {name: value for name, value in results[0].items() if name != "step"},
        }
        write_summary(self.run_dir, summary)
        self._log_results(checkpoint, summary)
        # Without a logger there are no curves.
        files = [n for n in ("config.yaml", METRICS, SUMMARY) if (self.run_dir / n).is_file()]
        files += [f"{PICTURES}/"] if (self.run_dir / PICTURES).is_dir() else []
        print(
            f"\n{self.experiment}: {summary['method']}, {steps} steps, {seconds:.0f} s\n"
            f"checkpoint   {checkpoint}\nrun folder   {self.run_dir}  "
            f"({', '.join(files)})"
        )
        finish(self.trainer.loggers)

    def _test_images(self) -> dict[str, int]:
        """How many images the figures of the test are of, where they are of images."""
        images = getattr(self.datamodule, "test_set", None)
        limit = self.trainer.limit_test_batches
        whole = images is not None and limit in (1.0, None)
        return {"test_images": len(images)} if whole and self._was_tested() else {}

    def _was_tested(self) -> bool:
        return self.subcommand == "test" or (self.subcommand == "fit" and self._tests())

    def _compute(self, seconds: float) -> dict[str, Any]:
        """What the training has cost: multiply-adds and seconds, of it and of what it needed."""
        counter = next(c for c in self.trainer.callbacks if isinstance(c, TrainingCompute))
        parts: dict[str, int | None] = dict(counter.parts)
        spent = seconds
        if self.start_cost:
            parts["start"] = int(self.start_cost["multiply_adds"])
            spent += self.start_cost["seconds"]
        processes = self.trainer.world_size  # which all do the same amount of work
        parts = {name: each * processes for name, each in parts.items()}
        before = {"teachers": self.model.hparams["teachers"] or []}
        if self.config["fit"].init_from:
            before["init_from"] = [self.config["fit"].init_from]
        for part, runs in before.items():
            costs = [compute_of(Path(run)) for run in runs]
            each = [cost.get("multiply_adds") for cost in costs]
            if runs:  # older versions did not count
                parts[part] = None if None in each else sum(each)
            spent += sum(cost.get("seconds", 0.0) for cost in costs)
        return {
            "multiply_adds": None if None in parts.values() else sum(parts.values()),
            "seconds": round(spent, 1),
            "parts": parts,
            **({"unit": counter.unit * processes} if counter.unit else {}),
        }

    def _log_results(self, checkpoint: Path, summary: dict[str, Any]) -> None:
        """Hand what a run has found to the loggers that keep more than curves."""
        loggers = self.trainer.loggers
        log_summary(loggers, summary)
        step = step_of(self.trainer, self.model)
        log_table(self.trainer, step, "test", ["metric", "value"], [*summary["test"].items()])
        if self.subcommand == "fit" and self.config["fit"].wandb_checkpoint:
            log_checkpoint(loggers, checkpoint, summary)


def start_cost(content: Mapping[str, Any]) -> dict[str, float]:
    """What the informed start of a checkpoint's run has cost; empty if it had none.

    Args:
        content: what the checkpoint has of this package. Older versions noted the seconds alone.
    """
    seconds = content.get("start_seconds")
    old = {"seconds": seconds, "multiply_adds": 0} if seconds else {}
    return dict(content.get("start_cost") or old)


def one_network_note(task: BaseTask) -> list[str]:
    """Say of a lite zoo that trains like one network that it does, and how to have that one.

    Args:
        task: to be trained.

    Returns:
        A line, or none. See ``docs/lite_is_one_network.md``.
    """
    zoo, options = task.backbone, task.hparams
    if not isinstance(zoo, ZooBackbone) or isinstance(task, PPOTask):
        return []
    lite = zoo.mode == "lite" and zoo.align == "none"
    # Gates that begin at a sum of one: numbers from the data, or equal parts.
    summing = isinstance(zoo.gate_init, list) or zoo.gate_init == "sum_to_one"
    adam = options["optimizer"] == "adamw" or (
        options["optimizer"] == "adam" and not options["weight_decay"]
    )
    if not (lite and summing and adam):
        return []
    return [
        "note          a lite zoo without alignment learns what one network learns, but for its "
        "gates (docs/lite_is_one_network.md); --experiment methods/start trains that network, at "
        "the cost of one"
    ]


@torch.no_grad()
def check_first_image(task: BaseTask, datamodule: LightningDataModule) -> None:
    """Let an image of the data go through the network, before anything is trained.

    Args:
        task: to be trained; in evaluation meanwhile, so that nothing of it changes.
        datamodule: set up for ``fit``; nothing is checked of what has no images.

    Raises:
        ConfigError: the network cannot take it: other channels, or another size.
    """
    images = getattr(datamodule, "train_set", None)
    if images is None or isinstance(task, PPOTask):
        return
    image = images[(0, 0)]["image"][None]
    training = task.training
    try:
        batch = datamodule.on_after_batch_transfer({"image": image.to(task.device)}, 0)
        task.eval()(batch["image"])
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        said = str(error).strip().partition("\n")[0]
        wanted = task.backbone.architecture.in_chans
        raise ConfigError(
            f"{task.backbone.architecture.label} cannot take the data's images, {image.shape[1]} "
            f"channels of {image.shape[-2]}x{image.shape[-1]} pixels, with in_chans {wanted}: "
            f"{said}; give the image_size that the network is made for, and in_chans 3"
        ) from error
    finally:
        task.train(training)


def run_without_experiment(arguments: Sequence[str]) -> Path | None:
    """The run that ``validate``, ``test`` or ``predict`` shall take its options from.

    Args:
        arguments: words of the command line, the subcommand first.

    Returns:
        The folder of the run that ``--ckpt_path`` names, if no experiment is given and it has a
        configuration.
    """
    if not arguments or arguments[0] not in ("validate", "test", "predict"):
        return None
    options = dict(itertools.pairwise(arguments[1:]))
    options |= {name: value for name, sign, value in (w.partition("=") for w in arguments) if sign}
    if {"--experiment", "--config", "-c"} & set(options):
        return None
    given = options.get("--ckpt_path")
    if given in ("last", "best"):
        run = Path(options["--run_dir"]) if "--run_dir" in options else None
    elif given:
        run = Path(given) if Path(given).is_dir() else run_of(Path(given))
    else:
        run = None
    return run if run is not None and (run / "config.yaml").is_file() else None


def _data_seed(seed: bool | int) -> int:
    """Seed of the data: the run's, or 0 where the run's is drawn by chance."""
    return 0 if isinstance(seed, bool) else seed


def init_from(task: BaseTask, checkpoint: str) -> None:
    """Put the weights of a trained task into a new one.

    Raises:
        ConfigError: the file is no checkpoint of ours, or its network differs.
    """
    content = read_checkpoint(Path(checkpoint))
    task.on_load_checkpoint(content)
    task.load_state_dict(content["state_dict"])
    task.weights_given = True


def _no_advertisement(record: logging.LogRecord) -> bool:
    """Keep Lightning's hints at its own products out of a run's output."""
    return "Tip:" not in record.getMessage()


def run(args: ArgsType = None, kind: type[ZooCLI] = ZooCLI) -> ZooCLI:
    """Parse a command line of a Trainer subcommand and carry it out."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_advertisement)
    # An interpolation like ${data.init_args.root} is written as if the file were the whole
    # configuration; under a subcommand it lies one level deeper.
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    return kind(
        BaseTask,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        trainer_defaults={"log_every_n_steps": 10},
        save_config_callback=ConfigFile,
        parser_class=OneLineParser,
        parser_kwargs={"parser_mode": "omegaconf+"},
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        args=args,
    )

"""Parser of the Trainer subcommands: LightningCLI with experiments and further options.

:class:`ExperimentCLI` parses; what a subcommand does with the options is in ``zoo_lightning.cli``,
and :func:`zoo_lightning.experiments.resolve` only returns them.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile, set_parsing_settings
from jsonargparse.typing import PositiveFloat
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info
from omegaconf.errors import OmegaConfBaseException

# data and methods are imported so that short class names in YAML and on the command line resolve.
from zoo_lightning import __version__, data, methods  # noqa: F401
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.finding import find_experiment, joint_name
from zoo_lightning.experiments.option_names import (
    OF_RUNS,
    OF_TRAINED,
    RENAMED,
    RenamedOptions,
    documented,
)
from zoo_lightning.experiments.parser_errors import one_line, option_names
from zoo_lightning.experiments.short_form import add_short_form
from zoo_lightning.experiments.short_help import asks_for_all, short_help
from zoo_lightning.experiments.words import (
    EVALUATING,
    check_has_experiment,
    experiments_first,
    implied_zoo,
    run_without_experiment,
)
from zoo_lightning.files.paths import expand, replace_values
from zoo_lightning.files.plain_yaml import plain
from zoo_lightning.loggers.selection import add_logger_options
from zoo_lightning.runs.length import LengthFromData, Scale
from zoo_lightning.runs.run_callbacks import add_callback_options
from zoo_lightning.runs.run_folder import CONFIG
from zoo_lightning.sources.normalisation import statistics
from zoo_lightning.tasks import BaseTask
from zoo_lightning.tasks.compatibility import FROM_DATA, OF_IMAGES

SUBCOMMANDS = ("fit", *EVALUATING)

BADLY_WRITTEN = (
    *(TypeError, ValueError, argparse.ArgumentError, ConfigError),
    # What PyYAML makes of tags that do not suit their text.
    *(LookupError, AttributeError, RecursionError, yaml.YAMLError),
)
"""Exceptions raised by reading a malformed configuration."""


class ExperimentParser(LightningArgumentParser):
    """Parser that raises :class:`~zoo_lightning.errors.ConfigError` instead of printing usage.

    jsonargparse creates one for each class in a configuration; it accepts former names of the
    class's options, see :class:`~zoo_lightning.experiments.option_names.RenamedOptions`.

    Args:
        args: positional arguments of LightningArgumentParser.
        trainer_method: subcommand of the options, a method of the Trainer.
        appendix: text printed after the help of the options.
        full_help: whether the help has all options, not only this package's own.
        options: further arguments of LightningArgumentParser.
    """

    renamed: RenamedOptions | None = None
    """Class whose options are parsed, if some of them have former names."""
    command_options: Sequence[str] = ()
    """Options that the command's own parser has taken; a mistyped one may be meant for them."""

    def __init__(
        self,
        *args: Any,
        trainer_method: str | None = None,
        appendix: str = "",
        full_help: bool = False,
        **options: Any,
    ) -> None:
        # A mistyped option is an error with a suggestion, even if it is the beginning of another.
        super().__init__(*args, **{"allow_abbrev": False, **options})
        # Without a subcommand the options are those of fit, or of one class.
        self.has_short_help = trainer_method is not None and not full_help
        self.trainer_method, self.appendix = trainer_method or "fit", appendix

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        """Return the help of this package's own or of all options, then the appendix."""
        if self.has_short_help:
            return short_help(self._actions, self.trainer_method, self.appendix)
        return super().format_help(formatter) + self.appendix

    def add_class_arguments(self, theclass: Any, *args: Any, **options: Any) -> Any:
        """Add a class's options, and remember the class if some have former names."""
        if isinstance(theclass, RenamedOptions):
            self.renamed = theclass
        return super().add_class_arguments(theclass, *args, **options)

    def parse_args(self, args: Any = None, *others: Any, **options: Any) -> Any:
        """Parse a command line, or one option of a class, with current or former names."""
        if self.renamed is not None and args is not None:
            args = [self.renamed.present_word(word) for word in args]
        return super().parse_args(args, *others, **options)

    def parse_object(self, cfg_obj: Any, *others: Any, **options: Any) -> Any:
        """Parse options from a configuration, with current or former names."""
        if self.renamed is not None:
            cfg_obj = self.renamed.present_names(cfg_obj)
        return super().parse_object(cfg_obj, *others, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise an error of one line.

        Raises:
            ConfigError: always, except for attempts that jsonargparse makes by itself.
        """
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        known = [*self.command_options, *option_names(parser)]
        raise ConfigError(one_line(message, known)) from ex


class ExperimentAction(ActionConfigFile):
    """Action that treats ``--experiment NAME`` as ``--config`` with the experiment's file."""

    def __call__(
        self, parser: Any, cfg: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Find the file, then apply its options."""
        if option_string == "--experiment":
            values = str(find_experiment(values))
        try:
            super().__call__(parser, cfg, values, option_string)
        except BADLY_WRITTEN as error:
            complaint = one_line(str(error), option_names(parser))
            raise ConfigError(f"configuration {values}: {complaint}") from error


class ExperimentCLI(LightningCLI):
    """LightningCLI's parser with experiments by name, run folders and this package's options.

    Args:
        args: words of the command line; ``None`` takes those of the process.
        subcommands: whether the words begin with a subcommand; otherwise they are options of
            ``fit``.
        appendix: text printed after the help of ``fit``.
        options: further arguments of LightningCLI.

    Attributes:
        arguments: the words with documented option names, the subcommand and experiments first.
        asked_run: folder of the run whose configuration is used instead of an experiment, or
            ``None``.
        experiment: names of the experiments joined by ``+``, or ``custom`` without any.
        given_checkpoint: value of ``--ckpt_path`` as given.
    """

    def __init__(
        self, args: ArgsType = None, subcommands: bool = True, appendix: str = "", **options: Any
    ) -> None:
        logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
        logger.addFilter(_is_of_use)
        # An interpolation like ${data.init_args.root} is written as if the file were the whole
        # configuration; under a subcommand it lies one level deeper.
        set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
        words = [*map(str, sys.argv[1:] if args is None else args)]
        first = words[:1]
        # Building a parser takes time, and only help without a subcommand needs all of them.
        self._parsed = first if subcommands and first and first[0] in SUBCOMMANDS else SUBCOMMANDS
        everything = any(map(asks_for_all, words))
        each: dict[str, dict[str, Any]] = {
            name: {"trainer_method": name, "full_help": everything} for name in self._parsed
        }
        if "fit" in each:
            each["fit"]["appendix"] = appendix
        super().__init__(
            BaseTask,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            trainer_defaults={"log_every_n_steps": 10},
            parser_class=ExperimentParser,
            parser_kwargs={"parser_mode": "omegaconf+", **each},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
            run=subcommands,
            **options,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # it is static there
        """Subcommands to parse, each with arguments of the Trainer's method that are no options.

        ``ckpt_path`` is one of them: this package has its own, which also takes run folders.
        """
        known = LightningCLI.subcommands()
        return {name: known[name] | {"ckpt_path"} for name in self._parsed}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Create a parser whose ``--config`` is also called ``--experiment``."""
        kwargs.setdefault("dump_header", [f"zoo_lightning=={__version__}"])
        kwargs.setdefault("prog", "python -m zoo_lightning")
        parser = self.parser_class(**kwargs)
        parser.add_argument(
            "-c",
            "--config",
            "--experiment",
            action=ExperimentAction,
            help="An experiment's name (see experiments/) or a YAML file. Several may be given; "
            "later ones override earlier ones, and options override them all, wherever they stand.",
        )
        return parser

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Set up the parser; without subcommands it takes the options of ``fit``."""
        self._has_subcommands = add_subcommands
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        if not add_subcommands:
            self.parser.add_method_arguments(Trainer, "fit", skip={*self.subcommands()["fit"]})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add this package's options, and link the model's options that come from the data."""
        assert isinstance(parser, ExperimentParser)
        fits = parser.trainer_method == "fit"
        add_short_form(parser)
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="Checkpoint or run folder, or 'last' or 'best' of the experiment's newest run"
            + ("; resumes its training." if fits else "."),
        )
        parser.add_argument(
            # Configurations have one name for it, whatever the subcommand.
            "--run_dir" if fits else "--output",
            dest="run_dir",
            type=str | None,
            default=None,
            help="Folder of this run (default: runs/EXPERIMENT/DATE-TIME, or with fit --ckpt_path "
            "the folder of the resumed run)."
            if fits
            else "Folder to write to (default: runs/EXPERIMENT/DATE-TIME).",
        )
        parser.add_argument(
            "--init_from",
            type=str | None,
            default=None,
            help="Checkpoint or run folder whose weights a new training starts from.",
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
            type=PositiveFloat | None,
            default=None,
            help="Cost that the run may have, its start included, in trainings of one ordinary "
            "network of the experiment's length; sets the number of steps (default: that length, "
            "whatever it costs).",
        )
        parser.add_argument(
            "--stop_after",
            type=PositiveFloat,
            default=1.0,
            help="Fraction of the run's steps after which it ends, with the learning rates of the "
            "whole; fit --ckpt_path RUN_DIR --stop_after 1 trains on as if it had not ended.",
        )
        add_callback_options(parser)
        add_logger_options(parser)
        for name in FROM_DATA:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        for name in OF_IMAGES:
            parser.link_arguments(
                f"data.{name}",
                f"model.init_args.backbone.init_args.{name}",
                compute_fn=_numbers,
                apply_on="instantiate",
            )
        parser.link_arguments(
            "seed_everything", "data.init_args.seed", compute_fn=_data_seed, apply_on="parse"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Move experiments to the front of the command line, then parse it.

        ``--ckpt_path`` is stored in ``given_checkpoint``, because LightningCLI would silently
        replace given options by the checkpoint's hyper-parameters. Tasks compare them and refuse
        differences.
        """
        words = [*map(str, sys.argv[1:] if args is None else args)]
        words = ["--help" if asks_for_all(word) else word for word in words]
        others = OF_TRAINED if {*EVALUATING} & {*words[:1]} else OF_RUNS
        self.arguments, line = implied_zoo(experiments_first(documented(words, RENAMED | others)))
        if line:
            rank_zero_info(line)
        self.asked_run = run_without_experiment(self.arguments)
        words = self.arguments
        if self.asked_run is not None:
            subcommand, *rest = self.arguments
            words = [subcommand, "--config", str(self.asked_run / CONFIG), *rest]
        else:
            check_has_experiment(self.arguments)
        with named_interpolations():
            self.config = parser.parse_args(words if self._has_subcommands else words[1:])
        replace_values(self.config, lambda value: plain(expand(value)))  # of YAML files, too
        self.experiment = joint_name(self.config_files())
        self.given_checkpoint, self.options.ckpt_path = self.options.ckpt_path, None

    @property
    def options(self) -> Any:
        """Parsed options of the subcommand."""
        return self.config[self.config.subcommand] if "subcommand" in self.config else self.config

    def config_files(self) -> list[Path]:
        """Files of the given experiments and configurations."""
        return [Path(str(path)) for path in self.options.config or [] if path is not None]


def _data_seed(seed: bool | int) -> int:
    """Seed of the data: the run's, or 0 where the run's is random."""
    return 0 if isinstance(seed, bool) else seed


def _numbers(values: Any) -> list[float] | None:
    """Mean or deviation of a data module's images; ``None`` where a module has another kind."""
    found = statistics(values)
    return list(found) if found else None


NOT_SHOWN = ("Tip:", "Trainer already configured with model summary callbacks")
"""Parts of Lightning's lines that users can do nothing with: hints at its own products, and the
remark that the callbacks of this package replace its defaults."""


def _is_of_use(record: logging.LogRecord) -> bool:
    """Filter lines of Lightning that are of no use out of a run's output."""
    return not any(words in record.getMessage() for words in NOT_SHOWN)


@contextmanager
def named_interpolations() -> Iterator[None]:
    """Context manager that reports an unresolvable ``${...}`` interpolation in one line.

    Raises:
        ConfigError: naming the option.
    """
    try:
        yield
    except (OmegaConfBaseException, RecursionError) as error:
        key = str(getattr(error, "full_key", None) or "a configuration").partition(".")
        said = str(error).partition("\n")[0] or "it stands for itself"
        raise ConfigError(
            f"{key[2] or key[0]}: its ${{...}} cannot be resolved ({said}); expected the name of "
            "another option, such as ${data.init_args.root}"
        ) from error

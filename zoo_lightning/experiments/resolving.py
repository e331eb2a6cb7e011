"""Resolve an experiment's options without building anything."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import ArgsType, LightningArgumentParser

from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.option_names import experiment_words
from zoo_lightning.experiments.parsing import ExperimentCLI, ExperimentParser
from zoo_lightning.experiments.parts import plain_data
from zoo_lightning.experiments.short_form import apply_short_form
from zoo_lightning.runs.run_folder import CONFIG
from zoo_lightning.sources.own_runs import run_of
from zoo_lightning.tasks.compatibility import FROM_DATA

ALWAYS_SHARED = ("seed_everything", "trainer", "model", "data")
"""Options that all runs of one command share, even at their defaults."""

OF_ONE_RUN = (
    *("config", "run_dir", "ckpt_path", "init_from", "run_test", "budget", "weights_only"),
    "stop_after",
    *("sources", "architecture"),  # in the model's options by then
)
"""Options that belong to a single run of a command."""


@dataclass(frozen=True)
class ResolvedExperiment:
    """Resolved options of an experiment.

    Attributes:
        name: names of the experiments joined by ``+``, or ``custom`` without any.
        options: options of ``fit``, such as ``options.trainer.max_steps``.
        defaults: default values of the same options.
    """

    name: str
    options: Namespace
    defaults: Namespace

    def shared(self) -> dict[str, Any]:
        """Return the options that all runs of one command share, in plain types.

        Options of a single run, those at their defaults, the data's seed (which is the run's) and
        model options that come from the data are left out.
        """
        content = json.loads(json.dumps(self.options.as_dict(), default=str))
        kept = {
            key: value
            for key, value in content.items()
            if key in ALWAYS_SHARED
            or (key not in OF_ONE_RUN and value != self.defaults.get(key, None))
        }
        kept["data"].setdefault("init_args", {}).pop("seed", None)
        for name in FROM_DATA:
            kept["model"]["init_args"].pop(name, None)
        return kept


class _Resolver(ExperimentCLI):
    """Parser that builds nothing, runs nothing and leaves the random generators alone."""

    def __init__(self, words: Sequence[str], command_options: Sequence[str]) -> None:
        self.command_options = command_options
        super().__init__(["fit", *words], subcommands=False)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add this package's options."""
        super().add_arguments_to_parser(parser)
        assert isinstance(parser, ExperimentParser)
        parser.command_options = self.command_options

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and hide the seed from LightningCLI, which would set it."""
        super().parse_arguments(parser, args)
        self.seed, self.options.seed_everything = self.options.seed_everything, False

    def before_instantiate_classes(self) -> None:
        """Restore the options that were hidden from LightningCLI, and apply ``--sources``."""
        self.options.seed_everything = self.seed
        self.options.ckpt_path = self.given_checkpoint
        for line in apply_short_form(self.options, self.arguments):
            print(line, file=sys.stderr)

    def instantiate_classes(self) -> None:
        """Build nothing."""


def resolve(
    *experiments: str | Path,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    command_options: Sequence[str] = (),
) -> ResolvedExperiment:
    """Resolve the options of an experiment as ``fit`` would, without building anything.

    No source and no data are read, nothing is written, and random generators stay as they are.

    Args:
        experiments: names of experiments or paths of YAML files; later ones override earlier ones.
        overrides: options that override the experiments': a mapping, nested or with dotted names,
            or command-line words such as ``["--trainer.max_steps", "100"]``, which may include
            further experiments.
        command_options: options that a command has besides those of ``fit``, which are suggested
            for a mistyped one.

    Raises:
        ConfigError: an experiment or option is unknown, or a value is invalid.
        SourceError: ``--sources`` has an invalid reference.

    Example:
        >>> resolved = resolve("landmarks", overrides={"trainer.max_steps": 100})
        >>> resolved.options.trainer.max_steps
        100
    """
    words = [word for each in experiments for word in ("--experiment", str(each))]
    words += _override_words(overrides)
    resolver = _Resolver(words, command_options)
    defaults = resolver.parser.get_defaults()
    return ResolvedExperiment(resolver.experiment, resolver.options, defaults)


def _override_words(overrides: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """Return overrides as words of a command line.

    Raises:
        ConfigError: neither a mapping nor words, or values that no configuration can hold.
    """
    if isinstance(overrides, Mapping):
        try:
            return ["--config", json.dumps(overrides, default=_plain)] if overrides else []
        except (TypeError, ValueError) as error:
            raise ConfigError(f"overrides {overrides!r}: {error}") from error
    if isinstance(overrides, str) or not isinstance(overrides, Sequence):
        raise ConfigError(
            f"overrides {overrides!r}: expected a mapping such as "
            '{"trainer.max_steps": 100} or a list of words such as ["--trainer.max_steps", "100"]'
        )
    return [str(word) for word in overrides]


def _plain(value: Any) -> Any:
    """Return a path as text, and a number or array of NumPy or torch as Python's numbers.

    Raises:
        TypeError: a value of another type.
    """
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} {value!r} is no value of an option")


def run_data(
    checkpoint: Path,
    experiments: Sequence[str] = (),
    rest: Sequence[str] = (),
    command_options: Sequence[str] = (),
) -> LightningDataModule:
    """Build the data module of a run, or of other experiments, without augmentation.

    Args:
        checkpoint: checkpoint of the run.
        experiments: experiments whose data replace the run's own.
        rest: further command-line words of ``fit``.
        command_options: as :func:`resolve` takes them.

    Raises:
        ConfigError: the run has no configuration, or options are invalid.
        DataError: as the data raise it.
    """
    words = experiment_words(experiments) or _config_of(checkpoint)
    resolved = resolve(overrides=[*words, *rest], command_options=command_options)
    return plain_data(resolved.options.data)


def _config_of(checkpoint: Path) -> list[str]:
    """Return words that give the configuration of a checkpoint's run.

    Raises:
        ConfigError: it has none.
    """
    folder = run_of(checkpoint)
    if folder is None or not (folder / CONFIG).is_file():
        raise ConfigError(
            f"{checkpoint} lies in no run folder with a config.yaml; give --experiment NAME, whose "
            "data are to be taken"
        )
    return ["--config", str(folder / CONFIG)]

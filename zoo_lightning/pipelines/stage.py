"""One training of a pipeline, in its own process."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from zoo_lightning.cli import trainer
from zoo_lightning.cli.exit_status import exit_status
from zoo_lightning.errors import ConfigError
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.methods.recipe import FinishedRun
from zoo_lightning.runs.pool import Job, fit_words, work_on
from zoo_lightning.runs.run_folder import read_summary

STAGE_CONFIG = "stage.yaml"

STAGES = "stages"
"""Subfolder of a pipeline's run folder that holds its stages."""


class StageRun(Job):
    """Stage of a pipeline: a training by ``fit`` without a test.

    Args:
        folder: run folder of the training.
        variant: variant of the method that is trained, such as the name of a source.
        options: options of ``fit`` in plain types.
    """

    module = "zoo_lightning.pipelines.stage"

    def __init__(self, folder: Path, variant: str, options: dict[str, Any]) -> None:
        self.folder, self.variant, self.options = folder, variant, options
        self.name = folder.name

    def arguments(self) -> list[str]:
        """Write the options to the run folder, and return the folder as the only argument."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.folder / STAGE_CONFIG) as part:
            part.write_text(yaml.safe_dump(self.options, sort_keys=False), **TEXT)
        return [str(self.folder)]

    def is_finished(self) -> bool:
        """Whether the training has ended, or come as far as its option ``stop_after``."""
        return has_come_so_far(self.folder, self.options)

    def summary(self) -> dict[str, Any]:
        """Content of the finished run's ``summary.json``.

        Raises:
            ConfigError: the run has not ended.
        """
        summary = read_summary(self.folder)
        if summary is None:
            raise ConfigError(f"{self.folder} has not ended; give the same command to resume it")
        return summary

    def finished(self) -> FinishedRun:
        """Describe the finished run for recipes that need it.

        Raises:
            ConfigError: the run has not ended or had no validation.
        """
        figures = self.summary().get("validation")
        if not figures:
            raise ConfigError(
                f"{self.folder} kept no best checkpoint, by which trainings are compared; let "
                "trainer.callbacks and trainer.val_check_interval keep one in so few steps"
            )
        validation = next(iter(figures.values()))
        return FinishedRun(self.folder, self.variant, validation)


def main(arguments: Sequence[str]) -> int:
    """Train the stage in a run folder.

    Args:
        arguments: run folder of the stage, which contains its options.

    Returns:
        Exit status: 0 if the stage is trained, ``TAKEN`` if another process works on it.
    """
    [given] = arguments
    folder = Path(given)
    options = yaml.safe_load((folder / STAGE_CONFIG).read_text(**TEXT))

    def work() -> int:
        words = fit_words(folder / STAGE_CONFIG, folder, run_test=False)
        return exit_status(lambda: trainer.main(words))

    return work_on(folder, lambda: has_come_so_far(folder, options), work)


def has_come_so_far(folder: Path, options: Mapping[str, Any]) -> bool:
    """Whether a stage's training has ended, or come as far as it has to.

    Args:
        folder: run folder of the training.
        options: options of ``fit``; ``stop_after`` is the fraction of the steps to train.
    """
    summary = read_summary(folder)
    ends_at = options.get("stop_after", 1.0)
    return summary is not None and summary.get("stop_after", 1.0) >= ends_at


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

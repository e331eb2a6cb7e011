"""One training of a pipeline, in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml

from zoo_lightning.cli import main as zoo_lightning
from zoo_lightning.methods.recipe import FinishedRun
from zoo_lightning.run_folder import CHECKPOINTS, SUMMARY
from zoo_lightning.runs.claims import claimed, is_first_rank
from zoo_lightning.runs.pool import TAKEN, Job
from zoo_lightning.text_files import TEXT
from zoo_lightning.whole_files import whole_file

CONFIG = "stage.yaml"

STAGES = "stages"
"""Folder of a pipeline's trainings, in its run folder."""


class StageRun(Job):
    """A training that a pipeline needs: ``fit`` without the test data.

    Args:
        folder: of the run.
        variant: what is trained, for instance the source's name.
        options: of ``fit``, in plain types.
    """

    module = "zoo_lightning.pipelines.stage"

    def __init__(self, folder: Path, variant: str, options: dict[str, Any]) -> None:
        self.folder, self.variant, self.options = folder, variant, options
        self.name = folder.name

    def arguments(self) -> list[str]:
        """The run's folder, where its options are written to."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self.folder / CONFIG) as part:
            part.write_text(yaml.safe_dump(self.options, sort_keys=False), **TEXT)
        return [str(self.folder)]

    def is_finished(self) -> bool:
        """Whether it is trained."""
        return (self.folder / SUMMARY).is_file()

    def summary(self) -> dict[str, Any]:
        """``summary.json`` of the finished run."""
        return json.loads((self.folder / SUMMARY).read_text(**TEXT))

    def finished(self) -> FinishedRun:
        """The finished run, for what is made from it."""
        validation = next(iter(self.summary()["validation"].values()))
        return FinishedRun(self.folder, self.variant, validation)


def fit_words(config: Path, folder: Path) -> list[str]:
    """Words of ``fit`` for a configuration, which go on with what its folder has.

    Args:
        config: file of the options.
        folder: of the run.
    """
    words = ["fit", "--config", str(config), "--run_dir", str(folder)]
    if (folder / CHECKPOINTS / "last.ckpt").is_file():
        words += ["--ckpt_path", "last"]
    return words


def main(arguments: Sequence[str]) -> int:
    """The folder of a stage's run.

    Returns:
        Exit status: 0 if it is trained, ``TAKEN`` if another process works on it.
    """
    [given] = arguments
    folder = Path(given)
    with claimed(folder) if is_first_rank() else nullcontext(True) as free:
        if not free:
            return TAKEN
        if (folder / SUMMARY).is_file():
            return 0
        return zoo_lightning([*fit_words(folder / CONFIG, folder), "--run_test", "false"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

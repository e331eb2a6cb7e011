"""What a pipeline is to do: its method, its experiment and what it may cost, kept in its folder."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.recipe import Setting, Trained
from zoo_lightning.pipelines.stage import STAGES, StageRun
from zoo_lightning.runs.options import differences, sources_of, task_of
from zoo_lightning.text_files import TEXT
from zoo_lightning.whole_files import whole_file

FILE = "pipeline.yaml"


@dataclass(frozen=True)
class Plan:
    """A pipeline's task.

    Attributes:
        method: name of the transfer method, ``single:SOURCE`` for one source.
        experiment: name of the experiment.
        options: of ``fit``, that all its trainings share, in plain types.
        budget: what all trainings may cost together, in trainings of one ordinary network of the
            experiment's length; ``None`` trains that length each time, whatever it costs.
        inference: what the result may cost per image, in networks of the architecture, at least 1.
        run_test: whether the result is tested.
    """

    method: str
    experiment: str
    options: dict[str, Any]
    budget: float | None = None
    inference: int = 1
    run_test: bool = True

    @property
    def sources(self) -> dict[str, Any]:
        """The experiment's sources by name."""
        return sources_of(self.options)

    @property
    def task(self) -> str:
        """Name of the task's class."""
        return task_of(self.options)

    def configured(
        self, recipe: Trained, setting: Setting, budget: float | None, **changes: Any
    ) -> dict[str, Any]:
        """Options of ``fit`` for a training of the pipeline.

        Args:
            recipe: what is trained.
            setting: of which sources and finished runs.
            budget: of this training alone; ``None`` trains the experiment's length.
            changes: options of the task in place of the experiment's.
        """
        options = copy.deepcopy(self.options)
        if budget is not None:
            options["budget"] = float(f"{budget:g}")
        recipe.configure(options, setting)
        options["model"]["init_args"].update(changes)
        return options

    def stage(self, folder: Path, name: str, variant: str, options: Mapping[str, Any]) -> StageRun:
        """A training in a folder of its own below the pipeline's.

        Args:
            folder: of the pipeline.
            name: of the folder.
            variant: what is trained.
            options: of ``fit``.
        """
        options = dict(options)
        if options.get("wandb") and not options.get("wandb_group"):
            options["wandb_group"] = folder.name  # beside the pipeline's own run
        return StageRun(folder / STAGES / name, variant, options)


def begin(folder: Path, plan: Plan) -> None:
    """Note a plan in the pipeline's folder, or find it there as it was begun.

    Raises:
        ConfigError: the folder was begun with another plan, or is that of another run.
    """
    path = folder / FILE
    content = asdict(plan)
    if path.is_file():
        before = yaml.safe_load(path.read_text(**TEXT))
        if changed := differences(before, content):
            raise ConfigError(
                f"{folder} was begun with other options: {', '.join(sorted(changed))}; give the "
                "same command to go on, or another --run_dir"
            )
        return
    if (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder} is the folder of another run; give another --run_dir")
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_text(yaml.safe_dump(content, sort_keys=False), **TEXT)


def sum_known(values: Sequence[int | None]) -> int | None:
    """A sum; ``None`` if a part is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None

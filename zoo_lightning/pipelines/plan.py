"""Plan of a pipeline: method, experiment and budget, saved in the pipeline's folder."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.option_names import parts_under_present_names
from zoo_lightning.experiments.refused_options import check_fit
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.methods.recipe import Setting, Trained
from zoo_lightning.pipelines.stage import STAGES, StageRun
from zoo_lightning.runs.options import differences, sources_of, task_of
from zoo_lightning.runs.pool import folder_name, rounded_budget, run_label
from zoo_lightning.runs.run_folder import CONFIG, PLAN


@dataclass(frozen=True)
class Plan:
    """Plan of a pipeline.

    Attributes:
        method: name of the transfer method, ``single:SOURCE`` for one source.
        experiment: name of the experiment.
        options: options of ``fit`` that all trainings share, in plain types.
        budget: cost limit of all trainings together, in trainings of one ordinary network for the
            experiment's length; ``None``: each training has the experiment's length.
        inference: inference cost limit of the result, in networks of the architecture, at least 1.
        run_test: whether to test the result.
    """

    method: str
    experiment: str
    options: dict[str, Any]
    budget: float | None = None
    inference: int = 1
    run_test: bool = True

    @property
    def sources(self) -> dict[str, Any]:
        """Sources of the experiment by name."""
        return sources_of(self.options)

    @property
    def task(self) -> str:
        """Class name of the task."""
        return task_of(self.options)

    def configured(
        self, recipe: Trained, setting: Setting, budget: float | None, **changes: Any
    ) -> dict[str, Any]:
        """Build the options of ``fit`` for a training of the pipeline.

        Args:
            recipe: method to train.
            setting: sources and finished runs of the training.
            budget: budget of this training; ``None`` trains the experiment's length.
            changes: task options that replace the experiment's.
        """
        options = copy.deepcopy(self.options)
        if budget is not None:
            options["budget"] = rounded_budget(budget)
        recipe.configure(options, setting)
        options["model"]["init_args"].update(changes)
        return options

    def stage(
        self, folder: Path, method: str, variant: str, options: Mapping[str, Any]
    ) -> StageRun:
        """Create a stage of the pipeline, with its own folder in ``stages``.

        Args:
            folder: folder of the pipeline.
            method: name of the method; the stage's folder is named after it.
            variant: variant of the method, such as the name of a source.
            options: options of ``fit``.
        """
        options = dict(options)
        if options.get("wandb") and not options.get("wandb_group"):
            options["wandb_group"] = folder.name  # the group of the pipeline's own run
        place = folder / STAGES / folder_name(run_label(method, variant))
        return StageRun(place, variant, options)


def begin(folder: Path, plan: Plan) -> None:
    """Save a plan to the pipeline's folder, or check it against the saved plan.

    Raises:
        ConfigError: the folder has a different plan, or is the folder of another run.
    """
    path = folder / PLAN
    content = asdict(plan)
    if path.is_file():
        before = yaml.safe_load(path.read_text(**TEXT))
        before["options"] = parts_under_present_names(before["options"])
        if changed := differences(before, content):
            raise ConfigError(
                f"{folder} was begun with other options: {', '.join(sorted(changed))}; give the "
                "same command to resume it, or another --run_dir"
            )
        return
    if (folder / CONFIG).is_file():
        raise ConfigError(f"{folder} is the folder of another run; give another --run_dir")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as part:
        part.write_text(yaml.safe_dump(content, sort_keys=False), **TEXT)


REFUSED = {
    "init_from": (None, "methods start from their sources; a run can be a source"),
    "ckpt_path": (None, "stopped runs are resumed by the same command and --run_dir"),
    "stop_after": (1.0, "its trainings have lengths of their own"),
}
"""Options of ``fit`` that runs of one command cannot share: default, and what to do instead."""


def check_shared(
    options: Any,
    arguments: Sequence[str],
    command: str,
    refused: Mapping[str, tuple[Any, str]] = MappingProxyType({}),
) -> None:
    """Check the options of ``fit`` that all runs of a command share.

    Args:
        options: resolved options of ``fit``.
        arguments: words of the command line.
        command: name of the command, for messages.
        refused: further refused options: default, and what to do instead.

    Raises:
        ConfigError: an option is refused; the message names it.
    """
    for name, (default, instead) in {**REFUSED, **refused}.items():
        if options.get(name, default) != default:
            raise ConfigError(f"--{name} is no option of {command}: leave it out; {instead}")
    check_fit(options, arguments, None, judged=True)
    if options.trainer.limit_val_batches == 0 or options.trainer.fast_dev_run:
        raise ConfigError(
            f"{command} compares its runs by validation: leave out trainer.limit_val_batches 0 and "
            "trainer.fast_dev_run"
        )


def sum_known(values: Sequence[int | None]) -> int | None:
    """Sum of values, or ``None`` if one of them is ``None``."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None

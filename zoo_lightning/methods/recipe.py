"""Transfer methods as changes of an experiment: same data, steps and augmentation, another start.

A recipe gets the options of ``fit`` in plain types, as the experiment resolves to, and changes them
in place; or it makes a model of finished runs without any training.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from zoo_lightning.tasks import BaseTask

Options = dict[str, Any]


@dataclass(frozen=True)
class FinishedRun:
    """A run that others are made from.

    Attributes:
        folder: of the run.
        variant: of its method, for instance the source.
        validation: best validation figure.
    """

    folder: Path
    variant: str
    validation: float


@dataclass(frozen=True)
class Setting:
    """What a recipe knows besides the experiment.

    Attributes:
        sources: by name, as the experiment has them.
        variant: which of the recipe's variants is meant.
        finished: runs of the same seed and data by the methods that the recipe needs.
        higher_is_better: of the validation figure.
    """

    sources: Mapping[str, Any]
    variant: str = ""
    finished: Mapping[str, Sequence[FinishedRun]] = field(default_factory=dict)
    higher_is_better: bool = True

    def best(self, method: str) -> FinishedRun:
        """The finished run of a method that is best by validation."""
        sign = 1 if self.higher_is_better else -1
        return max(self.finished[method], key=lambda run: sign * run.validation)


class Recipe(ABC):
    """A transfer method.

    Attributes:
        name: on the command line and in tables.
        zoo: whether it is Zoo-Tuning; the others are baselines.
        needs: methods whose runs it is made from.
        needs_share: share of a budget that these runs get together, in [0, 1]; the rest is for the
            method's own training.
        tasks: that it is for; empty for all.
        by_source: whether it is one run for each source.
    """

    name: ClassVar[str]
    zoo: ClassVar[bool] = False
    by_source: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    needs_share: ClassVar[float] = 0.0
    tasks: ClassVar[tuple[str, ...]] = ()

    def variants(self, sources: Sequence[str]) -> list[str]:
        """What to train, one run each; usually one thing without a name."""
        return [""]


class Trained(Recipe):
    """A method that is one training."""

    @abstractmethod
    def configure(self, options: Options, setting: Setting) -> None:
        """Change the options of ``fit``."""


class Derived(Recipe):
    """A method that makes a model of finished runs."""

    needs_share: ClassVar[float] = 1.0

    @abstractmethod
    def make(
        self, tasks: Sequence[BaseTask], score: Callable[[BaseTask], float], higher: bool
    ) -> tuple[BaseTask, list[int]]:
        """A model of trained ones.

        Args:
            tasks: of the runs that the method needs.
            score: of a task on the validation data; it may change the task's norm statistics.
            higher: whether higher scores are better.

        Returns:
            The model, and the indices of the tasks that are in it.
        """


def plain(options: Options, sources: Sequence[Any], **changes: Any) -> None:
    """Put the ordinary network in the backbone's place, from these sources.

    Args:
        options: of ``fit``; changed.
        sources: as the experiment has them.
        changes: further options of :class:`~zoo_lightning.methods.plain.PlainBackbone`.
    """
    before = options["model"]["init_args"]["backbone"]["init_args"]
    kept = {key: before[key] for key in ("architecture", "output", "in_chans") if key in before}
    options["model"]["init_args"]["backbone"] = {
        "class_path": "PlainBackbone",
        "init_args": {**kept, "sources": list(sources), **changes},
    }

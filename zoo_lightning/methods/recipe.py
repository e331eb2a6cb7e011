"""Recipes of transfer methods: changes of an experiment's options, or models of finished runs.

All methods have the experiment's data and augmentation; they differ in initial weights,
backbone and loss. All of them are in :data:`zoo_lightning.methods.recipes.RECIPES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.tasks.base import BaseTask

Options = dict[str, Any]
"""Resolved options of ``fit``, in plain types."""

Score = Callable[[BaseTask], float]
"""Function that computes a task's validation score; it may change the norm statistics."""


@dataclass(frozen=True)
class FinishedRun:
    """Finished run that other methods start from.

    Attributes:
        folder: the run's folder.
        variant: variant of the run's method, for instance the source's name.
        validation: best validation value of the task's monitored metric.
    """

    folder: Path
    variant: str
    validation: float


@dataclass(frozen=True)
class Setting:
    """Context of a recipe: sources, variant and finished runs.

    Attributes:
        sources: the experiment's sources by name, as given in its options.
        variant: variant of the recipe to configure.
        finished: finished runs with the same seed and data, by method that the recipe needs.
        higher_is_better: whether a higher validation value is a better one.
    """

    sources: Mapping[str, Any]
    variant: str = ""
    finished: Mapping[str, Sequence[FinishedRun]] = field(default_factory=dict)
    higher_is_better: bool = True

    def best(self, method: str) -> FinishedRun:
        """Find the finished run of a method that is best by validation."""
        sign = 1 if self.higher_is_better else -1
        return max(self.finished[method], key=lambda run: sign * run.validation)

    def best_source(self) -> Any:
        """Find the source whose fine-tuning is best by validation."""
        return self.sources[self.best("single").variant]


@dataclass(frozen=True)
class Recipe:
    """Base class of transfer methods: name, requirements and variants.

    Attributes:
        name: name on the command line and in tables.
        zoo: whether the method is Zoo-Tuning; the others are baselines.
        needs: methods whose finished runs are required.
        needs_share: fraction of a budget for all required runs together, in [0, 1]; the rest is for
            the method's own training.
        tasks: class names of the tasks that the method is for; empty for all.
        by_source: whether the method is one run for each source.
        only: name of the one source to run, if ``by_source``; ``None`` for all.
    """

    name: str
    zoo: bool = False
    needs: tuple[str, ...] = ()
    needs_share: float = 0.0
    tasks: tuple[str, ...] = ()
    by_source: bool = False
    only: str | None = None

    def of_source(self, source: str) -> Recipe:
        """Restrict a method that is one run for each source to one of them."""
        return replace(self, only=source)

    def variants(self, sources: Sequence[str]) -> list[str]:
        """List the variants to run: source names, or one empty name.

        Raises:
            ConfigError: there is no such source.
        """
        if not self.by_source:
            return [""]
        if self.only is None:
            return list(sources)
        if self.only not in sources:
            raise ConfigError(
                f"method '{self.name}:{self.only}': no such source; expected one of "
                f"{', '.join(sources)}.{nearest(self.only, sources)}"
            )
        return [self.only]


@dataclass(frozen=True, kw_only=True)
class Trained(Recipe):
    """Transfer method that is one training.

    Attributes:
        configure: function that changes the options of ``fit`` in place, for a setting.
    """

    configure: Callable[[Options, Setting], None]


@dataclass(frozen=True, kw_only=True)
class Derived(Recipe):
    """Transfer method that makes a model from finished runs, without training.

    Attributes:
        make: function of the trained tasks of the required runs, a score function, and whether
            higher scores are better; it returns the model and the indices of the tasks in it.
    """

    needs_share: float = 1.0
    make: Callable[[Sequence[BaseTask], Score, bool], tuple[BaseTask, list[int]]]

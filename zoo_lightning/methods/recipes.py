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

from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.methods.ensembles import greedy_soup, joint_task
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
        tasks: that it is for; empty for all.
    """

    name: ClassVar[str]
    zoo: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
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


def plain(options: Options, sources: Sequence[Any]) -> None:
    """Put the ordinary network in the backbone's place, from these sources."""
    before = options["model"]["init_args"]["backbone"]["init_args"]
    kept = {key: before[key] for key in ("architecture", "output", "in_chans") if key in before}
    options["model"]["init_args"]["backbone"] = {
        "class_path": "PlainBackbone",
        "init_args": {**kept, "sources": list(sources)},
    }


def zoo(options: Options, setting: Setting, **changes: Any) -> None:
    """Put a zoo of all sources in the backbone's place, with the experiment's options if any."""
    described = options["model"]["init_args"]["backbone"]
    if described["class_path"].rpartition(".")[2] != "ZooBackbone":
        plain(options, list(setting.sources.values()))
        kept = options["model"]["init_args"]["backbone"]["init_args"]
        found = {"gate_init": "greedy", "norm_weights": "gates"}
        if options["model"]["class_path"].rpartition(".")[2] == "PPOTask":
            found = {}  # there is nothing to rank sources by before a policy has played
        described = {"class_path": "ZooBackbone", "init_args": {**kept, **found}}
        options["model"]["init_args"]["backbone"] = described
    described["init_args"].update(changes)


class Scratch(Trained):
    """Random weights: no transfer at all."""

    name = "scratch"

    def configure(self, options: Options, setting: Setting) -> None:
        """No sources."""
        plain(options, [])


class Single(Trained):
    """Each source fine-tuned by itself, the usual transfer.

    Yosinski et al., *How transferable are features in deep neural networks?*, NeurIPS 2014.
    """

    name = "single"

    def variants(self, sources: Sequence[str]) -> list[str]:
        """One run a source."""
        return list(sources)

    def configure(self, options: Options, setting: Setting) -> None:
        """The variant's source alone."""
        plain(options, [setting.sources[setting.variant]])


class L2SPRecipe(Trained):
    """The source that is best by validation, fine-tuned with L2-SP.

    See :class:`~zoo_lightning.methods.l2_sp.L2SP`.
    """

    name = "l2-sp"
    needs = ("single",)
    tasks = ("ClassificationTask", "LandmarkTask", "SegmentationTask")

    def configure(self, options: Options, setting: Setting) -> None:
        """The best single source, L2-SP in the place of weight decay."""
        plain(options, [setting.sources[setting.best("single").variant]])
        options["model"]["init_args"]["weight_decay"] = 0.0
        callbacks = list(options["trainer"].get("callbacks") or [])
        callbacks.append({"class_path": "zoo_lightning.methods.L2SP", "init_args": {}})
        options["trainer"]["callbacks"] = callbacks


class Soup(Trained):
    """The uniform average of the sources' weights, fine-tuned.

    Wortsman et al., *Model soups*, ICML 2022, equation 1, before fine-tuning.
    """

    name = "soup"

    def configure(self, options: Options, setting: Setting) -> None:
        """All sources in equal shares."""
        plain(options, list(setting.sources.values()))


class Distilled(Trained):
    """The best single source, taught by the ensemble of all fine-tuned ones.

    See :mod:`zoo_lightning.methods.distillation`.
    """

    name = "distillation"
    needs = ("single",)
    tasks = ("ClassificationTask", "LandmarkTask")

    def configure(self, options: Options, setting: Setting) -> None:
        """The best single source, with the fine-tuned ones as teachers."""
        plain(options, [setting.sources[setting.best("single").variant]])
        teachers = [str(run.folder) for run in setting.finished["single"]]
        options["model"]["init_args"]["teachers"] = teachers


class KnowledgeFlowRecipe(Trained):
    """A student from the best single source that looks into all sources as frozen teachers.

    See :class:`~zoo_lightning.methods.knowledge_flow.KnowledgeFlow`.
    """

    name = "knowledge-flow"
    needs = ("single",)
    tasks = ("ClassificationTask", "LandmarkTask")

    def configure(self, options: Options, setting: Setting) -> None:
        """The best single source as the student's start, all sources as teachers."""
        plain(options, list(setting.sources.values()))
        described = options["model"]["init_args"]["backbone"]
        described["class_path"] = "KnowledgeFlow"
        described["init_args"]["start"] = list(setting.sources).index(
            setting.best("single").variant
        )


class EnsembleRecipe(Derived):
    """The mean prediction of all fine-tuned sources.

    See :class:`~zoo_lightning.methods.ensembles.Ensemble`.
    """

    name = "ensemble"
    needs = ("single",)
    tasks = ("ClassificationTask", "LandmarkTask")

    def make(
        self, tasks: Sequence[BaseTask], score: Callable[[BaseTask], float], higher: bool
    ) -> tuple[BaseTask, list[int]]:
        """All of them."""
        return joint_task(tasks), list(range(len(tasks)))


class GreedySoup(Derived):
    """The average of as many fine-tuned sources as improve validation.

    See :func:`~zoo_lightning.methods.ensembles.greedy_soup`.
    """

    name = "greedy-soup"
    needs = ("single",)
    tasks = ("ClassificationTask", "LandmarkTask")

    def make(
        self, tasks: Sequence[BaseTask], score: Callable[[BaseTask], float], higher: bool
    ) -> tuple[BaseTask, list[int]]:
        """Those that improve the score."""
        return greedy_soup(tasks, score, higher)


class ZooRecipe(Trained):
    """A zoo of all sources.

    Attributes:
        changes: options of the backbone in place of the experiment's.
    """

    zoo = True
    changes: ClassVar[dict[str, Any]]

    def configure(self, options: Options, setting: Setting) -> None:
        """All sources in a zoo, with the recipe's options."""
        zoo(options, setting, **self.changes)


class Lite(ZooRecipe):
    """Lite Zoo-Tuning (Shu et al. 2021, section 3.4), with the experiment's other options."""

    name = "lite"
    changes: ClassVar[dict[str, Any]] = {"mode": "lite"}


class Full(ZooRecipe):
    """Zoo-Tuning (Shu et al. 2021, sections 3.2 and 3.3), with the experiment's other options."""

    name = "full"
    changes: ClassVar[dict[str, Any]] = {"mode": "full"}


class LiteAligned(ZooRecipe):
    """Lite with the channel alignment of section 3.2 in spatial layers."""

    name = "lite-aligned"
    changes: ClassVar[dict[str, Any]] = {"mode": "lite", "align": "spatial"}


class FullAligned(ZooRecipe):
    """Full with the channel alignment of section 3.2 in spatial layers."""

    name = "full-aligned"
    changes: ClassVar[dict[str, Any]] = {"mode": "full", "align": "spatial"}


class LiteUnaligned(ZooRecipe):
    """Ablation: lite without channel alignment."""

    name = "lite-unaligned"
    changes: ClassVar[dict[str, Any]] = {"mode": "lite", "align": "none"}


class FullUnaligned(ZooRecipe):
    """Ablation: full without channel alignment."""

    name = "full-unaligned"
    changes: ClassVar[dict[str, Any]] = {"mode": "full", "align": "none"}


class LiteSoftmax(ZooRecipe):
    """Ablation: lite whose gates sum to one."""

    name = "lite-softmax"
    changes: ClassVar[dict[str, Any]] = {"mode": "lite", "gating": "softmax"}


class FullSoftmax(ZooRecipe):
    """Ablation: full whose gates sum to one."""

    name = "full-softmax"
    changes: ClassVar[dict[str, Any]] = {"mode": "full", "gating": "softmax"}


class Constant(ZooRecipe):
    """Ablation: no gates, but learned weights of the sources in every layer."""

    name = "constant"
    changes: ClassVar[dict[str, Any]] = {"mode": "lite", "gating": "constant"}


class LiteShared(ZooRecipe):
    """Ablation: lite with one gate for all layers after the first."""

    name = "lite-shared"
    changes: ClassVar[dict[str, Any]] = {"mode": "lite", "gating": "shared"}


class FullShared(ZooRecipe):
    """Ablation: full with one gate for all layers after the first."""

    name = "full-shared"
    changes: ClassVar[dict[str, Any]] = {"mode": "full", "gating": "shared"}


RELEASED = {"align": "spatial", "gate_init": "released", "norm_weights": "uniform"}
"""As the authors' code has it: gates scattered around 0.5, norm layers averaged."""


class LiteReleased(ZooRecipe):
    """Lite with the start of the authors' code."""

    name = "lite-released"
    changes: ClassVar[dict[str, Any]] = {"mode": "lite", **RELEASED}


class FullReleased(ZooRecipe):
    """Full with the start of the authors' code."""

    name = "full-released"
    changes: ClassVar[dict[str, Any]] = {"mode": "full", **RELEASED}


RECIPES: dict[str, Recipe] = {
    kind.name: kind()
    for kind in (
        Scratch,
        Single,
        L2SPRecipe,
        Soup,
        GreedySoup,
        EnsembleRecipe,
        Distilled,
        KnowledgeFlowRecipe,
        Lite,
        Full,
        LiteAligned,
        FullAligned,
        LiteUnaligned,
        FullUnaligned,
        LiteSoftmax,
        FullSoftmax,
        LiteShared,
        FullShared,
        Constant,
        LiteReleased,
        FullReleased,
    )
}


def find_recipes(names: Sequence[str], task: str) -> list[Recipe]:
    """Recipes by name, with those that they need, these first.

    Args:
        names: of the methods.
        task: class of the task that is compared on.

    Raises:
        ConfigError: an unknown method, or one that is not for the task.
    """
    found: dict[str, Recipe] = {}
    for name in names:
        if name not in RECIPES:
            raise ConfigError(
                f"unknown method {name!r}; expected some of {', '.join(RECIPES)}."
                f"{nearest(name, RECIPES)}"
            )
        recipe = RECIPES[name]
        if recipe.tasks and task not in recipe.tasks:
            raise ConfigError(
                f"method {name!r} is for {' and '.join(recipe.tasks)}, not for {task}"
            )
        for needed in (*recipe.needs, name):
            found[needed] = RECIPES[needed]
    return sorted(found.values(), key=lambda recipe: len(recipe.needs))

"""Recipes of the methods that Zoo-Tuning is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.methods.ensembles import greedy_soup, joint_task
from zoo_lightning.methods.recipe import Derived, Options, Setting, Trained, plain
from zoo_lightning.tasks import BaseTask

HALF = 0.5
"""Of a budget: as much for trying the sources, or for teachers, as for the training itself."""


class Scratch(Trained):
    """Random weights: no transfer at all."""

    name = "scratch"

    def configure(self, options: Options, setting: Setting) -> None:
        """No sources."""
        plain(options, [])


class Single(Trained):
    """Each source fine-tuned by itself, the usual transfer.

    Yosinski et al., *How transferable are features in deep neural networks?*, NeurIPS 2014.

    Args:
        only: name of the one source to fine-tune; ``None`` for all.
    """

    name = "single"
    by_source = True

    def __init__(self, only: str | None = None) -> None:
        self.only = only

    def variants(self, sources: Sequence[str]) -> list[str]:
        """One run a source.

        Raises:
            ConfigError: there is no such source.
        """
        if self.only is None:
            return list(sources)
        if self.only not in sources:
            raise ConfigError(
                f"method 'single:{self.only}': no such source; expected one of "
                f"{', '.join(sources)}.{nearest(self.only, sources)}"
            )
        return [self.only]

    def configure(self, options: Options, setting: Setting) -> None:
        """The variant's source alone."""
        plain(options, [setting.sources[setting.variant]])


class TriedSingle(Trained):
    """The source that is best by validation after short trainings of all, fine-tuned for longer.

    With a budget, half of it is for trying; without one, every source is trained for the
    experiment's length and the best one once more.
    """

    name = "tried-single"
    needs = ("single",)
    needs_share = HALF

    def configure(self, options: Options, setting: Setting) -> None:
        """The best source alone."""
        plain(options, [setting.sources[setting.best("single").variant]])


class L2SPRecipe(Trained):
    """The source that is best by validation, fine-tuned with L2-SP.

    See :class:`~zoo_lightning.methods.l2_sp.L2SP`.
    """

    name = "l2-sp"
    needs = ("single",)
    needs_share = HALF
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


class Start(Trained):
    """The informed average of the sources, trained as one ordinary network.

    The network that an informed lite zoo starts as, without gates and alignment, see
    :class:`~zoo_lightning.methods.plain.PlainBackbone`.
    """

    name = "start"
    tasks = ("ClassificationTask", "LandmarkTask")

    def configure(self, options: Options, setting: Setting) -> None:
        """All sources, in the shares that the training data suggest."""
        plain(options, list(setting.sources.values()), weights="greedy")


class Distilled(Trained):
    """The best single source, taught by the ensemble of all fine-tuned ones.

    See :mod:`zoo_lightning.methods.distillation`.
    """

    name = "distillation"
    needs = ("single",)
    needs_share = HALF
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
    needs_share = HALF
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

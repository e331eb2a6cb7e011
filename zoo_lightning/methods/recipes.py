"""All transfer methods by their names on the command line: Zoo-Tuning and its baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.methods.ensembles import greedy_soup, joint_task
from zoo_lightning.methods.recipe import Derived, Options, Recipe, Score, Setting, Trained
from zoo_lightning.sources.spec import parse_sources
from zoo_lightning.tasks.base import BaseTask

HALF = 0.5
"""Fraction of a budget for trying sources or training teachers."""

IMAGES = ("ClassificationTask", "LandmarkTask", "MultiLabelTask", "RegressionTask")
"""Tasks of methods that pool the features of images."""

AVERAGED = (*IMAGES, "SegmentationTask")
"""Tasks of methods that rank sources on images, or average outputs."""

SCRATCH = "scratch"
"""The method that needs no source."""

LIKE_LITE = {"gate_init": "greedy", "norm_weights": "gates", "align": "none"}
"""Options of a zoo if the experiment has none, as in ``experiments/methods/lite.yaml``."""

RELEASED = {"align": "released", "gate_init": "released", "norm_weights": "uniform"}
"""Options of a zoo as in the authors' code: gates scattered around 0.5, norm layers averaged,
alignment in the stem and the last two stages. Two faults of that code are left out: all layers are
lite in lite mode, and the gates' moving average does not start at zero."""


def use_plain_backbone(options: Options, sources: Sequence[Any], **changes: Any) -> None:
    """Replace the backbone by the ordinary network, initialised from the given sources.

    Args:
        options: options of ``fit``; changed in place.
        sources: sources as in the experiment's options; empty for random weights.
        changes: further options of :class:`~zoo_lightning.models.plain.PlainBackbone`.
    """
    before = options["model"]["init_args"]["backbone"]["init_args"]
    shared = ("architecture", "output", "in_chans", "image_size", "mean", "std", "bands")
    kept = {key: before[key] for key in shared if key in before}
    options["model"]["init_args"]["backbone"] = {
        "class_path": "PlainBackbone",
        "init_args": {**kept, "sources": list(sources), **changes},
    }


def use_zoo(options: Options, setting: Setting, **changes: Any) -> None:
    """Replace the backbone by a zoo of all sources, or change options of the experiment's zoo.

    Args:
        options: options of ``fit``; changed in place.
        setting: setting whose sources are used.
        changes: options of :class:`~zoo_lightning.models.backbone.ZooBackbone` to set.
    """
    described = options["model"]["init_args"]["backbone"]
    if described["class_path"].rpartition(".")[2] != "ZooBackbone":
        use_plain_backbone(options, list(setting.sources.values()))
        kept = options["model"]["init_args"]["backbone"]["init_args"]
        # Nothing ranks sources before a policy has played.
        games = options["model"]["class_path"].rpartition(".")[2] == "PPOTask"
        init_args = {**kept, **({} if games else LIKE_LITE)}
        described = {"class_path": "ZooBackbone", "init_args": init_args}
        options["model"]["init_args"]["backbone"] = described
    described["init_args"].update(changes)


def scratch(options: Options, setting: Setting) -> None:
    """Train from random weights, without sources."""
    use_plain_backbone(options, [])


def single(options: Options, setting: Setting) -> None:
    """Fine-tune one source.

    Yosinski et al., *How transferable are features in deep neural networks?*, NeurIPS 2014.
    """
    use_plain_backbone(options, [setting.sources[setting.variant]])


def tried_single(options: Options, setting: Setting) -> None:
    """Fine-tune the source that is best by validation after fine-tuning each of them.

    With a budget, half of it is for trying the sources; without one, every source is trained for
    the experiment's length, and the best one again.
    """
    use_plain_backbone(options, [setting.best_source()])


def l2_sp(options: Options, setting: Setting) -> None:
    """Fine-tune the best single source with L2-SP instead of weight decay.

    See :class:`~zoo_lightning.methods.l2_sp.L2SP`.
    """
    use_plain_backbone(options, [setting.best_source()])
    options["model"]["init_args"]["weight_decay"] = 0.0
    callbacks = list(options["trainer"].get("callbacks") or [])
    callbacks.append({"class_path": "zoo_lightning.methods.L2SP", "init_args": {}})
    options["trainer"]["callbacks"] = callbacks


def soup(options: Options, setting: Setting) -> None:
    """Fine-tune the uniform average of the sources' weights.

    Wortsman et al., *Model soups*, ICML 2022, equation 1, before fine-tuning.
    """
    use_plain_backbone(options, list(setting.sources.values()))


def start(options: Options, setting: Setting) -> None:
    """Fine-tune the informed average of the sources, as one ordinary network.

    The weights of the average are chosen on the training data. It is the network as which an
    informed lite zoo starts, without gates and alignment, see
    :class:`~zoo_lightning.models.plain.PlainBackbone`.
    """
    use_plain_backbone(options, list(setting.sources.values()), weights="greedy")


def distillation(options: Options, setting: Setting) -> None:
    """Fine-tune the best single source with distillation from the ensemble of all fine-tuned ones.

    See :mod:`zoo_lightning.methods.distillation`.
    """
    use_plain_backbone(options, [setting.best_source()])
    teachers = [str(run.folder) for run in setting.finished["single"]]
    options["model"]["init_args"]["teachers"] = teachers


def feature_transfer(options: Options, setting: Setting) -> None:
    """Fine-tune the informed average of the sources while following the frozen sources' features.

    It begins as ``start`` does, with all sources as teachers of features, see
    :mod:`zoo_lightning.methods.feature_transfer`.
    """
    start(options, setting)
    architecture = options["model"]["init_args"]["backbone"]["init_args"]["architecture"]
    options["model"]["init_args"]["teachers"] = [
        {**vars(source), "architecture": architecture, "teach": "features"}
        for source in parse_sources(list(setting.sources.values()))
    ]


def knowledge_flow(options: Options, setting: Setting) -> None:
    """Fine-tune the best single source by Knowledge Flow, with all sources as frozen teachers.

    See :class:`~zoo_lightning.models.knowledge_flow.KnowledgeFlow`.
    """
    use_plain_backbone(options, list(setting.sources.values()))
    described = options["model"]["init_args"]["backbone"]
    described["class_path"] = "KnowledgeFlow"
    index = list(setting.sources).index(setting.best("single").variant)
    described["init_args"]["start"] = index


def ensemble(tasks: Sequence[BaseTask], score: Score, higher: bool) -> tuple[BaseTask, list[int]]:
    """Average the predictions of all fine-tuned sources."""
    return joint_task(tasks), list(range(len(tasks)))


def zoo(name: str, **changes: Any) -> Trained:
    """Create the recipe of a Zoo-Tuning method.

    Args:
        name: name of the method.
        changes: options of the zoo that replace the experiment's.
    """

    def configure(options: Options, setting: Setting) -> None:
        use_zoo(options, setting, **changes)

    return Trained(name, zoo=True, configure=configure)


def after_single(
    name: str, configure: Callable[[Options, Setting], None], tasks: tuple[str, ...] = ()
) -> Trained:
    """Create the recipe of a training that needs the fine-tuning of each source.

    Args:
        name: name of the method.
        configure: function that changes the options of ``fit`` in place, for a setting.
        tasks: class names of the tasks that the method is for; empty for all.
    """
    needs = ("single",)
    return Trained(name, needs=needs, needs_share=HALF, tasks=tasks, configure=configure)


RECIPES: dict[str, Trained | Derived] = {
    recipe.name: recipe
    for recipe in (
        Trained(SCRATCH, configure=scratch),
        Trained("single", by_source=True, configure=single),
        after_single("tried-single", tried_single),
        after_single("l2-sp", l2_sp, AVERAGED),
        Trained("soup", configure=soup),
        Trained("start", tasks=AVERAGED, configure=start),
        Derived("greedy-soup", needs=("single",), tasks=AVERAGED, make=greedy_soup),
        Derived("ensemble", needs=("single",), tasks=AVERAGED, make=ensemble),
        after_single("distillation", distillation, AVERAGED),
        Trained("feature-transfer", tasks=AVERAGED, configure=feature_transfer),
        after_single("knowledge-flow", knowledge_flow, IMAGES),
        # Shu et al. 2021: lite in section 3.4, full in sections 3.2 and 3.3.
        zoo("lite", mode="lite"),
        zoo("full", mode="full"),
        # With the channel alignment of section 3.2 in spatial layers.
        zoo("lite-aligned", mode="lite", align="spatial"),
        zoo("full-aligned", mode="full", align="spatial"),
        # Ablations: no alignment; gates that sum to one; one gate for all layers after the first;
        # no gates, but learned weights of the sources in every layer.
        zoo("lite-unaligned", mode="lite", align="none"),
        zoo("full-unaligned", mode="full", align="none"),
        zoo("lite-softmax", mode="lite", gating="softmax"),
        zoo("full-softmax", mode="full", gating="softmax"),
        zoo("lite-shared", mode="lite", gating="shared"),
        zoo("full-shared", mode="full", gating="shared"),
        zoo("constant", mode="lite", gating="constant"),
        # Initialised and aligned as in the authors' code, for ResNets.
        zoo("lite-released", mode="lite", **RELEASED),
        zoo("full-released", mode="full", **RELEASED),
    )
}
"""All transfer methods by name."""


def find_recipes(names: Sequence[str], task: str, needed: bool = True) -> list[Recipe]:
    """Find recipes by name, with those that others need first.

    Args:
        names: names of the methods; ``single:SOURCE`` is one source of ``single``.
        task: class name of the experiment's task.
        needed: whether to add the recipes that others need.

    Raises:
        ConfigError: a method is unknown, is not for the task, or is no training of one source but
            given as ``NAME:SOURCE``.
    """
    found: dict[str, Recipe] = {}
    for text in names:
        name, _, source = text.partition(":")
        recipe = _find(name, task)
        if source and not recipe.by_source:
            raise ConfigError(f"method {text!r}: {name} is no training of one source; give {name}")
        if needed:
            found |= {name: RECIPES[name] for name in recipe.needs}
        found[text] = recipe.of_source(source) if source else recipe
    if "single" in found:  # it has all sources already
        found = {text: recipe for text, recipe in found.items() if ":" not in text}
    return sorted(found.values(), key=lambda recipe: len(recipe.needs))


def _find(name: str, task: str) -> Recipe:
    if name == "auto":
        raise ConfigError("auto is a method of fit --method only; leave it out")
    if name not in RECIPES:
        raise ConfigError(
            f"unknown method {name!r}; expected some of {', '.join(RECIPES)}."
            f"{nearest(name, RECIPES)}"
        )
    recipe = RECIPES[name]
    if recipe.tasks and task not in recipe.tasks:
        raise ConfigError(f"method {name!r} is for {' and '.join(recipe.tasks)}, not for {task}")
    return recipe

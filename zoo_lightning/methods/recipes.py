"""All transfer methods by their names on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.methods.baselines import (
    Distilled,
    EnsembleRecipe,
    GreedySoup,
    KnowledgeFlowRecipe,
    L2SPRecipe,
    Scratch,
    Single,
    Soup,
    Start,
    TriedSingle,
)
from zoo_lightning.methods.recipe import Recipe
from zoo_lightning.methods.zoo_recipes import (
    Constant,
    Full,
    FullAligned,
    FullReleased,
    FullShared,
    FullSoftmax,
    FullUnaligned,
    Lite,
    LiteAligned,
    LiteReleased,
    LiteShared,
    LiteSoftmax,
    LiteUnaligned,
)

RECIPES: dict[str, Recipe] = {
    kind.name: kind()
    for kind in (
        Scratch,
        Single,
        TriedSingle,
        L2SPRecipe,
        Soup,
        Start,
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


def find_recipes(names: Sequence[str], task: str, needed: bool = True) -> list[Recipe]:
    """Recipes by name, with those that they need, these first.

    Args:
        names: of the methods; ``single:SOURCE`` is one source of ``single``.
        task: class of the task that is compared on.
        needed: whether to add the recipes that others need.

    Raises:
        ConfigError: an unknown method, or one that is not for the task.
    """
    found: dict[str, Recipe] = {}
    for text in names:
        name, _, source = text.partition(":")
        recipe = _find(name, task)
        if source and not recipe.by_source:
            raise ConfigError(f"method {text!r}: {name} is no training of one source; give {name}")
        if needed:
            found |= {name: RECIPES[name] for name in recipe.needs}
        found[text] = Single(source) if source else recipe
    if Single.name in found:  # it has all sources already
        found = {text: recipe for text, recipe in found.items() if ":" not in text}
    return sorted(found.values(), key=lambda recipe: len(recipe.needs))


def _find(name: str, task: str) -> Recipe:
    if name not in RECIPES:
        raise ConfigError(
            f"unknown method {name!r}; expected some of {', '.join(RECIPES)}."
            f"{nearest(name, RECIPES)}"
        )
    recipe = RECIPES[name]
    if recipe.tasks and task not in recipe.tasks:
        raise ConfigError(f"method {name!r} is for {' and '.join(recipe.tasks)}, not for {task}")
    return recipe

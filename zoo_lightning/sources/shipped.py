"""The shipped zoo: weights as safetensors, each with a card that describes it.

Cards are read without torch, so the zoo can be listed quickly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from zoo_lightning.errors import SourceError, nearest
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.plain_yaml import read_yaml

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = Path(__file__).parent / "shipped"
"""Folder of the shipped weights and cards."""


@dataclass(frozen=True)
class Preprocessing:
    """Input size and normalisation of a source.

    Attributes:
        input_size: Size ``(C, H, W)`` of the images.
        mean: Mean of the training images per channel, in [0, 1] units.
        std: Standard deviation of the training images per channel, in [0, 1] units.
    """

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class ReportedMetric:
    """Result of a source on its own data.

    Attributes:
        name: Name of the metric.
        value: Value of the metric, in the metric's unit.
        split: Split of the data that the metric was measured on.
    """

    name: str
    value: float
    split: str


@dataclass(frozen=True)
class Policy:
    """Facts about a source that is a policy.

    Attributes:
        game: Name of the game.
        agent_steps: Agent steps in training.
        games: Number of whole games over which the mean score was measured.
        deviation: Standard deviation of the games' scores.
        random_return: Mean score of as many games with random actions.
    """

    game: str
    agent_steps: int
    games: int
    deviation: float
    random_return: float


@dataclass(frozen=True)
class Card:
    """Card of a shipped source.

    Attributes:
        name: The source's name, and that of its files.
        architecture: Name of the architecture.
        nature: Kind of training, such as ``supervised classification``.
        data: The dataset it was trained on.
        recipe: The experiment that trained it.
        preprocessing: Input size and normalisation of the images.
        metric: Result on the data.
        steps: Number of optimiser steps.
        seed: The seed it was trained with.
        commit: The commit of this project that trained it.
        license: The licence of the weights.
        policy: Facts about the policy; ``None`` for other sources.
    """

    name: str
    architecture: str
    nature: str
    data: str
    recipe: str
    preprocessing: Preprocessing
    metric: ReportedMetric
    steps: int
    seed: int
    commit: str
    license: str
    policy: Policy | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", str(self.name)):
            raise SourceError(
                f"A shipped source cannot be called {self.name!r}: use letters, digits, . _ and -."
            )


def _fill(kind: type, values: Any, where: str) -> dict[str, Any]:
    """Check that a mapping has exactly the fields of a dataclass; those with a default may lack."""
    known = [field.name for field in fields(kind)]
    needed = [field.name for field in fields(kind) if field.default is MISSING]
    if not isinstance(values, Mapping):
        raise SourceError(f"{where} must be a mapping with {', '.join(known)}, got {values!r}.")
    for key in values:
        if key not in known:
            raise SourceError(f"{where} has an unknown key {key!r}.{nearest(str(key), known)}")
    if missing := [key for key in needed if key not in values]:
        raise SourceError(f"{where} lacks {', '.join(missing)}.")
    return dict(values)


def read_card(path: Path) -> Card:
    """Read a card.

    Raises:
        SourceError: If the file is not YAML, a key is unknown or missing, or a value has the wrong
            type.
    """
    content = read_yaml(path, SourceError)
    where = f"The card {path}"
    values = _fill(Card, content, where)
    given = _fill(Preprocessing, values["preprocessing"], f"{where}, preprocessing,")
    metric = _fill(ReportedMetric, values["metric"], f"{where}, metric,")
    try:
        size = tuple(int(length) for length in given["input_size"])
        mean = tuple(float(value) for value in given["mean"])
        std = tuple(float(value) for value in given["std"])
        metric["value"] = float(metric["value"])
        values["steps"], values["seed"] = int(values["steps"]), int(values["seed"])
    except (TypeError, ValueError) as error:
        raise SourceError(f"{where} has a value of the wrong type: {error}.") from error
    if len(size) != 3 or len(mean) != size[0] or len(std) != size[0]:
        raise SourceError(
            f"{where} needs input_size as [C, H, W] and C values of mean and std, "
            f"found {list(size)}, {list(mean)} and {list(std)}."
        )
    values["preprocessing"] = Preprocessing(input_size=size, mean=mean, std=std)
    values["metric"] = ReportedMetric(**metric)
    if values.get("policy") is not None:
        values["policy"] = Policy(**_fill(Policy, values["policy"], f"{where}, policy,"))
    return Card(**values)


def shipped_cards() -> dict[str, Card]:
    """Return the cards of all shipped sources by name, in alphabetical order."""
    cards = [read_card(path) for path in sorted(FOLDER.glob("*.yaml"))]
    return {card.name: card for card in cards}


def shipped_card(name: str) -> Card:
    """Return the card of a shipped source.

    Raises:
        SourceError: If there is no shipped source of that name.
    """
    cards = shipped_cards()
    if name not in cards:
        known = ", ".join(cards) or "none, the shipped zoo is empty"
        raise SourceError(f"No shipped source {name!r}.{nearest(name, cards)} Known: {known}.")
    return cards[name]


def shipped_path(name: str) -> Path:
    """Return the weight file of a shipped source.

    Raises:
        SourceError: If there is no card of that name, or no file beside the card.
    """
    path = FOLDER / f"{shipped_card(name).name}.safetensors"
    if not path.is_file():
        raise SourceError(
            f"The shipped source {name!r} has a card but {path} is missing: install the package "
            "again."
        )
    return path


def write_card(card: Card, folder: Path) -> Path:
    """Write a card as YAML into a folder and return its path."""
    content = {key: value for key, value in asdict(card).items() if value is not None}
    for key, value in content["preprocessing"].items():
        content["preprocessing"][key] = list(value)
    path = Path(folder) / f"{card.name}.yaml"
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, allow_unicode=True)
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def ship(
    state: Mapping[str, Tensor], card: Card, folder: Path = FOLDER, half: bool = False
) -> Path:
    """Write a source's weights as safetensors together with its card.

    Args:
        state: State dict of the headless plain network.
        card: Card of the source.
        folder: Folder to write to, created if missing; the package's own by default.
        half: Whether to store half precision, at half the size; readers get float32.

    Returns:
        The path of the weight file.
    """
    from zoo_lightning.sources.files import write_tensors

    folder = Path(folder)
    path = folder / f"{card.name}.safetensors"
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    write_tensors(state, path, {"architecture": card.architecture})
    write_card(card, folder)
    return path


def format_cards(cards: Mapping[str, Card]) -> str:
    """Format cards as an aligned table to print, one line per source."""
    if not cards:
        return "No shipped sources."
    rows = [("name", "architecture", "nature", "data", "metric", "recipe", "license")]
    for card in cards.values():
        metric = f"{card.metric.name} {card.metric.value:.4g} ({card.metric.split})"
        row = (card.name, card.architecture, card.nature, card.data)
        rows.append((*row, metric, card.recipe, card.license))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)

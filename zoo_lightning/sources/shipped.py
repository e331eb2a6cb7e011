"""The shipped zoo: weights as safetensors, each with a card that says what it is. No training here.

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
from zoo_lightning.whole_files import whole_file
from zoo_lightning.yaml_files import read_yaml

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = Path(__file__).parent / "shipped"
"""Where the shipped weights and cards lie."""


@dataclass(frozen=True)
class Preprocessing:
    """How images must be given: ``(C, H, W)``, and mean and deviation per channel in [0, 1]."""

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Metric:
    """What a source reached: a metric's name, its value, and the split it was measured on."""

    name: str
    value: float
    split: str


@dataclass(frozen=True)
class Policy:
    """What else is known about a policy.

    Attributes:
        game: What it plays.
        agent_steps: Its decisions in training.
        games: Whole games that its metric, a mean score, was measured over.
        deviation: Standard deviation of their scores.
        random_return: Mean score of as many games of random play.
    """

    game: str
    agent_steps: int
    games: int
    deviation: float
    random_return: float


@dataclass(frozen=True)
class Card:
    """What is known about a shipped source.

    Attributes:
        name: The source's name, also that of its files.
        architecture: The timm name of its architecture.
        nature: What it was trained for, such as ``supervised classification``.
        data: The dataset it was trained on.
        recipe: The experiment that trained it.
        preprocessing: How its images were given.
        metric: What it reached.
        steps: Optimiser steps taken.
        seed: The seed it was trained with.
        commit: The commit of this project that trained it.
        license: The licence of the weights.
        policy: Of policies only.
    """

    name: str
    architecture: str
    nature: str
    data: str
    recipe: str
    preprocessing: Preprocessing
    metric: Metric
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
        raise SourceError(f"{where} must be a mapping with {', '.join(known)}, found {values!r}.")
    for key in values:
        if key not in known:
            raise SourceError(f"{where} has an unknown key {key!r}.{nearest(str(key), known)}")
    if missing := [key for key in needed if key not in values]:
        raise SourceError(f"{where} lacks {', '.join(missing)}.")
    return dict(values)


def read_card(path: Path) -> Card:
    """Read a card.

    Raises:
        SourceError: If the file is not YAML, or its keys are not a card's.
    """
    content = read_yaml(path, SourceError)
    where = f"The card {path}"
    values = _fill(Card, content, where)
    given = _fill(Preprocessing, values["preprocessing"], f"{where}, preprocessing,")
    metric = _fill(Metric, values["metric"], f"{where}, metric,")
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
    values["metric"] = Metric(**metric)
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
        SourceError: If there is none of that name.
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
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def ship(
    state: Mapping[str, Tensor], card: Card, folder: Path = FOLDER, half: bool = False
) -> Path:
    """Write a source's weights as safetensors together with its card.

    Args:
        state: The headless plain network's state dict.
        card: What is known about it.
        folder: Where to; made if missing. The package's own folder by default.
        half: In half precision, at half the size; readers get float32 again.

    Returns:
        The path of the weight file.
    """
    from zoo_lightning.sources.writing import write_tensors

    folder = Path(folder)
    path = folder / f"{card.name}.safetensors"
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    write_tensors(state, path, {"architecture": card.architecture})
    write_card(card, folder)
    return path


def format_cards(cards: Mapping[str, Card]) -> str:
    """Return the cards as an aligned table to print, one line a source."""
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

"""``sources ship``: make a shipped source, weights and card, of a finished run."""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from zoo_lightning.errors import SourceError
from zoo_lightning.sources.shipped import FOLDER, Card, Metric, Policy, Preprocessing, ship
from zoo_lightning.text_files import TEXT

BACKBONE = "backbone.net."


def ship_run(
    run: Path, name: str, nature: str, data: str, metric: str, folder: Path, half: bool = False
) -> Card:
    """Write a run's best weights, without the head, and a card of where they come from.

    Args:
        run: folder of a run with a ``PlainBackbone``.
        name: of the source.
        nature: what it was trained for.
        data: what it was trained on.
        metric: name of the test metric that the card gives.
        folder: where to.
        half: in half precision.

    Raises:
        SourceError: not a finished run, not a plain backbone, or no such metric.
    """
    try:
        summary = json.loads((run / "summary.json").read_text(**TEXT))
        config = yaml.safe_load((run / "config.yaml").read_text(**TEXT))
    except OSError as error:
        raise SourceError(f"{run} is not the folder of a finished run: {error}") from error
    content = torch.load(run / summary["checkpoint"], weights_only=True, map_location="cpu")
    backbone = content["hyper_parameters"]["backbone"]
    if backbone["class_path"] != "PlainBackbone":
        raise SourceError(f"{run} trained a {backbone['class_path']}: only plain runs are shipped")
    if metric not in summary["test"]:
        known = ", ".join(summary["test"])
        raise SourceError(f"{run} has no test metric {metric!r}; it has {known}")
    state = {
        key.removeprefix(BACKBONE): value
        for key, value in content["state_dict"].items()
        if key.startswith(BACKBONE)
    }
    card = Card(
        name=name,
        architecture=backbone["init_args"]["architecture"],
        nature=nature,
        data=data,
        recipe=summary["experiment"],
        preprocessing=_preprocessing(config["data"]["init_args"], state),
        metric=Metric(metric, round(summary["test"][metric], 4), "test"),
        steps=summary["steps"],
        seed=summary["seed"],
        commit=_commit(),
        license="MIT",
        policy=_policy(summary, config["data"]["init_args"]),
    )
    ship(state, card, folder, half)
    return card


def _preprocessing(options: Mapping[str, Any], state: Mapping[str, Tensor]) -> Preprocessing:
    """How the run's inputs were given."""
    if "image_size" in options:
        size = options["image_size"]
        return Preprocessing((3, size, size), tuple(options["mean"]), tuple(options["std"]))
    frames = next(iter(state.values())).shape[1]  # of the first convolution
    return Preprocessing((frames, 84, 84), (0.0,) * frames, (1.0,) * frames)


def _policy(summary: Mapping[str, Any], options: Mapping[str, Any]) -> Policy | None:
    """What a policy's card has besides, ``None`` for what is no policy."""
    if "agent_steps" not in summary:
        return None
    test = summary["test"]
    return Policy(
        game=summary["game"],
        agent_steps=summary["agent_steps"],
        games=options["test_games"],
        deviation=round(test["test/episodic_return_std"], 4),
        random_return=round(test["test/random_return"], 4),
    )


def _commit() -> str:
    """Commit of the checkout that the package runs from, or ``unknown`` outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    here = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def main(arguments: Sequence[str]) -> None:
    """Command line of ``sources ship``."""
    parser = argparse.ArgumentParser(
        prog="python -m zoo_lightning sources ship", description=__doc__
    )
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--name", required=True)
    parser.add_argument("--nature", required=True, help="what it was trained for")
    parser.add_argument("--data", required=True, help="what it was trained on")
    parser.add_argument("--metric", required=True, help="test metric for the card: test/nme, ...")
    parser.add_argument("--half", action="store_true", help="store in half precision")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder (default: the package)")
    options: dict[str, Any] = vars(parser.parse_args(arguments))
    card = ship_run(folder=options.pop("output"), **options)
    print(f"shipped {card.name}: {card.metric.name} {card.metric.value}")

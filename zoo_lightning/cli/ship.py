"""``sources ship``: turn a finished run into a shipped source, its weights and a card."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from zoo_lightning.errors import SourceError
from zoo_lightning.experiments.option_names import CommandParser
from zoo_lightning.files.text import TEXT
from zoo_lightning.rl.environments.atari import FRAME_SIZE
from zoo_lightning.runs.run_folder import CONFIG, SUMMARY
from zoo_lightning.sources.shipped import FOLDER, Card, Policy, Preprocessing, ReportedMetric, ship

BACKBONE = "backbone.net."


def ship_run(
    run: Path, name: str, nature: str, data: str, metric: str, folder: Path, half: bool = False
) -> Card:
    """Write a run's best weights, without the head, and a card, as a shipped source.

    Args:
        run: folder of a run with a ``PlainBackbone``.
        name: name of the source.
        nature: description of what the run was trained for.
        data: description of the data that the run was trained on.
        metric: name of the test metric for the card, such as ``test/nme``.
        folder: output folder.
        half: whether to store the weights in half precision.

    Raises:
        SourceError: the run is not finished, trained no ``PlainBackbone``, or has no such metric.
    """
    try:
        summary = json.loads((run / SUMMARY).read_text(**TEXT))
        config = yaml.safe_load((run / CONFIG).read_text(**TEXT))
    except OSError as error:
        raise SourceError(f"{run} is not the folder of a finished run: {error}") from error
    content = torch.load(run / summary["checkpoint"], weights_only=True, map_location="cpu")
    backbone = content["hyper_parameters"]["backbone"]
    if backbone["class_path"] != "PlainBackbone":
        raise SourceError(
            f"{run} trained a {backbone['class_path']}: only runs with a PlainBackbone are shipped"
        )
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
        metric=ReportedMetric(metric, round(summary["test"][metric], 4), "test"),
        steps=summary["steps"],
        seed=summary["seed"],
        commit=_commit(),
        license="MIT",
        policy=_policy(summary, config["data"]["init_args"]),
    )
    ship(state, card, folder, half)
    return card


def _preprocessing(options: Mapping[str, Any], state: Mapping[str, Tensor]) -> Preprocessing:
    """Return the size and normalisation of the run's inputs."""
    if "image_size" in options:
        size = options["image_size"]
        channels = len(options["mean"])
        return Preprocessing((channels, size, size), tuple(options["mean"]), tuple(options["std"]))
    frames = next(iter(state.values())).shape[1]  # of the first convolution
    return Preprocessing((frames, FRAME_SIZE, FRAME_SIZE), (0.0,) * frames, (1.0,) * frames)


def _policy(summary: Mapping[str, Any], options: Mapping[str, Any]) -> Policy | None:
    """Return the entries that only a policy's card has; ``None`` for other runs."""
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
    """Return the commit of the package's checkout, or ``unknown`` outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    here = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def main(arguments: Sequence[str]) -> None:
    """Run the command line of ``sources ship``."""
    parser = CommandParser("sources ship", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--name", required=True, help="name of the source, after builtin:")
    parser.add_argument("--nature", required=True, help="what the run was trained for")
    parser.add_argument("--data", required=True, help="data that the run was trained on")
    parser.add_argument("--metric", required=True, help="test metric for the card: test/nme, ...")
    parser.add_argument("--half", action="store_true", help="store in half precision")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder (default: the package)")
    options: dict[str, Any] = vars(parser.parse_args(arguments))
    card = ship_run(folder=options.pop("output"), **options)
    print(f"shipped {card.name}: {card.metric.name} {card.metric.value}")

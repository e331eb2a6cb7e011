"""``predict``: write predictions for images, or for the test data of a run."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from zoo_lightning.data.band_files import NPY
from zoo_lightning.data.images import open_rgb
from zoo_lightning.data.loading import default_workers
from zoo_lightning.data.segmentation.whole_images import (
    CLASSES_HEADER,
    class_rows,
    mask_names,
    save_mask,
    save_overlay,
)
from zoo_lightning.data.values import parse_value_range
from zoo_lightning.deployment.manifest import Manifest
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.finding import experiment_name, find_experiment
from zoo_lightning.experiments.option_names import (
    OF_TRAINED,
    CommandParser,
    add_experiments,
    underscored,
)
from zoo_lightning.experiments.words import (
    EXPERIMENTS,
    experiments_first,
    run_without_experiment,
)
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.folders import refuse_full
from zoo_lightning.files.text import TEXT
from zoo_lightning.models.architecture import vouch_for
from zoo_lightning.prediction.inputs import Item, find_images, with_boxes
from zoo_lightning.prediction.models import OpenedModel, RunModel, open_model
from zoo_lightning.prediction.output import FORMATS, draw_points, writer
from zoo_lightning.prediction.predictor import Prediction, Predictor
from zoo_lightning.rl.evaluation import Act
from zoo_lightning.rl.losses import sample_actions
from zoo_lightning.rl.rollout import as_bytes
from zoo_lightning.rl.video import film_game, write_film
from zoo_lightning.runs.folders import is_first_rank
from zoo_lightning.runs.run_folder import find_checkpoint

ABOUT = """\
Write predictions of a run, a checkpoint, an exported folder or an ONNX file for images.
Classification: the likeliest classes with their probabilities. Several labels an image: those that
reach their thresholds, and the probability of each. Regression: a column of numbers for each
target, in the units of the training data. Landmarks: points in pixels of the image (turned as its
EXIF data specify), and pictures of them. Segmentation: masks of the images' own size, shares of the
classes, and pictures of them. Policies: a video of a game, without
--images. Images that cannot be read are reported and left out; the exit status is then 1.

Without --images, predictions are written for the test data of the run or of --experiment. Further
options are then options of test for the data, and pixels refer to the images as they are stored.
"""

FOR_IMAGES = ("boxes", "format", "overlays", "top")
"""Options that need ``--images``."""

SKIPPED = "skipped.csv"

DEFAULTS = {
    "batch_size": 32, "boxes": None, "device": "auto", "format": "csv", "overlays": 20, "top": 5,
}  # fmt: skip
"""Defaults of the options for images."""

MANY = 500
"""Smallest number of images for which reading in several processes is faster."""


def main(arguments: Sequence[str]) -> int:
    """Run the command ``predict``.

    Args:
        arguments: command line without the subcommand.

    Returns:
        Exit status 0; 1 if images were left out. For test data, the exit status of
        :func:`~zoo_lightning.cli.trainer.main`.

    Raises:
        ConfigError: an option's value is not allowed, options contradict each other, or the model
            cannot be opened.
        DataError: the data cannot be read.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if options.images is None and (words := _words_of_data(options, rest)):
        if options.output is not None and "--run_dir" not in _names(arguments) and is_first_rank():
            refuse_full(options.output, options.overwrite)
        return _predict_data(options, words)
    experiments, rest = _experiments(rest)
    of_data = [word for word in rest if word.startswith(("--data.", "--model.", "--trainer."))]
    if options.images is not None and of_data:
        raise ConfigError(
            f"predict: {of_data[0].partition('=')[0]} is an option for the data of a run or "
            "experiment; --images are prepared as in the model's own run: remove one of them"
        )
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.output is None:
        parser.error("--output is missing; give a folder to write to")
    given = argparse.Namespace(**(DEFAULTS | _given(options)))
    for name in ("top", "batch_size"):
        if getattr(given, name) < 1:
            raise ConfigError(f"--{name} must be at least 1, got {getattr(given, name)}")
    return _predict_images(given, experiments)


def _names(arguments: Sequence[str]) -> set[str]:
    """Names of the options in a command line, with underscores."""
    return {underscored(word.partition("=")[0]) for word in map(str, arguments)}


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Options that were given, and those without an entry in :data:`DEFAULTS`."""
    return {k: v for k, v in vars(options).items() if v is not None or k not in DEFAULTS}


def _words_of_data(options: argparse.Namespace, rest: Sequence[str]) -> list[str]:
    """Command line of the Trainer that predicts the test data of a run or experiment.

    Empty for a model without data: an export, or a checkpoint outside of a run's folder.
    """
    output = [] if options.output is None else ["--output", str(options.output)]
    words = experiments_first(["predict", *rest, "--ckpt_path", options.ckpt_path, *output])
    named = {word.partition("=")[0] for word in rest} & {*EXPERIMENTS}
    return words if named or run_without_experiment(words) else []


def _predict_data(options: argparse.Namespace, words: list[str]) -> int:
    """Predict the test data of a run or experiment.

    Raises:
        ConfigError: an option needs ``--images``.
    """
    for name in FOR_IMAGES:
        if getattr(options, name) is not None:
            raise ConfigError(
                f"--{name} needs --images; without them the test data of the run are predicted"
            )
    for name in ("batch_size", "num_workers"):
        if (value := getattr(options, name)) is not None:
            words += [f"--data.{name}", str(value)]
    if options.architecture is not None:
        words += ["--architecture", options.architecture]
    if options.device is not None:
        words += ["--trainer.accelerator", options.device]
    if options.deterministic:
        words += ["--model.deterministic", "true"]
    from zoo_lightning.cli import trainer  # slow to import, and not needed for images

    return trainer.main(words)


def _experiments(rest: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split further options into experiments, which ``last`` and ``best`` refer to, and others."""
    parser = CommandParser("predict", add_help=False)
    add_experiments(parser, "")
    found, others = parser.parse_known_args(rest)
    return found.experiment, others


def _predict_images(options: argparse.Namespace, experiments: Sequence[str]) -> int:
    """Predict for ``--images``, or record a game; returns the exit status."""
    refuse_full(options.output, options.overwrite)
    vouch_for(options.architecture)
    if options.ckpt_path in ("last", "best"):
        names = [experiment_name(find_experiment(name)) for name in experiments]
        options.ckpt_path = str(find_checkpoint(options.ckpt_path, None, "+".join(names)))
    model = open_model(options.ckpt_path, options.device)
    say, also = partial(print, file=sys.stderr), (NPY,) if "bands" in model.manifest.input else ()
    items = find_images(options.images, say, also) if options.images else []
    if model.manifest.task == "policy":
        print(_record_game(model, options))
        return 0
    if not items:
        raise ConfigError(
            f"{options.ckpt_path} is a model for {model.manifest.task}; give --images (files or "
            "folders), or --experiment NAME to predict its test data"
        )
    whole = options.boxes == "image"
    if options.boxes and not whole:
        items = with_boxes(items, Path(options.boxes))
    workers = options.num_workers
    if workers is None:
        workers = default_workers() if len(items) >= MANY else 0
    predictor = Predictor(model, options.device, options.batch_size, workers, whole)
    predictor.check_boxes(items)
    return _predict(predictor, items, options)


def _parser() -> CommandParser:
    parser = CommandParser(
        "predict",
        OF_TRAINED,
        description=ABOUT,
    )
    parser.add_argument(
        "--ckpt_path",
        required=True,
        help="run folder, checkpoint, exported folder, .onnx file, or last or best of --experiment",
    )
    parser.add_argument(
        "--architecture",
        help="import path of the function that builds the network, for a checkpoint whose network "
        "is not timm's: it is called only if it is given here",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        help="files, folders or glob patterns (default: the test data of run or experiment)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder to write to (default for test data: runs/EXPERIMENT/DATE-TIME)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="write to a folder that is not empty"
    )
    parser.add_argument(
        "--format", choices=FORMATS, help="format of predictions for images (default: csv)"
    )
    parser.add_argument("--top", type=int, help="classes to write for an image (default: 5)")
    parser.add_argument(
        "--boxes",
        help="boxes of faces: CSV with image,x0,y0,x1,y1, or 'image' if every image is a face",
    )
    parser.add_argument(
        "--overlays",
        type=int,
        help="number of pictures with landmarks or masks to write; -1 for all (default: 20)",
    )
    parser.add_argument(
        "--batch_size", type=int, help="images in a batch (default: 32, or the data's)"
    )
    parser.add_argument(
        "--num_workers",
        type=int,
        help="processes that read images (default: 0, or one less than the cores for many images; "
        "for test data the data's)",
    )
    parser.add_argument("--device", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="for policies: take the likeliest action instead of a random one",
    )
    return parser


def _predict(predictor: Predictor, items: Sequence[Item], options: argparse.Namespace) -> int:
    skipped: list[Prediction] = []
    drawn = 0
    values = parse_value_range(predictor.manifest.input.get("value_range"))
    console = Console(stderr=True)
    path = options.output / f"predictions.{options.format}"
    names = mask_names([item.name for item in items])
    files = {item: f"masks/{name}" for item, name in zip(items, names, strict=True)}
    with atomic_file(path) as part, part.open("w", newline="", **TEXT) as stream:
        write = writer(stream, options.format, predictor.manifest, options.top, files)
        found = track(
            predictor(items),
            "predicting",
            len(items),
            console=console,
            disable=not sys.stderr.isatty(),
        )
        for each in found:
            if each.problem:
                console.print(f"skipped: {each.problem}", markup=False, soft_wrap=True)
                skipped.append(each)
                continue
            write(each)
            if each.mask is not None:
                save_mask(each.mask, options.output / files[each.item])
            drawable = each.points is not None or each.mask is not None
            if drawable and drawn != options.overlays:
                picture = _picture(options.output, each, drawn)
                if each.points is not None:
                    draw_points(each.item.path, each.points, picture, values)
                elif each.mask is not None:
                    image = open_rgb(each.item.path, upright=True, values=values)
                    save_overlay(image, each.mask, picture)
                drawn += 1
    if predictor.manifest.task == "segmentation":
        _write_classes(options.output / "classes.csv", predictor.manifest)
    print(
        f"{predictor.manifest.task}: {len(items) - len(skipped)} predictions in {path}"
        + (f", {drawn} pictures in {options.output / 'overlays'}" if drawn else "")
    )
    if skipped:
        with (
            atomic_file(options.output / SKIPPED) as part,
            part.open("w", newline="", **TEXT) as stream,
        ):
            rows = csv.writer(stream)
            rows.writerow(["image", "reason"])
            rows.writerows([each.item.name, each.problem] for each in skipped)
        print(
            f"{len(skipped)} of {len(items)} images were left out, see {options.output / SKIPPED}",
            file=sys.stderr,
        )
    return int(bool(skipped))


def _write_classes(path: Path, manifest: Manifest) -> None:
    """Write index, name and colour of the classes in masks."""
    with atomic_file(path) as part, part.open("w", newline="", **TEXT) as stream:
        csv.writer(stream).writerows([CLASSES_HEADER, *class_rows(manifest.output["classes"])])


def _picture(folder: Path, each: Prediction, number: int) -> Path:
    # Numbered, because files in different folders may have the same name.
    return folder / "overlays" / f"{number:05d}-{each.item.path.stem}.png"


def _record_game(model: OpenedModel, options: argparse.Namespace) -> str:
    """Record a video of a game that a policy plays."""
    if options.images:
        raise ConfigError(f"{options.ckpt_path} is a policy, which plays a game; remove --images")
    # Imports the emulator.
    from zoo_lightning.data.atari import AtariData

    known: Manifest = model.manifest
    data = AtariData(known.output["game"], seed=known.output["seed"], **known.output["environment"])
    if data.action_names != known.output["actions"]:
        raise ConfigError(
            f"{options.ckpt_path} has the actions {known.output['actions']}, "
            f"{known.output['game']} has {data.action_names}"
        )
    act = _player(model.run, data.eval_seed, options.deterministic)
    film = film_game(data.eval_envs(1), act, data.eval_seed)
    path = write_film(film, options.output / "game")
    return f"{path}: {len(film.frames)} frames, score {film.score:g}"


def _player(run: RunModel, seed: int, deterministic: bool) -> Act:
    generator = torch.Generator().manual_seed(seed)

    def act(observations: np.ndarray) -> np.ndarray:
        logits = run(as_bytes(observations, "cpu"))[0]
        if deterministic:
            return logits.argmax(dim=-1).numpy()
        return sample_actions(logits, generator).numpy()

    return act

"""``predict --ckpt MODEL --images FILES --output DIR``: predictions for any images, or a film."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from zoo_lightning.architecture import vouch_for
from zoo_lightning.data.loading import default_workers
from zoo_lightning.deployment.manifest import Manifest
from zoo_lightning.errors import ConfigError
from zoo_lightning.matched_zoo import refuse_full
from zoo_lightning.predicting.files import FORMATS, draw_points, writer
from zoo_lightning.predicting.inputs import Item, find_images, with_boxes
from zoo_lightning.predicting.models import Opened, Run, open_model
from zoo_lightning.predicting.predictor import Prediction, Predictor
from zoo_lightning.rl.acting import as_bytes
from zoo_lightning.rl.filming import film_game, write_film
from zoo_lightning.rl.losses import draw_actions
from zoo_lightning.rl.playing import Act
from zoo_lightning.text_files import TEXT
from zoo_lightning.whole_files import whole_file

ABOUT = """\
Predictions for images of any kind, from a run, a checkpoint, an exported folder or an ONNX file. Of
classes: the likeliest ones with their probabilities. Of landmarks: points in pixels of the image
(turned as EXIF says), and pictures of them. Of policies: a film of a game, without --images. Images
that cannot be read are reported and left out; exit status 1 tells that there were some.
"""

SKIPPED = "skipped.csv"

MANY = 500
"""Images from which on it pays to start processes that read them."""


def main(arguments: Sequence[str]) -> int:
    """Command line of ``predict`` for images.

    Returns:
        Exit status 0; 1 if images were left out.

    Raises:
        ConfigError: options that cannot be right.
    """
    options = _parser().parse_args(arguments)
    for name in ("top", "batch_size"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} must be at least 1, got {getattr(options, name)}")
    refuse_full(options.output, options.overwrite)
    vouch_for(options.architecture)
    items = find_images(options.images, _tell) if options.images else []
    model = open_model(options.ckpt, options.device)
    if model.manifest.task == "policy":
        print(_film(model, options))
        return 0
    if not items:
        raise ConfigError(
            f"{options.ckpt} is a model for {model.manifest.task}; give --images, files or folders"
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


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zoo_lightning predict",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--ckpt",
        "--ckpt_path",
        required=True,
        help="run folder, checkpoint, exported folder or .onnx file",
    )
    parser.add_argument(
        "--architecture",
        help="import path of the network's function, of a checkpoint whose network is not timm's: "
        "it is called only if it is named here",
    )
    parser.add_argument("--images", nargs="+", help="files, folders or glob patterns")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--overwrite", action="store_true", help="write to a folder with files")
    parser.add_argument("--format", choices=FORMATS, default="csv", help="(default: csv)")
    parser.add_argument("--top", type=int, default=5, help="classes to name (default: 5)")
    parser.add_argument(
        "--boxes",
        help="of faces: a CSV of image,x0,y0,x1,y1, or 'image' if every image is one face's box",
    )
    parser.add_argument(
        "--overlays",
        type=int,
        default=20,
        help="pictures of the first so many faces; -1 for all (default: 20)",
    )
    parser.add_argument("--batch_size", type=int, default=32, help="(default: 32)")
    parser.add_argument(
        "--num_workers",
        type=int,
        help="processes that read images (default: for many images one less than the cores)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="of policies: take the likeliest action instead of drawing one",
    )
    return parser


def _predict(predictor: Predictor, items: Sequence[Item], options: argparse.Namespace) -> int:
    skipped: list[Prediction] = []
    drawn = 0
    console = Console(stderr=True)
    path = options.output / f"predictions.{options.format}"
    with whole_file(path) as part, part.open("w", newline="", **TEXT) as stream:
        write = writer(stream, options.format, predictor.manifest, options.top)
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
            if each.points is not None and drawn != options.overlays:
                draw_points(each, _picture(options.output, each, drawn))
                drawn += 1
    print(
        f"{predictor.manifest.task}: {len(items) - len(skipped)} predictions in {path}"
        + (f", {drawn} pictures in {options.output / 'overlays'}" if drawn else "")
    )
    if skipped:
        with (
            whole_file(options.output / SKIPPED) as part,
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


def _picture(folder: Path, each: Prediction, number: int) -> Path:
    # Numbered: names of files in different folders may be alike.
    return folder / "overlays" / f"{number:05d}-{each.item.path.stem}.png"


def _film(model: Opened, options: argparse.Namespace) -> str:
    """Film a game that a policy plays."""
    if options.images:
        raise ConfigError(f"{options.ckpt} is a policy, which plays a game; leave --images out")
    # Imports the emulator.
    from zoo_lightning.data.atari import AtariData

    known: Manifest = model.manifest
    data = AtariData(known.output["game"], seed=known.output["seed"], **known.output["environment"])
    if data.action_names != known.output["actions"]:
        raise ConfigError(
            f"{options.ckpt} knows the actions {known.output['actions']}, {known.output['game']} "
            f"has {data.action_names}"
        )
    act = _player(model.run, data.judging_seed, options.deterministic)
    film = film_game(data.judging_envs(1), act, data.judging_seed)
    path = write_film(film, options.output / "game")
    return f"{path}: {len(film.frames)} frames, score {film.score:g}"


def _player(run: Run, seed: int, deterministic: bool) -> Act:
    generator = torch.Generator().manual_seed(seed)

    def act(observations: np.ndarray) -> np.ndarray:
        logits = run(as_bytes(observations, "cpu"))[0]
        if deterministic:
            return logits.argmax(dim=-1).numpy()
        return draw_actions(logits, generator).numpy()

    return act

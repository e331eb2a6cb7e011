"""``export``: a trained model for those who do not have this package."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from zoo_lightning.architecture import vouch_for
from zoo_lightning.deployment.export import export
from zoo_lightning.deployment.formats import FORMATS
from zoo_lightning.deployment.hub import check_hub, push_to_hub
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiment_sources import run_data
from zoo_lightning.run_folder import find_checkpoint

ABOUT = """\
Write a trained model as a folder that needs no zoo_lightning. timm: config.json and
model.safetensors, for timm.create_model("local-dir:DIR", pretrained=True). onnx: model.onnx,
checked with onnxruntime. torch-export: model.pt2, for torch.export.load. Lite zoos, single sources
and averages are one ordinary network; a full zoo keeps a kernel for each sample, unless it is
folded; an ensemble is one graph of all its networks, in onnx and torch-export.
"""


def main(arguments: Sequence[str]) -> int:
    """Command line of ``export``.

    Returns:
        Exit status 0.

    Raises:
        ZooError: as :func:`~zoo_lightning.deployment.export.export` raises it.
    """
    options, rest = _parser().parse_known_args(arguments)
    if rest and not (options.fold or options.experiment):
        raise ConfigError(
            f"unknown options {' '.join(rest)}; options of fit that say what the data are go with "
            "--fold or --experiment"
        )
    if options.push_to_hub:
        check_hub()
    vouch_for(options.architecture)
    checkpoint = find_checkpoint(options.ckpt, None, "", "--ckpt")
    folder = export(
        checkpoint,
        options.format,
        options.output,
        fold=options.fold,
        mirrored=None if options.mirrored is None else options.mirrored == "true",
        overwrite=options.overwrite,
        data=lambda: run_data(checkpoint, options.experiment, rest),
    )
    if options.push_to_hub:
        print(push_to_hub(folder, options.push_to_hub, options.private))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zoo_lightning export",
        description=ABOUT,
        epilog="Further options are those of fit that say what the data are, which --fold is "
        "measured on; by default the run's own config.yaml has them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--ckpt",
        "--ckpt_path",
        required=True,
        help="checkpoint, or run folder",
    )
    parser.add_argument(
        "--architecture",
        help="import path of the network's function, of a checkpoint whose network is not timm's: "
        "it is called only if it is named here",
    )
    parser.add_argument(
        "--format", required=True, help=f"{', '.join(FORMATS)}, or several with commas between"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that has files")
    parser.add_argument(
        "--fold",
        action="store_true",
        help="fold a full zoo by its average gates, and print what that costs on the validation "
        "data",
    )
    parser.add_argument(
        "--mirrored",
        choices=("true", "false"),
        help="of landmarks: whether the model averages with the mirror image (default: as the "
        "run's test does)",
    )
    parser.add_argument(
        "--experiment", action="append", default=[], help="whose data to take, if not the run's own"
    )
    parser.add_argument(
        "--push-to-hub", metavar="ORG/REPO", help="then upload the folder to the Hugging Face hub"
    )
    parser.add_argument("--private", action="store_true", help="make the hub's repository private")
    return parser

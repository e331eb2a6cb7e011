"""``export``: write a trained model so that it runs without this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from zoo_lightning.deployment.exporting import export
from zoo_lightning.deployment.formats import FORMATS
from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.experiments.option_names import CommandParser, add_experiments
from zoo_lightning.experiments.resolving import run_data
from zoo_lightning.models.architecture import vouch_for
from zoo_lightning.runs.run_folder import find_checkpoint

ABOUT = """\
Write a trained model to a folder that can be used without zoo_lightning. timm: config.json and
model.safetensors, for timm.create_model("local-dir:DIR", pretrained=True). onnx: model.onnx,
checked with onnxruntime. torch-export: model.pt2, for torch.export.load. Lite zoos, single sources
and averages become one ordinary network; a full zoo keeps a kernel for each sample, unless
--fold is given; an ensemble becomes one graph of all its networks, in onnx and torch-export.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command ``export``.

    Args:
        arguments: command line without the subcommand.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: an option is unknown, there is no login for ``--push_to_hub``, or the upload
            fails.
        ZooError: the export fails, see :func:`~zoo_lightning.deployment.exporting.export`.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not (options.fold or options.experiment):
        raise ConfigError(
            f"unknown options {' '.join(rest)}; options of fit for the data need --fold or "
            f"--experiment.{nearest(rest[0].partition('=')[0], parser.option_names())}"
        )
    if options.push_to_hub:
        check_hub()
    vouch_for(options.architecture)
    checkpoint = find_checkpoint(options.ckpt_path, None, "")
    folder = export(
        checkpoint,
        options.format,
        options.output,
        fold=options.fold,
        mirrored=None if options.mirrored is None else options.mirrored == "true",
        overwrite=options.overwrite,
        data=lambda: run_data(checkpoint, options.experiment, rest, parser.option_names()),
    )
    if options.push_to_hub:
        print(push_to_hub(folder, options.push_to_hub, options.private))
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        "export",
        description=ABOUT,
        epilog="Further options are options of fit for the data that --fold is measured on; the "
        "default is the data of the run's config.yaml.",
    )
    parser.add_argument(
        "--ckpt_path",
        required=True,
        help="checkpoint, or run folder",
    )
    parser.add_argument(
        "--architecture",
        help="import path of the function that builds the network, for a checkpoint whose network "
        "is not timm's: it is called only if it is given here",
    )
    parser.add_argument(
        "--format", required=True, help=f"{', '.join(FORMATS)}, or several separated by commas"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--overwrite", action="store_true", help="write to a folder that is not empty"
    )
    parser.add_argument(
        "--fold",
        action="store_true",
        help="fold a full zoo by its average gates, and print the effect on the validation data",
    )
    parser.add_argument(
        "--mirrored",
        choices=("true", "false"),
        help="for landmarks: average with the mirror image (default: as in the run's test)",
    )
    add_experiments(parser, "experiment with the data (default: the run's own)")
    parser.add_argument(
        "--push_to_hub", metavar="ORG/REPO", help="upload the folder to the Hugging Face Hub"
    )
    parser.add_argument(
        "--private", action="store_true", help="make the repository on the Hub private"
    )
    return parser


def check_hub() -> None:
    """Check that the user is logged in to the Hugging Face Hub.

    Raises:
        ConfigError: there is no login.
    """
    if get_token() is None:
        raise ConfigError(
            "--push_to_hub needs a login: run `hf auth login`, or set HF_TOKEN to an access token"
        )


def push_to_hub(folder: Path, repository: str, private: bool = False) -> str:
    """Upload an exported folder to the Hugging Face Hub.

    Args:
        folder: folder written by an export.
        repository: name of the repository, ``ORG/REPO``; created if absent.
        private: whether to make a new repository private.

    Returns:
        Message with the repository's address.

    Raises:
        ConfigError: the Hub refused the upload; the folder is kept.
    """
    api = HfApi(library_name="zoo_lightning")
    try:
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id, folder_path=folder, commit_message="Add a model of zoo_lightning"
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ConfigError(
            f"the Hugging Face Hub refused {repository}: {error}. The export itself is in {folder}"
        ) from error
    return f"uploaded to {url}"

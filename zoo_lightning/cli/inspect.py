"""``sources inspect``: list what a checkpoint, or every one in a folder, holds.

No code in a file is run. For a folder, its sources are compared by their weights: which are of one
architecture, and which descend from which.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from zoo_lightning.errors import ConfigError, SourceError
from zoo_lightning.experiments.option_names import CommandParser
from zoo_lightning.sources.folders import is_source_folder
from zoo_lightning.sources.inspecting import format_inspection, inspect
from zoo_lightning.sources.spec import parse_source


def main(arguments: Sequence[str]) -> None:
    """Run the command line of ``sources inspect``.

    Raises:
        ConfigError: ``--container`` or ``--base`` is given for a folder.
        SourceError: the file cannot be read, or does not fit the given architecture.
    """
    parser = CommandParser("sources inspect", description=__doc__)
    parser.add_argument("source", help="file, folder, run or reference such as timm:MODEL.TAG")
    parser.add_argument("--architecture", help="compare with this one instead of guessing")
    parser.add_argument("--container", help="key of the file under which the weights are")
    parser.add_argument("--base", help="weights that a LoRA adapter was trained on")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    folder = Path(options.source).expanduser()
    if folder.is_dir() and not is_source_folder(folder):
        _inspect_folder(folder, options)
        return
    given = {"weights": options.source, "container": options.container, "base": options.base}
    source = parse_source(given)
    seen = inspect(source, options.architecture)
    print(json.dumps(asdict(seen), indent=2) if options.json else format_inspection(seen))
    if options.architecture and seen.architecture and not seen.architecture.fits:
        raise SourceError(seen.architecture.remark)


def _inspect_folder(folder: Path, options: argparse.Namespace) -> None:
    """Print what the sources in a folder are to one another.

    Raises:
        ConfigError: ``--container`` or ``--base`` is given.
        SourceError: the folder has no sources that can be read.
    """
    from zoo_lightning.analysis.folder_report import folder_json, format_folder
    from zoo_lightning.transfer.folder import inspect_folder

    for option in ("container", "base"):
        if getattr(options, option) is not None:
            raise ConfigError(
                f"--{option} is of one source, got the folder {folder}: leave it out, or give a "
                "file"
            )
    seen = inspect_folder(folder, options.architecture)
    print(folder_json(seen) if options.json else format_folder(seen))

"""``sources inspect``: list what a checkpoint holds, without running any code in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from zoo_lightning.errors import SourceError
from zoo_lightning.experiments.option_names import CommandParser
from zoo_lightning.sources.inspecting import format_inspection, inspect
from zoo_lightning.sources.spec import parse_source


def main(arguments: Sequence[str]) -> None:
    """Run the command line of ``sources inspect``.

    Raises:
        SourceError: the file cannot be read, or does not fit the given architecture.
    """
    parser = CommandParser("sources inspect", description=__doc__)
    parser.add_argument("source", help="file, run folder or reference such as timm:MODEL.TAG")
    parser.add_argument("--architecture", help="compare with this one instead of guessing")
    parser.add_argument("--container", help="key of the file under which the weights are")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    source = parse_source({"weights": options.source, "container": options.container})
    seen = inspect(source, options.architecture)
    print(json.dumps(asdict(seen), indent=2) if options.json else format_inspection(seen))
    if options.architecture and seen.architecture and not seen.architecture.fits:
        raise SourceError(seen.architecture.remark)

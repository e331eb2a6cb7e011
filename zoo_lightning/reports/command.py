"""Command ``report``: an HTML page of runs, comparisons, sweeps and gate reports that exist."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.option_names import CommandParser
from zoo_lightning.reports.collecting import make_report
from zoo_lightning.reports.page import write_page
from zoo_lightning.runs.run_folder import PAGE

ABOUT = """\
Write a page of HTML on a run, a comparison or several joined, a sweep or a gate report: what was
run, figures with intervals, curves, gates, pictures, costs, and the command to run it again.
Several are put side by side. The page needs no network and no other file. Nothing else is changed.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command ``report``.

    Args:
        arguments: command line without the subcommand.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: a folder holds nothing to report on, or its main file is damaged.
        StorageError: the page cannot be written.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    folders = list({os.path.realpath(each): each for each in options.folders}.values())
    output = options.output or (folders[0] / PAGE if len(folders) == 1 else Path(PAGE))
    if output.is_dir():
        output = output / PAGE
    if output.exists() and output.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(
            f"report: --output {output} exists and is no page; expected a folder or a file .html"
        )
    write_page(make_report(folders), output)
    print(f"wrote {output}")
    return 0


def _parser() -> CommandParser:
    parser = CommandParser("report", description=ABOUT)
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="RUN_DIR", help="folder of a run, a comparison, a "
        "sweep, or a gate report"
    )  # fmt: skip
    parser.add_argument(
        "--output",
        type=Path,
        help=f"file to write, an earlier report is replaced (default: {PAGE} in the folder, for "
        "several in the present one)",
    )
    return parser

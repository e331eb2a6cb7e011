"""``sources check``, ``rank`` and ``relate``: judge an experiment's sources without training.

All options of ``fit`` are accepted, and resolved as in ``fit``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from zoo_lightning.analysis.relation_report import (
    FILES,
    format_relations,
    relations_json,
    write_relations,
)
from zoo_lightning.errors import ConfigError, SourceError
from zoo_lightning.experiments.option_names import CommandParser
from zoo_lightning.experiments.parts import (
    architecture_of,
    experiment_zoo,
    plain_data,
    resolve_bands,
)
from zoo_lightning.experiments.resolving import ResolvedExperiment, resolve
from zoo_lightning.files.folders import refuse_full
from zoo_lightning.models.aggregable import check_network
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.models.backbone import load_architecture
from zoo_lightning.sources.adapting import Adapted
from zoo_lightning.sources.folders import weights_of_folder
from zoo_lightning.sources.spec import Source, parse_sources
from zoo_lightning.sources.zoo import check_preprocessing, unknown_preprocessing
from zoo_lightning.tasks import PPOTask
from zoo_lightning.transfer.ranking import Ranking, rank_sources
from zoo_lightning.transfer.relations import relate

RANKED_SAMPLES = 2000
"""Default number of samples of ``sources rank``."""

RELATED_SAMPLES = 1000
"""Default number of samples of ``sources relate``.

Standard errors are then about 0.004, and five small sources take a minute.
"""

MIN_RANKED = 2
"""Least number of samples for ``sources rank``."""

MIN_RELATED = 8
"""Least number of samples for ``sources relate``: two in each part of the probe."""

ABOUT = {
    "check": """\
Check that all sources of the experiment fit its architecture. Prints one line for each source; exit
status 2 if any does not fit. The data need not exist. --sources A,B and --architecture NAME replace
the experiment's own.
""",
    "rank": """\
Estimate how well each source suits the experiment's training data, from one pass through each
source without training, best first. --sources A,B and --architecture NAME replace the experiment's
own.
""",
    "relate": """\
Decide whether the sources should be merged, and how. For each source: what a linear probe of its
frozen features explains of the training data. For each pair: whether they are related by their
kernels, what the network of their averaged weights knows, and what both know together. Ends with a
conclusion; nothing is trained. --sources A,B and --architecture NAME replace the experiment's own.
A FOLDER as the first word stands for all sources in it that fit the architecture.
""",
}


def main(command: str, arguments: Sequence[str]) -> int:
    """Run the command line of ``sources check``, ``sources rank`` or ``sources relate``.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: the experiment has no sources, or an option is invalid.
        SourceError: sources do not fit the architecture; the message names all of them.
    """
    parser = _parser(command)
    if not arguments:
        parser.print_help()
        return 0
    folder = None
    if command == "relate" and not arguments[0].startswith("-"):
        folder, arguments = Path(arguments[0]).expanduser(), arguments[1:]
    options, rest = parser.parse_known_args(arguments)
    resolved = resolve(overrides=rest, command_options=parser.option_names())
    if folder is None:
        architecture, sources = experiment_zoo(resolved.options, resolved.name)
    else:
        init_args = resolved.options.model.init_args.backbone.init_args
        resolve_bands(resolved.options)
        architecture = architecture_of(init_args)
        sources = _fitting_in(folder, architecture)
    if command == "check":
        check(resolved, architecture, sources)
    elif command == "rank":
        rank(resolved, architecture, sources, options.samples, options.json)
    else:
        _check_relate(resolved, sources, options)
        show_relations(resolved, architecture, sources, options)
    return 0


def _fitting_in(folder: Path, architecture: Architecture) -> list[Source]:
    """Sources in a folder that fit the architecture; the others are named on standard error.

    Raises:
        SourceError: the folder does not exist or has no sources.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder; give one with weight files, or --sources A,B")
    found = parse_sources([str(path) for path in weights_of_folder(folder).weights])
    fitting, failing = try_sources(architecture, found)
    for message in failing.values():
        print(f"left out: {message}", file=sys.stderr)
    if not fitting:
        raise SourceError(
            f"none of the {len(found)} sources in {folder} fits {architecture.label}: give the "
            "architecture of these with --architecture NAME; `sources inspect` of the folder "
            "guesses it"
        )
    return [each.source for each in fitting]


def _parser(command: str) -> CommandParser:
    folder = "[FOLDER] " if command == "relate" else ""
    usage = f"sources {command} {folder}--experiment NAME [options as for fit]"
    parser = CommandParser(
        f"sources {command}",
        usage=f"python -m zoo_lightning {usage}",
        description=ABOUT[command],
    )
    if command == "check":
        return parser
    default = RANKED_SAMPLES if command == "rank" else RELATED_SAMPLES
    parser.add_argument(
        "--samples",
        type=int,
        default=default,
        metavar="N",
        help="number of training samples, the same ones for the same seed (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    if command == "relate":
        parser.add_argument(
            "--output",
            type=Path,
            metavar="DIR",
            help="folder for relations.json and relations.png",
        )
        parser.add_argument(
            "--overwrite", action="store_true", help="write to a folder that has files"
        )
    return parser


def try_sources(
    architecture: Architecture, sources: Sequence[Source]
) -> tuple[list[Adapted], dict[str, str]]:
    """Adapt each source to the architecture, and collect those that do not fit.

    Returns:
        The sources that fit, and error messages of the others by name.
    """
    fitting: list[Adapted] = []
    failing: dict[str, str] = {}
    for source in sources:
        try:
            fitting += load_architecture(architecture, [source])
        except SourceError as error:
            failing[source.name] = str(error)
    return fitting, failing


def check(
    resolved: ResolvedExperiment, architecture: Architecture, sources: Sequence[Source]
) -> None:
    """Check and print for each source whether it fits the architecture.

    Raises:
        SourceError: naming all sources that do not fit.
    """
    backbone = resolved.options.model.init_args.backbone.class_path.rpartition(".")[2]
    if backbone == "ZooBackbone":
        check_network(architecture.plain())
    fitting, failing = try_sources(architecture, sources)
    print(f"{resolved.name}: {architecture.label} ({architecture.output} features)")
    reports = {each.source.name: each.report.summary() for each in fitting}
    for source in sources:
        if source.name in reports:
            print(f"fits          {source.name} ({source.weights}): {reports[source.name]}")
        else:
            print(f"does not fit  {failing[source.name]}")
    if warning := check_preprocessing(fitting):
        print(f"warning       {warning}")
    if note := unknown_preprocessing(fitting):
        print(f"note          {note}")
    _refuse_failing(failing, len(sources), architecture, "see their lines above")


def _refuse_failing(
    failing: dict[str, str], total: int, architecture: Architecture, reasons: str
) -> None:
    """Refuse sources that do not fit, if there are any.

    Raises:
        SourceError: naming all of them.
    """
    if failing:
        raise SourceError(
            f"{len(failing)} of {total} sources do not fit {architecture.label}: "
            f"{', '.join(failing)}; {reasons}"
        )


def _fit_all(architecture: Architecture, sources: Sequence[Source]) -> list[Adapted]:
    """Fit all sources to the architecture.

    Raises:
        SourceError: naming all sources that do not fit, with the reasons.
    """
    fitting, failing = try_sources(architecture, sources)
    _refuse_failing(failing, len(sources), architecture, " ".join(failing.values()))
    return fitting


def _warn_of_preprocessing(fitting: Sequence[Adapted]) -> None:
    if warning := check_preprocessing(fitting):
        print(f"warning: {warning}", file=sys.stderr)
    if note := unknown_preprocessing(fitting):
        print(f"note: {note}", file=sys.stderr)


def rank(
    resolved: ResolvedExperiment,
    architecture: Architecture,
    sources: Sequence[Source],
    samples: int,
    as_json: bool = False,
) -> None:
    """Rank the sources by the training data, and print them, best first.

    Raises:
        ConfigError: the data have no points, classes or numbers, or there are too few samples.
        SourceError: a source does not fit.
    """
    if samples < MIN_RANKED:
        raise ConfigError(
            f"--samples must be at least {MIN_RANKED}, better a thousand or more, got {samples}"
        )
    fitting = _fit_all(architecture, sources)
    ranking = rank_sources(architecture, fitting, plain_data(resolved.options.data), samples)
    if as_json:
        print(json.dumps({"experiment": resolved.name, **ranking.as_dict()}, indent=2))
    else:
        print(format_ranking(resolved.name, ranking))
    _warn_of_preprocessing(fitting)


def _check_relate(
    resolved: ResolvedExperiment, sources: Sequence[Source], options: argparse.Namespace
) -> None:
    """Refuse what ``sources relate`` cannot work with, before anything is read.

    Raises:
        ConfigError: a policy's experiment, too few samples or sources, or a folder with files.
    """
    task = resolved.options.model.class_path.rpartition(".")[2]
    if task == PPOTask.__name__:
        raise ConfigError(
            f"{resolved.name} trains a policy ({task}), whose images come from its own games: "
            "there are no training images with targets to relate sources by; give an experiment "
            "of images, such as classification, landmarks, regression or multi-label"
        )
    if options.samples < MIN_RELATED:
        raise ConfigError(
            f"--samples must be at least {MIN_RELATED}, better a thousand or more, got "
            f"{options.samples}"
        )
    if options.output:
        refuse_full(options.output, options.overwrite)
    if len(sources) < 2:
        raise ConfigError(
            f"relations are between two sources or more, {resolved.name} has one, "
            f"{sources[0].name}; give --sources A,B"
        )


def show_relations(
    resolved: ResolvedExperiment,
    architecture: Architecture,
    sources: Sequence[Source],
    options: argparse.Namespace,
) -> None:
    """Compute and print the relations of the sources, and optionally write them to a folder.

    Raises:
        ConfigError: the data have neither points nor classes.
        SourceError: a source does not fit.
    """
    fitting = _fit_all(architecture, sources)
    found = relate(
        architecture,
        fitting,
        plain_data(resolved.options.data),
        options.samples,
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    if options.output:
        write_relations(resolved.name, found, options.output)
    if options.json:
        print(relations_json(resolved.name, found))
    else:
        print(format_relations(resolved.name, found))
        if options.output:
            print(f"wrote {', '.join(FILES)} to {options.output}")
    _warn_of_preprocessing(fitting)


def format_ranking(experiment: str, ranking: Ranking) -> str:
    """Format a ranking as a table, followed by an explanation of its scores.

    Args:
        experiment: name of the experiment, for the title.
        ranking: scores of the sources, best first.
    """
    rows = [("", "source", *ranking.scores, "weights")]
    for place, row in enumerate(ranking.rows, 1):
        figures = (f"{row[score]:.4f}" for score in ranking.scores)
        rows.append((str(place), row["name"], *figures, row["weights"]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{experiment}: {ranking.samples} training samples, {ranking.architecture}, "
        f"{ranking.num_features} features"
    ]
    for cells in rows:
        padded = [
            cell.rjust(width) if 1 < index < len(cells) - 1 else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join([*lines, *ranking.remarks])

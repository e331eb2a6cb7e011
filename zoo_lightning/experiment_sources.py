"""``sources check``, ``rank`` and ``relate``: an experiment's sources, without training anything.

The experiment is resolved by the very parser of ``fit``, so all of its options work here too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser

from zoo_lightning.aggregable import check_network
from zoo_lightning.architecture import Architecture
from zoo_lightning.backbone import load_architecture
from zoo_lightning.errors import ConfigError, SourceError
from zoo_lightning.experiment_parts import experiment_zoo, plain_data
from zoo_lightning.experiments import experiment_name
from zoo_lightning.matched_zoo import refuse_full
from zoo_lightning.ranking import Ranking, rank_sources
from zoo_lightning.run_folder import run_of
from zoo_lightning.short_form import apply_short_form
from zoo_lightning.sources.adapting import Adapted
from zoo_lightning.sources.spec import Source
from zoo_lightning.sources.zoo import check_preprocessing
from zoo_lightning.trainer_cli import ZooCLI, run
from zoo_lightning.transfer.relation_report import (
    FILES,
    format_relations,
    relations_json,
    write_relations,
)
from zoo_lightning.transfer.relations import relate

RELATED_SAMPLES = 1000
"""Of ``sources relate`` at most, by default: standard errors are then about 0.004, and five small
sources take a minute."""

LEAST_SAMPLES = 8
"""Of ``sources relate``: two in each part of the probe."""

HELP = {
    "check": """\
usage: python -m zoo_lightning sources check --experiment NAME [options as for fit]

Do all sources of the experiment fit its architecture? One line a source; exit status 2 if any does
not. The data need not exist. --sources A,B and --architecture NAME replace the experiment's own.
""",
    "rank": """\
usage: python -m zoo_lightning sources rank --experiment NAME [options as for fit]

How well does each source suit the experiment's training data? From one pass through each source
without training, best first. --sources A,B and --architecture NAME replace the experiment's own.

  --samples N   training samples to look at, the same for the same seed (default: 2000)
  --json        print JSON
""",
    "relate": """\
usage: python -m zoo_lightning sources relate --experiment NAME [options as for fit]

Should these sources be merged, and how? For each source what a linear probe of its frozen features
explains of the training data; for each pair whether they are relatives by their kernels, what the
network of their averaged weights knows, and what both know together; and a conclusion. Nothing is
trained. --sources A,B and --architecture NAME replace the experiment's own.

  --samples N   training samples to look at, the same for the same seed (default: 1000)
  --json        print JSON
  --output DIR  write relations.json and relations.png there
  --overwrite   write to a folder with files
""",
}


class ExperimentReader(ZooCLI):
    """Resolve an experiment as ``fit`` would, and build nothing.

    Attributes:
        options: the resolved options of ``fit``.
        experiment: the experiment's name.
    """

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Only that whose options are taken, because each takes its time to set up."""
        return {"fit": ZooCLI.subcommands()["fit"]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what only these commands have."""
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--samples", type=int, default=2000, help="Training samples to rank by."
        )
        parser.add_argument("--json", action="store_true", help="Print JSON.")

    def _set_seed(self) -> None:
        """Leave the generators alone: nothing here draws from them."""

    def before_instantiate_classes(self) -> None:
        """Take the options."""
        self.options = self.config[self.subcommand]
        names = [experiment_name(path) for path in self.config_files()]
        self.experiment = "+".join(names) or "custom"
        for line in apply_short_form(self.options, self.arguments):
            print(line, file=sys.stderr)

    def instantiate_classes(self) -> None:
        """Build nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing."""


class RelationsReader(ExperimentReader):
    """Resolve an experiment for ``sources relate``."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add where to write; fewer samples, for many networks run over them."""
        super().add_arguments_to_parser(parser)
        parser.set_defaults({"samples": RELATED_SAMPLES})
        parser.add_argument("--output", type=str | None, default=None, help="Folder to write to.")
        parser.add_argument("--overwrite", action="store_true", help="Write to a full folder.")


def main(command: str, arguments: Sequence[str]) -> int:
    """Command line of ``sources check``, ``sources rank`` and ``sources relate``.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: the experiment has no sources, or options that cannot be right.
        SourceError: sources that do not fit, all of them named.
    """
    if not arguments or {"-h", "--help"} & set(arguments):
        print(HELP[command], end="")
        return 0
    kind = RelationsReader if command == "relate" else ExperimentReader
    reader = run(["fit", *arguments], kind)
    architecture, sources = experiment_zoo(reader.options, reader.experiment)
    if command == "check":
        check(reader, architecture, sources)
    elif command == "relate":
        show_relations(reader, architecture, sources)
    else:
        rank(reader, architecture, sources)
    return 0


def try_sources(
    architecture: Architecture, sources: Sequence[Source]
) -> tuple[list[Adapted], dict[str, str]]:
    """Fit each source, going on after one that does not fit.

    Returns:
        The sources that fit, and what is wrong with each of the others by name.
    """
    fitting: list[Adapted] = []
    failing: dict[str, str] = {}
    for source in sources:
        try:
            fitting += load_architecture(architecture, [source])
        except SourceError as error:
            failing[source.name] = str(error)
    return fitting, failing


def check(reader: ExperimentReader, architecture: Architecture, sources: Sequence[Source]) -> None:
    """Print one line a source.

    Raises:
        SourceError: naming all sources that do not fit.
    """
    backbone = reader.options.model.init_args.backbone.class_path.rpartition(".")[2]
    if backbone == "ZooBackbone":
        check_network(architecture.plain())
    fitting, failing = try_sources(architecture, sources)
    print(f"{reader.experiment}: {architecture.label} ({architecture.output} features)")
    reports = {each.source.name: each.report.summary() for each in fitting}
    for source in sources:
        if source.name in reports:
            print(f"fits          {source.name} ({source.weights}): {reports[source.name]}")
        else:
            print(f"does not fit  {failing[source.name]}")
    warning = check_preprocessing(fitting)
    if warning:
        print(f"warning       {warning}")
    refuse(failing, len(sources), architecture, "see their lines above")


def refuse(failing: dict[str, str], total: int, architecture: Architecture, mend: str) -> None:
    """Name all sources that do not fit, if there are any.

    Raises:
        SourceError: there are some.
    """
    if failing:
        raise SourceError(
            f"{len(failing)} of {total} sources do not fit {architecture.label}: "
            f"{', '.join(failing)}; {mend}"
        )


def rank(reader: ExperimentReader, architecture: Architecture, sources: Sequence[Source]) -> None:
    """Print the sources, best first.

    Raises:
        ConfigError: data that have neither points nor classes, or too few samples.
        SourceError: a source does not fit.
    """
    samples = reader.options.samples
    if samples < 2:
        raise ConfigError(f"--samples {samples}: expected at least 2, better a thousand or more")
    fitting, failing = try_sources(architecture, sources)
    refuse(failing, len(sources), architecture, " ".join(failing.values()))
    data = plain_data(reader.options.data)
    ranking = rank_sources(architecture, fitting, data, samples)
    if reader.options.json:
        print(json.dumps({"experiment": reader.experiment, **ranking.as_dict()}, indent=2))
    else:
        print(format_ranking(reader.experiment, ranking))
    if warning := check_preprocessing(fitting):
        print(f"warning: {warning}", file=sys.stderr)


def show_relations(
    reader: ExperimentReader, architecture: Architecture, sources: Sequence[Source]
) -> None:
    """Print how the sources are related, and write it if there is a folder for it.

    Raises:
        ConfigError: a policy's experiment, data that have neither points nor classes, too few
            samples or sources, or a folder with files.
        SourceError: a source does not fit.
    """
    options = reader.options
    samples = options.samples
    task = options.model.class_path.rpartition(".")[2]
    if task == "PPOTask":
        raise ConfigError(
            f"{reader.experiment} trains a policy ({task}), whose images come from its own games: "
            "there are no training images with points or classes to relate sources by; give an "
            "experiment of landmarks or classification"
        )
    if samples < LEAST_SAMPLES:
        raise ConfigError(
            f"--samples {samples}: expected at least {LEAST_SAMPLES}, better a thousand or more"
        )
    folder = Path(options.output) if options.output else None
    if folder:
        refuse_full(folder, options.overwrite)
    if len(sources) < 2:
        raise ConfigError(
            f"relations are between two sources or more, {reader.experiment} has one, "
            f"{sources[0].name}; give --sources A,B"
        )
    fitting, failing = try_sources(architecture, sources)
    refuse(failing, len(sources), architecture, " ".join(failing.values()))
    found = relate(
        architecture,
        fitting,
        plain_data(options.data),
        samples,
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    if folder:
        write_relations(reader.experiment, found, folder)
    if options.json:
        print(relations_json(reader.experiment, found))
    else:
        print(format_relations(reader.experiment, found))
        if folder:
            print(f"wrote {', '.join(FILES)} to {folder}")
    if warning := check_preprocessing(fitting):
        print(f"warning: {warning}", file=sys.stderr)


def format_ranking(experiment: str, ranking: Ranking) -> str:
    """The ranking as a table, and what its scores mean."""
    rows = [("", "source", *ranking.scores, "weights")]
    for place, row in enumerate(ranking.rows, 1):
        figures = (f"{row[score]:.4f}" for score in ranking.scores)
        rows.append((str(place), row["name"], *figures, row["weights"]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"{experiment}: {ranking.samples} training samples, {ranking.architecture}, "
        f"{ranking.num_features} features"
    ]
    for row in rows:
        cells = [
            cell.rjust(width) if 1 < index < len(row) - 1 else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, *ranking.remarks])


def run_data(
    checkpoint: Path, experiments: Sequence[str] = (), rest: Sequence[str] = ()
) -> LightningDataModule:
    """The data that a run was trained on, or others, without augmentation.

    Args:
        checkpoint: of the run.
        experiments: whose data to take in place of the run's own.
        rest: further options of ``fit``.

    Raises:
        ConfigError: the run has no configuration, or options that cannot be right.
        DataError: as the data raise it.
    """
    words = [word for name in experiments for word in ("--experiment", name)]
    words += rest if experiments or _has_config(rest) else [*_config_of(checkpoint), *rest]
    return plain_data(run(["fit", *words], ExperimentReader).options.data)


def _has_config(words: Sequence[str]) -> bool:
    return any(word.partition("=")[0] in ("--config", "-c", "--experiment") for word in words)


def _config_of(checkpoint: Path) -> list[str]:
    """Words that give the configuration of the run a checkpoint lies in.

    Raises:
        ConfigError: there is none.
    """
    folder = run_of(checkpoint)
    if folder is None or not (folder / "config.yaml").is_file():
        raise ConfigError(
            f"there is no config.yaml of the run of {checkpoint}; give --experiment NAME, whose "
            "data are to be taken"
        )
    return ["--config", str(folder / "config.yaml")]

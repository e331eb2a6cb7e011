"""Command ``gates``: report on a trained zoo, from its checkpoint and its data."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo_lightning.analysis.measuring import no_report_for
from zoo_lightning.analysis.report import gate_report, refuse_no_zoo
from zoo_lightning.analysis.writing import FILES, format_report, write_report
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.finding import experiment_name, find_experiment
from zoo_lightning.experiments.option_names import CommandParser, add_experiments
from zoo_lightning.experiments.resolving import run_data
from zoo_lightning.files.folders import refuse_full
from zoo_lightning.models.architecture import vouch_for
from zoo_lightning.reports.writing import leave_report
from zoo_lightning.runs.run_folder import PAGE, find_checkpoint, read_checkpoint
from zoo_lightning.sources.own_runs import describe_ensemble, run_of
from zoo_lightning.tasks.compatibility import trained_classes
from zoo_lightning.tasks.loading import task_from

ABOUT = """\
Report whether the gates of a trained zoo can be read as its sources' worth: mean gates by layer and
source, and the effect on the metric of setting a source's gates to zero, with the others scaled up
to the same sum and norm statistics re-estimated. A verdict follows the tables.
"""

TASKS = ("ClassificationTask", "LandmarkTask", "RegressionTask")


def main(arguments: Sequence[str]) -> int:
    """Run the command ``gates``.

    Args:
        arguments: command line without the subcommand.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: an option's value is not allowed, or the checkpoint holds no zoo.
        DataError: the data cannot be read.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    vouch_for(options.architecture)
    given = [name for name in options.experiment if not name.startswith("{")]
    names = [experiment_name(find_experiment(name)) for name in given]
    checkpoint = find_checkpoint(options.ckpt_path, None, "+".join(names))
    content = read_checkpoint(checkpoint)
    refuse_unsuitable(content)
    folder = run_of(checkpoint)
    output = options.output or (folder and folder / "gates")
    if output is None:
        raise ConfigError(f"--output must be given, since {checkpoint} is in no run folder")
    refuse_full(output, options.overwrite)
    found = gate_report(
        task_from(content, checkpoint),
        run_data(checkpoint, options.experiment, rest, parser.option_names()),
        options.split,
        options.samples,
        options.calibration,
        options.layer_samples,
        lambda line: print(line, file=sys.stderr, flush=True),
        trained_classes(content["zoo_lightning"]),
    )
    write_report(found, output, {"checkpoint": str(checkpoint)})
    print(f"{checkpoint}\n{format_report(found)}")
    files = [*FILES, *([PAGE] if leave_report(output) else [])]
    if folder is not None and output == folder / "gates":
        leave_report(folder)  # the run's own page shows them, too
    print(f"wrote {', '.join(files)} to {output}")
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        "gates",
        description=ABOUT,
        epilog="Further options are fit's options of the data; by default they are read from the "
        "run's config.yaml.",
    )
    parser.add_argument(
        "--ckpt_path", required=True, help="checkpoint, run folder, or last or best of --experiment"
    )
    add_experiments(parser, "whose data to use instead of the run's")
    parser.add_argument(
        "--architecture",
        help="import path of the function that builds the network, if that is not timm's: a path "
        "in a checkpoint is called only if it is named here",
    )
    parser.add_argument("--split", choices=("val", "test"), default="test", help="(default: test)")
    parser.add_argument("--output", type=Path, help="folder to write to (default: RUN/gates)")
    parser.add_argument("--overwrite", action="store_true", help="write to a folder with files")
    parser.add_argument(
        "--samples", type=int, default=2000, help="samples of the split (default: 2000)"
    )
    parser.add_argument(
        "--calibration",
        type=int,
        default=1000,
        help="training images to estimate norm statistics from (default: 1000)",
    )
    parser.add_argument(
        "--layer_samples",
        type=int,
        default=256,
        help="samples for the removal from single layers; 0 to leave it out (default: 256)",
    )
    return parser


def refuse_unsuitable(content: dict[str, Any]) -> None:
    """Check that a checkpoint holds a zoo with a supported task, before anything is built.

    Args:
        content: content of the checkpoint.

    Raises:
        ConfigError: the checkpoint holds an ensemble, another task or another backbone.
    """
    if ensemble := describe_ensemble(content):
        raise ConfigError(
            f"gates are reported for one zoo, and the checkpoint is {ensemble}; give the run of "
            "one of them"
        )
    task = content["zoo_lightning"]["task"]
    if task not in TASKS:
        raise ConfigError(no_report_for(task))
    backbone = content["hyper_parameters"]["backbone"]
    refuse_no_zoo(backbone["class_path"], len(backbone["init_args"].get("sources") or []))

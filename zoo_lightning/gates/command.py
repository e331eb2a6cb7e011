"""``gates``: the report of a trained zoo, from its checkpoint and its data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo_lightning.architecture import vouch_for
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiment_sources import run_data
from zoo_lightning.experiments import experiment_name, find_experiment
from zoo_lightning.gates.report import gate_report, refuse_no_zoo
from zoo_lightning.gates.writing import FILES, format_report, write_report
from zoo_lightning.matched_zoo import refuse_full
from zoo_lightning.run_folder import (
    describe_ensemble,
    find_checkpoint,
    read_checkpoint,
    run_of,
)
from zoo_lightning.tasks.loading import load_task
from zoo_lightning.tasks.same_options import trained_classes

ABOUT = """\
May the gates of a trained zoo be read as its sources' worth? Mean gates by layer and source, beside
what happens to the metric when a source's gates are set to zero, the others scaled up to the same
sum and norm statistics estimated anew. The last line is the verdict.
"""

TASKS = ("ClassificationTask", "LandmarkTask")


def main(arguments: Sequence[str]) -> int:
    """Command line of ``gates``.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: options that cannot be right, or a checkpoint of which there is no report.
        DataError: as the data raise it.
    """
    options, rest = _parser().parse_known_args(arguments)
    vouch_for(options.architecture)
    names = [experiment_name(find_experiment(name)) for name in options.experiment]
    checkpoint = find_checkpoint(options.ckpt_path, None, "+".join(names))
    content = read_checkpoint(checkpoint)
    refuse_unsuitable(content)
    folder = run_of(checkpoint)
    if options.output is None and folder is None:
        raise ConfigError(f"{checkpoint} lies in no run; say with --output where to write")
    output = options.output or folder / "gates"
    refuse_full(output, options.overwrite)
    found = gate_report(
        load_task(checkpoint),
        run_data(checkpoint, options.experiment, rest),
        options.split,
        options.samples,
        options.calibration,
        options.layer_samples,
        lambda line: print(line, file=sys.stderr, flush=True),
        trained_classes(content["zoo_lightning"]),
    )
    write_report(found, output, {"checkpoint": str(checkpoint)})
    print(f"{checkpoint}\n{format_report(found)}")
    print(f"wrote {', '.join(FILES)} to {output}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zoo_lightning gates",
        description=ABOUT,
        epilog="Further options are those of fit that say what the data are; by default the run's "
        "own config.yaml has them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--ckpt_path", required=True, help="checkpoint, run folder, or last or best of --experiment"
    )
    parser.add_argument(
        "--experiment", action="append", default=[], help="whose data to take, if not the run's own"
    )
    parser.add_argument(
        "--architecture",
        help="import path of the network's function, of a checkpoint whose network is not timm's: "
        "it is called only if it is named here",
    )
    parser.add_argument("--split", choices=("val", "test"), default="test", help="(default: test)")
    parser.add_argument("--output", type=Path, help="folder to write to (default: RUN/gates)")
    parser.add_argument("--overwrite", action="store_true", help="write to a folder with files")
    parser.add_argument(
        "--samples", type=int, default=2000, help="of the split to judge by (default: 2000)"
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
        help="samples for the removal from single layers; 0 leaves it out (default: 256)",
    )
    return parser


def refuse_unsuitable(content: dict[str, Any]) -> None:
    """Refuse a checkpoint of which there can be no report, before anything is built.

    Raises:
        ConfigError: naming its task or its backbone, or an ensemble.
    """
    if ensemble := describe_ensemble(content):
        raise ConfigError(
            f"gates are reported for one zoo, and the checkpoint is {ensemble}; give the run of "
            "one of them"
        )
    task = content["zoo_lightning"]["task"]
    if task not in TASKS:
        raise ConfigError(f"gates are reported for {' and '.join(TASKS)}, not for {task}")
    backbone = content["hyper_parameters"]["backbone"]
    refuse_no_zoo(backbone["class_path"], len(backbone["init_args"].get("sources") or []))

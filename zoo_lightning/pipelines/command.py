"""``fit --method NAME``: any transfer method, its trainings as stages of one run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo_lightning.callbacks.interrupt import TrainingInterrupted
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiment_sources import ExperimentReader
from zoo_lightning.faults import terminable
from zoo_lightning.methods.recipes import RECIPES
from zoo_lightning.pipelines.auto import AUTO, BUDGET, carry_out_auto, check_auto
from zoo_lightning.pipelines.estimate import estimate
from zoo_lightning.pipelines.plan import Plan, begin
from zoo_lightning.pipelines.transfer import Hands, carry_out, find_method, trainings
from zoo_lightning.refused_options import check_trainer_options
from zoo_lightning.run_folder import SUMMARY
from zoo_lightning.runs.folders import shared_run_folder
from zoo_lightning.runs.length import check_length_options
from zoo_lightning.runs.options import shared_options
from zoo_lightning.stopping import WorkStopped
from zoo_lightning.tasks import PPOTask
from zoo_lightning.text_files import TEXT
from zoo_lightning.trainer_cli import run

ABOUT = f"""\
Train by a transfer method. What it is made from, such as teachers or sources that are tried, is
trained first, as stages in the run's folder; what is finished is not repeated, so repeat the
command with the same --run_dir to continue. At the end the folder is that of any run.

methods: {AUTO}, which makes what it can of sources and budget; {", ".join(RECIPES)};
single:SOURCE fine-tunes that source
"""

REFUSED = {
    "init_from": (None, "a method has its own start; a run can be a source"),
    "ckpt_path": (None, "what was stopped continues by itself: give its --run_dir"),
    "samples": (2000, "it is of sources rank"),
    "json": (False, "it is of sources rank"),
}
"""Options of ``fit`` that a method cannot have: their defaults, and what to do instead."""


def main(arguments: Sequence[str]) -> int:
    """Command line of ``fit --method``.

    Returns:
        Exit status 0; 129, 130 or 143 after a signal.

    Raises:
        ConfigError: options that cannot be right.
        ZooError: a training failed.
    """
    words, rest = _parser().parse_known_args(arguments)
    if words.inference < 1:
        raise ConfigError(f"--inference must be at least 1, got {words.inference}")
    if words.inference > 1 and words.method != AUTO:
        raise ConfigError(
            f"--inference {words.inference} is for --method {AUTO}, which may then end with an "
            f"ensemble; {words.method} costs what it costs: leave it out"
        )
    if words.workers < 1:
        raise ConfigError(f"--workers must be at least 1, got {words.workers}")
    options = run(["fit", *rest], ExperimentReader)
    given = options.options
    _check_given(given, rest)
    shared = shared_options(given)
    budget = BUDGET if words.method == AUTO and given.budget is None else given.budget
    plan = Plan(words.method, options.experiment, shared, budget, words.inference, given.run_test)
    carry = carry_out_auto if words.method == AUTO else carry_out
    check_auto(plan) if words.method == AUTO else find_method(plan)
    folder = Path(given.run_dir or shared_run_folder(f"{options.experiment}-{words.method}"))
    begin(folder, plan)
    if _is_finished(folder):
        print(f"finished      {folder}; give another --run_dir for another run")
        return 0
    devices = [word for word in words.devices.split(",") if word]
    hands = Hands(max(words.workers, len(devices)), devices, lambda line: print(line, flush=True))
    print(f"method        {words.method}\nrun folder    {folder}", flush=True)
    if plan.task != PPOTask.__name__:  # whose steps are those of a game
        cost = plan.budget if words.method == AUTO else trainings(plan)
        print(estimate(given).line(cost), flush=True)
    try:
        with terminable():
            carry(plan, folder, hands)
    except (WorkStopped, TrainingInterrupted) as stop:
        print(
            f"\n{stop}\nGo on with the same command and --run_dir {folder}",
            file=sys.stderr,
        )
        return 128 + stop.signal_number
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zoo_lightning fit",
        description=ABOUT,
        epilog="Further options are those of fit: python -m zoo_lightning fit --help.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--method", required=True, help="name of the transfer method")
    parser.add_argument(
        "--inference",
        type=int,
        default=1,
        metavar="K",
        help="of auto: what the result may cost per image, in networks of the architecture; from 2 "
        "on it may be an ensemble (default: 1)",
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="stages' runs at a time (default: 1)"
    )
    parser.add_argument("--devices", default="", help="GPUs to give to the workers, such as 0,1")
    return parser


def _check_given(options: Any, arguments: Sequence[str]) -> None:
    """Refuse options that a method cannot have, and lengths that contradict each other."""
    for name, (default, instead) in REFUSED.items():
        if options.get(name, default) != default:
            raise ConfigError(f"--{name}: no option of fit --method; {instead}: leave it out")
    check_trainer_options(options.trainer, arguments)
    check_length_options(options, arguments)
    if options.trainer.limit_val_batches == 0 or options.trainer.fast_dev_run:
        raise ConfigError(
            "a method compares its trainings by validation: leave out trainer.limit_val_batches 0 "
            "and trainer.fast_dev_run"
        )


def _is_finished(folder: Path) -> bool:
    path = folder / SUMMARY
    return path.is_file() and "pipeline" in json.loads(path.read_text(**TEXT))

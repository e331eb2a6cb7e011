"""Files of a run folder: what they are, what writes them, and how to read them.

=========================  ===========================================  ======================
file                       written by                                   read with
=========================  ===========================================  ======================
``config.yaml``            ``callbacks.config_file``: resolved options  ``--config``
``metrics.csv``            ``loggers.metrics_file``: logged steps       :func:`metric_by_step`
``checkpoints/best.ckpt``  a ``ModelCheckpoint``, ``methods.saving``    :func:`read_checkpoint`
``checkpoints/last.ckpt``  ``callbacks.checkpoints.LastCheckpoint``     :func:`read_checkpoint`
``summary.json``           :func:`write_summary`, at a run's end        :func:`read_summary`
``pictures/``              callbacks, ``loggers.figures_and_tables``    an image viewer
``test_errors.csv``        callbacks, in a test                         :func:`errors_in_test`
``predictions.csv``        the same callbacks, in ``predict``           a spreadsheet
``report.html``            ``reports.writing``, at a run's end          a browser
``log.txt``                ``runs.pool``: output of a run's process     :func:`last_line_of_log`
=========================  ===========================================  ======================

``summary.json`` and ``checkpoints`` are named in ``sources.own_runs``, since runs can be sources.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from zoo_lightning.errors import ConfigError, SourceError
from zoo_lightning.files.atomic import atomic_file, remove_parts
from zoo_lightning.files.text import TEXT
from zoo_lightning.sources.own_runs import CHECKPOINTS, MEMBERS, SUMMARY, run_of

CONFIG, METRICS, PICTURES = "config.yaml", "metrics.csv", "pictures"

TEST_ERRORS, PREDICTIONS = "test_errors.csv", "predictions.csv"
"""Tables with a row for each image."""

CLASSES = "classes.csv"
"""Table with a row for each class: precision, recall and F1 of the last test."""

PLAN = "pipeline.yaml"
"""Plan of a run that ``fit --method`` makes of several trainings."""

PAGE = "report.html"
"""Report on what a folder holds, also in folders of comparisons, sweeps and gate reports."""

LOG = "log.txt"
"""Output of a run that another command started."""

BEST, LAST = f"{CHECKPOINTS}/best.ckpt", f"{CHECKPOINTS}/last.ckpt"


def remove_leftovers(folder: Path) -> None:
    """Remove incomplete files that a killed process left in a run folder."""
    for each in (folder, folder / CHECKPOINTS, folder / PICTURES):
        remove_parts(each)


def find_checkpoint(
    given: str,
    run_dir: str | None,
    experiment: str,
    option: str = "--ckpt_path",
    resuming: bool = False,
) -> Path:
    """Find the checkpoint file of an option such as ``--ckpt_path``.

    Args:
        given: a file; a run folder, for its best checkpoint (without one, the checkpoint in its
            summary, or the last one); or ``last`` or ``best``, for that of ``run_dir`` or, without
            it, of the experiment's most recently saved run.
        run_dir: run folder, or ``None``.
        experiment: name of the experiment.
        option: name of the option, for messages.
        resuming: whether a training is to be resumed; a run folder is then for its last
            checkpoint.

    Raises:
        ConfigError: there is no such file.
    """
    if given in ("last", "best"):
        found = _best_of if given == "best" else last_checkpoint
        there = map(found, Path("runs", experiment).glob("*/"))
        runs = [path for path in there if path.is_file()]
        if run_dir is not None:
            path = found(Path(run_dir))
        elif runs:
            path = max(runs, key=lambda path: path.stat().st_mtime)
        else:
            known = f"no run of {experiment!r} under {Path('runs', experiment)}; give"
            what = known if experiment else "of which experiment? Give --experiment NAME, or"
            raise ConfigError(
                f"{option} {given}: {what} the path of a run folder or of a checkpoint"
            )
    else:
        path = Path(given)
        if path.is_dir():
            best, last = _best_of(path), last_checkpoint(path)
            path = last if last.is_file() and (resuming or not best.is_file()) else best
    if not path.is_file():
        early = path.parent.parent.is_dir() and path.parent.name == CHECKPOINTS
        hint = " (a run that was stopped before it saved anything is started again without it)"
        raise ConfigError(
            f"{option} {given}: there is no file {path}; expected a checkpoint, a run folder, "
            f"'last' or 'best'{hint if early else ''}"
        )
    return path


def _best_of(run: Path) -> Path:
    """Best checkpoint of a run; a ``ModelCheckpoint`` of the user's may save it elsewhere."""
    path = run / BEST
    if not path.is_file() and (summary := read_summary(run)) is not None:
        noted = run / summary.get("checkpoint", path.name)
        return noted if noted.is_file() else path
    return path


def last_checkpoint(run: Path) -> Path:
    """Path of the checkpoint from which a run is resumed, whether it exists or not.

    A run that was killed between its first two saves has only its best one, which is as complete.
    """
    last, best = run / LAST, run / BEST
    return best if best.is_file() and not last.is_file() else last


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a run's or an ensemble's checkpoint to the CPU, without running code from the file.

    Args:
        path: checkpoint file.

    Returns:
        Content of the file. For one network, it has ``state_dict``, ``hyper_parameters``,
        ``global_step`` and ``zoo_lightning``, among others; for an ensemble, the last two and its
        networks' contents, see :func:`~zoo_lightning.sources.own_runs.networks_in`.

    Raises:
        ConfigError: the file is damaged, would run code, or was not written by this package.
    """
    # Slow to import, and not needed to find runs.
    from zoo_lightning.sources.files import read_contents

    try:
        content = read_contents(path).whole
    except SourceError as error:
        raise ConfigError(str(error)) from error
    if "zoo_lightning" not in content:
        raise ConfigError(
            f"{path} was not written by zoo_lightning; to start from foreign weights name the file "
            "as a source"
        )
    if missing := _mistyped(content):
        another = "take another checkpoint of the run"
        raise ConfigError(
            f"{path} is damaged, or of another version of zoo_lightning: {missing} is not what a "
            f"run writes; {'make the ensemble again' if MEMBERS in content else another}"
        )
    return content


ALWAYS = {
    "zoo_lightning": Mapping,
    "zoo_lightning.task": str,
    "global_step": int,
    "zoo_lightning.data": (Mapping, NoneType),
    "zoo_lightning.data.classes": (list, NoneType),
    "zoo_lightning.data.value_range": (list, NoneType),
    "zoo_lightning.data_options": (Mapping, NoneType),
    "zoo_lightning.method": (str, NoneType),
}
"""Types of entries of every checkpoint, by dotted name."""

OF_NETWORK = {
    "state_dict": Mapping,
    "hyper_parameters": Mapping,
    "hyper_parameters.backbone": Mapping,
    "hyper_parameters.backbone.class_path": str,
    "hyper_parameters.backbone.init_args": Mapping,
}
"""Types of further entries of a single network's checkpoint, by dotted name."""


def _mistyped(content: Mapping[str, Any]) -> str:
    """Dotted name of an entry of the wrong type in a checkpoint; empty if there is none."""
    if MEMBERS not in content:
        return _first_mistyped(content, ALWAYS | OF_NETWORK)
    if wrong := _first_mistyped(content, ALWAYS):
        return wrong
    members = content[MEMBERS]
    if not isinstance(members, Mapping) or not members:
        return MEMBERS
    for name, member in members.items():
        place = f"{MEMBERS}.{name}"
        # An ensemble of ensembles would be one of other weights than it seems.
        if not isinstance(member, Mapping) or MEMBERS in member:
            return place
        if wrong := _first_mistyped(member, ALWAYS | OF_NETWORK | {"run": (str, NoneType)}):
            return f"{place}.{wrong}"
        if member["zoo_lightning"]["task"] != content["zoo_lightning"]["task"]:
            return f"{place}.zoo_lightning.task"
    return ""


def _first_mistyped(content: Mapping[str, Any], places: Mapping[str, Any]) -> str:
    """First of some dotted names whose entry has another type; empty if there is none."""
    for place, kind in places.items():
        found: Any = content
        for key in place.split("."):
            found = None if found is None else found.get(key)
        if not isinstance(found, kind):
            return place
    return ""


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write a run's ``summary.json`` atomically."""
    with atomic_file(folder / SUMMARY) as part:
        part.write_text(json.dumps(summary, indent=2) + "\n", **TEXT)


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Read a run's ``summary.json``; ``None`` if the run has not ended."""
    path = folder / SUMMARY
    return json.loads(path.read_text(**TEXT)) if path.is_file() else None


def seconds_of(summary: Mapping[str, Any]) -> float:
    """Seconds that a run took, including its informed start, from its summary."""
    return summary["seconds"] + summary.get("start_seconds", 0.0)


def compute_of(run: Path) -> dict[str, Any]:
    """Compute of a run from its ``summary.json``; empty if it is not recorded.

    Args:
        run: run folder, or a checkpoint in one.
    """
    summary = read_summary(run if run.is_dir() else run_of(run) or run)
    return (summary or {}).get("compute", {})


def earlier_metrics(folder: Path, until_step: int) -> list[dict[str, int | float]]:
    """Read the rows of a run's ``metrics.csv`` before the step at which it is resumed.

    The step of a row is the number of steps before it: values logged in the first step have 0. An
    incomplete last line, after a full disk or a killed process, is left out, and so is the test of
    a run that had ended: the resumed run is tested again.
    """
    file = folder / METRICS
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8", errors="replace") as stream:
        lines = [line for line in stream if line.endswith("\n")]
    rows = [{k: _number(v) for k, v in row.items() if v} for row in csv.DictReader(lines)]
    trained = [row for row in rows if not any(name.startswith("test/") for name in row)]
    return [row for row in trained if row.get("step", 0) < until_step]


def last_line_of_log(folder: Path, otherwise: str) -> str:
    """Last line of a run's ``log.txt``, the output of its process.

    Args:
        folder: run folder.
        otherwise: text to return if it printed nothing.
    """
    log = folder / LOG
    lines = (
        log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if log.is_file()
        else []
    )
    return lines[-1] if lines else otherwise


def metric_by_step(folder: Path, name: str) -> dict[int, float]:
    """Read the values of a metric from a run's ``metrics.csv``, by step; empty without a file."""
    if not (folder / METRICS).is_file():
        return {}
    with (folder / METRICS).open(newline="", **TEXT) as stream:
        rows = [row for row in csv.DictReader(stream) if row.get(name)]
    return {int(float(row["step"])): float(row[name]) for row in rows}


def errors_in_test(folder: Path) -> list[float]:
    """Read the NME of a run's test images from ``test_errors.csv``, as fractions.

    Faces without the normalisation distance are left out.

    Raises:
        ConfigError: the run has no such file.
    """
    path = folder / TEST_ERRORS
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; expected a run of landmarks that was tested")
    with path.open(newline="", **TEXT) as stream:
        return [float(row["nme"]) / 100 for row in csv.DictReader(stream) if row["nme"]]


def _number(text: str) -> int | float:
    """An integer if it is written as one, so that it is written the same way again."""
    try:
        return int(text)
    except ValueError:
        return float(text)

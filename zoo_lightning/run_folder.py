"""The folder of one run: what is in it, and how to find one again.

``config.yaml`` (resolved), ``metrics.csv``, ``checkpoints/{best,last}.ckpt``, ``pictures/``,
``summary.json``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from zoo_lightning.errors import ConfigError, SourceError
from zoo_lightning.text_files import TEXT
from zoo_lightning.whole_files import remove_parts, whole_file

CHECKPOINTS, PICTURES, SUMMARY, METRICS = "checkpoints", "pictures", "summary.json", "metrics.csv"

TEST_ERRORS = "test_errors.csv"
"""Result of each test image."""

LOG = "log.txt"
"""What a run that another command started has printed."""

MEMBERS = "members"
"""Key of a checkpoint under which an ensemble has its networks' checkpoints, by their numbers."""


def remove_leftovers(folder: Path) -> None:
    """Remove what a process of a run that was killed had begun to write."""
    for each in (folder, folder / CHECKPOINTS, folder / PICTURES):
        remove_parts(each)


def run_of(checkpoint: Path) -> Path | None:
    """Run folder that a checkpoint lies in, or ``None``."""
    parent = checkpoint.resolve().parent
    return parent.parent if parent.name == CHECKPOINTS else None


def find_checkpoint(
    given: str, run_dir: str | None, experiment: str, option: str = "--ckpt_path"
) -> Path:
    """Checkpoint that a user means.

    Args:
        given: a file; a run folder, whose best is meant; or ``last`` or ``best``, of ``run_dir`` or
            else of the experiment's run that saved last.
        run_dir: the run folder, if one was given.
        experiment: the experiment's name.
        option: through which it was given, for messages.

    Raises:
        ConfigError: nothing there.
    """
    if given in ("last", "best"):
        runs = list(Path("runs", experiment).glob(f"*/{CHECKPOINTS}/{given}.ckpt"))
        if run_dir is not None:
            path = Path(run_dir) / CHECKPOINTS / f"{given}.ckpt"
        elif runs:
            path = max(runs, key=lambda path: path.stat().st_mtime)
        else:
            raise ConfigError(
                f"{option} {given}: no run of {experiment!r} under {Path('runs', experiment)}; "
                "give --run_dir, or the path of a checkpoint"
            )
    else:
        path = Path(given)
        if path.is_dir():
            path = path / CHECKPOINTS / "best.ckpt"
    if not path.is_file():
        early = path.parent.parent.is_dir() and path.parent.name == CHECKPOINTS
        hint = " (a run that was stopped before it saved anything is started again without it)"
        raise ConfigError(
            f"{option} {given}: there is no file {path}; expected a checkpoint, a run folder, "
            f"'last' or 'best'{hint if early else ''}"
        )
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a run's or an ensemble's checkpoint, on the CPU; no code in the file is run.

    Args:
        path: of the file.

    Returns:
        Of one network ``state_dict``, ``hyper_parameters``, ``global_step`` and ``zoo_lightning``
        among others. An ensemble has the last two and its networks' contents, see
        :func:`networks_in`.

    Raises:
        ConfigError: a file that is damaged, that would run code, or that is not of this project.
    """
    # Slow to import, and not needed by those who only look for runs.
    import torch

    from zoo_lightning.sources.files import read_contents

    try:
        read_contents(path)
        content = torch.load(path, weights_only=True, map_location="cpu")
    except SourceError as error:
        raise ConfigError(str(error)) from error
    except Exception as error:  # the unpickler raises whatever a file leads it to
        raise ConfigError(f"{path} is not a checkpoint of zoo_lightning ({error})") from error
    if "zoo_lightning" not in content:
        raise ConfigError(
            f"{path} was not written by zoo_lightning; to start from foreign weights name the file "
            "as a source"
        )
    if missing := _misshapen(content):
        another = "take another checkpoint of the run"
        raise ConfigError(
            f"{path} is damaged, or of another version of zoo_lightning: {missing} is not what a "
            f"run writes; {'make the ensemble again' if MEMBERS in content else another}"
        )
    return content


def networks_in(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What an ensemble's checkpoint has of its networks; nothing of a checkpoint of one network.

    Args:
        content: as :func:`read_checkpoint` gives it.

    Returns:
        One for each network: what a run's checkpoint has of model and data, and in ``run`` the path
        of the run it was taken from.
    """
    return list(content.get(MEMBERS, {}).values())


def describe_ensemble(content: Mapping[str, Any]) -> str:
    """A phrase of how many networks an ensemble has, and from which runs they are.

    Args:
        content: of a checkpoint, whoever wrote it.

    Returns:
        ``an ensemble of 2 networks (RUN, RUN)``; empty for anything else.
    """
    members = content.get(MEMBERS)
    if "zoo_lightning" not in content or not isinstance(members, Mapping):
        return ""
    given = [each.get("run") for each in members.values() if isinstance(each, Mapping)]
    runs = ", ".join(run for run in given if isinstance(run, str))
    described = f"an ensemble of {len(members)} network{'' if len(members) == 1 else 's'}"
    return f"{described} ({runs})" if runs else described


OF_ALL = {
    "zoo_lightning": Mapping,
    "zoo_lightning.task": str,
    "global_step": int,
    "zoo_lightning.data": (Mapping, NoneType),
    "zoo_lightning.data.classes": (list, NoneType),
    "zoo_lightning.data_options": (Mapping, NoneType),
    "zoo_lightning.method": (str, NoneType),
}
"""Kinds of what every checkpoint has."""

OF_ONE = {
    "state_dict": Mapping,
    "hyper_parameters": Mapping,
    "hyper_parameters.backbone": Mapping,
    "hyper_parameters.backbone.class_path": str,
    "hyper_parameters.backbone.init_args": Mapping,
}
"""Kinds of what a checkpoint of one network has besides."""


def _misshapen(content: Mapping[str, Any]) -> str:
    """What in a checkpoint is of the wrong kind; empty if nothing is."""
    if MEMBERS not in content:
        return _of_other_kind(content, OF_ALL | OF_ONE)
    if wrong := _of_other_kind(content, OF_ALL):
        return wrong
    members = content[MEMBERS]
    if not isinstance(members, Mapping) or not members:
        return MEMBERS
    for name, member in members.items():
        place = f"{MEMBERS}.{name}"
        # An ensemble of ensembles would be one of other weights than it seems.
        if not isinstance(member, Mapping) or MEMBERS in member:
            return place
        if wrong := _of_other_kind(member, OF_ALL | OF_ONE | {"run": (str, NoneType)}):
            return f"{place}.{wrong}"
        if member["zoo_lightning"]["task"] != content["zoo_lightning"]["task"]:
            return f"{place}.zoo_lightning.task"
    return ""


def _of_other_kind(content: Mapping[str, Any], places: Mapping[str, Any]) -> str:
    """The first of some dotted places where something else stands than should; empty if none."""
    for place, kind in places.items():
        found: Any = content
        for key in place.split("."):
            found = None if found is None else found.get(key)
        if not isinstance(found, kind):
            return place
    return ""


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write ``summary.json`` so that a reader never finds half of it."""
    with whole_file(folder / SUMMARY) as part:
        part.write_text(json.dumps(summary, indent=2) + "\n", **TEXT)


def compute_of(run: Path) -> dict[str, Any]:
    """What a run's training has cost, as its ``summary.json`` has it; empty if it does not say.

    Args:
        run: its folder, or a checkpoint of it.
    """
    path = (run if run.is_dir() else run_of(run) or run) / SUMMARY
    return json.loads(path.read_text(**TEXT)).get("compute", {}) if path.is_file() else {}


def earlier_metrics(folder: Path, until_step: int) -> list[dict[str, int | float]]:
    """Rows of a run's ``metrics.csv`` before a step, for a run that goes on from there.

    Rows carry the number of steps done before them: what was logged in the first step has 0. A
    last line that is not whole, because the disk was full or the process died, is left out.
    """
    file = folder / METRICS
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8", errors="replace") as stream:
        lines = [line for line in stream if line.endswith("\n")]
    rows = [{k: _number(v) for k, v in row.items() if v} for row in csv.DictReader(lines)]
    return [row for row in rows if row.get("step", 0) < until_step]


def last_line_of_log(folder: Path, otherwise: str) -> str:
    """What a run in a process of its own said at the end, from ``log.txt``.

    Args:
        folder: of the run.
        otherwise: what to give where it said nothing.
    """
    log = folder / LOG
    lines = (
        log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if log.is_file()
        else []
    )
    return lines[-1] if lines else otherwise


def metric_by_step(folder: Path, name: str) -> dict[int, float]:
    """What a run logged of a metric, by step."""
    with (folder / METRICS).open(newline="", **TEXT) as stream:
        rows = [row for row in csv.DictReader(stream) if row.get(name)]
    return {int(float(row["step"])): float(row[name]) for row in rows}


def errors_in_test(folder: Path) -> list[float]:
    """Normalised errors of a run's test images, fractions; ``test_errors.csv`` has per cent.

    Raises:
        ConfigError: the run has no such file.
    """
    path = folder / TEST_ERRORS
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; expected a run of landmarks that was tested")
    with path.open(newline="", **TEXT) as stream:
        return [float(row["nme"]) / 100 for row in csv.DictReader(stream)]


def _number(text: str) -> int | float:
    """An integer where it is written as one, so that it is written alike again."""
    try:
        return int(text)
    except ValueError:
        return float(text)

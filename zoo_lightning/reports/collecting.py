"""Find out what folders hold, and collect the sections of a report on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zoo_lightning.benchmarking.grid import EXPERIMENT
from zoo_lightning.benchmarking.joint import JOINT
from zoo_lightning.errors import ConfigError
from zoo_lightning.files.plain_yaml import one_line
from zoo_lightning.reports.comparison_sections import (
    RUNS,
    comparison_lead,
    comparison_sections,
    read_tables,
)
from zoo_lightning.reports.contents import Report, Section, Text
from zoo_lightning.reports.finished_run import RunFiles
from zoo_lightning.reports.folder import Folder
from zoo_lightning.reports.gate_sections import gate_sections
from zoo_lightning.reports.joint_sections import joint_lead, joint_sections
from zoo_lightning.reports.run_sections import lead, run_sections
from zoo_lightning.reports.side_by_side import distinct_names, side_by_side
from zoo_lightning.reports.sweep_sections import sweep_lead, sweep_sections
from zoo_lightning.runs.run_folder import CONFIG, METRICS
from zoo_lightning.sources.own_runs import SUMMARY
from zoo_lightning.sweeps.report import TABLE

KINDS = {
    "comparison": (EXPERIMENT, RUNS),
    "sweep": (TABLE,),
    "gates": ("gates.json",),
    "joint comparison": (JOINT,),
    "run": (SUMMARY, CONFIG, METRICS),
}
"""Files of which one tells what a folder holds, most special first."""


def make_report(folders: Sequence[Path]) -> Report:
    """Make the report on folders, each of a run, a comparison or several, a sweep or a gate report.

    Args:
        folders: one or more different folders; several runs are put side by side.

    Raises:
        ConfigError: a folder does not exist, holds none of these, or its main file is damaged.
    """
    kinds = [kind_of(folder) for folder in folders]
    names = distinct_names(folders)
    if len(folders) == 1:
        said, sections = _parts(folders[0], kinds[0], names[0])
        return Report(f"{names[0]} ({kinds[0]})", said, sections)
    runs = [
        RunFiles(folder, name)
        for folder, name, kind in zip(folders, names, kinds, strict=True)
        if kind == "run"
    ]
    sections = side_by_side(runs) if len(runs) > 1 else []
    for folder, name, kind in zip(folders, names, kinds, strict=True):
        said, parts = _parts(folder, kind, name)
        sections.append(Section(name, [Text([said])]))
        for part in parts:
            part.level = 3
        sections += parts
    return Report(" · ".join(names), f"{len(folders)} folders", sections)


def kind_of(folder: Path) -> str:
    """Kind of what a folder holds, one of :data:`KINDS`.

    Raises:
        ConfigError: the folder does not exist, or holds none of these.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise ConfigError(f"report: {folder} {found}; expected the folder of a run")
    for kind, files in KINDS.items():
        if any((folder / name).is_file() for name in files):
            return kind
    expected = ", ".join(name for files in KINDS.values() for name in files)
    raise ConfigError(
        f"report: {folder} is no folder of a run, a comparison (or several joined), a sweep or a "
        f"gate report; expected one with one of {expected}"
    )


def _parts(folder: Path, kind: str, name: str) -> tuple[str, list[Section]]:
    """Most important figures in a sentence, and sections, of one folder."""
    if kind == "run":
        run = RunFiles(folder, name)
        _refuse_damaged(run.folder, SUMMARY)
        return lead(run), run_sections(run)
    files = Folder(folder)
    if kind == "comparison":
        said = comparison_lead(files)
        _refuse_damaged(files, RUNS)
        if files.has(RUNS) and not read_tables(files):
            raise ConfigError(f"report: {folder / RUNS} has no table of a comparison")
        return said, comparison_sections(Folder(folder))
    if kind == "joint comparison":
        said, sections = joint_lead(files), joint_sections(files)
        _refuse_damaged(files, JOINT)
        if not sections:
            raise ConfigError(f"report: {folder / JOINT} has no figures; run compare --join again")
        return said, sections
    if kind == "sweep":
        return sweep_lead(files), sweep_sections(Folder(folder))
    sections = gate_sections(files)
    _refuse_damaged(files, "gates.json")
    if not sections:
        raise ConfigError(f"report: {folder / 'gates.json'} has no sources; run gates again")
    return str(files.mapping("gates.json").get("verdict", "")), sections


def _refuse_damaged(files: Folder, name: str) -> None:
    """Raise a ConfigError if the main file of a folder could not be read."""
    for line in files.notes:
        if line.startswith(f"{name} "):
            reason = one_line(ValueError(line.partition(": ")[2]))
            raise ConfigError(
                f"report: {files.path / name} cannot be read ({reason}); the other files of the "
                "folder are not touched"
            )

"""The reference of the experiments, from their YAML files."""

from __future__ import annotations

from pathlib import Path

import yaml

from docs.staging import ROOT, toctree

FOLDER = ROOT / "experiments"

TITLES = {
    "": "Tasks",
    "heads": "Heads",
    "methods": "Methods",
    "zoos": "Larger zoos",
    "efficientnet": "EfficientNet",
    "paper": "The paper's data sets",
    "sources": "Recipes of the shipped sources",
    "sweeps": "Sweeps",
}
"""Folders of experiments, in the order of their pages; others come last under their name."""


def opening(text: str) -> tuple[str, str]:
    """A file's first comment: the command that runs it, and what it is for."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return lines[0], " ".join(lines[1:])


def _facts(config: dict) -> list[tuple[str, str]]:
    """What an experiment sets, in a few words each."""
    model, data = config.get("model") or {}, config.get("data") or {}
    task = model.get("init_args") or {}
    backbone = task.get("backbone") or {}
    zoo = backbone.get("init_args") or {}
    trainer = config.get("trainer") or {}
    sources = [
        each if isinstance(each, str) else f"{each.get('name', '')}: {each['weights']}"
        for each in zoo.get("sources") or []
    ]
    length = trainer.get("max_steps") or config.get("length_from_data")
    facts = {
        "task": model.get("class_path"),
        "data": data.get("class_path"),
        "backbone": backbone.get("class_path"),
        "architecture": zoo.get("architecture"),
        "mode": zoo.get("mode"),
        "sources": ", ".join(sources),
        "steps": length,
        "epochs": trainer.get("max_epochs") if trainer.get("max_epochs") != -1 else None,
        "lr": task.get("lr"),
    }
    return [(key, str(value)) for key, value in facts.items() if value]


def _entry(path: Path) -> str:
    """A section of one experiment."""
    text = path.read_text(encoding="utf-8")
    command, purpose = opening(text)
    name = path.relative_to(FOLDER).with_suffix("").as_posix()
    lines = [f"## `{name}`", "", purpose.replace("*", "\\*"), "", f"    {command}", ""]
    if path.parent.name != "sweeps":
        facts = _facts(yaml.safe_load(text))
        lines += ["| | |", "|---|---|", *(f"| {key} | `{value}` |" for key, value in facts), ""]
    lines += ["```yaml", text.rstrip(), "```", ""]
    return "\n".join(lines)


def write(folder: Path) -> str:
    """Write the pages; returns the index's place on the site."""
    place = folder / "reference" / "experiments"
    place.mkdir(parents=True, exist_ok=True)
    files = sorted(FOLDER.rglob("*.yaml"))
    groups = {path.parent.relative_to(FOLDER).as_posix().removeprefix(".") for path in files}
    order = [name for name in TITLES if name in groups] + sorted(groups - TITLES.keys())
    index = [
        "# Experiments",
        "",
        "An experiment is a YAML file of options, given by its name: `--experiment NAME`. A folder",
        "`experiments/` in the working directory is searched first. Later experiments override",
        "earlier ones, and options override them all.",
        "",
        "| experiment | for |",
        "|---|---|",
    ]
    names = []
    for group in order:
        members = [path for path in files if path.parent == FOLDER / group]
        name = group.replace("/", "_") or "tasks"
        names.append(f"reference/experiments/{name}.md")
        title = TITLES.get(group, group)
        body = "\n".join(_entry(path) for path in members)
        (place / f"{name}.md").write_text(f"# {title}\n\n{body}", encoding="utf-8")
        for path in members:
            known = path.relative_to(FOLDER).with_suffix("").as_posix()
            _, purpose = opening(path.read_text(encoding="utf-8"))
            sentence = purpose.split(". ")[0].rstrip(".:").replace("|", "\\|").replace("*", "\\*")
            index.append(f"| [`{known}`]({name}.md#{known.replace('/', '')}) | {sentence}. |")
    text = "\n".join(index) + toctree(names)
    (place / "index.md").write_text(text, encoding="utf-8")
    return "reference/experiments/index.md"

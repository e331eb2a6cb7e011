"""The reference of the Python API by package: every public name, from its docstring."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import zoo_lightning

INTRODUCTION = """\
# Python API

What can be imported from `zoo_lightning` itself, and where it is described; then the public names
of each package. A name that no package exports is internal and may change in any version.

| name | what it is |
|---|---|
"""


def packages() -> list[str]:
    """Names of the packages that export something, the errors' module among them."""
    found = ["zoo_lightning.errors"]
    for module in pkgutil.walk_packages(zoo_lightning.__path__, "zoo_lightning."):
        if module.ispkg and public_names(importlib.import_module(module.name)):
            found.append(module.name)
    return found


def public_names(module: ModuleType) -> list[str]:
    """Public names of a package; of a plain module its own classes."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    if hasattr(module, "__path__"):
        return []
    own = (thing for thing in vars(module).values() if inspect.isclass(thing))
    return [thing.__name__ for thing in own if thing.__module__ == module.__name__]


def _modules_of_names(package: ModuleType) -> dict[str, str]:
    """Where a package's names come from, by its stub or itself."""
    file = Path(str(package.__file__))
    files = [each for each in (file, file.with_suffix(".pyi")) if each.exists()]
    found = {}
    for node in (node for each in files for node in ast.parse(each.read_text("utf-8")).body):
        if isinstance(node, ast.ImportFrom) and node.module:
            start = f"{package.__name__}." if node.level else ""
            found |= {each.asname or each.name: start + node.module for each in node.names}
    return found


def home(package: str, name: str, exporting: Sequence[str]) -> str:
    """The package whose page describes a public name that several packages may export.

    Args:
        package: one that exports it.
        name: its name.
        exporting: all packages.
    """
    module = _modules_of_names(importlib.import_module(package)).get(name, package)
    above = [
        each
        for each in exporting
        if f"{module}.".startswith(f"{each}.")
        and name in public_names(importlib.import_module(each))
    ]
    return max(above, key=len, default=package)


def _directive(package: str, name: str, exporting: Sequence[str]) -> str:
    """Autodoc's directive for a public name, or a line that says which page has it."""
    owner = home(package, name, exporting)
    if owner != package:
        return f"``{name}``: see :py:obj:`{owner}.{name}`.\n"
    module = importlib.import_module(package)
    thing = getattr(module, name)
    if inspect.isclass(thing):
        return f".. autoclass:: {package}.{name}\n   :members:\n   :show-inheritance:\n"
    if inspect.isfunction(inspect.unwrap(thing)):
        return f".. autofunction:: {package}.{name}\n"
    defined = _modules_of_names(module).get(name, package)
    return f".. autodata:: {defined}.{name}\n   :no-value:\n"


def first_line(thing: object) -> str:
    """First line of a docstring as Markdown, for a table."""
    line = (inspect.getdoc(thing) or "").partition("\n")[0].replace("|", "\\|")
    line = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", line)
    return line.replace("``", "`").replace("*", "\\*")


def page(package: str, exporting: Sequence[str]) -> str:
    """The page of a package, in reStructuredText inside Markdown."""
    module = importlib.import_module(package)
    names = public_names(module)
    body = "\n".join(_directive(package, name, exporting) for name in names)
    start = f".. automodule:: {package}\n   :no-members:\n"
    return f"# {package}\n\n```{{eval-rst}}\n{start}\n{body}\n```\n"


def _index(found: Sequence[str]) -> str:
    """The page of what the package itself exports, with what no other page describes."""
    rows, apart = [], []
    origins = _modules_of_names(zoo_lightning)
    for name in sorted(zoo_lightning.__all__):
        above = [each for each in found if f"{origins[name]}.".startswith(f"{each}.")]
        owner = home(max(above, key=len), name, found)
        if name not in public_names(importlib.import_module(owner)):
            owner = "zoo_lightning"
            apart.append(_directive(owner, name, [owner]))
        link = f"{{py:obj}}`{name} <{owner}.{name}>`"
        rows.append(f"| {link} | {first_line(getattr(zoo_lightning, name))} |")
    parts = [INTRODUCTION + "\n".join(rows)]
    parts += ["```{eval-rst}\n" + "\n".join(apart) + "\n```"] if apart else []
    parts.append("```{toctree}\n:maxdepth: 1\n\n" + "\n".join(found) + "\n```\n")
    return "\n\n".join(parts)


def write(folder: Path) -> str:
    """Write the pages; returns the index's place on the site."""
    place = folder / "reference" / "api"
    place.mkdir(parents=True, exist_ok=True)
    found = packages()
    for package in found:
        (place / f"{package}.md").write_text(page(package, found), encoding="utf-8")
    (place / "index.md").write_text(_index(found), encoding="utf-8")
    return "reference/api/index.md"

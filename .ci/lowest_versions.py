"""Print the lowest version of every package that setup.cfg allows, as constraints for pip."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*(?:>=\s*([0-9][0-9a-z.]*))?.*")
"""A package's name, its extras, its lower bound, and what else is said of its version."""


def lowest_versions(setup: Path) -> dict[str, str]:
    """Lowest versions by package; a package of several extras counts with its highest bound.

    Args:
        setup: path of setup.cfg.

    Raises:
        ValueError: a requirement without a lower bound; only tools that build or lint may lack one.
    """
    config = configparser.ConfigParser()
    config.read(setup, encoding="utf-8")
    lists = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    lines = [line.strip() for text in lists for line in text.splitlines()]
    found: dict[str, str] = {}
    for line in lines:
        if not line or line.startswith("#") or line == "build":
            continue
        name, version = REQUIREMENT.fullmatch(line).groups()
        if version is None:
            raise ValueError(f"{line!r} in {setup} has no lower bound; add >= and a version")
        found[name] = max(found.get(name, version), version, key=_order)
    return found


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


if __name__ == "__main__":
    for name, version in lowest_versions(Path(__file__).parents[1] / "setup.cfg").items():
        print(f"{name}=={version}")

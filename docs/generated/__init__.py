"""Pages that are made from the code when the site is built: the reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs.generated import api, commands, experiments


def write_generated(folder: Path) -> Callable[[str], list[str]]:
    """Write all generated pages.

    Args:
        folder: of the site's pages.

    Returns:
        What gives the pages of a section, by the section's folder.
    """
    reference = [part.write(folder) for part in (commands, experiments, api)]
    return lambda section: reference if section == "reference" else []

"""Write the report of a command that has ended, without ever failing it."""

from __future__ import annotations

import sys
from pathlib import Path

from zoo_lightning.files.plain_yaml import one_line
from zoo_lightning.runs.run_folder import PAGE


def leave_report(folder: Path) -> Path | None:
    """Write ``report.html`` to the folder of a run, a comparison, a sweep or a gate report.

    A command has done its work when it calls this, so whatever goes wrong is one warning.

    Args:
        folder: folder that the command has written to.

    Returns:
        Path of the report; ``None`` if there is none.
    """
    try:
        # Inside, because an import may fail, too.
        from zoo_lightning.reports.collecting import make_report
        from zoo_lightning.reports.page import write_page

        path = folder / PAGE
        write_page(make_report([folder]), path)
    except Exception as error:  # of a damaged file, the disk, a library
        reason = f"{type(error).__name__}: {one_line(error)}"
        print(f"warning       no report.html ({reason}); all else is complete", file=sys.stderr)
        return None
    return path

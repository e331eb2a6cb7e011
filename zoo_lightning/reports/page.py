"""HTML page of a report: one file without addresses of others, escaped, light and dark.

The page's policy allows its own style, its own script by its checksum, and ``data:`` pictures;
a browser would load or run nothing else, even if a name got into the page as it stands.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from zoo_lightning import __version__
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.reports.contents import Report


def write_page(report: Report, path: Path) -> None:
    """Write a report as an HTML file, atomically.

    Raises:
        StorageError: the file cannot be written.
    """
    # Names of files need not be UTF-8; a page must be.
    content = rendered(report).encode("utf-8", errors="replace")
    with atomic_file(path) as part:
        part.write_bytes(content)


def rendered(report: Report) -> str:
    """HTML of a report."""
    own = files("zoo_lightning.reports")
    parts = {name: own.joinpath(name).read_text(encoding="utf-8") for name in
             ("page.html.jinja", "page.css", "page.js")}  # fmt: skip
    script = parts["page.js"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["chart"] = Markup  # made by this package, see charts.py
    return environment.from_string(parts["page.html.jinja"]).render(
        report=report,
        contents=[(f"s{place}", each) for place, each in enumerate(report.sections, 1)],
        style=Markup(parts["page.css"]),
        script=Markup(script),
        digest=digest,
        version=__version__,
        made=datetime.now().strftime("%Y-%m-%d %H:%M"),
    )

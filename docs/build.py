"""Build the site from the pages of this repository; any warning or broken link is an error.

    python -m docs.build                     # to build/site
    python -m docs.build --output DIR

Needs ``pip install -e '.[docs]'`` and no network. Pages are written for the repository, with links
between its files. They are copied to a folder together with the pages that are generated from the
code (:mod:`docs.generated`), links are replaced by those between pages (:mod:`docs.staging`),
Sphinx makes HTML of them, and every link and anchor of the HTML is followed
(:mod:`docs.link_check`).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from sphinx.cmd.build import build_main

from docs.generated import write_generated
from docs.link_check import broken_links
from docs.staging import ROOT, stage


def build(output: Path) -> list[str]:
    """Build the site into a folder.

    Returns:
        What is wrong, one line each; empty if the site is complete.
    """
    if output.is_dir() and any(output.iterdir()):
        if not (output / ".buildinfo").is_file():
            return [f"--output {output} has other files than a site; give another folder"]
        shutil.rmtree(output)  # pages that are no longer there would stay
    with tempfile.TemporaryDirectory() as folder:
        pages = Path(folder) / "pages"
        pages.mkdir()
        faults = stage(pages, write_generated(pages))
        words = ["-b", "html", "-W", "--keep-going", "-q", "-c", str(ROOT / "docs")]
        words += ["-d", str(Path(folder) / "doctrees"), str(pages), str(output)]
        if build_main(words):
            faults.append("Sphinx reported warnings or errors, see above")
    return [*faults, *broken_links(output)]


def main() -> int:
    """Run the command; returns its exit status, 1 if anything is wrong with the site."""
    parser = argparse.ArgumentParser("python -m docs.build", description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "site")
    output = parser.parse_args().output.resolve()
    faults = build(output)
    for fault in faults:
        print(fault, file=sys.stderr)
    if not faults:
        print(f"open {output / 'index.html'}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())

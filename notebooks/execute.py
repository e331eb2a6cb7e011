"""Execute the notebooks, each in an empty folder of its own, and keep what they show.

    python -m notebooks.execute              # all
    python -m notebooks.execute 02_gates

A notebook's outputs are replaced only if all its cells ran and nothing is wrong with what they
left (:func:`faults`). Needs ``pip install -e '.[notebooks]'``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent

NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))

LARGEST = 1_500_000
"""Bytes of a notebook with its outputs, at most."""

SECONDS = 3600
"""Longest that one cell may take, on a busy machine."""

CODE = "code_sha256"
"""Key of a notebook's metadata: of which code the outputs are."""

_PATH = re.compile(r"(?<![\w.:/<])/\w[\w.-]*/[\w./-]*")
"""Paths from the root of a machine's disk."""

_NOISE = re.compile(r"warning\b|deprecat|\bTraceback\b|[|█]\s*\d+/\d+ \[", re.IGNORECASE)
"""Warnings and progress bars."""


def read(name: str) -> NotebookNode:
    """A notebook of this folder, by its name without suffix."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that can have outputs."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def code_hash(notebook: NotebookNode) -> str:
    """Of all code, whatever the text between it says."""
    return hashlib.sha256("\0".join(c.source for c in code_cells(notebook)).encode()).hexdigest()


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run all cells in a process of its own and put their outputs into the notebook.

    Args:
        notebook: its outputs are replaced.
        folder: where the process works and what it writes; paths in the outputs are relative to it.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails; the message has the cell.
    """
    with tempfile.TemporaryDirectory() as own:
        sockets = {"transport": "ipc", "ip": f"{own}/kernel"}  # nobody else's business
        client = NotebookClient(
            notebook,
            timeout=SECONDS,
            startup_timeout=SECONDS,
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
            coalesce_streams=True,
            config=Config({"KernelManager": sockets}),
        )
        client.execute(env={**os.environ, **_environment(), "IPYTHONDIR": own})
    for cell in code_cells(notebook):
        cell.outputs = [_relative(output, f"{folder.resolve()}/") for output in cell.outputs]
    notebook.metadata["language_info"] = {"name": "python"}  # of any version
    notebook.metadata[CODE] = code_hash(notebook)


def _environment() -> dict[str, str]:
    """This checkout's package, without what libraries say of themselves and of each other."""
    paths = [str(FOLDER.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    # tqdm wants widgets for bars that nobody draws, Lightning uses what torch has deprecated.
    ignored = ["ignore:IProgress not found", "ignore:`isinstance(treespec"]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": ",".join(ignored)}


def _relative(output: NotebookNode, folder: str) -> NotebookNode:
    """An output with a folder's path left out."""
    return nbformat.from_dict(json.loads(json.dumps(output).replace(folder, "")))


def texts(cell: NotebookNode) -> Iterator[str]:
    """What a cell has printed and returned as text."""
    for output in cell.outputs:
        if output.output_type == "stream":
            yield output.text
        for kind, content in output.get("data", {}).items():
            if kind.startswith("text/"):
                yield content


def faults(notebook: NotebookNode) -> list[str]:
    """What is wrong with a notebook's outputs, a line for each fault; empty if nothing is."""
    found, cells = [], code_cells(notebook)
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        found.append("the cells were not executed once each in their order")
    if notebook.metadata.get(CODE) != code_hash(notebook):
        found.append("the outputs are not of this code")
    if not any(cell.outputs for cell in cells):
        found.append("no cell has outputs")
    for number, cell in enumerate(cells, 1):
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"cell {number} ended with {output.ename}: {output.evalue}")
        for text in texts(cell):
            found += [f"cell {number} shows a path: {path}" for path in _PATH.findall(text)]
            noise = [line.strip() for line in text.splitlines() if _NOISE.search(line)]
            found += [f"cell {number} prints noise: {line}" for line in noise]
    size = len(nbformat.writes(notebook).encode())
    if size > LARGEST:
        found.append(f"{size:,} bytes; expected at most {LARGEST:,}")
    return found


def main() -> int:
    """Execute, check, write; the exit status is 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    names = parser.parse_args().names or NAMES
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no notebook {', '.join(unknown)}; expected some of {', '.join(NAMES)}")
    failed = False
    for name in names:
        notebook, start = read(name), time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            execute(notebook, Path(folder))
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
        if complaints := faults(notebook):
            failed = True
            print(*(f"  {each}" for each in complaints), "  not written", sep="\n")
        else:
            nbformat.write(notebook, FOLDER / f"{name}.ipynb")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

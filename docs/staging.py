"""Pages of the repository as pages of the site: where each lies, and what its links become.

Pages link to files of the repository, so that they can be read there, too. On the site, a link to
a page leads to the page, one to a package to its reference, one to an experiment to the list of
experiments, and one to another text file to a page that shows it.

A folder's ``README.md`` is the index of a section. The pages that it links to are the section's, in
that order, unless an earlier section has them; then come the folder's other pages. Of those that no
section links to, pages of ``docs/`` itself are how-to guides, notebooks tutorials, and pages of
``results/`` results. So a new page needs no entry anywhere.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import nbformat

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

SECTIONS = (
    "getting_started",
    "tutorials",
    "howto",
    "explanation",
    "reference",
    "results",
    "robustness",
    "development",
)
"""Folders of ``docs/``, in the order of the site's navigation."""

PICTURES = {".png", ".jpg", ".svg", ".gif"}

LINK = re.compile(r"(\]\()([^()\s]+)(\))")

LEXERS = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "javascript", ".cfg": "ini"}
"""Languages of the files that are shown on pages of their own; others are plain text. Figures that
are not known are ``NaN``, which JavaScript has and JSON has not."""


def pages() -> list[Path]:
    """The pages of the repository that are part of the site."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/*.md")]
    found += [*ROOT.glob("results/*/**/*.md"), *ROOT.glob("notebooks/*.ipynb")]
    return sorted(found)


def place_of(path: Path) -> str:
    """Where a file or folder of the repository is on the site, relative to the site's pages.

    Args:
        path: absolute path.
    """
    inside = path.relative_to(ROOT)
    name = inside.as_posix()
    if name == ".":
        return "readme.md"
    if path.is_dir():
        return _place_of_folder(inside)
    if inside.parts[0] == "docs" and path.suffix == ".md":
        name = inside.relative_to("docs").as_posix()
        return re.sub(r"README\.md$", "index.md", name)
    if path.suffix == ".md" and len(inside.parts) == 1:
        return name.lower()
    if path.suffix in (".md", ".ipynb"):
        return re.sub(r"README\.md$", "index.md", name)
    if path.suffix in PICTURES:
        return name.removeprefix("docs/")
    if inside.parts[0] == "experiments":
        return f"reference/experiments/{'_'.join(inside.parts[1:-1]) or 'tasks'}.md"
    return f"files/{name}.md"


def _place_of_folder(inside: Path) -> str:
    """Where a folder, relative to the repository, is on the site."""
    parts = inside.parts
    if parts[0] == "experiments":
        return f"reference/experiments/{'_'.join(parts[1:]) or 'index'}.md"
    if parts[0] == "zoo_lightning" and (ROOT / inside / "__init__.py").is_file():
        if parts[1:] and "__all__" not in (ROOT / inside / "__init__.py").read_text("utf-8"):
            return _place_of_folder(inside.parent)  # it exports nothing
        return f"reference/api/{'.'.join(parts)}.md" if parts[1:] else "reference/api/index.md"
    if parts[0] == "docs":
        return "/".join([*parts[1:], "index.md"])
    if len(parts) == 2 and parts[0] == "results":
        return f"results/{parts[1]}/index.md"
    known = {"notebooks": "tutorials/index.md", "results": "results/index.md"}
    return {**known, "examples": "examples/index.md"}.get(
        inside.as_posix(), f"files/{inside.as_posix()}.md"
    )


class Stage:
    """A folder of pages for Sphinx, with links between them.

    Args:
        folder: where the pages go.

    Attributes:
        faults: links that lead nowhere, one line each.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[str] = []
        self._wanted: set[Path] = set()

    def write(self, page: Path, appendix: str = "") -> None:
        """Copy a page with its links replaced.

        Args:
            page: of the repository.
            appendix: text added at the end.
        """
        target = self.folder / place_of(page)
        target.parent.mkdir(parents=True, exist_ok=True)
        if page.suffix == ".ipynb":
            notebook = nbformat.read(page, as_version=4)
            for cell in notebook.cells:
                if cell.cell_type == "markdown":
                    cell.source = self.relinked(cell.source, page)
            nbformat.write(notebook, target)
            return
        text = self.relinked(page.read_text(encoding="utf-8"), page)
        apart = page == ROOT / "README.md" or _is_record(page)
        orphan = "---\norphan: true\n---\n\n" if apart else ""
        target.write_text(f"{orphan}{text}\n{appendix}", encoding="utf-8")

    def relinked(self, text: str, page: Path) -> str:
        """A page's text with links between the site's pages, code left alone."""
        return "".join(
            part if code else LINK.sub(lambda found: self._link(found, page), part)
            for part, code in parts_of(text)
        )

    def _link(self, found: re.Match[str], page: Path) -> str:
        target = found[2]
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            return found[0]
        name, _, anchor = unquote(target).partition("#")
        path = Path(os.path.normpath(page.parent / name))
        if not path.exists() or not path.is_relative_to(ROOT):
            self.faults.append(f"{page.relative_to(ROOT)}: {target} leads nowhere")
            return found[0]
        place = place_of(path)
        if path.suffix == ".yaml" and place.startswith("reference/experiments/"):
            known = path.relative_to(ROOT / "experiments").with_suffix("").as_posix()
            anchor = known.replace("/", "")  # of the heading that the experiment has there
        if path.suffix in PICTURES or place.startswith("files/"):
            self._wanted.add(path)
        if place.startswith("files/"):
            anchor = anchor.lower()
        relative = os.path.relpath(place, Path(place_of(page)).parent).replace(os.sep, "/")
        return f"{found[1]}{relative}{'#' if anchor else ''}{anchor}{found[3]}"

    def write_files(self) -> None:
        """Copy the pictures that pages show, and write a page of each other file that they name."""
        for path in sorted(self._wanted):
            target = self.folder / place_of(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix in PICTURES:
                shutil.copyfile(path, target)
            else:
                target.write_text(_shown(path), encoding="utf-8")


def parts_of(text: str) -> Iterator[tuple[str, bool]]:
    """Split Markdown into prose and code; yields each part and whether it is code."""
    last = 0
    for found in re.finditer(r"(?ms)^ *(`{3,})[^\n]*\n.*?^ *\1 *$|`[^`\n]+`", text):
        # A link's words may be code: [`match`](page.md).
        yield text[last : found.start()], False
        yield found[0], True
        last = found.end()
    yield text[last:], False


def _shown(path: Path) -> str:
    """A page that shows a file of the repository, or the names in a folder."""
    name = path.relative_to(ROOT).as_posix()
    title = f"---\norphan: true\n---\n\n# `{name}`\n\n"
    if path.is_dir():
        names = sorted(each.name for each in path.iterdir() if each.name[0] not in "_.")
        return title + "".join(f"- `{each}`\n" for each in names)
    content = path.read_bytes()
    if b"\0" in content:
        return f"{title}A binary file of {len(content):,} bytes; it is in the repository.\n"
    text = content.decode()
    lines = text.splitlines()
    lexer = LEXERS.get(path.suffix, "text")
    if lexer != "python":
        return title + _listing(lines, lexer, 1)
    starts = [(1, None)]
    for node in ast.parse(text).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            starts.append((first, node.name))
    ends = [start - 1 for start, _ in starts[1:]] + [len(lines)]
    return title + "\n".join(
        (f"## {heading}\n\n" if heading else "") + _listing(lines[start - 1 : end], lexer, start)
        for (start, heading), end in zip(starts, ends, strict=True)
    )


def _listing(lines: Sequence[str], lexer: str, start: int) -> str:
    """A block of numbered lines."""
    body = "\n".join(lines).strip("\n")
    if not body:
        return ""
    return f"``````{{code-block}} {lexer}\n:lineno-start: {start}\n\n{body}\n``````\n"


def toctree(names: Sequence[str], options: str = "") -> str:
    """Sphinx's navigation below a page."""
    lines = "\n".join(f"/{name.removesuffix('.md').removesuffix('.ipynb')}" for name in names)
    return f"\n```{{toctree}}\n:hidden:\n{options}\n{lines}\n```\n"


def contents_of_sections(found: Sequence[Path]) -> dict[str, list[str]]:
    """Which pages each section has, in order, by its folder; see the module's docstring."""
    indices = {ROOT / "README.md", DOCS / "README.md"}
    indices |= {DOCS / section / "README.md" for section in SECTIONS}
    left = [page for page in found if page not in indices and not _is_record(page)]
    contents: dict[str, list[str]] = {}
    for section in SECTIONS:
        index = DOCS / section / "README.md"
        text = index.read_text(encoding="utf-8")
        linked = [
            Path(os.path.normpath(index.parent / target.partition("#")[0]))
            for part, code in parts_of(text)
            for _, target, _ in ([] if code else LINK.findall(part))
        ]
        mine = [page for page in dict.fromkeys(linked) if page in left]
        mine += [page for page in left if page.parent == index.parent and page not in mine]
        left = [page for page in left if page not in mine]
        contents[section] = [place_of(page) for page in mine]
    usual = {"results": "results", "notebooks": "tutorials", "docs": "howto"}
    for page in left:
        folder = page.relative_to(ROOT).parts[0]
        if page.parent == DOCS or folder != "docs":
            contents[usual.get(folder, "development")].append(place_of(page))
    return contents


def _is_record(page: Path) -> bool:
    """Whether a page is a table that a command wrote, which the page of its results links to."""
    return page.is_relative_to(ROOT / "results") and page.name != "README.md"


def stage(folder: Path, generated: Callable[[str], list[str]]) -> list[str]:
    """Write all pages for Sphinx.

    Args:
        folder: where they go.
        generated: gives the generated pages of a section by its folder.

    Returns:
        Links that lead nowhere, one line each.
    """
    found, work = pages(), Stage(folder)
    contents = contents_of_sections(found)
    for page in found:
        appendix = ""
        if page == DOCS / "README.md":
            appendix = toctree([f"{section}/index" for section in SECTIONS])
        elif page.name == "README.md" and page.parent.parent == DOCS:
            section = page.parent.name
            appendix = toctree([*contents[section], *generated(section)], ":maxdepth: 1\n")
        work.write(page, appendix)
    work.write_files()
    return work.faults

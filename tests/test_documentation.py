"""The pages beside the code: each is linked, no link is broken, and versions agree."""

import ast
import re
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

import zoo_lightning

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from docs.staging import SECTIONS  # noqa: E402

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/*.md")]
LINK = re.compile(r"\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def prose(page):
    """A page without its blocks of code."""
    return re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))


def links(page):
    """What a page links to on this side of the network: path and anchor."""
    for target in LINK.findall(prose(page)):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = unquote(target).partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them; of code, its definitions."""
    if page.suffix == ".py":
        tree = ast.parse(page.read_text(encoding="utf-8"))
        return {
            each.name for each in tree.body if isinstance(each, (ast.ClassDef, ast.FunctionDef))
        }
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in HEADING.findall(prose(page))
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page):
    broken = [
        (path.name, anchor)
        for path, anchor in links(page)
        if not path.exists() or (anchor and anchor not in anchors(path))
    ]
    assert broken == []


def test_every_page_is_reached_from_the_readme_by_way_of_the_sections():
    readme, index = ROOT / "README.md", ROOT / "docs" / "README.md"
    assert index in {path for path, _ in links(readme)}
    sections = {path for path, _ in links(index)}
    assert {path.parent.name for path in sections if path.name == "README.md"} >= set(SECTIONS)
    linked = {
        path for page in (readme, index, *sections) for path, _ in links(page) if page.is_file()
    }
    # A page of docs/ itself may come without an entry: the site has it among the how-to guides.
    left = {page for page in PAGES if page.parent != ROOT / "docs"}
    assert left - linked - {readme} == set()


def test_continuous_integration_runs_the_tests_as_the_readme_says():
    found = re.search(r"python -m pytest[^`\n]*", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert found[0] in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_word_of_the_glossary_has_one_sentence_and_one_link():
    rows = re.findall(r"(?m)^\| (.*?) \| (.*) \|$", prose(ROOT / "docs" / "glossary.md"))
    rows = [row for row in rows if row != ("word", "meaning")]
    assert len(rows) > 50
    for word, meaning in rows:
        assert re.fullmatch(r"\[[^\]]+\]\([^)]+\)", word), word
        assert meaning.endswith("."), word
    words = [word.partition("]")[0].strip("[`").lower() for word, _ in rows]
    assert sorted(set(words)) == sorted(words)


def test_the_citation_is_of_this_version_and_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == zoo_lightning.__version__
    (paper,) = citation["references"]
    assert {"type", "title", "authors", "year"} <= paper.keys()
    assert paper["authors"][0]["family-names"] == "Shu"


def test_the_newest_released_version_of_the_changelog_is_this_one():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.findall(r"(?m)^## \[(.+?)\] - (Unreleased|\d{4}-\d\d-\d\d)$", text)
    assert len(found) == len(re.findall(r"(?m)^## ", text))
    released = [version for version, date in found if date != "Unreleased"]
    assert released[0] == zoo_lightning.__version__
    kinds = set(re.findall(r"(?m)^### (.*)$", text))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}

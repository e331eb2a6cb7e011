"""What makes a site of the pages: places, links, sections, and pages from the code."""

import importlib
import re
import sys
from pathlib import Path

import pytest

import zoo_lightning
from zoo_lightning.cli.program import SOURCES, SUBCOMMANDS

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from docs import link_check, staging  # noqa: E402
from docs.generated import api, commands, experiments  # noqa: E402

GUIDE = ROOT / "docs" / "howto" / "faces.md"


@pytest.fixture
def work(tmp_path):
    return staging.Stage(tmp_path)


# Links


@pytest.mark.parametrize(
    ("link", "on_the_site"),
    [
        ("images.md#splits", "images.md#splits"),
        ("../glossary.md", "../glossary.md"),
        ("../README.md", "../index.md"),
        ("../reference/README.md", "../reference/index.md"),
        ("../../CONTRIBUTING.md#test", "../contributing.md#test"),
        ("../../README.md", "../readme.md"),
        ("../../results/rl/README.md", "../results/rl/index.md"),
        ("../../results", "../results/index.md"),
        ("../../notebooks/02_gates.ipynb", "../notebooks/02_gates.ipynb"),
        ("../../zoo_lightning/nn", "../reference/api/zoo_lightning.nn.md"),
        ("../../zoo_lightning/nn/fast", "../reference/api/zoo_lightning.nn.md"),
        ("../../zoo_lightning/nn/gate.py#Gate", "../files/zoo_lightning/nn/gate.py.md#gate"),
        ("../../experiments/rl.yaml", "../reference/experiments/tasks.md#rl"),
        ("../../experiments", "../reference/experiments/index.md"),
        ("../../experiments/paper/cars.yaml", "../reference/experiments/paper.md#papercars"),
        ("../figures/aggregated_layer.svg", "../figures/aggregated_layer.svg"),
        ("https://example.org/a.md", "https://example.org/a.md"),
        ("#first", "#first"),
    ],
)
def test_a_link_of_the_repository_leads_to_its_page_on_the_site(work, link, on_the_site):
    assert work.relinked(f"a [b]({link}) c", GUIDE) == f"a [b]({on_the_site}) c"
    assert work.faults == []


def test_a_link_in_code_is_code(work):
    text = "`[a](b.md)`\n\n```text\n[a](b.md)\n```\n"
    assert work.relinked(text, GUIDE) == text


def test_a_link_whose_words_are_code_is_a_link(work):
    assert work.relinked("[`lite`](../glossary.md)", GUIDE) == "[`lite`](../glossary.md)"
    work.relinked("[`lite`](absent.md)", GUIDE)
    assert work.faults == ["docs/howto/faces.md: absent.md leads nowhere"]


def test_a_link_out_of_the_repository_is_a_fault(work):
    work.relinked("[a](../../../elsewhere.md)", GUIDE)
    assert len(work.faults) == 1


def test_a_file_that_pages_link_to_has_a_page_with_a_heading_for_each_definition(work, tmp_path):
    work.relinked("[a](../../zoo_lightning/nn/gate.py#Gate)", GUIDE)
    work.write_files()
    text = (tmp_path / "files" / "zoo_lightning" / "nn" / "gate.py.md").read_text()
    assert "## Gate\n" in text
    assert "## batch_average\n" in text
    assert "torch.sigmoid(self.expand" not in text.split("## Gate")[0]


# Sections


def test_every_page_is_in_one_section_or_a_record_of_results():
    contents = staging.contents_of_sections(staging.pages())
    listed = [name for names in contents.values() for name in names]
    assert len(listed) == len(set(listed))
    places = {staging.place_of(page) for page in staging.pages()}
    indices = {"index.md", "readme.md", *(f"{section}/index.md" for section in staging.SECTIONS)}
    left = places - set(listed) - indices
    assert {name for name in left if not name.startswith("results/")} == set()
    assert not {name for name in left if name.endswith("/index.md")}


def test_a_new_page_needs_no_entry_anywhere():
    found = staging.pages()
    new, deeper = ROOT / "docs" / "zebras.md", ROOT / "docs" / "explanation" / "zebras.md"
    notebook = ROOT / "notebooks" / "99_zebras.ipynb"
    result = ROOT / "results" / "zebras" / "README.md"
    contents = staging.contents_of_sections([*found, new, deeper, notebook, result])
    assert contents["tutorials"][-1] == "notebooks/99_zebras.ipynb"
    assert contents["results"][-1] == "results/zebras/index.md"
    assert contents["howto"][-1] == "zebras.md"
    assert contents["explanation"][-1] == "explanation/zebras.md"


def test_pages_have_the_order_of_their_sections_index():
    contents = staging.contents_of_sections(staging.pages())
    assert contents["explanation"][:3] == [
        "explanation/zoo_tuning.md",
        "lite_is_one_network.md",
        "when_a_zoo_helps.md",
    ]


# Pages from the code


def test_every_subcommand_has_a_page_with_its_options():
    wanted = {*SUBCOMMANDS, *(f"sources {name}" for name in SOURCES)} - {"sources"}
    assert wanted <= set(commands.COMMANDS)
    text = commands.page("fit")
    for option in ("--budget", "--trainer.max_steps", "--sources", "--average_weights"):
        assert f"`{option}`" in text
    assert "| `--seeds`" in commands.page("compare")
    assert "\b" not in text


def test_every_experiment_and_sweep_has_an_entry(tmp_path):
    experiments.write(tmp_path)
    index = (tmp_path / "reference" / "experiments" / "index.md").read_text()
    for path in (ROOT / "experiments").rglob("*.yaml"):
        name = path.relative_to(ROOT / "experiments").with_suffix("").as_posix()
        assert f"[`{name}`]" in index
    text = (tmp_path / "reference" / "experiments" / "tasks.md").read_text()
    assert "| architecture | `test_resnet` |" in text


def test_every_public_name_is_described_once():
    found = api.packages()
    pages = {package: api.page(package, found) for package in found}
    for package in found:
        for name in api.public_names(importlib.import_module(package)):
            assert name in pages[package]
    everything = "\n".join(pages.values())
    for name in ("PlainBackbone", "KnowledgeFlow", "AtariEnvs"):
        lines = [line for line in everything.splitlines() if line.endswith(f".{name}")]
        assert len([line for line in lines if line.startswith(".. auto")]) == 1


def test_the_index_of_the_python_api_has_all_that_the_package_exports(tmp_path):
    api.write(tmp_path)
    text = (tmp_path / "reference" / "api" / "index.md").read_text()
    for name in zoo_lightning.__all__:
        assert f"`{name} <zoo_lightning." in text
    assert ".. autofunction:: zoo_lightning.load_task" in text


def test_generated_pages_are_the_same_every_time():
    assert commands.page("compare") == commands.page("compare")
    found = api.packages()
    assert api.page("zoo_lightning.nn", found) == api.page("zoo_lightning.nn", found)


# Links of the built site


def test_broken_links_of_html_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here">1</a><a href="b.html#gone">2</a><a href="c.html">3</a>'
        '<a href="https://example.org">4</a><img src="https://example.org/x.png">'
        '<img src="data:image/png;base64,AA"><a href="#top" id="top">5</a>'
    )
    (tmp_path / "b.html").write_text('<p id="here"></p>')
    assert link_check.broken_links(tmp_path) == [
        "a.html: b.html#gone has no such anchor",
        "a.html: c.html is not on the site",
        "a.html: loads https://example.org/x.png from the network",
    ]


# With Sphinx


@pytest.mark.parametrize(
    ("line", "escaped"),
    [
        ("shape `(B, C)` of *args, a|b", "shape ``(B, C)`` of \\*args, a\\|b"),
        ("``code*`` and :class:`~a.B`", "``code*`` and :class:`~a.B`"),
        ("trailing_ name_with_parts", "trailing\\_ name_with_parts"),
    ],
)
def test_signs_in_docstrings_mean_themselves(line, escaped):
    docstrings = pytest.importorskip("docs.docstrings")
    assert docstrings.escaped(line) == escaped


def test_equations_become_mathml_and_a_wrong_one_is_an_error():
    pytest.importorskip("sphinx")
    from docutils import nodes
    from sphinx.errors import SphinxError

    from docs import mathml

    node = nodes.math_block("", r"W(x) = \sum_{i=1}^{m} a_i(x) \, T_i W_i")
    assert "<math" in mathml._mathml(node, display=True)
    with pytest.raises(SphinxError, match="nothing"):
        mathml._mathml(nodes.math_block("", r"\nothing{x}"), display=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_site_builds_without_warnings_and_its_links_lead_somewhere(tmp_path):
    pytest.importorskip("pydata_sphinx_theme")
    from docs.build import build

    assert build(tmp_path / "site") == []
    front = (tmp_path / "site" / "index.html").read_text()
    for section in staging.SECTIONS:
        assert f'href="{section}/index.html"' in front
    equations = (tmp_path / "site" / "explanation" / "zoo_tuning.html").read_text()
    assert "<math" in equations
    assert not re.search(r"<script[^>]*mathjax", equations.lower())


def test_a_folder_with_other_files_is_not_overwritten(tmp_path):
    pytest.importorskip("sphinx")
    from docs.build import build

    (tmp_path / "mine.txt").write_text("mine")
    [fault] = build(tmp_path)
    assert "--output" in fault
    assert (tmp_path / "mine.txt").read_text() == "mine"

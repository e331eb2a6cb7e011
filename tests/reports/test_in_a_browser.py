"""Reports in a browser without a window: console, overflow, sorting, dark and light, print."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path

import pytest

from zoo_lightning.reports.collecting import make_report
from zoo_lightning.reports.page import write_page

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")

OLD = Path(__file__).parents[1] / "tasks" / "version_0_1"
RESULTS = Path(__file__).parents[2] / "results"

WIDTHS = (400, 1400)

PROBE = """
const frames = [...document.querySelectorAll("iframe")];
const measure = (frame) => {
  const page = frame.contentDocument, root = page.documentElement;
  const wide = [...page.querySelectorAll("body *")].filter((each) =>
    !each.closest(".wide, pre, svg, details:not([open])") &&
    each.getBoundingClientRect().right > root.clientWidth + 1);
  const table = page.querySelector("table.sortable");
  const column = () => [...table.tBodies[0].rows].map((row) => row.cells[1].textContent.trim());
  const button = table && table.tHead.rows[0].cells[1].querySelector("button");
  const sorted = [];
  if (button) { button.click(); sorted.push(column()); button.click(); sorted.push(column()); }
  return {
    width: root.clientWidth, content: root.scrollWidth,
    wide: wide.map((each) => each.outerHTML.slice(0, 200)),
    ink: frame.contentWindow.getComputedStyle(page.body).color,
    paper: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
    images: [...page.images].map((each) => each.naturalWidth), sorted,
    rules: page.styleSheets.length,
  };
};
window.addEventListener("load", () => {
  document.title = JSON.stringify(frames.map(measure));
});
"""
"""Script of the page around the report: what it measures becomes the title of the page."""


@pytest.fixture(scope="module")
def browser():
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    return found


def run(browser, folder, *words):
    """Start the browser; its output, and the lines that pages wrote to the console."""
    options = ["--headless", "--disable-gpu", "--enable-logging=stderr", "--v=0", "--no-first-run",
               "--hide-scrollbars",
               "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}"]  # fmt: skip
    if os.name == "posix" and os.geteuid() == 0:
        options.append("--no-sandbox")  # it refuses to run for root otherwise
    done = subprocess.run(
        [browser, *options, *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def measured(browser, folder, page, *words):
    """What the probe measures of a page, in frames of both widths, and the console's lines."""
    content = escape(page.read_text("utf-8"))
    frames = "".join(
        f'<iframe width="{w}" height="900" srcdoc="{content}"></iframe>' for w in WIDTHS
    )
    around = folder / "around.html"
    around.write_text(f'<!DOCTYPE html><html><head><meta charset="utf-8"></head><body>{frames}'
                      f"<script>{PROBE}</script></body></html>", "utf-8")  # fmt: skip
    text, lines = run(
        browser, folder, "--window-size=1600,2000", *words, "--dump-dom", around.as_uri()
    )
    title = re.search(r"<title>(.*?)</title>", text, re.DOTALL)
    assert title, lines
    return json.loads(unescape(title[1])), lines


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages of a run with pictures and long names, several runs, comparisons, joined ones."""
    folder = tmp_path_factory.mktemp("pages")
    run = shutil.copytree(OLD / "landmarks", folder / "run")
    (run / "pictures").mkdir()
    shutil.copy(RESULTS / "landmarks" / "drawn_faces.png", run / "pictures" / "test_faces.png")
    shutil.copy(RESULTS / "landmarks" / "error_curves.png", run / "pictures" / "error_curve.png")
    summary = json.loads((run / "summary.json").read_text())
    summary["experiment"] = "a_name_without_any_gap_" * 12
    (run / "summary.json").write_text(json.dumps(summary))
    made = {
        "run": [run],
        "several": [run, *(OLD / task for task in ("classification", "landmarks", "policy"))],
        "comparison": [RESULTS / "earlier" / "compare" / "faces68"],
        "joint": [RESULTS / "earlier" / "compare"],
    }
    for name, folders in made.items():
        write_page(make_report(folders), folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in made}


@pytest.mark.parametrize("name", ["run", "several", "comparison", "joint"])
def test_a_page_has_no_console_errors_and_fits_narrow_and_wide_windows(
    browser, pages, tmp_path, name
):
    found, lines = measured(browser, tmp_path, pages[name])
    assert lines == []
    assert [each["width"] for each in found] == [*WIDTHS]
    for each in found:
        assert each["wide"] == []
        assert each["content"] <= each["width"]
        assert each["rules"] == 1
        assert all(each["images"])
        up, down = each["sorted"]
        assert up != down
        gaps = sum(text == "" for text in up)
        filled = len(up) - gaps
        assert up[:filled] == down[:filled][::-1] or len({*up}) < len(up)
        assert up[filled:] == down[filled:] == [""] * gaps


def test_a_page_is_dark_where_the_reader_prefers_it(browser, pages, tmp_path):
    setting = "--blink-settings=preferredColorScheme"
    light, _ = measured(browser, tmp_path, pages["run"], f"{setting}=1")
    dark, lines = measured(browser, tmp_path, pages["run"], f"{setting}=0")
    assert lines == []

    def brightness(colour):
        return sum(int(part) for part in re.findall(r"\d+", colour)[:3])

    assert brightness(light[0]["paper"]) > 700 > 250 > brightness(light[0]["ink"])
    assert brightness(dark[0]["paper"]) < 150 < 550 < brightness(dark[0]["ink"])


def test_a_page_can_be_printed(browser, pages, tmp_path):
    out = tmp_path / "page.pdf"
    run(browser, tmp_path, f"--print-to-pdf={out}", pages["comparison"].as_uri())
    content = out.read_bytes()
    assert content.startswith(b"%PDF")
    assert len(content) > 5000

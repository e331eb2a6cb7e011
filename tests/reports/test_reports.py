"""Reports: what a page says, of which folders it can be made, and that it never fails a command."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict, fields
from html.parser import HTMLParser
from pathlib import Path

import pytest

from zoo_lightning.analysis.agreement import Agreement
from zoo_lightning.analysis.measuring import Measure
from zoo_lightning.analysis.report import GateReport, LayerRow, SourceEffect
from zoo_lightning.errors import ConfigError
from zoo_lightning.reports import finished_run, page, writing
from zoo_lightning.reports.charts import MOST_POINTS, thinned
from zoo_lightning.reports.collecting import make_report
from zoo_lightning.reports.contents import Gallery, Table, duration, number, operations
from zoo_lightning.reports.finished_run import RunFiles, wilson
from zoo_lightning.reports.page import rendered
from zoo_lightning.reports.side_by_side import distinct_names

OLD = Path(__file__).parents[1] / "tasks" / "version_0_1"
RESULTS = Path(__file__).parents[2] / "results"
HOSTILE = """<script>alert(1)</script>"><img src=x onerror=alert(2)>&'$x_1$ {{ 7*7 }}"""


class Addresses(HTMLParser):
    """All tags of a page, and the addresses that it names."""

    def __init__(self):
        super().__init__()
        self.tags, self.found, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        """Note a tag and its attributes."""
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.found += [value for name, value in attrs if name in ("src", "href", "xlink:href")]


def parsed(text):
    parser = Addresses()
    parser.feed(text)
    return parser


def section(report, title):
    return next(each for each in report.sections if each.title == title)


def table(report, title):
    return next(each for each in section(report, title).blocks if isinstance(each, Table))


def texts(found):
    return [[cell.text for cell in row] for row in found.rows]


def test_fit_leaves_a_page_with_its_figures_curves_gates_pictures_and_command(finished):
    content = (finished / "report.html").read_text("utf-8")
    summary = json.loads((finished / "summary.json").read_text())
    report = make_report([finished])
    assert [each.title for each in report.sections] == [
        "What was run", "Figures", "Curves", "Gates", "Pictures", "Costs", "Run it again",
    ]  # fmt: skip
    figures = {row[0]: row[1] for row in texts(table(report, "Figures"))}
    assert figures["test/nme"] == number(summary["test"]["test/nme"])
    assert number(summary["test"]["test/nme"]) in content
    facts = dict(section(report, "What was run").blocks[0].pairs)
    assert facts["sources"] == "random:1, random:2"
    assert facts["data"].startswith("DrawnFaces")
    assert "fit --config done/config.yaml --run_dir runs/again" in content
    blocks = [block for part in report.sections for block in part.blocks]
    shown = [each for block in blocks if isinstance(block, Gallery) for each in block.shown]
    pictures = [each for each in shown if each.kind == "picture"]
    drawn = sorted((finished / "pictures").glob("*.png"))
    assert len(pictures) == len(drawn) > 3


def test_a_page_names_no_address_but_its_own(finished):
    found = parsed((finished / "report.html").read_text("utf-8"))
    assert found.tags.count("script") == 1
    assert "link" in found.tags
    outside = [each for each in found.found if not each.startswith(("data:", "#"))]
    assert outside == []


def test_joined_games_and_targets_of_earlier_versions_have_a_report():
    games = make_report([RESULTS / "rl" / "transfer" / "joint"])
    [scores] = [each for each in games.sections[0].blocks if isinstance(each, Table)]
    assert scores.heads[:2] == ["method", "interquartile mean"]
    assert all("(" in row[1].text for row in scores.rows)
    targets = make_report([RESULTS / "earlier" / "compare"])
    assert len(table(targets, "Results").heads) == 1 + len(targets.lead.split(", "))
    assert all(cell.key is not None for row in table(targets, "Results").rows for cell in row[1:])


@pytest.mark.parametrize("task", ["classification", "landmarks", "policy"])
def test_runs_of_version_0_1_have_a_report(task, tmp_path, command):
    done = command("report", OLD / task, "--output", tmp_path / "page.html")
    assert done.status == 0, done.err
    assert "report.html" not in os.listdir(OLD / task)
    report = make_report([OLD / task])
    summary = json.loads((OLD / task / "summary.json").read_text())
    shown = {row[0] for row in texts(table(report, "Figures"))}
    assert {*summary["test"], *summary["validation"]} <= shown
    assert section(report, "Curves")


def test_several_runs_stand_side_by_side(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    folders = [OLD / task for task in ("classification", "landmarks", "policy")]
    assert command("report", *folders, folders[0]).status == 0
    assert (tmp_path / "report.html").is_file()
    report = make_report(folders)
    rows = texts(table(report, "Side by side"))
    assert [row[0] for row in rows] == ["classification", "landmarks", "policy"]
    options = {row[0]: row[1:] for row in texts(table(report, "Options that differ"))}
    assert options["model.lr"] == ["0.002", "0.004", "0.00025"]
    assert "trainer.accelerator" not in options


def test_the_best_of_comparable_runs_is_marked(tmp_path):
    for name, change in (("a", 0.0), ("b", -5.0), ("c", 1.0)):
        run = shutil.copytree(OLD / "landmarks", tmp_path / name)
        summary = json.loads((run / "summary.json").read_text())
        summary["test"]["test/nme"] += change
        (run / "summary.json").write_text(json.dumps(summary))
    report = make_report([tmp_path / name for name in "abc"])
    assert table(report, "Side by side").marked == 1


def test_no_run_is_marked_as_best_among_different_data(tmp_path):
    run = shutil.copytree(OLD / "landmarks", tmp_path / "other")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("image_size: 32", "image_size: 64"))
    assert table(make_report([OLD / "landmarks", run]), "Side by side").marked is None


def test_folders_are_named_by_what_tells_them_apart():
    names = distinct_names([Path("/r/a/lite/0"), Path("/r/a/lite/1"), Path("/r/b/lite/1")])
    assert names == ["0", "a/lite/1", "b/lite/1"]


def test_what_comes_from_users_is_escaped(tmp_path):
    run = shutil.copytree(OLD / "classification", tmp_path / "<b>run$_1$&amp;")
    summary = json.loads((run / "summary.json").read_text())
    summary |= {"experiment": HOSTILE, "method": HOSTILE}
    summary["test"][HOSTILE] = 0.5
    (run / "summary.json").write_text(json.dumps(summary))
    config = (run / "config.yaml").read_text()
    quoted = json.dumps(HOSTILE)
    (run / "config.yaml").write_text(config.replace("small_network.SmallNetwork", quoted))
    content = (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text(content.replace("gates/random-1", "gates/<i>$\\frac{1$"))
    plain = parsed(rendered(make_report([OLD / "classification", OLD / "landmarks"])))
    found = parsed(rendered(make_report([run, OLD / "landmarks"])))
    assert {*found.tags} <= {*plain.tags}
    assert found.tags.count("script") == 1
    assert [each for each in found.attributes if each.startswith("on")] == []
    assert [each for each in found.found if not each.startswith(("data:", "#"))] == []


def test_the_policy_of_a_page_allows_its_own_script_alone():
    import base64
    import hashlib

    content = rendered(make_report([OLD / "policy"]))
    script = re.search(r"<script>(.*?)</script>", content, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in content
    assert "default-src 'none'" in content


def test_the_figures_of_each_class_are_in_a_table(tmp_path):
    run = shutil.copytree(OLD / "classification", tmp_path / "run")
    lines = ["class,images,precision,recall,f1", "ant,90,0.9000,1.0000,0.9474", "bee,0,,,"]
    (run / "classes.csv").write_text("\n".join(lines) + "\n")
    (table,) = section(make_report([run]), "Classes").blocks
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["ant", "90", "0.9", "1", "0.9474"],
        ["bee", "0", "", "", ""],
    ]


def test_a_run_that_has_not_ended_is_reported_as_such(tmp_path):
    run = shutil.copytree(OLD / "classification", tmp_path / "run")
    (run / "summary.json").unlink()
    report = make_report([run])
    assert "has not ended" in report.lead
    assert section(report, "Curves")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 5000])
def test_a_damaged_summary_is_refused_by_name(tmp_path, command, content):
    run = shutil.copytree(OLD / "classification", tmp_path / "run")
    (run / "summary.json").write_bytes(content)
    command("report", run).refused("summary.json")


@pytest.mark.parametrize("name", ["metrics.csv", "config.yaml", "test_errors.csv"])
def test_other_damaged_files_are_left_out(tmp_path, name):
    run = shutil.copytree(OLD / "classification", tmp_path / "run")
    (run / name).write_bytes(b"\x00,\xff\n!!python/object:os.system [x\n\x00\n")
    report = make_report([run])
    assert section(report, "Figures")
    rendered(report)


@pytest.mark.parametrize("kept", ["summary", "config"])
def test_entries_of_other_types_do_not_stop_a_report(tmp_path, kept):
    wrong = [None, 3, "x", [1], {"a": None}, {"a": [1]}, True, float("nan")]
    for each in wrong:
        run = tmp_path / f"run{wrong.index(each)}"
        run.mkdir()
        keys = ("test", "validation", "parameters", "compute", "seconds", "steps", "seed",
                "checkpoint", "peak_memory_mb", "test_images", "pipeline",
                "experiment")  # fmt: skip
        if kept == "summary":
            (run / "summary.json").write_text(json.dumps(dict.fromkeys(keys, each)))
        else:
            (run / "summary.json").write_text("{}")
            (run / "config.yaml").write_text(json.dumps({"model": each, "data": each}))
            (run / "pipeline.yaml").write_text(json.dumps({"options": each, "budget": each}))
            (run / "decisions.json").write_text(json.dumps({"candidates": [{"name": each}],
                                                            "gains": {"a": each}, "race": each,
                                                            "course": each}))  # fmt: skip
            (run / "stages").mkdir()
            relations = [
                {"sources": each},
                {"sources": [{"name": each}], "pairs": [each, {}]},
                each,
            ]
            (run / "stages" / "look.json").write_text(
                json.dumps({"relations": relations[wrong.index(each) % 3]})
            )
        rendered(make_report([run]))


def test_a_picture_that_is_none_is_left_out(tmp_path):
    run = shutil.copytree(OLD / "classification", tmp_path / "run")
    (run / "pictures").mkdir()
    (run / "pictures" / "confusion.png").write_bytes(b"no picture")
    report = make_report([run])
    assert "confusion.png" in section(report, "Left out").blocks[0].lines[0]


@pytest.mark.parametrize("name", ["nothing", "empty", "file.txt"])
def test_what_is_no_run_is_refused_by_name(tmp_path, monkeypatch, command, name):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("file.txt").write_text("x")
    command("report", name).refused(name)


def test_a_report_is_not_written_over_other_files(tmp_path, command):
    kept = tmp_path / "notes.txt"
    kept.write_text("mine")
    command("report", OLD / "policy", "--output", kept).refused("--output", "notes.txt")
    assert kept.read_text() == "mine"


def test_a_report_that_fails_is_one_warning(tmp_path, monkeypatch, capsys):
    run = shutil.copytree(OLD / "policy", tmp_path / "run")

    def fails(*_):
        raise RuntimeError("a library\nhas changed")

    monkeypatch.setattr(page, "rendered", fails)
    assert writing.leave_report(run) is None
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "RuntimeError: a library has changed" in lines[0]


def test_a_training_ends_well_without_its_report(tiny, command, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "rendered", fails)
    done = command("fit", "--experiment", "tiny", "--run_dir", "run", "--trainer.max_steps", "1",
                   "--trainer.val_check_interval", "1")  # fmt: skip
    assert done.status == 0, done.err
    assert len([line for line in done.err.splitlines() if "report.html" in line]) == 1
    assert Path("run/summary.json").is_file()
    assert not Path("run/report.html").exists()


def test_intervals_are_left_out_where_there_are_too_few_samples():
    policy, faces = RunFiles(OLD / "policy"), RunFiles(OLD / "landmarks")
    assert policy.main.samples == 2 < finished_run.FEWEST
    assert not policy.main.has_interval
    assert faces.main.low < faces.main.mean < faces.main.high


def test_the_interval_of_an_accuracy_is_wilsons():
    """9 of 10: (0.5958, 0.9821), as statsmodels' proportion_confint(9, 10, method="wilson")."""
    assert wilson([100.0] * 9 + [0.0]) == pytest.approx((59.58, 98.21), abs=0.01)


@pytest.mark.parametrize("name", ["flowers17", "faces68", "pacs_cartoon"])
def test_a_comparison_is_reported_from_its_figures(name):
    folder = RESULTS / "earlier" / "compare" / name
    report = make_report([folder])
    [found] = json.loads((folder / "runs.json").read_text())[:1]
    results = next(each for each in report.sections if each.title.startswith("Results"))
    rows = texts(next(each for each in results.blocks if isinstance(each, Table)))
    assert [row[0] for row in rows] == [row["method"] for row in found["rows"]]
    assert rows[0][1] == f"{found['rows'][0]['mean_mean']:.2f}"
    verdicts = {line.removeprefix("- ").split(":")[0] for line in
                (folder / "table.md").read_text().splitlines() if line.startswith("- ")
                and (" wins against " in line or " loses to " in line)}  # fmt: skip
    said = {line.split(":")[0] for block in results.blocks for line in getattr(block, "lines", ())}
    assert verdicts <= said
    rendered(report)


def test_a_sweep_is_reported_from_its_trials(tmp_path):
    for name in ("trials.csv", "importances.json", "best.yaml"):
        old = {"trials.csv": "faces68.csv"}.get(name, f"faces68-{name}")
        shutil.copy(RESULTS / "sweeps" / old, tmp_path / name)
    report = make_report([tmp_path])
    rows = (RESULTS / "sweeps" / "faces68.csv").read_text().splitlines()[1:]
    assert len(table(report, "Trials").rows) == len(rows)
    assert [each.title for each in report.sections] == [
        "Trials", "What mattered", "The best configuration",
    ]  # fmt: skip
    rendered(report)


def written_gates(folder):
    """A gate report as the command ``gates`` writes it, of two sources and one layer."""
    effects = {"effect": 2.5, "effect_error": 0.5, "loss_effect": 0.1, "loss_effect_error": 0.01,
               "metric_as_is": 80.0, "effect_as_is": 2.0, "metric_alone": 60.0}  # fmt: skip
    sources = [
        SourceEffect(name, None, share, share, metric=81.0, **effects)
        for name, share in (("a", 0.75), ("b", 0.25))
    ]
    layers = [LayerRow("conv1", name, 0.5, None, 0.5, 0.5) for name in ("a", "b")]
    found = GateReport(
        method="lite", architecture="x", split="test", samples=100, calibration=10,
        layer_samples=0, measure=Measure("acc", "accuracy, %", True, "loss"), metric=83.5,
        metric_as_is=83.0, sources=sources, layers=layers,
        agreement=Agreement(*[None] * len(fields(Agreement))), verdict="Read <the> column.",
        remarks=[],
    )  # fmt: skip
    folder.mkdir()
    (folder / "gates.json").write_text(json.dumps(asdict(found)))
    return folder


def test_a_gate_report_is_a_page_and_part_of_its_runs_page(tmp_path):
    run = shutil.copytree(OLD / "classification", tmp_path / "run")
    report = make_report([written_gates(run / "gates")])
    assert report.lead == "Read <the> column."
    by_source = next(each for each in report.sections[0].blocks if isinstance(each, Table))
    assert texts(by_source)[0] == ["a", "", "0.75", "0.75", "81", "2.5", "0.5", "60"]
    assert "Read &lt;the&gt; column." in rendered(make_report([run]))


def test_a_pipeline_is_reported_with_its_stages_and_its_decision(tmp_path):
    run = shutil.copytree(OLD / "classification", tmp_path / "run")
    stage = shutil.copytree(OLD / "classification", run / "stages" / "student")
    (stage / "report.html").write_text("")
    options = {"model": {"class_path": "ClassificationTask"}}
    (run / "pipeline.yaml").write_text(
        json.dumps({"method": "auto", "budget": 4.0, "inference": 1, "options": options})
    )
    chosen = {
        "result": ["student"], "measure": "accuracy, %", "loss": "cross-entropy",
        "candidates": [{"name": "start", "value": 60.0, "loss": 1.0},
                       {"name": "student", "value": 65.5, "loss": 0.5}],
        "gains": {"student": {"mean": 0.5, "low": 0.1, "high": 0.9, "share": 0.99},
                  "both": {"mean": 0.5, "low": 0.1, "high": 0.9, "share": 0.97,
                           "error": {"share": 0.62}, "replaces": False}},
        "sure": 0.8,
        "race": [{"name": "a", "fraction": 0.125, "half": 2.0, "loss": 1.0, "expected": 0.71},
                 {"name": "b", "fraction": 0.0625, "half": 1.0, "loss": 0.9, "expected": 0.85}],
        "course": ["longer: does not pay", "winner: a"],
    }  # fmt: skip
    found = {"value": 0.25, "error": 0.5}
    pair = {"first": "a", "second": "b", "cosine": 0.75, "relation": "relatives", "kept": None,
            "complementarity": found}  # fmt: skip
    sources = [{"name": name, "score": 0.5, "over_random": found} for name in "ab"]
    (run / "stages" / "look.json").write_text(
        json.dumps({"relations": {"sources": sources, "pairs": [pair]}})
    )
    (run / "decisions.json").write_text(json.dumps(chosen))
    report = make_report([run])
    assert table(report, "Decision").marked == 1
    rows = [["a", "0.125", "2", "1", "0.71"], ["b", "0.0625", "1", "0.9", "0.85"]]
    assert texts(table(report, "Race")) == rows
    assert table(report, "Race").marked == 0
    assert texts(table(report, "Stages"))[0][:2] == ["student", "val/acc"]
    alone, related = section(report, "Sources").blocks
    assert texts(alone) == [[name, "0.5", "0.25", "0.5"] for name in "ab"]
    assert texts(related) == [["a, b", "0.75", "relatives", "", "0.25", "0.5"]]
    said = section(report, "How it was decided").blocks[0].lines
    assert said == ["longer: does not pay", "winner: a"]
    assert table(report, "Stages").rows[0][0].link == "stages/student/report.html"
    content = rendered(report)
    assert "--config options.yaml --method auto --budget 4 --run_dir runs/again" in content
    assert "better in 99 % of the bootstrap samples" in content  # of a run of version 0.1
    assert "both does not replace what was selected before: 0.5 less cross-entropy" in content
    assert "in 97 % of the bootstrap samples, by error in 62 %; needed are 80 %" in content


def test_long_curves_are_thinned_and_keep_their_ends():
    steps = list(range(0, 100_000, 7))
    drawn = thinned(steps)
    assert len(drawn) <= MOST_POINTS + 1
    assert (drawn[0], drawn[-1]) == (steps[0], steps[-1])
    assert thinned([3]) == [3]


def test_a_comparison_without_tables_is_refused(tmp_path):
    (tmp_path / "runs.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"runs\.json"):
        make_report([tmp_path])


def test_numbers_are_written_for_readers():
    assert number(1234567) == "1\N{NARROW NO-BREAK SPACE}234\N{NARROW NO-BREAK SPACE}567"
    assert number(-0.5) == "\N{MINUS SIGN}0.5"
    assert [duration(each) for each in (3.21, 200, 7300)] == ["3.21 s", "3 min 20 s", "2 h 1 min"]
    assert operations(3.635e11) == "364 G"

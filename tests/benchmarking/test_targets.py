"""Comparisons on several data sets taken together: figures, ranks, wins, ties and losses."""

import json

import pytest

from zoo_lightning.benchmarking import command
from zoo_lightning.benchmarking.grid import cells_of, open_comparison
from zoo_lightning.benchmarking.joint import join_targets
from zoo_lightning.benchmarking.report import BY_VALIDATION, HINDSIGHT
from zoo_lightning.benchmarking.statistics import interval
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.recipes import find_recipes
from zoo_lightning.reports.collecting import make_report

METHODS = ["scratch", "single", "soup", "lite"]

# Test figures by label, a number for each of three seeds; single random-1 is best in validation.
FLOWERS = {
    "scratch": (0.60, 0.61, 0.62),
    "single random-1": (0.69, 0.71, 0.70),
    "single random-2": (0.71, 0.72, 0.70),
    "soup": (0.49, 0.51, 0.50),
    "lite": (0.80, 0.81, 0.79),
}
FACES = {
    "scratch": (9.0, 9.1, 9.2),
    "single random-1": (7.0, 7.2, 7.1),
    "single random-2": (8.0, 8.2, 8.1),
    "soup": (5.0, 5.1, 5.2),
    "lite": (7.2, 7.0, 7.1),
}
KEYS = {"ClassificationTask": "acc", "LandmarkTask": "nme"}


def options(task):
    backbone = {"class_path": "ZooBackbone", "init_args": {
        "architecture": "test_resnet", "sources": ["random:1", "random:2"]}}  # fmt: skip
    return {
        "seed_everything": 0,
        "trainer": {},
        "data": {"class_path": "DrawnFaces", "init_args": {}},
        "model": {"class_path": task, "init_args": {"backbone": backbone}},
    }


def finished(folder, task, figures, fractions=(1.0,)):
    """A comparison whose runs had these test figures."""
    comparison = open_comparison(folder, options(task))
    recipes = find_recipes(METHODS, task)
    key, sign = KEYS[task], 1 if task == "ClassificationTask" else -1
    for cell in cells_of(recipes, list(comparison.sources), [0, 1, 2], fractions):
        if cell.label not in figures:
            continue
        path = comparison.run(cell) / "summary.json"
        path.parent.mkdir(parents=True)
        validation = sign * (1.0 if cell.label == "single random-1" else 0.5)
        content = {"validation": {f"val/{key}": validation},
                   "test": {f"test/{key}": figures[cell.label][cell.seed]}}  # fmt: skip
        path.write_text(json.dumps({"seconds": 1.0, "peak_memory_mb": 1, **content}))
    return folder


@pytest.fixture
def folders(tmp_path):
    return [
        finished(tmp_path / "flowers", "ClassificationTask", FLOWERS),
        finished(tmp_path / "faces", "LandmarkTask", FACES),
    ]


def joined(folders, output, seeds, fractions):
    comparisons = [open_comparison(folder, None) for folder in folders]
    return join_targets(comparisons, METHODS, seeds, fractions, output)


def rows_of(text):
    """Cells of a Markdown table's lines by their first."""
    lines = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in lines}


def test_figures_stand_side_by_side_with_ranks_of_what_can_be_chosen(folders, tmp_path):
    text = joined(folders, tmp_path / "joint", [0, 1, 2], [1.0])
    assert (tmp_path / "joint/joint.md").read_text() == text
    figures = rows_of(text.partition("Targets on which")[0])
    assert figures["method"] == ["flowers, test accuracy, %", "faces, test NME, %", "mean rank"]
    # 71, 62 %, 50 % and 80 % of flowers; 7.1, 9.1, 5.1 and 7.1 of faces, where lower is better.
    assert figures["lite"] == ["**80.00 ± 2.48**", "7.10 ± 0.25", "1.5"]
    assert figures["soup"] == ["50.00 ± 2.48", "**5.10 ± 0.25**", "2.5"]
    assert figures["scratch"][2] == "3.5"
    assert figures[BY_VALIDATION] == ["70.00 ± 2.48", "7.10 ± 0.25", "2.0"]
    assert figures[HINDSIGHT] == ["71.00 ± 2.48", "7.10 ± 0.25", ""]  # no rank
    assert figures["single random-2"][2] == ""


def test_a_zoo_wins_ties_and_loses_by_the_interval_of_the_difference(folders, tmp_path):
    text = joined(folders, tmp_path / "joint", [0, 1, 2], [1.0])
    outcomes = rows_of(text.partition("Targets on which")[2])
    assert outcomes["against"] == ["lite", "lite, less error"]
    assert outcomes["scratch"][0] == "2 / 0 / 0"
    assert outcomes["soup"][0] == "1 / 0 / 1"
    assert outcomes[BY_VALIDATION][0] == "1 / 1 / 0"
    content = json.loads((tmp_path / "joint/joint.json").read_text())
    assert content["flowers"]["outcomes"]["lite"]["soup"] == 1
    assert content["faces"]["outcomes"]["lite"]["soup"] == -1
    assert content["faces"]["figures"]["soup"] == {"0": 5.0, "1": 5.1, "2": 5.2}


def test_joined_targets_have_a_report(folders, tmp_path, command):
    words = ("--methods", ",".join(METHODS), "--seeds", "0,1,2", "--run_dir", tmp_path / "joint")
    done = command("compare", "--join", ",".join(map(str, folders)), *words)
    assert done.status == 0, done.err
    assert "report.html" in done.out
    report = make_report([tmp_path / "joint"])
    assert report.lead == "2 targets: flowers, faces"
    results, against = (
        each for part in report.sections for each in part.blocks if each.kind == "table"
    )
    cells = {row[0].text: [cell.text for cell in row[1:]] for row in results.rows}
    assert cells["lite"] == ["80 ± 2.48", "7.1 ± 0.248"]
    found = {tuple(cell.text for cell in row) for row in against.rows}
    assert {("flowers", "lite", "wins", "soup"), ("faces", "lite", "loses", "soup")} <= found
    (tmp_path / "joint/joint.json").write_text("{")
    with pytest.raises(ConfigError, match=r"joint\.json cannot be read"):
        make_report([tmp_path / "joint"])


def test_errors_of_all_targets_are_compared_as_parts_of_each_other(folders, tmp_path):
    text = joined(folders, tmp_path / "joint", [0, 1, 2], [1.0])
    # Errors of flowers: 20, 19 and 21 % against 51, 49 and 50 %.
    gains = [
        100 * (1 - (mine / theirs + other) / 2)
        for mine, theirs, other in ((20, 51, 7.2 / 5.0), (19, 49, 7.0 / 5.1), (21, 50, 7.1 / 5.2))
    ]
    expected = interval(gains)
    outcomes = rows_of(text.partition("Targets on which")[2])
    assert outcomes["soup"][1] == f"{expected.mean:+.2f} ± {expected.half:.2f} %"


def test_where_there_is_no_error_there_is_no_part_of_it(tmp_path):
    perfect = FLOWERS | {"soup": (1.0, 1.0, 1.0)}
    folder = finished(tmp_path / "flowers", "ClassificationTask", perfect)
    text = joined([folder], tmp_path / "joint", [0, 1, 2], [1.0])
    outcomes = rows_of(text.partition("Targets on which")[2])
    assert outcomes["soup"] == ["0 / 0 / 1", ""]


def test_a_part_of_the_training_data_is_a_target_of_its_own(tmp_path):
    folder = finished(tmp_path / "faces", "LandmarkTask", FACES, [0.1, 1.0])
    text = joined([folder], tmp_path / "joint", [0, 1, 2], [0.1, 1.0])
    assert text.startswith("# faces 0.1, faces\n")


def test_methods_that_one_target_lacks_are_left_out(folders, tmp_path):
    part = {label: found for label, found in FACES.items() if label != "soup"}
    other = finished(tmp_path / "more", "LandmarkTask", part)
    text = joined([*folders, other], tmp_path / "joint", [0, 1, 2], [1.0])
    assert "| lite |" in text
    assert "| soup |" not in text
    assert "- left out, since not all have finished runs of them: soup\n" in text


def test_what_cannot_be_joined_is_refused(folders, tmp_path):
    again = finished(tmp_path / "again" / "faces", "LandmarkTask", FACES)
    with pytest.raises(ConfigError, match="two folders are called faces; rename"):
        joined([*folders, again], tmp_path / "joint", [0], [1.0])
    empty = open_comparison(tmp_path / "empty", options("LandmarkTask")).folder
    with pytest.raises(ConfigError, match=r"no run of .*empty has ended"):
        joined([folders[0], empty], tmp_path / "joint", [0], [1.0])
    other = finished(tmp_path / "other", "LandmarkTask", {"soup": FACES["soup"]})
    part = {"lite": FLOWERS["lite"]}
    unlike = finished(tmp_path / "unlike", "ClassificationTask", part)
    with pytest.raises(ConfigError, match="no method has finished runs on all of other, unlike"):
        joined([other, unlike], tmp_path / "joint", [0], [1.0])


def test_the_command_joins_data_sets_and_refuses_a_mixture_with_games(folders, tmp_path, capsys):
    names = ",".join(map(str, folders))
    words = ["--methods", ",".join(METHODS), "--run_dir", str(tmp_path / "joint")]
    assert command.main(["--join", names, *words]) == 0
    out = capsys.readouterr().out
    assert "| lite | **80.00 ± 2.48** |" in out
    assert "wrote joint.md, joint.json" in out
    play = open_comparison(tmp_path / "play", options("PPOTask")).folder
    with pytest.raises(ConfigError, match=r"takes comparisons of policies .*flowers is of"):
        command.main(["--join", f"{names},{play}", *words])

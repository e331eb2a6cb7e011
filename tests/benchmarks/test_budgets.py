"""Comparisons at equal compute: commands that the program takes, and what their tables become."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import budgets  # noqa: E402
from benchmarks.budgets import BEST, BLIND, TARGETS, command, main, read_figures  # noqa: E402
from zoo_lightning.experiments.resolving import resolve  # noqa: E402
from zoo_lightning.methods.recipes import find_recipes  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is absent")


@needs_data
@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
@pytest.mark.parametrize("target", TARGETS)
def test_every_command_is_one_that_the_program_takes(target, tmp_path):
    words = command(TARGETS[target], DATA, 3, "1,4", ",".join(budgets.METHODS), tmp_path)
    own = ("--budgets", "--seeds", "--methods", "--run_dir")  # options of compare
    rest = [word for word in words[1:] if word != "--no_costs"]
    for name in own:
        at = rest.index(name)
        del rest[at : at + 2]
    task = resolve(overrides=rest).options.model.class_path.rsplit(".", 1)[-1]
    assert find_recipes(words[words.index("--methods") + 1].split(","), task)
    assert main_words(words, "--seeds") == "3"


def main_words(words, option):
    return words[words.index(option) + 1]


def test_run_trains_by_the_command_of_its_target(monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(budgets, "program", lambda words: ran.append(words) or 3)
    words = ["run", "gtsrb600", "--data", str(tmp_path), "--seed", "1", "--budgets", "2,8"]
    assert main([*words, "--methods", "single", "--run_dir", str(tmp_path / "runs")]) == 3
    assert main_words(ran[0], "--budgets") == "2,8"
    assert main_words(ran[0], "--data.root") == str(tmp_path / "gtsrb32")
    assert main_words(ran[0], "--data.flip") == "0"


def test_auto_trains_by_the_same_options_and_its_figures_join_the_table(monkeypatch, tmp_path):
    ran = []

    def train(words):
        ran.append(words)
        folder = Path(main_words(words, "--run_dir"))
        folder.mkdir(parents=True)
        summary = {
            "method": "auto",
            "result": ["start"],
            "test": {"test/acc": 0.75},
            "compute": {"multiply_adds": 10},
        }
        (folder / "summary.json").write_text(json.dumps(summary))
        return 0

    monkeypatch.setattr(budgets, "program", train)
    run, results = tmp_path / "run", tmp_path / "results"
    words = ["--data", str(tmp_path), "--seed", "1", "--budgets", "2,4", "--run_dir", str(run)]
    assert main(["auto", "flowers17", *words]) == 0
    assert [main_words(words, "--budget") for words in ran] == ["2", "4"]
    assert all(main_words(words, "--method") == "auto" for words in ran)
    assert all(main_words(words, "--seed_everything") == "1" for words in ran)
    shared = budgets.options_of(TARGETS["flowers17"], tmp_path)
    assert all(words[1 : 1 + len(shared)] == shared for words in ran)
    main(["keep", str(run), "--output", str(results / "flowers17" / "auto-seed1")])
    kept(results / "flowers17" / "seed1", {"single a": {1: 50.0}})
    assert read_figures(results / "flowers17")[4.0] == {"auto": {1: 75.0}, "single a": {1: 50.0}}


def test_auto_stops_where_a_training_fails(monkeypatch, tmp_path):
    monkeypatch.setattr(budgets, "program", lambda words: 2)
    words = ["--data", str(tmp_path), "--run_dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["auto", "flowers17", *words])
    assert not (tmp_path / "run" / "runs.json").exists()


def kept(folder, figures, budget=4.0):
    """A comparison's tables in a folder: figures by method and seed."""
    folder.mkdir(parents=True)
    rows = [
        {"method": method, "figures": {str(seed): value for seed, value in values.items()}}
        for method, values in figures.items()
    ]
    (folder / "runs.json").write_text(json.dumps([{"budget": budget, "rows": rows}]))
    for name in ("table.md", "table.csv"):
        (folder / name).write_text("")


def test_tables_of_several_seeds_are_joined(tmp_path):
    first = {"single a": {0: 80.0}, "single b": {0: 90.0}, "soup": {0: 91.0}, "full": {0: 50.0}}
    second = {"single a": {1: 90.0}, "single b": {1: 84.0}, "soup": {1: 89.0}}
    kept(tmp_path / "runs0", {"best single (hindsight)": {0: 90.0}, **first})
    kept(tmp_path / "results" / "flowers17" / "seed1", second)
    main(["keep", str(tmp_path / "runs0"), "--output", str(tmp_path / "results/flowers17/seed0")])
    faces = {"single a": {0: 6.0}, "single b": {0: 8.0}, "soup": {0: 5.0}}
    kept(tmp_path / "results" / "faces68_10" / "seed0", faces)
    kept(tmp_path / "results" / "faces68_10" / "seed0-8", faces, budget=8.0)

    main(["join", str(tmp_path / "results")])

    content = json.loads((tmp_path / "results" / "joint.json").read_text())
    flowers = content["4"]["flowers17"]
    assert flowers[BEST] == {"0": 90.0, "1": 84.0}  # by the mean, 87 against 85
    assert flowers[BLIND] == {"0": 85.0, "1": 87.0}
    assert flowers["full"] == {"0": 50.0}
    assert content["8"]["faces68_10"][BEST] == {"0": 6.0}
    text = (tmp_path / "results" / "joint.md").read_text()
    lines = text.splitlines()
    at_4 = lines[: lines.index("## Budget 8")]
    # errors: 10 against 13 on flowers, 5 against 6 on faces
    [soup] = [line for line in at_4 if line.startswith("| soup | 0.8")]
    ratio = (10 / 13 * 5 / 6) ** 0.5
    assert soup.startswith(f"| soup | {ratio:.2f} | 2 of 2 |")  # of two: no interval
    [full] = [line for line in at_4 if line.startswith("| full | ") and " of " in line]
    assert full.startswith(f"| full | {50 / 10:.2f} | 0 of 1 |")  # seed 0 alone
    assert "| soup | **90.0 ± 1.4 (2)** | **5.00 (1)** |" in at_4
    assert "| single b | 87.0 ± 4.2 (2) | 8.00 (1) |" in at_4
    assert (tmp_path / "results" / "budgets.png").stat().st_size > 10_000


def test_an_interval_over_three_targets_is_bold_where_it_leaves_one_out(tmp_path):
    for target, soup in (("flowers17", 94.0), ("cifar10_500", 95.0), ("gtsrb600", 94.5)):
        singles = {"single a": {0: 90.0}, "single b": {0: 80.0}}
        kept(tmp_path / target / "seed0", {**singles, "soup": {0: soup}})
    main(["join", str(tmp_path)])
    lines = (tmp_path / "joint.md").read_text().splitlines()
    [row] = [line for line in lines if line.startswith("| soup |") and " of " in line]
    assert row.startswith("| soup | **0.55 (0.44 to 0.69)** | 3 of 3 | **0.37 (0.29 to 0.46)** |")


BROKEN = {
    "no JSON": "{",
    "no budget": '[{"rows": []}]',
    "a comparison without budgets": '[{"budget": null, "rows": []}]',
    "validation images": '[{"metric": "val/acc", "budget": 4.0, "rows": []}]',
    "some of the images": '[{"fraction": 0.5, "budget": 4.0, "rows": []}]',
    "no figures": '[{"budget": 4.0, "rows": [{"method": "soup"}]}]',
    "an empty figure": '[{"budget": 4.0, "rows": [{"method": "soup", "figures": {"0": null}}]}]',
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_table_that_cannot_be_joined_is_named(tmp_path, content):
    folder = tmp_path / "flowers17" / "seed0"
    folder.mkdir(parents=True)
    (folder / "runs.json").write_text(content)
    with pytest.raises(SystemExit, match=r"seed0.runs\.json: no tables of a comparison"):
        main(["join", str(tmp_path)])
    assert not (tmp_path / "joint.md").exists()


def test_folders_without_tables_or_with_other_names_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="keep finished runs first"):
        main(["join", str(tmp_path / "nowhere")])
    kept(tmp_path / "flower17" / "seed0", {"soup": {0: 1.0}})
    with pytest.raises(SystemExit, match="flower17 is no target"):
        main(["join", str(tmp_path)])
    with pytest.raises(SystemExit, match="does not exist"):
        main(["keep", str(tmp_path), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_kept_table_is_not_replaced_by_one_of_other_methods(tmp_path):
    kept(tmp_path / "run", {"auto": {0: 1.0}})
    kept(tmp_path / "old", {"soup": {0: 1.0}})
    with pytest.raises(SystemExit, match=r"has soup, which .* has not"):
        main(["keep", str(tmp_path / "run"), "--output", str(tmp_path / "old")])


@pytest.mark.parametrize("given", ["4,abc", "", "0,4", "inf"])
def test_auto_checks_all_budgets_before_it_trains(given, monkeypatch, tmp_path):
    monkeypatch.setattr(budgets, "program", lambda words: pytest.fail("trained"))
    words = ["--data", str(tmp_path), "--run_dir", str(tmp_path / "run"), "--budgets", given]
    with pytest.raises(SystemExit, match="expected numbers above 0"):
        main(["auto", "flowers17", *words])


def test_sources_without_errors_or_common_seeds_have_no_ratio(tmp_path):
    kept(tmp_path / "flowers17" / "seed0", {"single a": {0: 100.0}, "soup": {0: 90.0}})
    kept(tmp_path / "cifar10_500" / "seed0", {"single a": {0: 50.0}, "single b": {1: 60.0}})
    kept(tmp_path / "gtsrb600" / "seed0", {"auto": {0: 50.0}})
    main(["join", str(tmp_path)])
    text = (tmp_path / "joint.md").read_text()
    assert "nan" not in text
    assert "| soup |  |  |  |  |" in text


def test_a_later_table_of_the_same_seed_counts(tmp_path):
    for target, name in (("flowers17", "lite"), ("faces68_10", "lite-aligned")):
        kept(tmp_path / target / "seed0", {"soup": {0: 1.0}, "lite": {0: 5.0}})
        kept(tmp_path / target / "seed0-again", {"soup": {0: 2.0}})
        found = read_figures(tmp_path / target)
        assert found == {4.0: {"soup": {0: 2.0}, name: {0: 5.0}}}  # as the experiment has it

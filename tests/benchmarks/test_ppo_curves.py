"""Learning curves of two PPOs: windows, table and picture; finished trainings are not repeated."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import ppo_curves  # noqa: E402


def stopped(folder, scores):
    folder.mkdir(parents=True)
    rows = [f"{step},{score}" for step, score in scores]
    (folder / "metrics.csv").write_text("\n".join(["step,charts/episodic_return", *rows]) + "\n")


def finished(folder, scores):
    stopped(folder, scores)
    (folder / "summary.json").write_text(json.dumps({}))


@pytest.fixture
def runs(tmp_path):
    for seed in (0, 1):
        finished(tmp_path / f"ours-{seed}", [(1000, 1), (4000, 3), (6000, 5 + seed), (11000, 9)])
        finished(tmp_path / f"sb3-{seed}", [(2000, 2), (7000, 4)])
    return tmp_path


def test_what_is_finished_is_only_compared(runs, monkeypatch):
    monkeypatch.setattr(ppo_curves, "train_ours", lambda *args: pytest.fail("trained again"))
    monkeypatch.setattr(ppo_curves, "train_theirs", lambda *args: pytest.fail("trained again"))
    output = runs / "out"
    ppo_curves.main(["--run_dir", str(runs), "--window", "5000", "--output", str(output)])
    assert (output / "curves.png").stat().st_size > 1000
    lines = (output / "curves.md").read_text().splitlines()
    assert lines[0].startswith("| steps | ours 0 | ours 1 | sb3 0 | sb3 1 | ours, mean | sb3, mean")
    assert lines[2:] == [
        "| 5,000 | 2.0 | 2.0 | 2.0 | 2.0 | 2.0 | 2.0 |",
        "| 10,000 | 5.0 | 6.0 | 4.0 | 4.0 | 5.5 | 4.0 |",
        "| 15,000 | 9.0 | 9.0 |  |  | 9.0 |  |",
    ]


def test_a_report_has_stopped_trainings_without_the_window_under_way(runs, monkeypatch):
    monkeypatch.setattr(ppo_curves, "train_ours", lambda *args: pytest.fail("trained"))
    stopped(runs / "ours-2", [(1000, 3), (4000, 5), (5001, 100)])
    output = runs / "out"
    options = ["--run_dir", str(runs), "--window", "5000", "--output", str(output)]
    ppo_curves.main([*options, "--seeds", "2,3", "--report"])
    assert (output / "curves.md").read_text().splitlines() == [
        "| steps | ours 2 | ours, mean |",
        "|---|---|---|",
        "| 5,000 | 4.0 | 4.0 |",
    ]


def test_games_after_the_wanted_steps_are_left_out(runs):
    options = ["--run_dir", str(runs), "--window", "5000", "--output", str(runs / "out")]
    ppo_curves.main([*options, "--steps", "9000"])
    lines = (runs / "out/curves.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 5,000", "| 10,000"]


def test_curves_of_trainings_elsewhere_are_kept(runs, tmp_path_factory):
    output = runs / "out"
    ppo_curves.main(["--run_dir", str(runs), "--window", "5000", "--output", str(output)])
    first = (output / "curves.md").read_text()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    finished(elsewhere / "sb3-0", [(2000, 2), (7000, 9)])
    (runs / "ours-0/summary.json").rename(elsewhere / "unused")  # the others are gone, too
    options = ["--run_dir", str(elsewhere), "--window", "5000", "--output", str(output)]
    ppo_curves.main([*options, "--only", "sb3", "--seeds", "0"])
    assert (output / "curves.md").read_text() == first.replace(
        "| 10,000 | 5.0 | 6.0 | 4.0 | 4.0 | 5.5 | 4.0 |",
        "| 10,000 | 5.0 | 6.0 | 9.0 | 4.0 | 5.5 | 6.5 |",
    )
    stopped(runs / "shorter/sb3-0", [(2000, 30), (5001, 30)])
    shorter = ["--run_dir", str(runs / "shorter"), *options[2:], "--seeds", "0", "--report"]
    before = (output / "curves.json").read_text()
    ppo_curves.main(shorter)
    assert (output / "curves.json").read_text() == before
    with pytest.raises(SystemExit, match="another setting"):
        ppo_curves.main([*options, "--only", "sb3", "--seeds", "0", "--game", "pong"])


def test_only_the_wanted_side_is_trained(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(ppo_curves, "train_ours", lambda *args: trained.append(args))
    monkeypatch.setattr(ppo_curves, "train_theirs", lambda *args: pytest.fail("not wanted"))
    ppo_curves.main(["--run_dir", str(tmp_path), "--seeds", "3", "--steps", "9", "--only", "ours"])
    assert trained == [("breakout", 3, 9, tmp_path / "ours-3")]

"""``compare`` on the command line: real runs, going on, failures."""

import csv
import json
import sys
import threading
from pathlib import Path

import pytest

from zoo_lightning.comparing import command as comparing
from zoo_lightning.comparing import running
from zoo_lightning.comparing.grid import Cell, open_comparison

COMPARE = ("compare", "--run_dir", "out")
SMALL = {"trainer.max_steps": 2, "trainer.val_check_interval": 2}


def finish_at_once(comparison, cell):
    """Words of a process that leaves a summary, or fails for the seed 1 of ``lite``."""
    summary = {"seconds": 1.0, "peak_memory_mb": 1, "validation": {"val/nme": 5.0},
               "test": {"test/nme": 5.0 + cell.seed}}  # fmt: skip
    path = comparison.run(cell) / "summary.json"
    failing = cell.method == "lite" and cell.seed == 1
    code = (
        "import sys; print('out of luck', file=sys.stderr); sys.exit(1)"
        if failing
        else f"from pathlib import Path; Path({str(path)!r}).write_text({json.dumps(summary)!r})"
    )
    return [sys.executable, "-c", code]


@pytest.fixture
def quick(tiny, monkeypatch):
    """The experiment ``tiny`` whose cells end at once."""
    tiny(**SMALL)
    monkeypatch.setattr(running, "words_of", finish_at_once)


def refused(found, *words):
    last = found.err.strip().splitlines()[-1]
    assert found.status == 2, found.err
    assert last.startswith("error: ")
    assert "Traceback" not in found.err
    for word in words:
        assert word in last


def test_methods_are_trained_and_compared(tiny, command):
    tiny(**SMALL)
    words = ("--experiment", "tiny", "--methods", "ensemble,distillation", "--seeds", "3")
    done = command(*COMPARE, *words)
    assert done.status == 0, done.err
    runs = sorted(str(path.parent) for path in Path("out").rglob("summary.json"))
    assert runs == [
        f"out/runs/data-1/{name}/3"
        for name in ("distillation", "ensemble", "single-random-1", "single-random-2")
    ]
    with Path("out/table.csv").open(newline="") as stream:
        rows = {row["method"]: float(row["test/nme"]) for row in csv.DictReader(stream)}
    tested = json.loads(Path("out/runs/data-1/distillation/3/summary.json").read_text())["test"]
    assert rows["distillation"] == pytest.approx(tested["test/nme"])
    assert len(rows) == 6  # two choices among the single sources as well
    [table] = json.loads(Path("out/runs.json").read_text())
    costs = {row["method"]: row["cost"] for row in table["rows"]}
    one, both = costs["single random-1"], costs["ensemble"]
    assert both["multiply_adds"] == pytest.approx(2 * one["multiply_adds"])
    assert both["parameters"] == 2 * one["parameters"]
    assert {path.name for path in Path("out/pictures").iterdir()} == {
        "data-1-cost.png",
        "data-1-curves.png",
    }


def test_what_is_finished_is_not_repeated_and_a_failure_stops_nothing_else(quick, command):
    words = ("--experiment", "tiny", "--methods", "scratch,lite", "--seeds", "0,1", "--no_costs")
    done = command(*COMPARE, *words, "--workers", 2)
    assert done.status == 1
    assert "failed  runs/data-1/lite/1: out of luck" in done.out
    assert "see out/runs/data-1/lite/1/log.txt" in done.err
    assert done.out.count("done    ") == 3
    before = Path("out/runs/data-1/lite/0/summary.json").stat().st_mtime_ns
    again = command(*COMPARE, "--methods", "scratch,lite", "--seeds", "0,1", "--no_costs")
    assert again.status == 1  # no experiment is needed to go on
    assert "done    " not in again.out
    assert Path("out/runs/data-1/lite/0/summary.json").stat().st_mtime_ns == before
    table = Path("out/table.md").read_text()
    assert "| scratch | 5.50 ± 6.35 | 2 |" in table
    assert "| lite | 5.00 | 1 |" in table


def test_a_cell_that_another_process_works_on_is_left_to_it(quick, command, monkeypatch):
    words = ("--experiment", "tiny", "--methods", "scratch", "--seeds", "0", "--no_costs")
    comparison_folder = Path("out/runs/data-1/scratch/0")
    with running.claimed(comparison_folder) as free:
        assert free
        found = []
        # In the same process only another thread's lock tells apart who holds it.
        other = threading.Thread(target=lambda: found.append(command(*COMPARE, *words)))
        other.start()
        other.join()
    assert found[0].status == 0
    assert "no run of out has ended yet" in found[0].out
    assert command(*COMPARE, *words).out.count("done    ") == 1


def test_fractions_and_trials_have_cells_of_their_own(quick, command):
    words = ("--experiment", "tiny", "--methods", "scratch", "--seeds", "0", "--fractions", "0.5,1")
    done = command(*COMPARE, *words, "--tune", 2, "--no_costs")
    assert done.status == 0, done.err
    cells = sorted(
        str(path.parent.relative_to("out")) for path in Path("out").rglob("summary.json")
    )
    assert cells == [
        "runs/data-0.5/scratch/0", "runs/data-1/scratch/0",
        "trials/data-0.5/scratch/lr-0.00025", "trials/data-0.5/scratch/lr-0.016",
        "trials/data-1/scratch/lr-0.00025", "trials/data-1/scratch/lr-0.016",
    ]  # fmt: skip
    chosen = json.loads(Path("out/tuning.json").read_text())
    assert chosen["scratch on 0.5 of the data"]["lr"] == 0.00025


def test_options_that_cannot_be_right_are_refused(quick, command):
    tiny = ("--experiment", "tiny")
    refused(command(*COMPARE), "out is no comparison", "give --experiment")
    refused(command(*COMPARE, *tiny, "--methods", "lit"), "Did you mean 'lite'?")
    refused(command(*COMPARE, *tiny, "--seeds", "a"), "--seeds 'a'")
    refused(command(*COMPARE, *tiny, "--fractions", "2"), "in (0, 1]")
    refused(command(*COMPARE, *tiny, "--workers", 0), "--workers must be at least 1")
    refused(command(*COMPARE, *tiny, "--trainer.max_stepz", 3), "unknown option")
    refused(command(*COMPARE, *tiny, "--methods", "scratch", "--slurm", ""), "submitit")


def test_a_cell_of_a_stopped_run_goes_on(tiny, command, monkeypatch):
    tiny(**SMALL)
    words = ("--experiment", "tiny", "--methods", "scratch", "--seeds", "0", "--no_costs")
    assert command(*COMPARE, *words).status == 0
    folder = Path("out/runs/data-1/scratch/0")
    before = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").unlink()
    seen = []
    monkeypatch.setattr(comparing, "_report", lambda *args: None)
    from zoo_lightning.comparing import cell as cells

    monkeypatch.setattr(cells, "zoo_lightning", lambda words: seen.append(words) or 0)
    cells.run_cell(open_comparison(Path("out"), None), Cell("scratch"))
    assert seen[0][-2:] == ["--ckpt_path", "last"]
    assert before["validation"].keys() == {"val/nme"}

"""``compare`` on the command line: real runs, going on, failures."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch

from zoo_lightning.benchmarking import command as comparing
from zoo_lightning.benchmarking.cell import CellJob
from zoo_lightning.benchmarking.grid import Cell, open_comparison
from zoo_lightning.runs.pool import claimed

COMPARE = ("compare", "--run_dir", "out")
SMALL = {"trainer.max_steps": 2, "trainer.val_check_interval": 2}


def finish_at_once(job, device):
    """Start a process that leaves a summary, or fails for the seed 1 of ``lite``."""
    cell, folder = job.cell, job.folder
    folder.mkdir(parents=True, exist_ok=True)
    summary = {"seconds": 1.0, "peak_memory_mb": 1, "validation": {"val/nme": 5.0},
               "test": {"test/nme": 5.0 + cell.seed}}  # fmt: skip
    failing = cell.method == "lite" and cell.seed == 1
    code = (
        "import sys; print('out of luck'); sys.exit(1)"
        if failing
        else f"from pathlib import Path; Path('summary.json').write_text({json.dumps(summary)!r})"
    )
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=log)


@pytest.fixture
def quick(tiny, monkeypatch):
    """The experiment ``tiny`` whose cells end at once."""
    tiny(**SMALL)
    monkeypatch.setattr(CellJob, "start", finish_at_once)


@pytest.fixture
def quick_files(tiny, monkeypatch, landmark_root):
    """The same on files, which may be used in part."""
    files = {"root": str(landmark_root), "image_size": 32, "batch_size": 4, "num_workers": 0}
    tiny(**SMALL, data={"class_path": "LandmarkCSV", "init_args": files})
    monkeypatch.setattr(CellJob, "start", finish_at_once)


def test_methods_are_trained_and_compared(tiny, command, reads):
    tiny(**SMALL)
    words = ("--experiment", "tiny", "--methods", "ensemble,distillation", "--seeds", "3")
    done = command(*COMPARE, *words)
    assert done.status == 0, done.err
    singles = {count for path, count in reads.items() if "single-" in str(path)}
    assert singles == {1}, reads  # for the costs of their own and of the ensemble's row
    runs = sorted(str(path.parent) for path in Path("out").rglob("summary.json"))
    assert not list(Path("out/runs").rglob("pictures"))  # the experiment draws none
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
    page = Path("out/report.html").read_text()
    assert "best single (validation)" in page
    assert 'href="runs/data-1/distillation/3/report.html"' in page
    assert {path.name for path in Path("out/pictures").iterdir()} == {
        "data-1-compute.png",
        "data-1-curves.png",
    }


@pytest.mark.slow
def test_budgets_are_shared_by_what_a_method_is_made_from_and_are_kept(tiny, command):
    tiny(**SMALL | {"trainer.max_steps": 4})
    words = ("--experiment", "tiny", "--methods", "scratch,ensemble,lite", "--seeds", "3")
    done = command(*COMPARE, *words, "--budgets", "1,2", "--average_weights", "true")
    assert done.status == 0, done.out + done.err
    steps = {
        str(path.parent.relative_to("out/runs")): json.loads(path.read_text())["steps"]
        for path in Path("out").rglob("summary.json")
    }
    lite = {key: value for key, value in steps.items() if "lite" in key}
    assert steps.items() - lite.items() == {
        ("data-1-budget-1/scratch/3", 4), ("data-1-budget-2/scratch/3", 8),
        ("data-1-budget-0.5/single-random-1/3", 2), ("data-1-budget-1/single-random-1/3", 4),
        ("data-1-budget-0.5/single-random-2/3", 2), ("data-1-budget-1/single-random-2/3", 4),
        ("data-1-budget-1/ensemble/3", 0), ("data-1-budget-2/ensemble/3", 0),
    }  # fmt: skip
    assert 1 <= lite["data-1-budget-1/lite/3"] < 4  # its steps cost more
    tables = json.loads(Path("out/runs.json").read_text())
    assert [table["budget"] for table in tables] == [1.0, 2.0]
    for table in tables:
        spent = {row["method"]: row["units"]["3"] for row in table["rows"]}
        assert spent.keys() == {"scratch", "ensemble", "lite"}
        # Training steps keep to the budget; validations come on top.
        for name in ("scratch", "lite"):
            run = Path("out/runs", f"data-1-budget-{table['budget']:g}", name, "3", "summary.json")
            found = json.loads(run.read_text())
            compute = found["compute"]
            budget, training = table["budget"] * compute["unit"], compute["parts"]["training"]
            assert budget - training / found["steps"] < training <= budget
            assert spent[name] == pytest.approx(compute["multiply_adds"] / compute["unit"])
        assert spent["ensemble"] > table["budget"]
    assert Path("out/pictures/data-1-compute.png").is_file()
    assert "## Budget 2" in Path("out/table.md").read_text()


RECORDING = """
from hashlib import sha256
from pathlib import Path
from lightning.pytorch.callbacks import Callback


class Record(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, *args) -> None:
        folder = Path(trainer.default_root_dir)
        with (folder / "batches.txt").open("a") as stream:
            print(sha256(batch["image"].numpy().tobytes()).hexdigest(), file=stream)
"""
"""A callback that writes down what each step is trained on."""


def test_all_methods_of_a_seed_see_the_same_images_in_the_same_variations(
    tiny, command, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    (tmp_path / "recording.py").write_text(RECORDING)
    callbacks = [{"class_path": "recording.Record"}]
    tiny(**SMALL, **{"data.init_args.augment": True, "trainer.callbacks": callbacks})
    words = ("--experiment", "tiny", "--methods", "scratch,lite", "--seeds", "0,1")
    done = command(*COMPARE, *words, "--no_costs")
    assert done.status == 0, done.out + done.err
    seen = {seed: set() for seed in "01"}
    for path in Path("out").rglob("batches.txt"):
        seen[path.parent.name].add(path.read_text())
    assert [len(batches) for batches in seen.values()] == [1, 1]
    assert seen["0"] != seen["1"]
    assert len(list(Path("out").rglob("batches.txt"))) == 4


def test_what_is_finished_is_not_repeated_and_a_failure_stops_nothing_else(quick, command):
    words = ("--experiment", "tiny", "--methods", "scratch,lite", "--seeds", "0,1", "--no_costs")
    done = command(*COMPARE, *words, "--workers", 2)
    assert done.status == 1
    assert "failed  runs/data-1/lite/1: out of luck" in done.out
    assert "see out/runs/data-1/lite/1/log.txt" in done.err
    assert done.out.count("done    ") == 3
    before = Path("out/runs/data-1/lite/0/summary.json").stat().st_mtime_ns
    again = command(*COMPARE, "--no_costs")
    assert again.status == 1  # what is left out is as before
    assert "--methods scratch,lite --seeds 0,1" in again.out
    assert "done    " not in again.out
    assert Path("out/runs/data-1/lite/0/summary.json").stat().st_mtime_ns == before
    table = Path("out/table.md").read_text()
    assert "| scratch | 5.50 ± 6.35 | 2 |" in table
    assert "| lite | 5.00 | 1 |" in table
    said = "without runs that failed or have not ended: lite (seed 1)"
    assert f"- {said}\n" in table
    assert said in Path("out/report.html").read_text()
    assert json.loads(Path("out/runs.json").read_text())[0]["unfinished"] == {"lite": [1]}
    joined = command("compare", "--run_dir", "joint", "--join", "out")
    assert joined.status == 0, joined.err
    assert "as in the last command in the comparisons: --methods scratch,lite" in joined.out
    assert f"- out: {said}\n" in Path("joint/joint.md").read_text()
    other = ("compare", "--experiment", "tiny", "--methods", "scratch", "--no_costs")
    assert command(*other, "--seeds", "0", "--run_dir", "more").status == 0
    joined = command("compare", "--run_dir", "joint", "--join", "out,more")
    assert "- left out, since not all have finished runs of them: lite\n" in joined.out
    assert "- more: without runs that failed or have not ended: scratch (seed 1)\n" in joined.out


def test_a_cell_that_another_process_works_on_is_left_to_it(tiny, command):
    tiny(**SMALL)
    words = ("--experiment", "tiny", "--methods", "scratch", "--seeds", "0", "--no_costs")
    with claimed(Path("out/runs/data-1/scratch/0")) as free:
        assert free
        done = command(*COMPARE, *words)
    assert done.status == 0
    assert "left    runs/data-1/scratch/0: another process works on it" in done.out
    assert "no run of out has ended yet" in done.out


def test_what_is_made_of_runs_that_failed_is_left_out(quick, command, monkeypatch):
    def single_fails(job, device):
        if job.cell.label == "single random-2":
            return subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(1)"])
        return finish_at_once(job, device)

    monkeypatch.setattr(CellJob, "start", single_fails)
    words = ("--experiment", "tiny", "--methods", "ensemble", "--seeds", "0", "--no_costs")
    done = command(*COMPARE, *words)
    assert done.status == 1
    assert (
        "left    runs/data-1/ensemble/0: it is made from runs/data-1/single-random-2/0, not "
        "finished" in done.out
    )


def test_held_out_test_data_are_read_only_when_all_is_chosen(tiny, command, landmark_root):
    files = {"root": str(landmark_root), "image_size": 32, "batch_size": 4, "num_workers": 0}
    tiny(**SMALL, data={"class_path": "LandmarkCSV", "init_args": files})
    table = (landmark_root / "test.csv").read_text()
    (landmark_root / "test.csv").write_text("not,a,table\n")
    words = ("--experiment", "tiny", "--methods", "ensemble", "--seeds", "0", "--no_costs")
    command(*COMPARE, *words).refused("test.csv")
    assert not Path("out").exists()
    done = command(*COMPARE, *words, "--hold_out")
    assert done.status == 0, done.out + done.err
    assert "validation NME, %" in done.out
    summaries = [json.loads(path.read_text()) for path in Path("out").rglob("summary.json")]
    assert [summary["test"] for summary in summaries] == [{}, {}, {}]
    done = command(*COMPARE, "--methods", "ensemble", "--seeds", "0", "--report")
    assert "no run of out has been tested: give --hold_out to compare" in done.out
    (landmark_root / "test.csv").write_text(table)
    before = Path("out/runs/data-1/single-random-1/0/metrics.csv").read_text()
    done = command(*COMPARE, "--methods", "ensemble", "--seeds", "0", "--no_costs")
    assert done.status == 0, done.out + done.err
    assert "test NME, %" in done.out
    folder = Path("out/runs/data-1/single-random-1/0")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["test"].keys() >= {"test/nme"}
    assert summary["validation"].keys() == {"val/nme"}
    assert (folder / "metrics.csv").read_text() == before  # it was not trained again
    assert (folder / "test_errors.csv").is_file()  # intervals contain the test images


def comparison_process(program, folder, *words):
    return subprocess.Popen(
        [*program.words, *map(str, COMPARE), "--no_costs", *words],
        cwd=folder, env=program.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip


KILLED = ("--methods", "scratch,single,greedy-soup", "--seeds", "0,1", "--workers", "2")


@pytest.mark.slow
@pytest.mark.usefixtures("_heard")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_killed_comparison_goes_on_to_the_table_of_an_undisturbed_one(
    tiny, program, tmp_path, number
):
    tiny()
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "experiments", whole / "experiments")
    words = ("--experiment", "tiny", *KILLED)
    done = comparison_process(program, whole, *words)
    output, _ = done.communicate(timeout=500)
    assert done.returncode == 0, output
    stopped = comparison_process(program, tmp_path, *words)
    # In the middle: something is finished, something runs.
    while len(set(run_states(tmp_path / "out"))) < 2:
        assert stopped.poll() is None
        time.sleep(0.05)
    if number == signal.SIGKILL:
        stopped.send_signal(number)
    else:  # as terminals and batch systems do
        os.killpg(stopped.pid, number)
    output, _ = stopped.communicate(timeout=300)
    assert stopped.returncode == (-9 if number == signal.SIGKILL else 128 + number), output
    # After SIGKILL the runs themselves live on, and the new command leaves them alone.
    for _ in range(10):
        again = comparison_process(program, tmp_path, *KILLED)
        output, _ = again.communicate(timeout=500)
        assert again.returncode == 0, output
        if "left    " not in output:
            break
        assert number == signal.SIGKILL, "a run outlived the command that was to wait for it"
        time.sleep(2)
    figures = [read_figures(folder / "out" / "table.csv") for folder in (whole, tmp_path)]
    assert len(figures[0]) == 12
    assert figures[0] == figures[1]


def run_states(folder):
    """Whether each run that has begun is finished."""
    logs = [*folder.rglob("metrics.csv")]
    return [(log.parent / "summary.json").is_file() for log in logs]


def read_figures(path):
    """Test figures by method and seed."""
    with path.open(newline="") as stream:
        return {(row["method"], row["seed"]): row["test/nme"] for row in csv.DictReader(stream)}


@pytest.mark.slow
def test_jobs_go_through_submitit_and_the_same_command_goes_on(tiny, command):
    pytest.importorskip("submitit")
    tiny(**SMALL)
    words = ("--methods", "scratch", "--seeds", "0", "--no_costs")
    local = ("--slurm", "timeout_min=5", "--cluster", "local")
    done = command(*COMPARE, "--experiment", "tiny", *words, *local)
    assert done.status == 0, done.err
    assert "1 jobs submitted" in done.out
    deadline = time.monotonic() + 200
    while not Path("out/runs/data-1/scratch/0/summary.json").is_file():
        assert time.monotonic() < deadline, list(Path("out/jobs").iterdir())
        time.sleep(0.5)
    done = command(*COMPARE, *words, *local)
    assert "jobs submitted" not in done.out
    assert "| scratch |" in Path("out/table.md").read_text()
    mistaken = command(*COMPARE, *words, "--slurm", "timeout_minutes=5", "--cluster", "local")
    mistaken.refused("timeout_minutes")


def test_fractions_and_trials_have_cells_of_their_own(quick_files, command):
    words = ("--experiment", "tiny", "--methods", "scratch", "--seeds", "0", "--fractions", "0.5,1")
    done = command(*COMPARE, *words, "--tune", 2, "--no_costs")
    assert done.status == 0, done.err
    cells = sorted(
        str(path.parent.relative_to("out")) for path in Path("out").rglob("summary.json")
    )
    assert cells == [
        "runs/data-0.5/scratch/0", "runs/data-1/scratch/0",
        "trials/data-0.5/scratch/lr-0.00025", "trials/data-0.5/scratch/lr-0.002",
        "trials/data-1/scratch/lr-0.00025", "trials/data-1/scratch/lr-0.002",
    ]  # fmt: skip
    chosen = json.loads(Path("out/tuning.json").read_text())
    assert chosen["scratch on 0.5 of the data"]["lr"] == 0.00025


def test_the_folder_alone_resumes_all_that_was_asked_of_it_and_options_replace_that(
    quick_files, command
):
    words = ("--methods", "scratch", "--seeds", "0", "--budgets", "1", "--fractions", "0.5")
    options = ("--experiment", "tiny", *words, "--tune", 2, "--no_costs")
    assert command(*COMPARE, *options).status == 0
    trials = len(list(Path("out").rglob("summary.json")))
    assert command(*COMPARE, "--no_costs").status == 0
    assert len(list(Path("out").rglob("summary.json"))) == trials
    assert command(*COMPARE, "--no_costs", "--report", "--seeds", "1").status == 0
    assert command(*COMPARE, "--no_costs", "--seeds", "1,2").status == 0
    cells = sorted(path.name for path in Path("out/runs/data-0.5-budget-1/scratch").iterdir())
    assert [name for name in cells if name.isdigit()] == ["0", "1", "2"]
    requested = Path("out/requested.yaml")
    assert "seeds: 1,2" in requested.read_text()
    requested.write_text("- 1\n")
    command(*COMPARE).refused("requested.yaml", "delete it")


def test_with_budgets_all_that_a_method_is_made_from_is_tuned(quick, command):
    words = ("--experiment", "tiny", "--methods", "ensemble,l2-sp", "--seeds", "0")
    done = command(*COMPARE, *words, "--budgets", "2", "--tune", 2, "--no_costs")
    assert done.status == 0, done.err
    chosen = json.loads(Path("out/tuning.json").read_text())
    assert {key.partition(" on ")[0] for key in chosen} == {
        "single random-1", "single random-2", "l2-sp"
    }  # fmt: skip
    assert not list(Path("out/runs/data-1").rglob("summary.json"))


def test_options_that_cannot_be_right_are_refused(quick, command, monkeypatch):
    tiny = ("--experiment", "tiny")
    command(*COMPARE).refused("out is no comparison", "give --experiment")
    command(*COMPARE, *tiny, "--methods", "lit").refused("Did you mean 'lite'?")
    command(*COMPARE, *tiny, "--methods", "single:random").refused("'single:random'", "random-1")
    assert not Path("out").exists()
    command(*COMPARE, *tiny, "--run_test", "false").refused("--run_test", "--hold_out")
    command(*COMPARE, *tiny, "--init_from", "x").refused("--init_from is no option of compare")
    command(*COMPARE, *tiny, "--trainer.limit_val_batches", 0).refused("limit_val_batches")
    command(*COMPARE, *tiny, "--seeds", "a").refused("--seeds 'a'")
    command(*COMPARE, *tiny, "--fractions", "2").refused("--fractions 2", "at most 1")
    command(*COMPARE, *tiny, "--budgets", "0").refused(
        "--budgets 0: expected finite numbers above 0"
    )
    command(*COMPARE, *tiny, "--budgets", "").refused("--budgets ''", "separated by commas")
    command(*COMPARE, *tiny, "--budgets", "inf").refused("--budgets inf", "finite")
    for each in ("soup", "start", "lite", "ensemble"):
        words = ("--methods", each, "--sources", "[]")
        command(*COMPARE, *tiny, *words).refused("no sources to compare")
    longer = ("--length", "long", "--trainer.max_steps", 3)
    command(*COMPARE, *tiny, *longer).refused("--length long", "give one of them")
    command(*COMPARE, *tiny, "--budget", "2").refused("--budget is no option of compare")
    command(*COMPARE, *tiny, "--workers", 0).refused("--workers must be at least 1")
    command(*COMPARE, *tiny, "--trainer.max_stepz", 3).refused("unknown option")
    monkeypatch.setitem(sys.modules, "submitit", None)
    command(*COMPARE, *tiny, "--methods", "scratch", "--slurm", "").refused("submitit")


@pytest.mark.parametrize(
    ("changes", "words", "said"),
    [
        ({"class_path": "ImageFolders", "init_args": {"root": "no"}}, (), ("no/train does not",)),
        (
            {"class_path": "LandmarkCSV", "init_args": {"root": "no"}},
            (),
            ("The folder no does not exist",),
        ),
        ({}, ("--sources", "random:1,no.pth"), ("Source 'no'", "no.pth does not exist")),
        ({}, ("--sources", "random:1,bad.pth"), ("Source 'bad'", "bad.pth")),
        (
            {},
            ("--fractions", "0.5"),
            ("--fractions 0.5", "train_fraction, which DrawnFaces has not"),
        ),
        ({}, ("--budgets", "4,0.001"), ("budget 0.001", "single random-", "at least 0.25")),
    ],
)
def test_what_no_run_could_begin_with_is_refused_once_and_leaves_no_folder(
    tiny, command, changes, words, said
):
    tiny(**SMALL | {"trainer.max_steps": 8}, **({"data": changes} if changes else {}))
    Path("bad.pth").write_bytes(b"no weights")
    methods = ("--experiment", "tiny", "--methods", "scratch,single,ensemble")
    command(*COMPARE, *methods, *words).refused(*said)
    assert not Path("out").exists()


def test_an_estimate_counts_what_is_not_trained_yet(quick, command):
    words = ("--experiment", "tiny", "--methods", "scratch,ensemble", "--no_costs")
    done = command(*COMPARE, *words, "--seeds", "0", "--budgets", "3")
    assert "6 times 2 steps of one network" in done.out
    more = command(*COMPARE, *words, "--seeds", "0,1", "--budgets", "3")
    assert "6 times 2 steps of one network" in more.out
    assert "estimate" not in command(*COMPARE, "--no_costs").out


@pytest.mark.parametrize("methods", ["scratch", "scratch,single:random-1"])
def test_sources_that_no_run_begins_from_are_not_read(quick, command, methods):
    words = ("--experiment", "tiny", "--methods", methods, "--seeds", "0", "--no_costs")
    assert command(*COMPARE, *words, "--sources", "random:1,no.pth").status == 0


def test_what_is_trained_needs_its_sources_no_more(quick, command, tmp_path, monkeypatch):
    for name in "ab":
        network = timm.create_model("test_resnet", num_classes=0)
        torch.save(network.state_dict(), tmp_path / f"{name}.pth")
    words = ("--methods", "scratch,ensemble", "--seeds", "0", "--no_costs")
    sources = ("--experiment", "tiny", "--sources", "a.pth,b.pth")
    done = command(*COMPARE, *words, *sources, "--hold_out")
    assert done.status == 0, done.err
    (tmp_path / "a.pth").unlink()
    for path in Path("out").rglob("summary.json"):  # trained, and not tested
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"test": {}}))
    again = command(*COMPARE, *words)
    assert again.status == 0, again.err
    assert "estimate" not in again.out


def test_an_estimate_knows_the_trials_and_the_fractions(tiny, command, monkeypatch, landmark_root):
    monkeypatch.setattr(CellJob, "start", finish_at_once)
    files = {"root": str(landmark_root), "image_size": 32, "batch_size": 4, "num_workers": 0}
    tiny(**{"trainer.max_epochs": 1, "trainer.max_steps": -1},
         data={"class_path": "LandmarkCSV", "init_args": files})  # fmt: skip
    words = ("--experiment", "tiny", "--methods", "scratch", "--seeds", "0", "--no_costs")
    done = command(*COMPARE, *words, "--fractions", "0.5,1", "--tune", "3")
    found = re.findall(r"([0-9]+) times ([0-9]+) steps", done.out)
    (parts, few), (whole, many) = found
    assert (parts, whole) == ("4", "4")
    assert int(few) < int(many)


def test_a_batch_of_one_image_is_refused_by_the_runs(tiny, command):
    tiny(**SMALL)
    words = ("--experiment", "tiny", "--methods", "scratch", "--seeds", "0", "--no_costs")
    done = command(*COMPARE, *words, "--data.batch_size", "1")
    assert done.status == 1
    assert "a batch of one image" in done.out


def test_a_cell_of_a_stopped_run_goes_on(tiny, command, monkeypatch):
    tiny(**SMALL)
    words = ("--experiment", "tiny", "--methods", "scratch", "--seeds", "0", "--no_costs")
    assert command(*COMPARE, *words).status == 0
    folder = Path("out/runs/data-1/scratch/0")
    before = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").unlink()
    seen = []
    monkeypatch.setattr(comparing, "_report", lambda *args: None)
    from zoo_lightning.benchmarking import cell as cells

    monkeypatch.setattr(cells.trainer, "main", lambda words: seen.append(words) or 0)
    cells.run_cell(open_comparison(Path("out"), None), Cell("scratch"))
    assert seen[0][-2:] == ["--ckpt_path", "last"]
    assert before["validation"].keys() == {"val/nme"}

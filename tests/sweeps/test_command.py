"""``sweep`` on the command line: one real sweep, going on, reports, refusals."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from zoo_lightning.sweeps import hosted

pytest.importorskip("optuna")
pytestmark = pytest.mark.filterwarnings("ignore")

COMMAND = ["${env}", "${interpreter}", "-m", "zoo_lightning", "fit", "--experiment=tiny",
           "--config", "${args_json_file}"]  # fmt: skip
LR = "model.init_args.lr"


def write(**changes: object) -> Path:
    """A sweep file in the present folder; ``None`` removes a key."""
    content = {
        "name": "small",
        "method": "grid",
        "metric": {"name": "val/nme"},
        "parameters": {LR: {"values": [2.0e-3, 1.0e-6]}},
        "command": COMMAND,
    } | changes
    path = Path("small.yaml")
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return path


def test_a_sweep_finds_the_best_configuration_and_it_fits(tiny, command):
    write(
        parameters={
            LR: {"values": [2.0e-3, 1.0e-6]},
            "model.init_args.backbone.init_args.gate_init": {"values": [[0.8, 0.2]]},
        }
    )
    done = command("sweep", "small.yaml", "--workers", 2)
    assert done.status == 0, done.err + done.out
    folder = Path("runs/sweeps/small")
    summaries = sorted(folder.glob("trials/*/summary.json"))
    assert len(summaries) == 2
    found = [json.loads(path.read_text()) for path in summaries]
    assert all(each["test"] == {} for each in found)  # the test data were left alone
    values = [each["validation"]["val/nme"] for each in found]
    with (folder / "trials.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["val/nme"]) for row in rows] == pytest.approx(values)
    assert json.loads(rows[0]["model.init_args.backbone.init_args.gate_init"]) == [0.8, 0.2]
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert best["model"]["init_args"]["lr"] == [2e-3, 1e-6][values[1] < values[0]]
    assert best["model"]["init_args"]["backbone"]["init_args"]["gate_init"] == [0.8, 0.2]
    assert (folder / "pictures" / "parallel-coordinates.png").is_file()
    page = (folder / "report.html").read_text()
    assert "the three best in black" in page
    assert all(f'href="trials/000{number}/report.html"' in page for number in (0, 1))
    assert f"{min(values):.5g}" in done.out
    fitted = command("fit", "--config", folder / "best.yaml", "--run_dir", "best")
    assert fitted.status == 0, fitted.err
    again = json.loads(Path("best/summary.json").read_text())
    assert again["validation"]["val/nme"] == pytest.approx(min(values), rel=1e-4)
    assert again["test"]["test/nme"] > 0
    before = {path: path.stat().st_mtime_ns for path in summaries}
    reported = command("sweep", "small.yaml", "--count", 0)
    assert reported.status == 0, reported.err
    assert "2 done" in reported.out
    assert before == {path: path.stat().st_mtime_ns for path in summaries}


@pytest.mark.slow
def test_a_real_sweep_that_is_killed_goes_on_from_its_last_checkpoint(tiny, program):
    tiny(**{"trainer.max_steps": 400, "trainer.val_check_interval": 4})
    write(parameters={LR: {"values": [2.0e-3]}})
    words = [*program.words, "sweep", "small.yaml", "--local"]
    trial = Path("runs/sweeps/small/trials/0000")
    first = subprocess.Popen(words, env=program.environment, stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 240
    while not (trial / "checkpoints" / "last.ckpt").is_file():
        assert time.monotonic() < end
        time.sleep(0.2)
    first.send_signal(signal.SIGTERM)
    printed = first.communicate(timeout=120)[0]
    assert first.returncode == 128 + signal.SIGTERM, printed
    assert "stopped trial 0000" in printed
    second = subprocess.run(words, env=program.environment, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert "done    trial 0000" in second.stdout
    with (trial / "metrics.csv").open(newline="") as stream:
        steps = [int(row["step"]) for row in csv.DictReader(stream) if row["val/nme"]]
    assert steps == list(range(3, 400, 4))  # every validation once


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parameters": {"model.init_args.lrr": {"value": 1.0}}}, ["small.yaml", "lrr", "'lr'"]),
        ({"parameters": {LR: {"value": "fast"}}}, ["small.yaml", "lr", "fast"]),
        ({"metric": {"name": "val/nme", "goal": "maximize"}}, ["metric.goal", "minimize"]),
        ({"metric": {"name": "val/auc"}}, ["metric.goal", "maximize", "W&B's default"]),
        (
            {"metric": {"name": "val/nme_box", "goal": "maximize"}},
            ["metric.goal must be minimize for val/nme_box"],
        ),
        ({"command": ["python", "train.py"]}, ["command", "zoo_lightning fit"]),
        ({"command": None}, ["command", "program"]),
        ({"command": [*COMMAND, "--run_dir=x"]}, ["--run_dir"]),
        ({"command": [*COMMAND, "${argz}"]}, ["unknown macro", "'args'"]),
        ({"job": "x"}, ["job", "Launch"]),
        (
            {"method": "bayes", "metric": {"name": "val/nme", "impute": "worst"}},
            ["metric.impute", "remove it"],
        ),
    ],
)
def test_mistakes_are_reported_in_one_line_before_anything_runs(tiny, command, changes, words):
    write(**changes)
    command("sweep", "small.yaml").refused(*words)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("nothing",), ["unknown sweep 'nothing'", "landmarks"]),
        (("small.yaml", "--count", "-1"), ["--count", "at least 0"]),
        (("small.yaml", "--workers", "0"), ["--workers", "at least 1"]),
        (("small.yaml", f"--{LR}=1"), [LR, "what the sweep varies"]),
        (("small.yaml", "--model.lr", "1"), ["--model.lr 1: sets", LR, "what the sweep varies"]),
        (("small.yaml", "--ckpt_path", "x"), ["--ckpt_path"]),
        (("small.yaml", "--trainer.max_stepz", "3"), ["max_stepz"]),
    ],
)
def test_options_that_cannot_be_right_are_refused(tiny, command, options, words):
    write()
    command("sweep", *options).refused(*words)


def test_without_optuna_the_message_says_how_to_install_it(tiny, command, monkeypatch):
    write()
    monkeypatch.delitem(sys.modules, "zoo_lightning.sweeps.search", raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    command("sweep", "small.yaml").refused("Optuna", "pip install -e '.[sweeps]'")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"WANDB_API_KEY": "k" * 40}, True),
        ({"WANDB_API_KEY": "k" * 40, "WANDB_MODE": "offline"}, False),
        ({"NETRC": "net"}, True),
        ({"NETRC": "net", "WANDB_BASE_URL": "http://127.0.0.1:9"}, False),
    ],
)
def test_a_login_is_found_as_the_client_finds_it(tmp_path, monkeypatch, environment, expected):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "net").write_text(f"machine api.wandb.ai login user password {'k' * 40}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name, value in environment.items():
        monkeypatch.setenv(name, str(tmp_path / value) if name == "NETRC" else value)
    import wandb

    wandb.teardown()  # it keeps the settings that it found first
    assert hosted.logged_in() is expected
    wandb.teardown()

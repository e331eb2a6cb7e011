"""Hosted sweeps, by the real client and its command line against a fake server."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from zoo_lightning.sweeps.hosted import counts_of_agents

pytest.importorskip("sweeps")

REPOSITORY = Path(__file__).resolve().parents[2]
SERVER = Path(__file__).with_name("fake_wandb_server.py")
LR = "model.init_args.lr"

VALUES = {
    "a.small": {"values": [1.0e-5, 2.0]},
    "yes": {"value": True},
    "nothing": {"value": None},
    "list": {"value": [0.5, None]},
}

COPY = (
    "import os, shutil, sys; "
    "shutil.copy(sys.argv[-1], os.environ['WANDB_RUN_ID'] + '.json'); print('copied')"
)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A fake W&B server, an environment that is logged in there, and the requests it received."""
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "log.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", SERVER, log], stdout=subprocess.PIPE, text=True
    )
    port = process.stdout.readline().strip()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("WANDB_")},
        "HOME": str(tmp_path / "home"),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{os.environ['PYTHONPATH']}",
        "OMP_NUM_THREADS": "1",
        "WANDB_API_KEY": "k" * 40,
        "WANDB_BASE_URL": f"http://127.0.0.1:{port}",
        "WANDB_ERROR_REPORTING": "false",
    }

    def run(*words: object, seconds: float = 240) -> SimpleNamespace:
        done = subprocess.run(
            list(map(str, words)),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
        return SimpleNamespace(status=done.returncode, out=done.stdout)

    def requests() -> list[dict]:
        text = log.read_text() if log.is_file() else ""
        return [json.loads(line) for line in text.splitlines()]

    yield SimpleNamespace(run=run, requests=requests)
    process.terminate()
    process.wait()


def write(path: Path, **changes: object) -> None:
    content = {
        "name": "hosted",
        "program": "zoo_lightning",
        "method": "grid",
        "metric": {"name": "val/nme"},
        "parameters": VALUES,
    } | changes
    path.write_text(yaml.safe_dump(content))


def test_wandb_sweep_and_agent_hand_over_values_intact(server, tmp_path):
    command = ["${env}", "${interpreter}", "-c", COPY, "--config", "${args_json_file}"]
    write(tmp_path / "s.yaml", command=command)
    made = server.run("wandb", "sweep", "--project", "zoo_lightning", "s.yaml")
    assert made.status == 0, made.out
    assert "Run sweep agent with: wandb agent someone/zoo_lightning/swp12345" in made.out
    assert "Violation" not in made.out
    done = server.run("wandb", "agent", "someone/zoo_lightning/swp12345")
    assert done.status == 0, done.out
    found = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("run*.json"))]
    rest = {"yes": True, "nothing": None, "list": [0.5, None]}
    assert found == [{"a.small": 1.0e-5, **rest}, {"a.small": 2.0, **rest}]
    assert found[0]["yes"] is True
    requests = server.requests()
    assert all(each["authorized"] for each in requests if "authorized" in each)
    assert {"UpsertSweep", "CreateAgent", "Heartbeat"} <= {each["operation"] for each in requests}


@pytest.mark.slow
def test_the_client_and_the_server_take_a_shipped_sweep_as_it_is(server):
    path = REPOSITORY / "experiments" / "sweeps" / "landmarks.yaml"
    made = server.run("wandb", "sweep", path)
    assert made.status == 0, made.out
    assert "Violation" not in made.out
    [requests] = [each for each in server.requests() if each["operation"] == "UpsertSweep"]
    assert yaml.safe_load(requests["variables"]["config"]) == yaml.safe_load(path.read_text())
    assert requests["variables"]["projectName"] == "zoo_lightning"


@pytest.mark.slow
def test_one_command_does_a_sweep_on_the_server_and_reports_it(server, tiny, tmp_path):
    command = ["${env}", "${interpreter}", "-m", "zoo_lightning", "fit", "--experiment=tiny",
               "--run_test=false", "--config", "${args_json_file}"]  # fmt: skip
    parameters = {LR: {"values": [2.0e-3, 1.0e-6]}}
    write(tmp_path / "s.yaml", parameters=parameters, command=command)
    words = (sys.executable, "-m", "zoo_lightning", "sweep", "s.yaml")
    done = server.run(*words, "--count", "2", seconds=560)
    assert done.status == 0, done.out
    folder = tmp_path / "runs" / "sweeps" / "hosted"
    assert "2 done" in done.out
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert best["model"]["init_args"]["lr"] in (2.0e-3, 1.0e-6)
    runs = sorted(path.parent for path in tmp_path.glob("runs/tiny/*/summary.json"))
    from zoo_lightning.sweeps.worker import history_of

    figures = [history_of(run, "val/nme")[-1] for run in runs]
    assert len(figures) == 2
    assert f"{min(figures):.5g}" in done.out
    streams = {each["path"].split("/")[-2] for each in server.requests() if "path" in each}
    assert streams == {"run0", "run1"}
    # Given again, it goes on with the same sweep.
    again = server.run(*words, "--count", "0", seconds=200)
    assert again.status == 0, again.out
    made = [each for each in server.requests() if each.get("operation") == "UpsertSweep"]
    assert len(made) == 1


@pytest.mark.slow
def test_trials_that_ran_here_are_brought_up_by_wandb_sync(server, tiny, tmp_path):
    pytest.importorskip("optuna")
    command = ["${env}", "${interpreter}", "-m", "zoo_lightning", "fit", "--experiment=tiny",
               "--config", "${args_json_file}"]  # fmt: skip
    write(tmp_path / "s.yaml", parameters={LR: {"value": 2.0e-3}}, command=command, project="faces")
    words = (sys.executable, "-m", "zoo_lightning", "sweep", "s.yaml", "--local")
    done = server.run(*words, seconds=300)
    assert done.status == 0, done.out
    trial = tmp_path / "runs" / "sweeps" / "hosted" / "trials" / "0000"
    assert server.requests() == []  # nothing went to the server before it was asked for
    [logged] = trial.glob("wandb/offline-run-*")
    run_id = json.loads((trial / "trial.json").read_text())["run_id"]
    assert logged.name.endswith(run_id)
    synced = server.run("wandb", "sync", logged)
    assert synced.status == 0, synced.out
    [bucket] = [each for each in server.requests() if each.get("operation") == "UpsertBucket"][:1]
    assert bucket["variables"]["name"] == run_id
    assert bucket["variables"]["project"] == "faces"
    assert bucket["variables"]["groupName"] == "hosted"
    assert any(f"/{run_id}/file_stream" in each.get("path", "") for each in server.requests())


def test_runs_are_shared_out_among_agents():
    assert counts_of_agents(None, 2) == [None, None]
    assert counts_of_agents(5, 2) == [3, 2]
    assert counts_of_agents(1, 3) == [1]

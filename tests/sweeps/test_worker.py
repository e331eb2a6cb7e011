"""Local sweeps: no trial runs twice and none is lost, whatever is stopped or killed."""

import os
import signal
import sys
import time

import pytest

from zoo_lightning.errors import ConfigError
from zoo_lightning.sweeps import study, worker
from zoo_lightning.sweeps.search import optuna

pytestmark = pytest.mark.filterwarnings("ignore")

WAITS = {"x": {"values": [3.0, 1.0]}, "how": {"value": "waits"}}


def states(fake) -> list[str]:
    return [trial.state.name for trial in fake.open().all()]


def until(condition, seconds: float = 180.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_every_point_of_a_grid_is_run_once_and_not_again(fake):
    lines = fake.run(workers=2)
    assert fake.ran() == {0: 1, 1: 1, 2: 1}
    ended = [line for line in lines if not line.startswith("waiting for")]  # on a busy machine
    assert sorted(line[:10] for line in ended) == ["done    tr"] * 3
    assert states(fake) == ["COMPLETE"] * 3
    values = [trial.value for trial in fake.open().all()]
    assert sorted(values) == [1.25, 2.25, 3.25]  # the best of each run's validations
    assert fake.run() == []
    assert fake.ran() == {0: 1, 1: 1, 2: 1}


def test_a_trials_command_is_that_of_the_file_with_a_folder_and_without_test_data(fake):
    fake.run(count=1)
    words = (fake.folder / "trials" / "0000" / "ran.txt").read_text().split()
    assert words[1:6] == ["/usr/bin/env", sys.executable, "-m", "zoo_lightning", "fit"]
    assert words[-4:] == ["--run_dir", str(fake.folder / "trials" / "0000"), "--run_test", "false"]


def test_trials_log_offline_under_one_id_unless_wandb_is_off(fake, monkeypatch):
    fake.write(project="faces", entity="me")
    trials, taken = fake.open(), []
    trials.run_next(lambda each: taken.append(each) or 1.0)
    [trial] = taken
    run_id = trials.run_id(trial)
    assert trials.run_id(trial) == run_id
    found = worker.environment_of(trials.sweep, trial, run_id)
    assert "WANDB_MODE" not in {k: v for k, v in found.items() if os.environ.get(k) != v}
    monkeypatch.setenv("WANDB_MODE", "online")
    found = worker.environment_of(trials.sweep, trial, run_id)
    assert found["WANDB_MODE"] == "offline"
    assert (found["WANDB_PROJECT"], found["WANDB_ENTITY"]) == ("faces", "me")
    assert found["WANDB_RUN_ID"] == run_id
    assert found["WANDB_DIR"] == str(trial.folder)


def test_two_commands_at_a_time_never_take_the_same_trial(fake):
    fake.write(parameters={"x": {"min": 1, "max": 14}})
    first, second = fake.start(2), fake.start(2)
    printed = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), printed
    assert fake.ran() == dict.fromkeys(range(14), 1)
    assert sum(text.count("done ") for text in printed) == 14


def test_a_killed_sweep_is_resumed_and_loses_no_finished_run(fake):
    fake.write(parameters={"how": {"values": ["quick", "waits"]}, "x": {"value": 1.0}})
    sweep = fake.start()
    until(lambda: (fake.folder / "trials/0001/metrics.csv").is_file())
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    # The trial's own process lives on, and nobody else writes to its folder.
    again = fake.start()
    until(lambda: sum(state == "RUNNING" for state in states(fake)) and len(states(fake)) == 3)
    time.sleep(0.5)
    assert fake.ran() == {0: 1, 1: 1}
    (fake.folder / "go").touch()
    printed = again.communicate(timeout=60)[0]
    assert "done    trial 0001" in printed
    assert again.returncode == 0, printed
    assert fake.ran() == {0: 1, 1: 1}
    assert fake.run() == []
    done = [t for t in fake.open().all() if t.state.name == "COMPLETE"]
    assert sorted(trial.user_attrs["index"] for trial in done) == [0, 1]


def test_a_trial_whose_process_was_killed_too_is_resumed_with_the_same_parameters(fake):
    fake.write(parameters=WAITS)
    sweep = fake.start()
    until(lambda: fake.ran() == {0: 1})
    pid = int((fake.folder / "trials/0000/ran.txt").read_text().split()[0])
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    os.kill(pid, signal.SIGKILL)
    (fake.folder / "trials/0000/checkpoints").mkdir()
    (fake.folder / "trials/0000/checkpoints/last.ckpt").touch()
    (fake.folder / "go").touch()
    lines = fake.run()
    assert [line.split()[2] for line in lines if line.startswith("done ")] == ["0001", "0000"]
    last = (fake.folder / "trials/0000/ran.txt").read_text().splitlines()[-1]
    assert last.endswith("--ckpt_path last")
    found = {t.user_attrs["index"]: t.value for t in fake.open().all() if t.value is not None}
    assert found == {0: 3.25, 1: 1.25}


@pytest.mark.usefixtures("_heard")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_sweep_that_is_asked_to_stop_has_its_trials_save_and_is_resumed(fake, number):
    fake.write(parameters=WAITS)
    sweep = fake.start(2)
    until(lambda: fake.ran() == {0: 1, 1: 1})
    until(lambda: len(list(fake.folder.glob("trials/*/metrics.csv"))) == 2)
    sweep.send_signal(number)
    printed = sweep.communicate(timeout=60)[0]
    assert "stopped trial 0000" in printed
    assert "stopped trial 0001" in printed
    assert len(list(fake.folder.glob("trials/*/checkpoints/last.ckpt"))) == 2
    (fake.folder / "go").touch()
    assert len(fake.run()) == 2
    assert fake.ran() == {0: 2, 1: 2}
    assert states(fake) == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]


def test_a_trial_that_lags_behind_is_stopped_after_saving(fake):
    fake.write(
        early_terminate={"type": "hyperband", "min_iter": 1, "eta": 4},
        parameters={"how": {"values": ["quick", "waits"]}, "x": {"values": [5.0, 1.0]}},
    )
    lines = fake.run(count=3)
    assert [line.split()[0] for line in lines] == ["done", "done", "pruned"]
    assert lines[2].startswith("pruned  trial 0002 after 2 validations")
    assert (fake.folder / "trials/0002/checkpoints/last.ckpt").is_file()
    assert states(fake) == ["COMPLETE", "COMPLETE", "PRUNED"]


def test_a_failed_trial_is_logged_and_stops_nothing_else(fake):
    how = {"values": ["fails", "quick", "silent"]}
    fake.write(parameters={"x": {"value": 1.0}, "how": how})
    lines = fake.run()
    assert lines[0].startswith("failed  trial 0000: out of luck")
    assert lines[1].startswith("done    trial 0001")
    assert "logged no 'val/nme'" in lines[2]
    assert "val/other" in lines[2]
    assert fake.run() == []


def test_a_sweep_of_failures_only_ends(fake):
    fake.write(parameters={"x": {"min": 1, "max": 9}, "how": {"value": "fails"}})
    with pytest.raises(ConfigError, match="the first 3 trials failed, the last with: out of luck"):
        fake.run()
    assert len(fake.ran()) == 3


def test_no_new_trials_begin_when_the_target_is_reached(fake):
    fake.write(metric={"name": "val/nme", "target": 1.5})
    fake.run()
    assert fake.ran() == {0: 1, 1: 1}  # the second has 1.25


def test_run_cap_and_count_limit_the_trials_and_may_be_raised(fake):
    fake.write(method="random", run_cap=2, parameters={"x": {"min": 0.0, "max": 9.0}})
    fake.run(count=1)
    assert fake.ran() == {0: 1}
    fake.run(workers=3)
    assert fake.ran() == {0: 1, 1: 1}
    fake.write(method="random", run_cap=4, parameters={"x": {"min": 0.0, "max": 9.0}})
    fake.run(workers=3)
    assert fake.ran() == {0: 1, 1: 1, 2: 1, 3: 1}


def test_a_bayesian_search_learns_from_what_is_done(fake):
    fake.write(method="bayes", run_cap=25, parameters={"x": {"min": 0.0, "max": 100.0}})
    fake.run(workers=2)
    values = [trial.value for trial in fake.open().all()]
    assert len(values) == 25
    assert sum(values[15:]) / 10 < sum(values[:10]) / 10


def test_a_trial_is_retried_only_when_its_worker_has_missed_its_heartbeats(fake, monkeypatch):
    monkeypatch.setattr(study, "GRACE", 2)
    trials, order = fake.open(), []
    other = fake.open()

    def first(taken):
        order.append(taken.index)
        assert other.run_next(second)  # the first one has a heartbeat
        return 1.0

    def second(taken):
        order.append(taken.index)
        return 1.0

    assert trials.run_next(first)
    assert order == [0, 1]
    dead = other.study.ask()
    other._begin(dead)
    assert other.run_next(second) is False  # the last one of the grid is taken
    assert other.others_work()
    until(lambda: other.run_next(second))
    assert order == [0, 1, 2]
    assert states(fake) == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert not other.others_work()


def test_a_trial_that_was_taken_over_has_the_outcome_of_the_other_process(fake, monkeypatch):
    trials, other = fake.open(), fake.open()

    def suspended(taken):
        other.study.tell(taken.trial.number, state=optuna.trial.TrialState.FAIL)
        other._retry_interrupted(other.study, other.all()[-1])
        assert other.run_next(lambda again: 5.0 + again.index)
        return 1.0

    assert trials.run_next(suspended)
    assert [(each.index, each.value) for each in trials.results()] == [(0, 5.0)]


def test_what_a_worker_left_half_done_when_it_died_is_retried(fake, monkeypatch):
    trials, found = fake.open(), []
    trials.study.ask()  # begun, and nothing noted
    begun = trials.study.ask()
    trials._begin(begun)
    trials.study.tell(begun.number, state=optuna.trial.TrialState.FAIL)  # and not queued again
    monkeypatch.setattr(study, "GRACE", 0)
    for _ in range(3):
        assert trials.run_next(lambda taken: found.append(taken.index) or 1.0)
    assert found == [0, 1, 2]
    assert not trials.run_next(lambda taken: 1.0)


def test_a_sweep_begun_with_version_0_1_is_resumed(fake, monkeypatch):
    trials, found = fake.open(), []
    known = {"index": 0, "alive": 0.0, "host": "here", "folder": "trials/0000"}
    first = trials.study.ask()
    for name, value in known.items():
        first.set_user_attr(name, value)
    trials.study.tell(first.number, state=optuna.trial.TrialState.FAIL)  # interrupted
    trials.study.enqueue_trial({"x": "3.0"}, user_attrs={"index": 0, "again": first.number})
    trials.study.ask()  # taken again, and then its worker died
    monkeypatch.setattr(study, "GRACE", 0)
    while trials.run_next(lambda taken: found.append(taken.index) or 1.0):
        pass
    assert sorted(found) == [0, 1, 2]
    assert [result.index for result in trials.results()] == [0, 1, 2]


def test_another_sweep_in_the_same_folder_is_refused(fake):
    fake.run(count=1)
    fake.write(parameters={"x": {"values": [7.0]}})
    with pytest.raises(ConfigError, match=r"begun with other parameters\.x\.values"):
        fake.open()
    (fake.folder / "study.db").unlink()
    with pytest.raises(ConfigError, match="has a run of another sweep"):
        fake.run()


def test_a_lost_database_is_rebuilt_from_the_runs(fake):
    fake.run()
    (fake.folder / "study.db").unlink()
    assert len(fake.run()) == 3
    assert fake.ran() == {0: 1, 1: 1, 2: 1}
    assert states(fake) == ["COMPLETE"] * 3


@pytest.mark.parametrize("url", ["nonsense", "postgresql://nobody@127.0.0.1:1/none"])
def test_a_database_that_cannot_be_used_is_refused_in_one_line(fake, url):
    with pytest.raises(ConfigError) as caught:
        fake.open(url=url)
    assert str(caught.value).startswith(f"--storage {url}: ")
    assert "\n" not in str(caught.value)

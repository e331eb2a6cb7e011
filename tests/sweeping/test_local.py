"""Sweeps that run here: no trial twice, none lost, whatever is stopped."""

import os
import signal
import sys
import time

import pytest

from zoo_lightning.errors import ConfigError
from zoo_lightning.sweeping import local
from zoo_lightning.sweeping.claims import is_free
from zoo_lightning.sweeping.states import ALIVE, HOST

pytestmark = pytest.mark.filterwarnings("ignore")

WAITS = {"x": {"values": [3.0, 1.0]}, "how": {"value": "waits"}}


def states(fake) -> list[str]:
    return [trial.state.name for trial in fake.open().all()]


def until(condition, seconds: float = 60.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_every_point_of_a_grid_is_run_once_and_not_again(fake):
    lines = fake.run(workers=2)
    assert fake.ran() == {0: 1, 1: 1, 2: 1}
    assert sorted(line[:10] for line in lines) == ["done    tr"] * 3
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
    trials = fake.open()
    taken = trials.take()
    assert "WANDB_MODE" not in {
        k: v for k, v in local.environment_of(trials, taken).items() if os.environ.get(k) != v
    }
    monkeypatch.setenv("WANDB_MODE", "online")
    found = local.environment_of(trials, taken)
    assert found["WANDB_MODE"] == "offline"
    assert (found["WANDB_PROJECT"], found["WANDB_ENTITY"]) == ("faces", "me")
    assert found["WANDB_RUN_ID"] == taken.run_id
    assert found["WANDB_DIR"] == str(taken.folder)
    taken.claim.release()


def test_two_commands_at_a_time_never_take_the_same_trial(fake):
    fake.write(parameters={"x": {"min": 1, "max": 14}})
    first, second = fake.start(2), fake.start(2)
    printed = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), printed
    assert fake.ran() == dict.fromkeys(range(14), 1)
    assert sum(text.count("done ") for text in printed) == 14


def test_a_killed_sweep_goes_on_and_loses_no_finished_run(fake):
    fake.write(parameters={"how": {"values": ["quick", "waits"]}, "x": {"value": 1.0}})
    sweep = fake.start()
    until(lambda: (fake.folder / "trials/0001/metrics.csv").is_file())
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    # The trial's own process lives on, and nobody else gets its folder.
    assert fake.run() == []
    assert fake.ran() == {0: 1, 1: 1}
    (fake.folder / "go").touch()
    until(lambda: (fake.folder / "trials/0001/summary.json").is_file())
    until(lambda: is_free(fake.folder / "trials/0001"))
    assert [line.split()[:3] for line in fake.run()] == [["done", "trial", "0001"]]
    assert fake.ran() == {0: 1, 1: 1}
    done = [t for t in fake.open().all() if t.state.name == "COMPLETE"]
    assert sorted(trial.user_attrs["index"] for trial in done) == [0, 1]


def test_a_trial_whose_process_was_killed_too_goes_on_with_the_same_parameters(fake):
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
    assert [line.split()[:3] for line in lines] == [["done", "trial", "0000"],
                                                   ["done", "trial", "0001"]]  # fmt: skip
    last = (fake.folder / "trials/0000/ran.txt").read_text().splitlines()[-1]
    assert last.endswith("--ckpt_path last")
    found = {t.user_attrs["index"]: t.value for t in fake.open().all() if t.value is not None}
    assert found == {0: 3.25, 1: 1.25}


@pytest.mark.usefixtures("_heard")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_sweep_that_is_asked_to_stop_has_its_trials_save_and_goes_on(fake, number):
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


def test_a_failed_trial_is_told_of_and_stops_nothing_else(fake):
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


def test_another_machines_trial_is_taken_only_when_it_is_silent_for_long(fake):
    trials = fake.open()
    taken = trials.take()
    taken.claim.release()
    taken.trial.set_user_attr(HOST, "elsewhere")
    other = trials.take()
    assert other.index == 1
    taken.trial.set_user_attr(ALIVE, time.time() - 10_000)
    again = trials.take()
    assert again.index == 0
    assert again.values == taken.values
    for each in (other, again):
        each.claim.release()


def test_a_trial_that_begins_on_a_server_is_not_taken_for_dead(fake, monkeypatch):
    first, second = fake.open(), fake.open()
    for each in (first, second):  # no lock between commands, as with a database server
        monkeypatch.setattr(each, "_file", None)
    real, others = first.space.suggest, []

    def suggest(trial):
        others.append(second.take())
        return real(trial)

    monkeypatch.setattr(first.space, "suggest", suggest)
    mine, [other] = first.take(), others
    assert (mine.index, other.index) == (0, 1)
    assert states(fake) == ["RUNNING", "RUNNING"]


def test_what_a_dying_worker_left_half_done_is_made_up_for(fake):
    trials = fake.open()
    trials.study.ask()  # begun, and nothing noted
    taken = trials.take()
    assert taken.index == 0
    taken.claim.release()
    trials.study.tell(taken.trial.number, state=taken.trial.study.trials[0].state.__class__.FAIL)
    again = trials.take()  # failed, but not yet queued again
    assert again.index == 0
    again.claim.release()


def test_going_on_with_another_sweep_in_the_same_place_is_refused(fake):
    fake.run(count=1)
    fake.write(parameters={"x": {"values": [7.0]}})
    with pytest.raises(ConfigError, match=r"begun with other parameters\.x\.values"):
        fake.open()
    (fake.folder / "study.db").unlink()
    with pytest.raises(ConfigError, match="has a run of another sweep"):
        fake.run()


def test_a_lost_database_is_made_up_for_by_the_runs(fake):
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

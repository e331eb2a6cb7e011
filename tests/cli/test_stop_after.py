"""``fit --stop_after``: a training that ends early goes on as if it had not."""

import json
from pathlib import Path

import pytest
import torch

from zoo_lightning.runs.run_folder import read_checkpoint

FIT = ("fit", "--experiment", "tiny", "--trainer.val_check_interval", "3")
ON = ("--run_dir", "run", "--ckpt_path", "last")


def content(run, name="last"):
    return read_checkpoint(Path(run, "checkpoints", f"{name}.ckpt"))


def summary(run):
    return json.loads(Path(run, "summary.json").read_text())


@pytest.mark.parametrize("averaged", ["true", "false"])
def test_a_training_in_parts_is_the_training_in_one(tiny, command, averaged):
    words = (*FIT, "--average_weights", averaged)
    whole = command(*words, "--run_dir", "whole")
    assert whole.status == 0, whole.err
    assert "ended early" not in whole.out
    first = command(*words, "--run_dir", "run", "--stop_after", "0.5")
    assert first.status == 0, first.err
    assert content("run")["global_step"] == summary("run")["steps"] == 4
    assert summary("run")["stop_after"] == 0.5
    assert summary("run")["validation"].keys() == {"val/nme"}  # after the last step
    assert summary("run")["losses"].keys() == {"2", "3", "4"}  # half of them, the interval, all
    losses, [kept] = summary("run")["losses"], summary("run")["validation"].values()
    expected = losses["4"] if averaged == "true" else min(losses.values())
    assert kept == pytest.approx(expected)
    assert "after 0.5 of the steps; to train on: fit --ckpt_path run --stop_after 1" in first.out
    again = command(*words, *ON, "--stop_after", "0.5")  # there is nothing to do
    assert again.status == 0, again.err
    assert summary("run")["steps"] == 4
    command(*words, *ON, "--stop_after", "0.25").refused("2 of 8 steps", "the resumed run has 4")
    # In the middle of an epoch.
    second = command("fit", "--ckpt_path", "run", "--stop_after", "0.8")
    assert second.status == 0, second.err
    assert summary("run")["steps"] == 6
    assert summary("run")["losses"].keys() == {"2", "3", "4", "6"}  # half of 6 is past
    last = command("fit", "--ckpt_path", "run", "--stop_after", "1")
    assert last.status == 0, last.err
    ours, theirs = content("run"), content("whole")
    for name in ("state_dict", *["current_model_state"] * (averaged == "true")):
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0)
    assert ours["optimizer_states"][0]["state"].keys()
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]
    assert summary("run").get("stop_after") is None
    command("fit", "--ckpt_path", "run", "--stop_after", "0.5").refused(
        "has ended", "nothing to stop"
    )
    command("fit", "--ckpt_path", "run", "--budget", "3").refused(
        "--budget", "leave the option out"
    )
    assert summary("run").get("stop_after") is None
    if averaged == "true":  # else the best of more validations is kept
        assert summary("run")["test"] == summary("whole")["test"]
    parts, of_whole = (summary(run)["compute"]["parts"] for run in ("run", "whole"))
    assert parts["training"] == of_whole["training"]


@pytest.mark.parametrize("fraction", ["0.5", "0.125"])
def test_a_part_that_was_stopped_at_its_end_is_finished(tiny, command, fraction):
    words = (*FIT, "--average_weights", "true", "--stop_after", fraction)
    assert command(*words, "--run_dir", "run").status == 0
    before, state = summary("run"), content("run")
    Path("run", "summary.json").unlink()  # which the signal came before
    again = command(*words, *ON, "--run_dir", "run")
    assert again.status == 0, again.err
    after = summary("run")
    for name in ("steps", "stop_after", "losses", "validation", "test"):
        assert after[name] == before[name], name
    for name in ("training", "validation"):
        assert after["compute"]["parts"][name] == before["compute"]["parts"][name], name
    assert content("run")["global_step"] == state["global_step"]
    # And goes on as if nothing had happened.
    whole = (*FIT, "--average_weights", "true", "--run_dir", "whole")
    assert command(*whole).status == 0
    assert command("fit", "--ckpt_path", "run", "--stop_after", "1").status == 0
    ours, theirs = content("run"), content("whole")
    for name in ("state_dict", "current_model_state"):
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0)


def test_a_part_that_is_shorter_than_what_was_trained_is_refused(tiny, command):
    assert command(*FIT, "--run_dir", "run", "--stop_after", "0.5").status == 0
    Path("run", "summary.json").unlink()
    less = command(*FIT, *ON, "--stop_after", "0.1")
    less.refused("ends the training after 1 of 8 steps", "the resumed run has 4", "--stop_after 1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--stop_after", "1.5"), "up to 1, got 1.5"),
        (("--stop_after", "0"), "stop_after"),
        (("--stop_after", "0.5", "--trainer.max_steps", "-1", "--trainer.max_epochs", "-1",
          "--model.schedule", "constant", "--trainer.max_time", "00:00:00:05"),
         "whose number is not known"),
        (("--stop_after", "0.5", "--method", "start"), "--stop_after is no option of"),
    ],
)  # fmt: skip
def test_fractions_that_cannot_be_are_refused(tiny, command, words, said):
    command(*FIT, "--run_dir", "run", *words).refused(said)


def test_a_policy_is_not_counted_in_steps(command):
    done = command("fit", "--experiment", "rl", "--stop_after", "0.5")
    done.refused("--stop_after counts optimizer steps", "Ctrl-C")

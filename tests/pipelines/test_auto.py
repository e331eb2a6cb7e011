"""``fit --method auto``: a race, its winner trained on or taught, and what validation decides."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from zoo_lightning import load_task
from zoo_lightning.analysis.measuring import Scores
from zoo_lightning.cli.program import main
from zoo_lightning.pipelines import auto
from zoo_lightning.pipelines.race import Racer
from zoo_lightning.pipelines.stage import StageRun
from zoo_lightning.runs.pool import Execution

WORDS = ("fit", "--experiment", "tiny", "--run_dir", "run", "--method", "auto", "--budget", "20")


def content(*names):
    return json.loads(Path(*names).read_text())


def names_of(run):
    return sorted(path.parent.name for path in Path(run).glob("stages/*/summary.json"))


RACERS = ["single-random-1", "single-random-2", "start"]


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_in):
    """A finished pipeline that may end with an ensemble of two."""
    folder = tmp_path_factory.mktemp("auto")
    tiny_in(folder)
    joint_scores = auto.joint_scores

    def better_together(groups):
        found = joint_scores(groups)
        by = [0.1 * (len(group) > 1) for group in groups]
        return [replace(each, loss=each.loss - gain) for each, gain in zip(found, by, strict=True)]

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("zoo_lightning.pipelines.auto.JUDGED_AFTER", 0)
        # Whatever the images say, so that all of it is seen.
        patch.setattr("zoo_lightning.pipelines.selection.SURE", 0.0)
        patch.setattr("zoo_lightning.pipelines.auto.longer_pays", lambda *_: False)
        for module in ("auto", "selection"):
            patch.setattr(f"zoo_lightning.pipelines.{module}.joint_scores", better_together)
        assert main(list(WORDS)) == 0
    return folder / "run"


def costs_of(run):
    """Multiply-adds of all stages, and of those steps and starts that a budget is for."""
    parts = [
        content(run, "stages", name, "summary.json")["compute"]["parts"] for name in names_of(run)
    ]
    own = [{k: v for k, v in each.items() if k not in ("teachers", "init_from")} for each in parts]
    spent = sum(each["training"] + each.get("start", 0) for each in own)
    return sum(sum(each.values()) for each in own), spent


def steps_of(run):
    return {name: content(run, "stages", name, "summary.json")["steps"] for name in names_of(run)}


def test_the_sources_race_with_the_average_one_is_taught_and_everything_is_counted(made):
    assert names_of(made) == sorted([*RACERS, "student"])
    student = content(made, "stages", "student", "summary.json")
    assert student["compute"]["parts"]["teachers"] > 0
    summary, (everything, spent) = content(made, "summary.json"), costs_of(made)
    assert summary["compute"]["parts"]["stages"] == everything
    unit = student["compute"]["unit"]
    assert summary["compute"]["unit"] == unit
    assert 18.5 * unit < spent <= 20.5 * unit
    stopped = {name: content(made, "stages", name, "summary.json")["stop_after"] for name in RACERS}
    raced = [each["name"] for each in content(made, "decisions.json")["race"]]
    assert stopped["start"] == 1 / 8
    sources = [stopped[name] for name in raced if name != "start"]
    assert sources == ([1 / 4, 1 / 4] if raced[2] == "start" else [1 / 4, 1 / 16])


def test_the_student_begins_as_the_winner_which_teaches_it_with_the_other_finalist(made):
    config = yaml.safe_load((made / "stages" / "student" / "config.yaml").read_text())
    begun = Path(config["init_from"]).parts[2]  # run/stages/NAME
    teachers = [Path(each).parts[2] for each in config["model"]["init_args"]["teachers"]]
    raced = content(made, "decisions.json")["race"]
    assert [begun, begun] == [raced[0]["name"], teachers[0]]
    assert teachers[1] == raced[1]["name"]
    assert config["average_weights"]
    assert config["stop_after"] == 1


def test_the_result_is_a_run_that_predicts_and_is_tested(made):
    decisions = content(made, "decisions.json")
    assert len(load_task(made).networks()) == 1
    summary = content(made, "summary.json")
    assert summary["test"].keys() >= {"test/nme"}
    names = {each["name"] for each in decisions["candidates"]}
    assert (made / "pictures" / "decision.png").is_file()
    assert (made / "pictures" / "race.png").is_file()
    raced = decisions["race"]
    assert sorted(each["name"] for each in raced) == sorted(RACERS)
    assert all(each["fraction"] == 1 / 8 for each in raced if each["name"] == "start")
    assert [each["fraction"] for each in raced[:2]] == [1 / 8, 1 / 8]
    assert raced[0]["expected"] <= raced[1]["expected"]
    assert names == {"student", raced[0]["name"], raced[1]["name"]}
    told = [
        f"sources: {x}" for x in content(made, "stages", "look.json")["relations"]["conclusion"]
    ]
    course = decisions["course"]
    assert course[0].startswith("sources: compared by their frozen features; D is")
    assert course[1 : len(told) + 1] == told
    heads = [line.partition(":")[0] for line in course[len(told) + 1 :]]
    assert heads == ["average", "winner", "teachers", "validation"]
    assert course[len(told) + 1].startswith("average: random-1 0.")
    assert (made / "pictures" / "sources.png").is_file()


def test_two_networks_are_finished_where_two_may_be_used(tiny, command, monkeypatch):
    monkeypatch.setattr("zoo_lightning.pipelines.selection.SURE", 0.0)
    done = command(*WORDS, "--inference", "2")
    assert done.status == 0, done.err
    assert "race          compares first after" in done.out
    _, spent = costs_of("run")
    summaries = [content("run", "stages", name, "summary.json") for name in names_of("run")]
    assert names_of("run") == RACERS
    assert 18.5 < spent / summaries[0]["compute"]["unit"] <= 20.5
    assert sorted("stop_after" in each for each in summaries) == [False, False, True]
    decisions = content("run", "decisions.json")
    finished = {each["name"] for each in decisions["race"][:2]}
    assert {each["name"] for each in decisions["candidates"]} == finished | {
        " + ".join(each["name"] for each in decisions["candidates"][:2])
    }


def scored(monkeypatch, *losses):
    """Have stages these mean losses, in the order in which they are asked for."""
    found = [Scores(torch.zeros(4), torch.full((4,), loss)) for loss in losses]
    monkeypatch.setattr(auto, "joint_scores", lambda _: found)


def racer(name, before, after, fraction=1 / 8, steps=480):
    run = StageRun(Path(name), "", {"model": {"init_args": {}}})
    return Racer(run, steps, before, after, fraction)


@pytest.mark.parametrize(
    ("after", "pays"), [(0.75, True), (0.86, True), (0.91, False), (1.1, False)]
)
def test_longer_training_pays_while_the_loss_falls(after, pays):
    lines = []
    assert auto.longer_pays(racer("a", 1.0, after), Execution(report=lines.append)) == pays
    assert f"take {1 - after**0.5:.1%} off its loss; more than 5% pays" in lines[0]


def test_a_short_race_cannot_say_that_longer_training_does_not_pay():
    lines = []
    short = racer("a", 1.0, 1.0, steps=auto.JUDGED_AFTER - 1)
    assert auto.longer_pays(short, Execution(report=lines.append))
    assert "399 steps, fewer than 400, cannot say that it does not" in lines[0]
    assert not auto.longer_pays(replace(short, steps=auto.JUDGED_AFTER), Execution())


@pytest.mark.parametrize(("joint", "teaches"), [(0.9, True), (1.1, False)])
def test_networks_that_are_no_better_together_do_not_teach(tmp_path, monkeypatch, joint, teaches):
    lines = []
    (tmp_path / "stages").mkdir()
    finalists = racer("a", 1, 1), racer("b", 1, 1)
    words = (tmp_path, *finalists, Execution(report=lines.append))
    scored(monkeypatch, 1.0, joint)
    assert auto.teach(*words) == teaches
    scored(monkeypatch, 1.0, 1.0)  # later, when both have been trained on
    assert auto.teach(*words) == teaches
    assert ("so they teach" in lines[0]) == teaches


def test_what_is_too_short_to_be_judged_is_the_informed_average(tiny, command):
    done = command(*WORDS)
    assert done.status == 0, done.err
    assert "is assumed to pay" in done.out
    assert "if that is 400 steps or more, and here it is 20\n" in done.out
    assert re.search(r"\ncost +[0-9.]+ of the budget of 20 trainings: steps [0-9.]+, inf", done.out)
    assert re.search(r"\naverage +random-1 0\.[0-9]+, random-2 0\.[0-9]+\n", done.out)
    assert "tiny: auto (start), " in done.out
    assert names_of("run") == ["start"]
    assert content("run", "decisions.json")["result"] == ["start"]
    assert content("run", "decisions.json")["race"] == []
    same = command(*WORDS[:3], "--method", "start", "--budget", "20", "--average_weights", "true",
                   "--run_dir", "same")  # fmt: skip
    assert same.status == 0, same.err
    assert_same("run", "same")


def assert_same(first, second):
    mine, its = (load_task(run).state_dict() for run in (first, second))
    assert all(torch.equal(mine[key], value) for key, value in its.items())


def test_the_average_has_all_of_the_budget_if_longer_training_pays(tiny, command, monkeypatch):
    monkeypatch.setattr(auto, "JUDGED_AFTER", 0)
    monkeypatch.setattr(auto, "longer_pays", lambda *_: True)
    done = command(*WORDS)
    assert done.status == 0, done.err
    assert names_of("run") == ["start"]
    assert [each["fraction"] for each in content("run", "decisions.json")["race"]] == [1 / 8]
    assert Path("run/pictures/race.png").is_file()
    monkeypatch.setattr(auto, "JUDGED_AFTER", 400)
    whole = command(*WORDS[:4], "whole", *WORDS[5:])
    assert whole.status == 0, whole.err
    assert_same("run", "whole")


@pytest.mark.parametrize("winner", ["start", "single-random-1"])
def test_what_is_not_taught_is_trained_on_with_the_rest_of_the_budget(
    tiny, command, monkeypatch, winner
):
    monkeypatch.setattr(auto, "JUDGED_AFTER", 0)
    monkeypatch.setattr(auto, "longer_pays", lambda *_: False)
    monkeypatch.setattr(auto, "teach", lambda *_: False)
    expected = Racer.expected
    monkeypatch.setattr(
        Racer, "expected", lambda self, *to: expected(self, *to) * (self.run.name != winner)
    )
    done = command(*WORDS)
    assert done.status == 0, done.err
    raced = [each["name"] for each in content("run", "decisions.json")["race"]]
    assert sorted(raced) == RACERS
    assert [raced[0]] == content("run", "decisions.json")["result"] == [winner]
    assert "ended early" not in done.out
    assert "stop_after" not in content("run", "summary.json")
    _, spent = costs_of("run")
    unit = content("run", "stages", winner, "summary.json")["compute"]["unit"]
    assert 18.5 * unit < spent <= 20.5 * unit
    # The race is not run again, though the winner's losses are others now.
    steps = steps_of("run")
    Path("run/summary.json").unlink()
    shutil.rmtree(Path("run/stages", raced[0]))
    again = command(*WORDS)
    assert again.status == 0, again.err
    assert [each["name"] for each in content("run", "decisions.json")["race"]] == raced
    assert steps_of("run") == steps


def test_what_was_stopped_goes_on(made, tmp_path, monkeypatch, command):
    shutil.copytree(made.parent, tmp_path / "again")
    monkeypatch.chdir(tmp_path / "again")
    Path("run/summary.json").unlink()
    before = Path("run/stages/student/metrics.csv").stat().st_mtime_ns
    monkeypatch.setattr("zoo_lightning.pipelines.auto.JUDGED_AFTER", 0)
    monkeypatch.setattr("zoo_lightning.pipelines.selection.SURE", 2.0)  # nothing is as sure
    monkeypatch.setattr("zoo_lightning.pipelines.auto.longer_pays", lambda *_: False)  # as before
    done = command(*WORDS)
    assert done.status == 0, done.err
    assert "estimate" in done.out
    assert Path("run/stages/student/metrics.csv").stat().st_mtime_ns == before
    assert content("run", "summary.json")["pipeline"] == "auto"
    assert content("run", "decisions.json")["result"] == ["student"]
    mine, taught = (load_task(run).state_dict() for run in ("run", "run/stages/student"))
    assert all(torch.equal(mine[key], value) for key, value in taught.items())


def test_a_student_that_was_stopped_goes_on_to_the_same_weights(
    made, tmp_path, monkeypatch, command
):
    shutil.copytree(made.parent, tmp_path / "again")
    monkeypatch.chdir(tmp_path / "again")
    before = load_task("run/stages/student").state_dict()
    for name in ("run", "run/stages/student"):
        Path(name, "summary.json").unlink()
    assert Path("run/stages/student/checkpoints/last.ckpt").is_file()
    monkeypatch.setattr("zoo_lightning.pipelines.auto.JUDGED_AFTER", 0)
    monkeypatch.setattr("zoo_lightning.pipelines.auto.longer_pays", lambda *_: False)
    done = command(*WORDS)
    assert done.status == 0, done.err
    after = load_task("run/stages/student").state_dict()
    assert all(torch.equal(before[key], value) for key, value in after.items())


def test_a_pipeline_of_another_version_is_not_resumed(made, tmp_path, monkeypatch, command):
    shutil.copytree(made.parent, tmp_path / "again")
    monkeypatch.chdir(tmp_path / "again")
    Path("run/summary.json").unlink()
    kept = content("run", "stages", "race.json")
    del kept["opening"]
    Path("run/stages/race.json").write_text(json.dumps(kept))
    monkeypatch.setattr("zoo_lightning.pipelines.auto.JUDGED_AFTER", 0)
    command(*WORDS).refused("begun by another version of --method auto", "another --run_dir")


def test_what_cannot_be_is_refused(tiny, command):
    command(*WORDS[:-1], "0.01").refused("budget 0.01", "at least 0.13")
    several = command(*WORDS[:-1], "3", "--inference", "2")
    several.refused("--budget 3", "compares 3 candidates", "at least --budget")
    command(*WORDS, "--inference", "0").refused("--inference", "at least 1")
    command(*WORDS[:-3], "lite", "--inference", "2").refused("--inference 2", "leave it out")
    assert not Path("run").exists()

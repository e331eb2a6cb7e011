"""``fit --method auto``: members, a network taught by them, and what validation decides."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from zoo_lightning import load_task
from zoo_lightning.analysis.measuring import Scores
from zoo_lightning.cli.program import main
from zoo_lightning.pipelines import auto
from zoo_lightning.pipelines.auto import gain
from zoo_lightning.runs.pool import Execution

WORDS = ("fit", "--experiment", "tiny", "--run_dir", "run", "--method", "auto", "--budget", "20")


def content(*names):
    return json.loads(Path(*names).read_text())


def names_of(run):
    return sorted(path.parent.name for path in Path(run).glob("stages/*/summary.json"))


RACERS = ["single-random-1", "single-random-2", "soup"]


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
        # Whatever the images say, so that all of it is seen.
        patch.setattr("zoo_lightning.pipelines.auto.SURE", 0.0)
        patch.setattr("zoo_lightning.pipelines.auto.longer_pays", lambda *_: False)
        patch.setattr("zoo_lightning.pipelines.auto.joint_scores", better_together)
        assert main([*WORDS, "--inference", "2"]) == 0
    return folder / "run"


def test_all_candidates_race_one_is_taught_and_everything_is_counted(made):
    stages = names_of(made)
    assert stages == sorted([*RACERS, *(f"try-{name}" for name in RACERS), "student"])
    student = content(made, "stages", "student", "summary.json")
    assert student["compute"]["parts"]["teachers"] > 0
    summary = content(made, "summary.json")
    parts = [content(made, "stages", name, "summary.json")["compute"]["parts"] for name in stages]
    own = [{k: v for k, v in each.items() if k not in ("teachers", "init_from")} for each in parts]
    assert summary["compute"]["parts"]["stages"] == sum(sum(each.values()) for each in own)
    spent = sum(each["training"] + each.get("start", 0) for each in own)
    unit = student["compute"]["unit"]
    assert 18 * unit < spent <= 20.1 * unit
    steps = {name: content(made, "stages", name, "summary.json")["steps"] for name in stages}
    assert len({steps[name] for name in RACERS}) == 1
    assert steps["soup"] == pytest.approx(4 * steps["try-soup"], abs=4)


def test_the_student_begins_as_the_winner_which_teaches_it_with_another(made):
    config = yaml.safe_load((made / "stages" / "student" / "config.yaml").read_text())
    begun = Path(config["init_from"]).parts[2]  # run/stages/NAME
    teachers = [Path(each).parts[2] for each in config["model"]["init_args"]["teachers"]]
    assert teachers[0] == begun
    assert teachers[1] in set(RACERS) - {begun}


def test_the_result_is_a_run_that_predicts_and_is_tested(made):
    decisions = content(made, "decisions.json")
    assert len(decisions["result"]) == 2
    task = load_task(made)
    assert len(task.networks()) == 2
    summary = content(made, "summary.json")
    assert summary["members"] == decisions["result"]
    assert summary["test"].keys() >= {"test/nme"}
    names = {each["name"] for each in decisions["candidates"]}
    assert (made / "pictures" / "decision.png").is_file()
    assert {*RACERS, "student", " + ".join(decisions["result"])} <= names
    assert not any(name.startswith("try") for name in names)
    assert content(made, "stages", "look.json")["relations"]["conclusion"]
    raced = decisions["race"]
    assert sorted(each["name"] for each in raced) == sorted(RACERS)
    assert raced[0]["expected"] == min(each["expected"] for each in raced)


def scored(monkeypatch, *losses):
    """Have stages these mean losses, in the order in which they are asked for."""
    found = [Scores(torch.zeros(4), torch.full((4,), loss)) for loss in losses]
    monkeypatch.setattr(auto, "joint_scores", lambda _: found)


def stages(*names, steps=1000):
    runs = [auto.StageRun(Path(name), "", {"model": {"init_args": {}}}) for name in names]
    for run in runs:
        run.summary = lambda: {"steps": steps}
    return runs


def test_the_winner_is_the_one_that_will_be_ahead(monkeypatch):
    lines = []
    tries, members = stages("try-a", "try-b", "try-c"), stages("a", "b", "c")
    execution = Execution(report=lines.append)
    scored(monkeypatch, 1.0, 2.0, 1.0, 0.9, 1.0, 1.1)
    racers = auto.race(tries, members, execution)  # 0.85, 0.71, 1.15 expected
    assert [each.run.name for each in racers] == ["b", "a", "c"]
    assert [each.tried.name for each in racers] == ["try-b", "try-a", "try-c"]
    assert "b: validation loss 2 after the short, 1 after the longer" in lines[1]
    assert "0.7071 expected" in lines[1]
    assert lines[-1].split() == ["winner", "b"]
    scored(monkeypatch, 1.0, 2.0, 1.0, 0.9, 1.9, 0.9)
    assert auto.race(tries, members, execution)[0].run.name == "a"  # the first of equals
    assert not any("say little" in line for line in lines)


def test_a_task_without_any_loss_left_is_no_error(monkeypatch):
    scored(monkeypatch, 0.0, 0.1, 0.0, 0.0)
    racers = auto.race(stages("try-a", "try-b"), stages("a", "b"), Execution())
    assert racers[0].run.name == "b"
    scored(monkeypatch, 0.0, 0.0)
    assert not auto.longer_pays(*stages("try-a", "a"), Execution())


def test_a_race_of_a_few_steps_says_so(monkeypatch):
    lines = []
    scored(monkeypatch, 1.0, 1.0)
    auto.race(stages("try-a", steps=99), stages("a"), Execution(report=lines.append))
    assert "99 steps of the short training say little" in lines[1]


@pytest.mark.parametrize(("after", "pays"), [(0.9, True), (0.96, False), (1.1, False)])
def test_longer_training_pays_while_the_loss_falls(monkeypatch, after, pays):
    lines = []
    scored(monkeypatch, 1.0, after)
    runs = stages("try-a", "a")
    assert auto.longer_pays(*runs, Execution(report=lines.append)) == pays
    assert f"{1 - after:.1%} less validation loss than try-a" in lines[0]
    monkeypatch.setattr(auto, "SURE", 2.0)
    assert not auto.longer_pays(*runs, Execution())


@pytest.mark.parametrize(("joint", "name"), [(0.9, "student"), (1.1, "alone")])
def test_networks_that_are_no_better_together_do_not_teach(made, monkeypatch, joint, name):
    lines, [best, other, near] = [], stages("best", "other", "near")
    scored(monkeypatch, 1.0, 1.2, joint)
    options = yaml.safe_load((made / "pipeline.yaml").read_text())["options"]
    plan = auto.Plan("auto", "tiny", options)
    report = Execution(report=lines.append)
    run = auto.last_training(plan, made, best, [other, near], 2.0, report)
    assert run.name == name
    assert run.options["init_from"] == "best"
    teachers = run.options["model"]["init_args"].get("teachers")
    assert teachers == (["best", "near"] if name == "student" else None)
    assert ("teachers      none" in lines[-1]) == (name == "alone")
    assert best.options == {"model": {"init_args": {}}}


def test_the_winner_is_trained_on_alone_if_that_pays(tiny, command, monkeypatch):
    monkeypatch.setattr(auto, "longer_pays", lambda *_: True)
    done = command(*WORDS)
    assert done.status == 0, done.err
    assert set(names_of("run")) - {*RACERS, *(f"try-{name}" for name in RACERS)} == {"longer"}
    config = yaml.safe_load(Path("run/stages/longer/config.yaml").read_text())
    assert Path(config["init_from"]).parts[-3] in RACERS
    assert not config["model"]["init_args"]["teachers"]
    costs = [content("run", "stages", name, "summary.json")["compute"] for name in names_of("run")]
    spent = sum(each["parts"]["training"] for each in costs)
    assert 18 * costs[0]["unit"] < spent <= 20.1 * costs[0]["unit"]
    assert content("run", "decisions.json")["candidates"][0]["name"] == "longer"


def test_what_was_stopped_goes_on(made, tmp_path, monkeypatch, command):
    shutil.copytree(made.parent, tmp_path / "again")
    monkeypatch.chdir(tmp_path / "again")
    Path("run/summary.json").unlink()
    before = Path("run/stages/student/metrics.csv").stat().st_mtime_ns
    monkeypatch.setattr("zoo_lightning.pipelines.auto.SURE", 2.0)  # nothing is as sure
    done = command(*WORDS, "--inference", "2")
    assert done.status == 0, done.err
    assert "estimate" in done.out
    assert Path("run/stages/student/metrics.csv").stat().st_mtime_ns == before
    assert content("run", "summary.json")["pipeline"] == "auto"
    assert content("run", "decisions.json")["result"] == ["student"]
    mine, taught = (load_task(run).state_dict() for run in ("run", "run/stages/student"))
    assert all(torch.equal(mine[key], value) for key, value in taught.items())


def test_what_cannot_be_is_refused(tiny, command):
    command(*WORDS[:-1], "1").refused("--budget 1", "at least 2")
    command(*WORDS[:-1], "3").refused("--budget 3", "of 3 candidates", "at least --budget")
    command(*WORDS, "--inference", "0").refused("--inference", "at least 1")
    command(*WORDS[:-3], "lite", "--inference", "2").refused("--inference 2", "leave it out")
    assert not Path("run").exists()


def test_scores_of_a_candidate_are_those_of_its_images():
    scores = Scores(torch.tensor([0.0, 100.0]), torch.tensor([0.5, 1.5]))
    runs = tuple(SimpleNamespace(name=name) for name in ("x", "y"))
    candidate = auto.Candidate(runs, scores)
    assert (candidate.name, candidate.loss) == ("x + y", 1.0)


@pytest.fixture
def losses():
    return torch.rand(200, generator=torch.Generator().manual_seed(1))


def test_a_model_does_not_replace_one_that_is_the_same(losses):
    found = gain(losses, losses)
    assert (found.mean, found.low, found.high, found.share) == (0, 0, 0, 0)
    assert not found.is_sure


def test_a_small_gain_on_every_image_is_sure_though_images_differ_much(losses):
    found = gain(losses - 0.01, losses)
    assert found.is_sure
    assert found.mean == pytest.approx(0.01)
    assert found.low == pytest.approx(0.01) == found.high
    assert not gain(losses, losses - 0.01).is_sure


def test_what_is_right_more_often_is_not_replaced_for_its_confidence(losses):
    errors = 100.0 * (losses > 0.5)
    fewer = torch.where(losses > 0.6, errors, 0.0)
    incumbent = Scores(errors, losses)
    assert auto.is_better(Scores(fewer, losses - 0.01), incumbent)
    assert not auto.is_better(Scores(errors, losses - 0.01), incumbent)
    assert not auto.is_better(Scores(fewer, losses + 0.01), incumbent)


def test_a_gain_that_hangs_on_one_image_is_not_sure(losses):
    candidate = losses + 0.01
    candidate[0] = losses[0] - 3.0
    found = gain(candidate, losses)
    assert found.mean > 0
    assert found.share == pytest.approx(1 - 199 / 200 * (1 - 1 / 200) ** 199, abs=0.05)
    assert not found.is_sure


def test_the_interval_has_the_width_of_the_standard_error(losses):
    noise = torch.randn(200, generator=torch.Generator().manual_seed(2))
    found = gain(losses + noise, losses)
    assert (found.high - found.low) / 2 == pytest.approx(
        1.96 * float(noise.std()) / 200**0.5, rel=0.1
    )

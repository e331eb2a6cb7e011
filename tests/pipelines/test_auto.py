"""``fit --method auto``: members, a network taught by them, and what validation decides."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
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


def better_together(best, joint, by=0.1):
    return best, auto.Candidate(joint.runs, replace(best.scores, loss=best.scores.loss - by))


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_in):
    """A finished pipeline that may end with an ensemble of two."""
    folder = tmp_path_factory.mktemp("auto")
    tiny_in(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # Whatever the images say, so that all of it is seen.
        patch.setattr("zoo_lightning.pipelines.auto.SURE", 0.0)
        patch.setattr("zoo_lightning.pipelines.auto.better_beginning", lambda *_: 1)
        real = auto.best_and_joint
        patch.setattr(
            "zoo_lightning.pipelines.auto.best_and_joint", lambda runs: better_together(*real(runs))
        )
        assert main([*WORDS, "--inference", "2"]) == 0
    return folder / "run"


def best(run):
    return auto.best_source(content(run, "stages", "look.json")["relations"]).replace(" ", "-")


def test_members_teach_a_network_and_everything_is_counted(made):
    stages = sorted(path.parent.name for path in made.glob("stages/*/summary.json"))
    assert stages[1:5] == ["start", "student", "try-single-" + best(made), "try-soup"]
    assert stages[5:] == ["try-start"]
    assert stages[0] in ("single-random-1", "single-random-2")
    assert stages[0] != "single-" + best(made)
    shares = content(made, "stages", "look.json")["shares"]
    for name in ("start", "try-start"):
        config = yaml.safe_load((made / "stages" / name / "config.yaml").read_text())
        assert config["model"]["init_args"]["backbone"]["init_args"]["weights"] == shares
    student = content(made, "stages", "student", "summary.json")
    assert student["compute"]["parts"]["teachers"] > 0
    summary = content(made, "summary.json")
    parts = [content(made, "stages", name, "summary.json")["compute"]["parts"] for name in stages]
    own = [{k: v for k, v in each.items() if k not in ("teachers", "init_from")} for each in parts]
    assert summary["compute"]["parts"]["stages"] == sum(sum(each.values()) for each in own)
    spent = sum(each["training"] + each.get("start", 0) for each in own)
    unit = student["compute"]["unit"]
    assert 18 * unit < spent <= 20.1 * unit


def test_the_student_begins_as_the_better_member(made):
    losses = {each["name"]: each["loss"] for each in content(made, "decisions.json")["candidates"]}
    members = {name: loss for name, loss in losses.items() if name[:6] in ("start", "single")}
    config = yaml.safe_load((made / "stages" / "student" / "config.yaml").read_text())
    begun = Path(config["init_from"]).parts[2]  # run/stages/NAME
    assert begun == min(members, key=members.get).replace(" ", "-")
    assert len(config["model"]["init_args"]["teachers"]) == 2


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
    assert {"start", "student", " + ".join(decisions["result"])} <= names
    assert not any(name.startswith("try") for name in names)


def test_in_doubt_training_begins_at_the_plain_average(made, monkeypatch):
    lines, scored = [], {"soup": 1.0, "start": 0.9, "single-b": 0.8}
    losses = [Scores(torch.full((4,), 0.0), torch.full((4,), loss)) for loss in scored.values()]
    tries = [auto.StageRun(made / f"try-{name}", "", {}) for name in scored]
    execution = Execution(report=lines.append)

    def chosen(sure, *order):
        monkeypatch.setattr(auto, "SURE", sure)
        monkeypatch.setattr(auto, "scores_of", lambda _: [losses[index] for index in order])
        return auto.better_beginning([tries[index] for index in order], execution)

    assert chosen(2.0, 0, 1, 2) == 0
    assert "try-soup: try-single-b has +0.2000" in lines[-1]
    assert chosen(0.8, 0, 1, 2) == 2  # the best of the others, not the first
    assert chosen(0.8, 0, 2, 1) == 1
    assert "try-single-b: try-single-b has" in lines[-1]
    assert chosen(0.8, 1, 0) == 0


def test_equal_shares_leave_one_average():
    names = [each.name for each in auto.beginnings("b", [0.45, 0.45])]
    assert names == ["soup", "single b"]
    places = auto.beginnings("b", [0.1, 0.8])
    assert [each.name for each in places] == ["soup", "start", "single b"]
    assert places[1].shares == (0.1, 0.8)


@pytest.mark.parametrize("by", [0.1, -0.1])
def test_members_that_are_no_better_together_do_not_teach(made, monkeypatch, by):
    [single] = {path.parent.name for path in made.glob("stages/single-*/summary.json")}
    options = {"model": {"init_args": {}}}
    members = [auto.StageRun(made / "stages" / name, "", options) for name in ("start", single)]
    real, lines = auto.best_and_joint, []
    monkeypatch.setattr(auto, "best_and_joint", lambda runs: better_together(*real(runs), by))
    plan = auto.Plan(
        "auto", "tiny", yaml.safe_load((made / "pipeline.yaml").read_text())["options"]
    )
    run = auto.last_training(plan, made, members, 2.0, Execution(report=lines.append))
    assert run.name == ("student" if by > 0 else "longer")
    assert ("teachers" in run.options["model"]["init_args"]) == (by > 0)
    assert Path(run.options["init_from"]).name in ("start", single)
    assert ("without teachers" in lines[-1]) == (by < 0)
    assert options == {"model": {"init_args": {}}}  # those of the member


@pytest.mark.parametrize(("after", "pays"), [(0.9, True), (0.96, False), (1.1, False)])
def test_longer_training_pays_while_the_loss_falls(made, monkeypatch, after, pays):
    losses = [torch.tensor([0.5, 1.5]), after * torch.tensor([0.5, 1.5])]
    monkeypatch.setattr(auto, "scores_of", lambda _: [Scores(loss, loss) for loss in losses])
    runs, lines = [auto.StageRun(made / name, "", {}) for name in ("try-a", "a")], []
    assert auto.longer_pays(*runs, Execution(report=lines.append)) == pays
    assert f"{1 - after:.1%} less validation loss" in lines[0]
    monkeypatch.setattr(auto, "SURE", 2.0)
    assert not auto.longer_pays(*runs, Execution())


def test_while_longer_training_pays_there_is_one_network(tiny, command, monkeypatch):
    monkeypatch.setattr(auto, "better_beginning", lambda *_: 2)
    monkeypatch.setattr(auto, "longer_pays", lambda *_: True)
    done = command(*WORDS)
    assert done.status == 0, done.err
    member = f"single-{best(Path('run'))}"
    names = {each["name"] for each in content("run", "decisions.json")["candidates"]}
    assert names == {"longer", member}
    stages = sorted(path.parent.name for path in Path("run").glob("stages/*/summary.json"))
    assert stages == ["longer", member, f"try-{member}", "try-soup", "try-start"]
    config = yaml.safe_load(Path("run/stages/longer/config.yaml").read_text())
    assert Path(config["init_from"]).parts[-3] == member  # its best checkpoint
    costs = [content("run", "stages", name, "summary.json")["compute"] for name in stages]
    spent = sum(each["parts"]["training"] for each in costs)
    assert 18 * costs[0]["unit"] < spent <= 20.1 * costs[0]["unit"]


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
    command(*WORDS, "--inference", "0").refused("--inference", "at least 1")
    command(*WORDS[:-3], "lite", "--inference", "2").refused("--inference 2", "leave it out")
    assert not Path("run").exists()


def test_the_partner_is_no_relative_of_the_best_source():
    def pair(first, second, relation, joint):
        return SimpleNamespace(first=first, second=second, relation=relation, joint=joint)

    rows = [SimpleNamespace(name=n, score=s) for n, s in (("a", 1), ("b", 3), ("c", 2))]
    pairs = [pair("a", "b", "strangers", 3.1), pair("b", "c", "relatives", 3.5)]
    pairs.append(pair("a", "c", "strangers", 9.0))
    found = SimpleNamespace(sources=rows, pairs=pairs)
    assert auto.partner(found) == "a"
    assert not auto.all_related(found)
    pairs[0].relation = "relatives"
    assert auto.partner(found) == "c"
    assert auto.all_related(found)  # of the best one; whether a and c are does not matter


def test_relatives_are_averaged_and_not_asked_to_teach(tiny, command):
    torch.manual_seed(0)
    sources, state = [], timm.create_model("test_resnet").state_dict()
    for number in range(2):
        noise = {k: 0.01 * number * torch.randn_like(v) for k, v in state.items() if v.dim() == 4}
        torch.save({k: v + noise.get(k, 0) for k, v in state.items()}, f"{number}.pth")
        sources.append(f"{number}.pth")
    done = command(*WORDS, "--sources", ",".join(sources))
    assert done.status == 0, done.err
    assert "all sources are relatives" in done.out
    stages = {path.parent.name for path in Path("run").glob("stages/*/summary.json")}
    assert len({name for name in stages if not name.startswith("try-")}) == 1
    assert "student" not in stages
    costs = [content("run", "stages", name, "summary.json")["compute"] for name in stages]
    spent = sum(each["parts"]["training"] for each in costs)
    assert 18 * costs[0]["unit"] < spent <= 20.1 * costs[0]["unit"]


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

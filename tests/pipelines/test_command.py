"""``fit --method``: stages, what they cost, going on, and what is refused."""

import json
import re
import shutil
from pathlib import Path

import pytest
import timm
import torch
import yaml

FIT = ("fit", "--experiment", "tiny", "--run_dir", "run")


def summary(folder="run"):
    return json.loads(Path(folder, "summary.json").read_text())


@pytest.fixture(scope="module")
def taught(tmp_path_factory, tiny_in):
    """A finished pipeline of distillation with a budget of four trainings."""
    from zoo_lightning.cli.program import main

    folder = tmp_path_factory.mktemp("taught")
    tiny_in(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*FIT, "--method", "distillation", "--budget", "4"]) == 0
    return folder / "run"


def test_what_a_method_is_made_from_is_trained_first_and_counted(taught):
    stages = sorted(path.parent.name for path in taught.glob("stages/*/summary.json"))
    assert stages == ["single-random-1", "single-random-2"]
    teachers = yaml.safe_load((taught / "config.yaml").read_text())["model"]["init_args"][
        "teachers"
    ]
    assert [Path(path).name for path in teachers] == stages
    found = summary(taught)
    assert found["pipeline"] == "distillation"
    assert found["test"].keys() >= {"test/nme"}
    page = (taught / "report.html").read_text()
    assert all(f'href="stages/{stage}/report.html"' in page for stage in stages)
    assert "--method distillation --budget 4 --run_dir runs/again" in page
    assert all(path in page for path in teachers)
    assert all(not summary(taught / "stages" / each)["test"] for each in stages)
    compute = found["compute"]
    each = [summary(taught / "stages" / stage)["compute"] for stage in stages]
    assert compute["parts"]["stages"] == sum(cost["multiply_adds"] for cost in each)
    assert "teachers" not in compute["parts"]  # they are stages
    trained = compute["parts"]["training"] + sum(cost["parts"]["training"] for cost in each)
    assert 3.5 * compute["unit"] < trained <= 4.05 * compute["unit"]


def test_a_finished_pipeline_is_an_ordinary_run(taught, tmp_path, monkeypatch, command):
    monkeypatch.chdir(taught.parent)
    again = command(*FIT, "--method", "distillation", "--budget", "4")
    assert again.status == 0
    assert "finished" in again.out
    output = tmp_path / "out"
    tested = command("test", "--experiment", "tiny", "--config", "run/config.yaml",
                     "--ckpt_path", "run", "--run_dir", str(output))  # fmt: skip
    assert tested.status == 0, tested.err
    assert summary(output)["test"] == summary()["test"]


def test_what_was_stopped_goes_on_and_repeats_nothing(taught, tmp_path, monkeypatch, command, tiny):
    shutil.copytree(taught, tmp_path / "run")
    before = Path("run/stages/single-random-1/metrics.csv").stat().st_mtime_ns
    Path("run/summary.json").unlink()  # as if it had been killed before its end
    shutil.rmtree("run/stages/single-random-2")
    done = command(*FIT, "--method", "distillation", "--budget", "4")
    assert done.status == 0, done.err
    assert Path("run/stages/single-random-1/metrics.csv").stat().st_mtime_ns == before
    assert summary()["test"] == summary(taught)["test"]
    assert summary()["compute"]["parts"] == summary(taught)["compute"]["parts"]
    command(*FIT, "--method", "distillation").refused("budget (4.0, now None)", "resume it")


def test_the_result_of_several_trainings_is_not_resumed_as_one(
    taught, tmp_path, monkeypatch, command, tiny
):
    shutil.copytree(taught, tmp_path / "run")
    before = Path("run/summary.json").read_text()
    for place in ("run", "run/checkpoints/last.ckpt", "run/checkpoints/best.ckpt"):
        if Path(place).exists():
            again = command("fit", "--ckpt_path", place, "--stop_after", "1")
            again.refused(
                "is the result of fit --method distillation", "--init_from", "another --run_dir"
            )
    assert Path("run/summary.json").read_text() == before


def test_a_method_of_one_training_has_no_stages(tiny, command):
    done = command(*FIT, "--method", "single:random-2", "--trainer.max_steps", "2")
    assert done.status == 0, done.err
    assert "1 times 2 steps of one network" in done.out
    assert "\ntiny: single:random-2, 2 steps, " in done.out  # by the name of the experiment
    assert not list(Path("run").glob("stages/*/summary.json"))
    assert summary()["method"] == "single:random-2"
    command(*FIT[:-1], "run", "--method", "scratch").refused("run was begun with other options")


def test_a_pipeline_without_a_log_ends_like_any_other(tiny, command):
    words = ("--trainer.max_steps", "2", "--trainer.logger", "false")
    done = command(*FIT, "--method", "tried-single", *words)
    assert done.status == 0, done.err
    assert not Path("run/metrics.csv").exists()
    assert summary()["test_images"] > 0
    assert done.out.count("run folder   run  (") == 1


def test_what_is_made_without_training_ends_like_any_other(tiny, command):
    done = command(*FIT, "--method", "greedy-soup", "--trainer.max_steps", "2")
    assert done.status == 0, done.err
    assert done.out.count("Test metric") == 1
    assert done.out.count("run folder   run  (") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "distilation"), ("distilation", "distillation")),
        (("--method", "auto:random-1"), ("auto is for all sources", "give auto")),
        (("--method", "autoo"), ("unknown method 'autoo'", "Did you mean 'auto'")),
        (("--method", "lite", "--budget", "inf"), ("budget", "finite number above 0")),
        *(
            (("--method", each, "--sources", "[]"), ("needs sources", "--sources A,B"))
            for each in ("soup", "start", "lite", "ensemble", "auto")
        ),
        (("--method", "single"), ("single:random-1", "tried-single")),
        (("--method", "lite", "--init_from", "x"), ("--init_from", "leave it out")),
        (("--method", "lite", "--ckpt_path", "last"), ("--ckpt_path", "--run_dir")),
        (("--method", "lite", "--workers", "0"), ("--workers", "at least 1")),
        (("--method", "lite", "--trainer.fast_dev_run", "true"), ("fast_dev_run",)),
        (("--method", "lite", "--budget", "-1"), ("budget", "> 0")),
        (("--method", "lite", "--budget", "0.001"), ("leaves", "to lite", "at least 0.13")),
        (("--method", "ensemble", "--budget", "0.001"), ("leaves", "to single", "at least 0.25")),
        *(
            (("--method", each, "--sources", "random:1,no.pth"), ("Source 'no'", "does not exist"))
            for each in ("soup", "ensemble", "tried-single", "auto")
        ),
    ],
)
def test_options_that_cannot_be_right_are_refused(tiny, command, words, said):
    command(*FIT, *words).refused(*said)
    assert not Path("run").exists()


def test_a_budget_that_the_informed_start_uses_up_names_the_least_one(tiny, command):
    words = ("--method", "start", "--trainer.max_steps", "40")
    message = command(*FIT, *words, "--budget", "0.1").err
    least = re.search(r"give this training a budget of at least ([0-9.]+)", message)
    assert least, message
    assert "the informed start alone has cost" in message
    again = ("--run_dir", "again", "--budget", least[1])
    done = command("fit", "--experiment", "tiny", *words, *again)
    assert done.status == 0, done.err
    assert summary("again")["steps"] == 1


def test_a_pipeline_that_has_not_ended_is_resumed_by_its_own_command(tiny, command):
    Path("run").mkdir()
    Path("run/pipeline.yaml").write_text("method: auto\n")
    for command_name in ("fit", "test"):
        command(command_name, "--ckpt_path", "run").refused("fit --method", "--run_dir run")


def test_sources_of_unknown_preprocessing_are_named(tiny, command):
    torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), "a.pth")
    words = ("--sources", "a.pth,random:1", "--trainer.max_steps", "2", "--run_test", "false")
    for method, said in (("soup", 0), ("greedy-soup", 1)):  # soup's own training says it
        done = command(*FIT[:-1], method, "--method", method, *words)
        assert done.status == 0, done.err
        assert done.out.count("note          preprocessing of a is unknown") == said


@pytest.mark.parametrize("method", ["scratch", "ensemble", "auto"])
def test_a_test_part_that_is_missing_is_refused_before_the_training(
    tiny, command, landmark_root, method
):
    files = {"root": str(landmark_root), "image_size": 32, "batch_size": 4, "num_workers": 0}
    tiny(data={"class_path": "LandmarkCSV", "init_args": files})
    (landmark_root / "test.csv").unlink()
    command(*FIT, "--method", method).refused("test.csv")
    assert not Path("run").exists()
    if method == "scratch":
        done = command(*FIT, "--method", method, "--run_test", "false")
        assert done.status == 0, done.err


@pytest.mark.parametrize("method", ["scratch", "single:random-1"])
def test_sources_that_a_method_does_not_begin_from_are_not_read(tiny, command, method):
    words = ("--method", method, "--sources", "random:1,no.pth", "--run_test", "false")
    done = command(*FIT, *words)
    assert done.status == 0, done.err


def test_the_folder_of_another_run_is_left_alone(tiny, finished, command):
    before = Path("done/summary.json").read_text()
    words = ("fit", "--experiment", "tiny", "--run_dir", "done", "--method", "scratch")
    command(*words).refused("done is the folder of another run")
    assert Path("done/summary.json").read_text() == before

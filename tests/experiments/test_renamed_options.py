"""Former names of options are accepted everywhere, with a warning that names the present ones."""

import inspect
import json
import warnings

import pytest
import torch
import yaml

from zoo_lightning.benchmarking.grid import open_comparison
from zoo_lightning.cli.trainer import main
from zoo_lightning.data.atari import AtariData
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments import option_names
from zoo_lightning.experiments.option_names import RenamedOptions
from zoo_lightning.experiments.resolving import resolve
from zoo_lightning.models.plain import PlainBackbone
from zoo_lightning.tasks.loading import load_task
from zoo_lightning.tasks.ppo import PPOTask

pytest.importorskip("ale_py")

VALUES = {
    "discount": 0.5,
    "smoothing": 0.25,
    "epochs": 2,
    "minibatches": 2,
    "clip": 0.3,
    "clip_values": False,
    "value_weight": 0.75,
    "entropy_weight": 0.125,
    "normalisation": "none",
    "rollout_steps": 8,
}
"""A value that is not the default for each former name."""

RENAMED = [
    (part, cls, former, present)
    for part, cls in (("model", PPOTask), ("data", AtariData))
    for former, present in cls.former_names.items()
]
SHORT = ["--data.num_envs", "2", "--data.total_steps", "64", "--data.val_games", "1",
         "--data.max_frames", "400", "--trainer.accelerator", "cpu", "--run_test", "false",
         "--trainer.enable_progress_bar", "false"]  # fmt: skip


@pytest.fixture(autouse=True)
def recorded(monkeypatch):
    """Deprecation warnings of a process that has given none yet."""
    monkeypatch.setattr(option_names, "_warned", set())
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield lambda: [
            str(w.message) for w in found if "former name will be removed" in str(w.message)
        ]


def is_named_once(messages, former, present):
    return sum(f"option {former} is now {present};" in line for line in messages) == 1


def parsed(monkeypatch, tmp_path, *words):
    """The options that a command line of ``fit`` comes to, without building anything."""
    monkeypatch.chdir(tmp_path)
    return resolve("rl", overrides=words).options


def test_every_renamed_option_is_in_this_table():
    assert {former for _, _, former, _ in RENAMED} == set(VALUES)


@pytest.mark.parametrize(("part", "cls", "former", "present"), RENAMED)
def test_present_names_alone_are_in_the_signature(part, cls, former, present):
    assert present in inspect.signature(cls).parameters
    assert former not in inspect.signature(cls).parameters
    assert "self" not in inspect.signature(cls).parameters


@pytest.mark.parametrize("init_args", [".init_args", ""])
@pytest.mark.parametrize(("part", "cls", "former", "present"), RENAMED)
def test_former_names_on_the_command_line(
    part, cls, former, present, init_args, monkeypatch, tmp_path, recorded
):
    value = VALUES[former]
    words = (f"--{part}{init_args}.{former}", json.dumps(value).strip('"'))
    options = parsed(monkeypatch, tmp_path, *words)
    assert options[part].init_args[present] == value
    assert former not in options[part].init_args
    assert is_named_once(recorded(), former, present)


@pytest.mark.parametrize("form", ["class", "init_args", "dotted"])
def test_former_names_in_files(form, monkeypatch, tmp_path, recorded):
    content = {}
    for part, cls, former, _ in RENAMED:
        name = {"class_path": cls.__name__} if form == "class" else {}
        if form == "dotted":
            content[f"{part}.init_args.{former}"] = VALUES[former]
        else:
            content.setdefault(part, {**name, "init_args": {}})["init_args"][former] = VALUES[
                former
            ]
    if form == "class":
        content["model"]["init_args"]["backbone"] = {
            "class_path": "PlainBackbone", "init_args": {"architecture": "nature_cnn"},
        }  # fmt: skip
    file = tmp_path / "options.yaml"
    file.write_text(yaml.safe_dump(content))
    options = parsed(monkeypatch, tmp_path, "--config", str(file))
    for part, _, former, present in RENAMED:
        assert options[part].init_args[present] == VALUES[former]
        assert is_named_once(recorded(), former, present)


def test_present_names_override_former_ones_of_an_experiment(monkeypatch, tmp_path, recorded):
    file = tmp_path / "options.yaml"
    file.write_text("model: {init_args: {clip: 0.3}}")
    options = parsed(monkeypatch, tmp_path, "--config", str(file), "--model.clip_coef", "0.2")
    assert options.model.init_args.clip_coef == 0.2


def test_options_of_other_tasks_are_not_renamed(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="'clip'"):
        parsed(monkeypatch, tmp_path, "--experiment", "classification", "--model.clip", "0.3")


def test_former_names_in_constructors(recorded):
    given = {former: VALUES[former] for former in PPOTask.former_names}
    task = PPOTask(PlainBackbone("nature_cnn"), **given)
    data = AtariData(rollout_steps=VALUES["rollout_steps"])
    for part, _, former, present in RENAMED:
        assert getattr(task if part == "model" else data, present) == VALUES[former]
        assert is_named_once(recorded(), former, present)
        assert part == "data" or task.hparams[present] == VALUES[former]
    assert not set(given) & set(task.hparams)


def test_both_names_of_an_option_are_refused():
    with pytest.raises(ConfigError, match="clip_coef"):
        PPOTask(PlainBackbone("nature_cnn"), clip=0.1, clip_coef=0.1)


def test_subclasses_keep_former_names_and_their_own_signature():
    class Mine(PPOTask):
        def __init__(self, backbone, extra=1, **options):
            super().__init__(backbone, **options)

    with pytest.warns(FutureWarning, match="clip_coef"):
        task = Mine(PlainBackbone("nature_cnn"), extra=2, clip=0.3)
    assert (task.clip_coef, task.hparams["extra"]) == (0.3, 2)
    assert list(inspect.signature(Mine).parameters) == ["backbone", "extra", "options"]
    assert isinstance(Mine, RenamedOptions)


def test_runs_of_before_are_resumed_and_loaded(monkeypatch, tmp_path, recorded):
    """A run folder as the version with the former names has written it."""
    monkeypatch.chdir(tmp_path)
    words = ["fit", "--experiment", "rl-source", "--run_dir", "run", *SHORT]
    for _, _, former, present in RENAMED:
        part = "data" if former == "rollout_steps" else "model"
        words += [f"--{part}.{present}", json.dumps(VALUES[former]).strip('"')]
    main(words)
    assert recorded() == []
    before = {present: former for _, _, former, present in RENAMED}
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    for part in ("model", "data"):
        options = config[part]["init_args"]
        config[part]["init_args"] = {before.get(key, key): v for key, v in options.items()}
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(config))
    for file in (tmp_path / "run/checkpoints").glob("*.ckpt"):
        content = torch.load(file, weights_only=True)
        held = content["zoo_lightning"]
        for place, key in ((content, "hyper_parameters"), (held, "data_options")):
            place[key] = {before.get(name, name): value for name, value in place[key].items()}
        torch.save(content, file)

    task = load_task("run")
    for _, cls, former, present in RENAMED:
        if cls is PPOTask:
            assert getattr(task, present) == VALUES[former]
            assert is_named_once(recorded(), former, present)
    option_names._warned.clear()
    known = len(recorded())
    main(["fit", "--ckpt_path", "run"])
    main(["test", "--ckpt_path", "run", "--output", "out", "--data.test_games", "1"])
    for _, _, former, present in RENAMED:
        assert is_named_once(recorded()[known:], former, present)
    config["data"]["init_args"]["rollout_steps"] = 4
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match="num_steps is 8 in the checkpoint, 4 here"):
        main(["fit", "--ckpt_path", "run"])


def test_comparisons_of_earlier_versions_are_resumed_by_the_same_command(tmp_path):
    options = resolve("rl").shared()
    file = open_comparison(tmp_path, options).folder / "experiment.yaml"
    text = file.read_text()
    file.write_text(text.replace("gamma:", "discount:").replace("num_steps:", "rollout_steps:"))
    assert file.read_text() != text
    assert open_comparison(tmp_path, options).options == options
    assert open_comparison(tmp_path, None).options == options

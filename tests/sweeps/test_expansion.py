"""Command lines are those that W&B's own agent makes of the same file."""

import json
import sys

import pytest
import yaml
from wandb.sdk.launch.sweeps import utils

from zoo_lightning.errors import ConfigError
from zoo_lightning.sweeps.expansion import MACROS, expand, nested, words_of_fit

VALUES = {
    "model.init_args.lr": 1e-05,
    "model.init_args.gate_init": [0.9, 0.05, 0.05],
    "flag": True,
    "off": False,
    "nothing": None,
    "text": "two words",
    "model": {"init_args": {"head": "heatmaps"}},
}


def agents_words(command: list[str], values: dict, program: str, file: str) -> list[str]:
    """What the agent's ``_command_run`` makes of a command, by the client's own functions."""
    words = utils.create_sweep_command(list(command))
    forms = utils.create_sweep_command_args({"args": {k: {"value": v} for k, v in values.items()}})
    forms |= {
        "interpreter": [sys.executable],  # the agent's is python
        "program": [program],
        "args_json_file": [file],
        "env": ["/usr/bin/env"],
    }
    found = []
    for word in map(str, words):
        macro = word.startswith("${") and word.endswith("}")
        found += (forms.get(word[2:-1]) or []) if macro else [word]
    return found


@pytest.mark.parametrize("macro", MACROS)
def test_every_macro_expands_as_in_wandbs_client(macro, tmp_path, monkeypatch):
    monkeypatch.setenv("ROOT_DIR", "data")
    command = [
        "${env}",
        "${interpreter}",
        "-m",
        "x",
        "--root=${envvar:ROOT_DIR}/a",
        f"${{{macro}}}",
    ]
    ours = expand(command, VALUES, "train.py", tmp_path / "f.json")
    assert ours == agents_words(command, VALUES, "train.py", str(tmp_path / "f.json"))
    assert "--root=data/a" in ours


def test_the_default_command_is_wandbs():
    from zoo_lightning.sweeps.schema import DEFAULT_COMMAND

    assert list(DEFAULT_COMMAND) == utils.DEFAULT_SWEEP_COMMAND


def test_json_keeps_null_booleans_lists_and_numbers(tmp_path):
    [text] = expand(["${args_json}"], VALUES, "", tmp_path / "f.json")
    assert json.loads(text) == VALUES
    assert yaml.safe_load(text)["nothing"] is None


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["${arg}"], ["unknown macro", "Did you mean 'args'"]),
        (["--config=${args_json_file}"], ["inside", "two items"]),
        (["${envvar:NOT_THERE}"], ["NOT_THERE", "not set"]),
        (["${program}"], ["key program"]),
        (["${envvar:lower}"], ["unknown macro"]),
    ],
)
def test_macros_that_wandb_would_silently_drop_are_refused(command, words, tmp_path, monkeypatch):
    monkeypatch.delenv("NOT_THERE", raising=False)
    with pytest.raises(ConfigError) as caught:
        expand(command, VALUES, "", tmp_path / "f.json")
    for word in words:
        assert word in str(caught.value)


def test_nested_parameters_are_handed_over_as_mappings():
    given = {("model", "init_args", "lr"): 1, ("model", "init_args", "head"): "x", ("a.b",): 2}
    assert nested(given) == {"model": {"init_args": {"lr": 1, "head": "x"}}, "a.b": 2}


@pytest.mark.parametrize(
    ("words", "rest"),
    [
        (["/usr/bin/env", "python", "-m", "zoo_lightning", "fit", "--a"], ["--a"]),
        (["/opt/bin/zoo-lightning", "fit", "--a"], ["--a"]),
    ],
)
def test_a_fit_of_this_package_is_known_in_all_its_forms(words, rest):
    assert words_of_fit(words) == rest


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["python", "train.py"], "command: .*expected"),
        (["python", "-m", "zoo_lightning", "test"], "command: .*expected"),
        (["python", "-m", "zoo_lightning", "fit", "--run_dir=x"], "--run_dir"),
        (["python", "-m", "zoo_lightning", "fit", "--ckpt_path", "x"], "--ckpt_path"),
    ],
)
def test_other_commands_are_refused(words, complaint):
    with pytest.raises(ConfigError, match=complaint):
        words_of_fit(words)

"""``--sources`` and ``--architecture``: one's own checkpoints in place of an experiment's zoo."""

import json
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

from zoo_lightning import load_task
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.short_form import replace_numbers, split_sources

BACKBONE = "model.init_args.backbone.init_args"
FIT = ["fit", "--experiment", "tiny", "--trainer.max_steps=1", "--trainer.val_check_interval=1"]


def state_of(seed: int) -> dict[str, torch.Tensor]:
    """Weights of a headless network."""
    torch.manual_seed(seed)
    return timm.create_model("test_resnet", num_classes=0).state_dict()


def backbone_of(folder: str) -> dict:
    """The backbone's options in the configuration that a run has left."""
    config = yaml.safe_load(Path(folder, "config.yaml").read_text())
    return config["model"]["init_args"]["backbone"]["init_args"]


def test_references_are_parted_at_commas():
    assert split_sources("a.ckpt, timm:resnet18.tv_in1k") == ["a.ckpt", "timm:resnet18.tv_in1k"]
    assert split_sources(["a.ckpt", {"weights": "b,c.pth"}]) == ["a.ckpt", {"weights": "b,c.pth"}]
    with pytest.raises(ConfigError, match="empty reference"):
        split_sources("a.ckpt,,b.ckpt")


@pytest.mark.parametrize(
    ("options", "words", "expected", "said"),
    [
        ({"gate_init": "auto"}, [], {"gate_init": "auto"}, ""),
        (
            {"gate_init": [0.8, 0.1, 0.1], "norm_weights": "gates"},
            [],
            {"gate_init": "greedy", "norm_weights": "gates"},
            "now gate_init: greedy",
        ),
        (
            {"gate_init": [0.8, 0.2], "norm_weights": "gates"},
            [f"--{BACKBONE}.gate_init=[0.8, 0.2]"],
            {"gate_init": [0.8, 0.2], "norm_weights": "gates"},
            "",
        ),
        (
            {"gate_init": "released", "norm_weights": "gates"},
            [f"--{BACKBONE}.gate_init", "released"],
            {"gate_init": "released", "norm_weights": "uniform"},
            "now norm_weights: uniform",
        ),
        (
            {"gate_init": "greedy", "norm_weights": "gates"},
            [],
            {"gate_init": "greedy", "norm_weights": "gates"},
            "",
        ),
        (
            {"gate_init": [0.8, 0.1, 0.1], "norm_weights": [1, 0, 0]},
            ["--model.backbone.norm_weights=[1, 0, 0]"],
            {"gate_init": "greedy", "norm_weights": [1, 0, 0]},
            "now gate_init: greedy",
        ),
        ({"weights": [1, 2, 3]}, [], {"weights": "uniform"}, "now weights: uniform"),
    ],
)
def test_numbers_for_other_sources_give_way_unless_given_on_the_command_line(
    options, words, expected, said
):
    lines = replace_numbers(options, 3, ["a", "b"], words)
    assert options == expected
    assert len(lines) == bool(said)
    assert said in "".join(lines)


def test_numbers_for_as_many_sources_are_kept_and_named():
    options = {"gate_init": [0.8, 0.2]}
    (line,) = replace_numbers(options, 2, ["a", "b"], [])
    assert options == {"gate_init": [0.8, 0.2]}
    assert "gate_init [0.8, 0.2] now applies to the sources a, b" in line


def test_runs_checkpoints_and_folded_exports_are_sources_without_further_ado(tiny, command, caplog):
    tiny(**{f"{BACKBONE}.gate_init": [0.9, 0.1], f"{BACKBONE}.norm_weights": "gates"})
    short = ("--trainer.max_steps=2", "--trainer.val_check_interval=2")
    assert command(*FIT, "--run_dir", "mine", *short).status == 0
    folded = load_task("mine").fold()
    save_file(folded.state_dict(), "folded.safetensors")
    torch.save(state_of(1), "other.pth")
    sources = "mine,mine/checkpoints/last.ckpt,folded.safetensors,other.pth"
    done = command(
        *(*FIT, "--sources", sources, "--architecture", "test_resnet", "--run_dir", "joined"),
        *short,
    )
    assert done.status == 0, done.err
    _, _, said = caplog.text.rpartition("the experiment's numbers")
    assert said.startswith(" are for 2 sources, --sources gives 4: now gate_init: greedy")
    assert said.count("tensors matched") == 4
    backbone = backbone_of("joined")
    assert backbone["sources"] == sources.split(",")
    assert (len(backbone["gate_init"]), backbone["norm_weights"]) == (4, "gates")
    found = command("test", "--experiment", "tiny", "--sources", sources, "--ckpt_path", "joined")
    assert found.status == 0, found.err
    again = command("fit", "--config", "joined/config.yaml", "--run_dir", "again")
    assert again.status == 0, again.err
    results = [json.loads(Path(run, "summary.json").read_text()) for run in ("joined", "again")]
    assert results[0]["test"] == results[1]["test"]


def test_the_short_form_replaces_what_the_experiment_has(tiny, command):
    tiny()
    save_file(state_of(2), "a.safetensors")
    options = ["--sources=a.safetensors", "--architecture=test_resnet", "--run_dir=run"]
    done = command(*FIT, f"--{BACKBONE}.architecture=resnet18", *options)
    assert done.status == 0, done.err
    assert backbone_of("run")["architecture"] == "test_resnet"
    assert len(backbone_of("run")["sources"]) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sources=random:1,,random:2"], ["--sources 'random:1,,random:2'", "empty reference"]),
        (["--sources=bultin:x,random:1"], ["Unknown kind of weights 'bultin'"]),
        (["--sources=nowhere.ckpt"], ["nowhere.ckpt does not exist"]),
        (["--architecture=test_resnt"], ["'test_resnt'", "Did you mean 'test_resnet'?"]),
        (["--architecture=resnet18", "--sources=builtin:faces5"], ["test_resnet", "resnet18"]),
        (["--source=random:1"], ["unknown option '--source'", "'--sources'"]),
    ],
)
def test_a_mistake_in_the_short_form_is_one_clear_line(tiny, command, options, words):
    tiny()
    found = command(*FIT, *options)
    assert found.status == 2
    (line,) = [line for line in found.err.splitlines() if line.startswith("error: ")]
    assert all(word in line for word in words), line

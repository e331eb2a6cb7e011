"""``gates`` on the command line."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

UNSUITABLE = [
    (lambda ours, backbone: ours.update(task="PPOTask"), "not for PPOTask"),
    (
        lambda ours, backbone: backbone.update(class_path="PlainBackbone"),
        "is a PlainBackbone, which has no gates",
    ),
    (lambda ours, backbone: backbone["init_args"]["sources"].pop(), "one source, which cannot be"),
]
"""Changes of what a checkpoint says of its task and backbone, and what is then said of it."""


@pytest.fixture
def run(tiny, command):
    """Train the experiment ``tiny``, changed, for two steps into ``run``."""

    def train(**changes):
        tiny(**{"trainer.max_steps": 2, "trainer.val_check_interval": 2}, **changes)
        done = command("fit", "--experiment", "tiny", "--run_dir", "run")
        assert done.status == 0, done.err

    return train


def rows_of(path):
    with Path(path).open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_run_is_reported_from_its_own_configuration_and_others_are_refused(run, command):
    run(**{"model.init_args.backbone.init_args.mode": "full"})
    found = command("gates", "--ckpt_path", "run", "--calibration", 8, "--layer_samples", 4)
    assert found.status == 0, found.err
    assert "test_resnet, zoo: NME, interocular (%) on 6 samples of test" in found.out
    assert "rank correlation over layer and source" in found.out
    content = json.loads(Path("run/gates/gates.json").read_text())
    assert content["checkpoint"] == "run/checkpoints/best.ckpt"
    assert content["verdict"] in found.out
    assert content["trusted"] in (True, False)
    tested = json.loads(Path("run/summary.json").read_text())["test"]["test/nme"]
    assert content["metric_as_is"] == pytest.approx(tested, rel=1e-5)
    layers = rows_of("run/gates/gates.csv")
    assert len(layers) == len(content["layers"]) == 2 * len({row["layer"] for row in layers})
    assert [row["source"] for row in layers[:2]] == ["random-1", "random-2"]
    assert float(layers[0]["gate_share"]) + float(layers[1]["gate_share"]) == pytest.approx(1)
    assert [row["source"] for row in rows_of("run/gates/removal.csv")] == ["random-1", "random-2"]
    assert Path("run/gates/gates.png").read_bytes().startswith(b"\x89PNG")
    assert "Effect of removing each source" in Path("run/gates/report.html").read_text()
    assert "Effect of removing each source" in Path("run/report.html").read_text()
    assert "run/gates is not empty" in command("gates", "--ckpt_path", "run").refused()

    other = [*("gates", "--ckpt_path", "run/checkpoints/last.ckpt"), "--experiment", "tiny"]
    options = ["--split", "val", "--layer_samples", 0, "--output", "run/gates", "--overwrite",
               "--calibration", 8]  # fmt: skip
    found = command(*other, *options, "--data.val_size=5")
    assert found.status == 0, found.err
    assert "on 5 samples of val" in found.out
    assert "effects by layer were not measured" in found.out
    assert rows_of("run/gates/gates.csv")[0]["effect"] == ""

    shutil.copy("run/checkpoints/best.ckpt", "alone.ckpt")
    alone = command("gates", "--ckpt_path", "alone.ckpt")
    assert "--output must be given" in alone.refused()
    alone = command("gates", "--ckpt_path", "alone.ckpt", "--output", "out")
    assert "give --experiment NAME" in alone.refused()
    assert "there is no file nowhere" in command("gates", "--ckpt_path", "nowhere").refused()
    for change, words in UNSUITABLE:
        content = torch.load("alone.ckpt", weights_only=True)
        change(content["zoo_lightning"], content["hyper_parameters"]["backbone"])
        torch.save(content, "other.ckpt")
        command("gates", "--ckpt_path", "other.ckpt", "--output", "out").refused(words)
    assert not Path("out").exists()


def test_the_help_says_what_is_measured_and_what_is_needed(command):
    found = command("gates", "--help")
    assert found.status == 0
    assert "norm statistics re-estimated" in found.out
    assert command("gates").status == 2

"""Every weight file is read once by a command, however many parts of the program need it."""

from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

RUN = "done/checkpoints/best.ckpt"
NEW = (
    "fit", "--experiment", "tiny", "--run_dir", "new", "--trainer.max_steps", "1",
    "--trainer.val_check_interval", "1",
)  # fmt: skip
SOURCES = ("--sources", "done,random:1")

COMMANDS = {
    "test": ("test", "--ckpt_path", "done"),
    "test of an experiment": ("test", "--experiment", "tiny", "--ckpt_path", "done"),
    "validate": ("validate", "--ckpt_path", "done"),
    "predict the test images": ("predict", "--ckpt_path", "done"),
    "predict": ("predict", "--ckpt", "done", "--images", "new images", "--output", "out"),
    "export": ("export", "--ckpt", "done", "--format", "timm", "--output", "out"),
    "gates": ("gates", "--ckpt_path", "done", "--calibration", "8", "--layer_samples", "0"),
    "fit from sources": (*NEW, *SOURCES),
    "fit from a start": (*NEW, "--init_from", "done"),
    "fit goes on": ("fit", "--experiment", "tiny", "--ckpt_path", "done/checkpoints/last.ckpt"),
    "fit of a method": (*NEW, *SOURCES, "--method", "ensemble"),
    "inspect a run": ("sources", "inspect", "done"),
    "inspect a file": ("sources", "inspect", RUN),
    "check": ("sources", "check", "--experiment", "tiny", *SOURCES),
    "rank": ("sources", "rank", "--experiment", "tiny", *SOURCES),
    "match": ("sources", "match", "--architecture", "test_resnet", *SOURCES, "--output", "out"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_reads_each_checkpoint_once(name, finished, command, reads):
    Path("new images").mkdir()
    Image.new("RGB", (40, 40)).save("new images/a.png")
    done = command(*COMMANDS[name])
    assert done.status == 0, done.err
    assert set(reads.values()) == {1}, reads


def test_what_was_read_of_a_checkpoint_is_what_the_trainer_gets(finished, command):
    whole = command("test", "--ckpt_path", "done").out
    content = torch.load(RUN, weights_only=True)
    head = next(key for key in content["state_dict"] if key.startswith("head."))
    content["state_dict"][head] += 1
    torch.save(content, "other.ckpt")
    other = command("test", "--experiment", "tiny", "--ckpt_path", "other.ckpt").out
    figures = [
        next(line for line in each.splitlines() if "test/nme" in line) for each in (whole, other)
    ]
    assert figures[0] != figures[1]


def test_safetensors_are_read_once_too(tmp_path, command, reads, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = timm.create_model("test_resnet", num_classes=0)
    save_file(network.state_dict(), "a.safetensors")
    assert command("sources", "inspect", "a.safetensors").status == 0
    assert dict(reads) == {Path("a.safetensors").resolve(): 1}

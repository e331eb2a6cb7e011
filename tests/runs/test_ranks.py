"""Several processes train as one does on the joint batch, however they are started."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

FIT = ("-m", "zoo_lightning", "fit", "--experiment", "tiny", "--run_test", "false", "--run_dir")
DDP = ("--trainer.strategy", "ddp", "--data.batch_size", "2")

NETWORK = """
from torch import nn


class Plain(nn.Module):
    \"\"\"No batch norm, which only GPUs synchronise: a sample does not see the others.\"\"\"

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2)
        self.second = nn.Conv2d(8, 12, 3, stride=2)
        self.input_size = (3, 32, 32)

    def forward(self, x):
        return self.second(self.first(x).relu()).relu().mean(dim=(2, 3))
"""

JOINT = {
    "trainer.max_steps": 5,
    "trainer.val_check_interval": 5,
    "data.init_args.num_points": 5,
    "data.init_args.batch_size": 4,
    "data.init_args.augment": True,
    # Gradients show in the weights as large as they are.
    "model.init_args.optimizer": "sgd",
    "model.init_args.lr": 0.01,
    "model.init_args.weight_decay": 0.0,
}


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights at a run's end."""
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 5
    return content["state_dict"]


def assert_alike(shared: Path, single: Path) -> None:
    """Equal up to rounding, which five steps carry on."""
    left, right = weights(shared), weights(single)
    assert left.keys() == right.keys()
    for key, value in right.items():
        torch.testing.assert_close(left[key], value, rtol=1e-4, atol=1e-5, msg=key)


@pytest.fixture
def environment(program, tmp_path):
    """Of processes that find the network."""
    paths = f"{program.environment['PYTHONPATH']}:{tmp_path}"
    return {**program.environment, "PYTHONPATH": paths}


@pytest.fixture(params=["lite", "full"])
def single(request, tiny, environment, tmp_path):
    """A run of one process on the joint batch, in ``single``."""
    (tmp_path / "plain_network.py").write_text(NETWORK)
    options = "model.init_args.backbone.init_args"
    tiny(**JOINT, **{f"{options}.mode": request.param,
                     f"{options}.architecture": "plain_network.Plain"})  # fmt: skip
    words = [sys.executable, *FIT, "single"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tmp_path / "single"


def test_two_devices_train_as_one_process_on_the_joint_batch(single, environment, tmp_path):
    environment["MASTER_PORT"] = str(free_port())
    words = [sys.executable, *FIT, "shared", *DDP, "--trainer.devices", "2"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert_alike(tmp_path / "shared", single)


def test_two_devices_log_the_loss_of_all_validation_images(tiny, environment, class_root):
    # Five images: three for the first process, two for the second.
    data = {"root": str(class_root), "image_size": 16, "num_workers": 0, "batch_size": 2}
    tiny(**{"model.class_path": "ClassificationTask", "trainer.max_steps": 1,
            "trainer.val_check_interval": 1,
            "data": {"class_path": "ImageFolders", "init_args": data}})  # fmt: skip
    for label, name in enumerate(("ant", "bee", "cat")):
        folder = class_root / "val" / name
        folder.mkdir(parents=True)
        for file in sorted((class_root / "test" / name).iterdir())[: 2 if label else 1]:
            (folder / file.name).write_bytes(file.read_bytes())
    words = [sys.executable, *FIT, "shared", "--trainer.strategy", "ddp", "--trainer.devices", "2"]
    environment["MASTER_PORT"] = str(free_port())
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    words = [sys.executable, "-m", "zoo_lightning", "validate", "--experiment", "tiny",
             "--ckpt_path", "shared", "--run_dir", "alone"]  # fmt: skip
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert val_loss("shared") == pytest.approx(val_loss("alone"), rel=1e-4)


def val_loss(run: str) -> float:
    """The validation loss that a run logged."""
    with Path(run, "metrics.csv").open(newline="") as stream:
        [value] = [float(row["val/loss"]) for row in csv.DictReader(stream) if row["val/loss"]]
    return value


@pytest.mark.parametrize("single", ["lite"], indirect=True)
def test_two_agents_of_torchrun_train_as_one_process_on_the_joint_batch(
    single, environment, tmp_path
):
    place = f"127.0.0.1:{free_port()}"
    agents = []
    for number in range(2):
        words = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2",
                 "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "zoo",
                 "--rdzv-endpoint", place, "--local-addr", "127.0.0.1", *FIT, "shared", *DDP,
                 "--trainer.devices", "1", "--trainer.num_nodes", "2"]  # fmt: skip
        with (tmp_path / f"agent{number}.txt").open("w") as log:
            options = {"stdout": log, "stderr": subprocess.STDOUT, "start_new_session": True}
            agents.append(subprocess.Popen(words, env=environment, **options))
    deadline = time.monotonic() + 500
    try:
        while any(agent.poll() is None for agent in agents):
            assert time.monotonic() < deadline
            time.sleep(0.5)
    finally:
        for agent in agents:
            if agent.poll() is None:
                os.killpg(agent.pid, signal.SIGKILL)
    said = [(tmp_path / f"agent{number}.txt").read_text() for number in range(2)]
    assert [agent.returncode for agent in agents] == [0, 0], "\n".join(said)
    assert_alike(tmp_path / "shared", single)

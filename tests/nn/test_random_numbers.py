"""Numbers of one's own leave those of a training alone, on the CPU and on GPUs."""

import re
from pathlib import Path

import pytest
import torch

import zoo_lightning
from zoo_lightning import ZooBackbone
from zoo_lightning.nn.random_numbers import private_random_numbers

PACKAGE = Path(zoo_lightning.__file__).parent


def test_the_same_seed_gives_the_same_numbers_and_leaves_the_generator_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    found = []
    for _ in range(2):
        with private_random_numbers(1):
            found.append(torch.rand(4))
    assert torch.equal(found[0], found[1])
    assert torch.equal(torch.rand(3), expected)


def test_without_a_seed_the_numbers_go_on_and_are_put_back():
    torch.manual_seed(5)
    with private_random_numbers():
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), first)


def test_no_gpu_is_seeded_by_random_sources(monkeypatch):
    def refuse(seed):
        pytest.fail("a GPU was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    monkeypatch.setattr(torch.cuda, "manual_seed", refuse)
    ZooBackbone("test_resnet", ["random:1", "random:2"])


@pytest.mark.gpu
def test_a_gpu_in_use_goes_on_with_its_numbers():
    torch.cuda.manual_seed(3)
    expected = torch.rand(2, device="cuda")
    torch.cuda.manual_seed(3)
    with private_random_numbers(1):
        torch.rand(5, device="cuda")
    assert torch.equal(torch.rand(2, device="cuda"), expected)


@pytest.mark.parametrize("forbidden", [r"\btorch\.manual_seed\(", r"\bfork_rng\("])
def test_nothing_else_in_the_package_seeds_or_forks_global_generators(forbidden):
    found = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(forbidden, re.sub(r"``.*?``", "", path.read_text("utf-8"), flags=re.DOTALL))
    ]
    assert found == ([] if "manual_seed" in forbidden else ["nn/random_numbers.py"])

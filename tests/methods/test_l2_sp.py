"""L2-SP: the gradient it adds, and that a run that goes on remembers its start."""

from types import SimpleNamespace

import pytest
import torch

from zoo_lightning import ClassificationTask, PlainBackbone
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods import L2SP


@pytest.fixture
def task():
    return ClassificationTask(PlainBackbone("test_resnet"), num_classes=3)


def test_the_gradient_is_that_of_the_penalty(task):
    penalty = L2SP(alpha=0.3, beta=0.02)
    penalty.on_train_start(SimpleNamespace(), task)
    start = {name: value.detach().clone() for name, value in task.named_parameters()}
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(torch.randn_like(parameter))
    named = dict(task.named_parameters())
    loss = sum(
        0.5 * 0.02 * p.square().sum()
        if name.startswith("head.")
        else 0.5 * 0.3 * (p - start[name]).square().sum()
        for name, p in named.items()
    )
    wanted = torch.autograd.grad(loss, list(named.values()))
    for parameter in named.values():
        parameter.grad = torch.zeros_like(parameter)
    penalty.on_before_optimizer_step(SimpleNamespace(), task, None)
    for (name, parameter), gradient in zip(named.items(), wanted, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-6), name


def test_what_has_no_gradient_is_left_alone(task):
    penalty = L2SP()
    penalty.on_train_start(SimpleNamespace(), task)
    penalty.on_before_optimizer_step(SimpleNamespace(), task, None)
    assert all(parameter.grad is None for parameter in task.parameters())


def test_a_run_that_goes_on_keeps_its_start(task):
    penalty, other = L2SP(), L2SP()
    penalty.on_train_start(SimpleNamespace(), task)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(1)
    other.load_state_dict(penalty.state_dict())
    other.on_train_start(SimpleNamespace(), task)
    assert all(torch.equal(other.start[name], value) for name, value in penalty.start.items())
    assert not any(name.startswith("head.") for name in other.start)


def test_numbers_below_zero_are_refused():
    with pytest.raises(ConfigError, match=r"at least 0, got -0\.1 and 0\.01"):
        L2SP(alpha=-0.1)

"""L2-SP: the pull it adds, and that a run that goes on remembers its start."""

from types import SimpleNamespace

import pytest
import torch

from zoo_lightning import ClassificationTask, PlainBackbone
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods import L2SP


@pytest.fixture
def task():
    return ClassificationTask(PlainBackbone("test_resnet"), num_classes=3)


def test_a_step_is_one_of_gradient_descent_on_the_penalty(task):
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
    gradients = torch.autograd.grad(loss, list(named.values()))
    rates = {name: 2.0 if name.startswith("head.") else 0.5 for name in named}
    wanted = {
        name: p.detach() - rates[name] * gradient
        for (name, p), gradient in zip(named.items(), gradients, strict=True)
    }
    for parameter in named.values():
        parameter.grad = torch.ones_like(parameter)
    groups = [{"params": [p], "lr": rates[name]} for name, p in named.items()]
    penalty.on_before_optimizer_step(SimpleNamespace(), task, torch.optim.SGD(groups, lr=1.0))
    for name, parameter in named.items():
        assert torch.allclose(parameter, wanted[name], atol=1e-6), name
        assert torch.equal(parameter.grad, torch.ones_like(parameter))


def test_small_gradients_of_the_loss_are_not_drowned_by_adam(task):
    penalty = L2SP(alpha=0.1)
    penalty.on_train_start(SimpleNamespace(), task)
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3, weight_decay=0.0)
    kernel = max(task.backbone.parameters(), key=torch.Tensor.numel)
    with torch.no_grad():
        kernel.add_(1.0)
    moved = kernel.detach().clone()
    for parameter in task.parameters():
        parameter.grad = torch.full_like(parameter, -1e-6)
    penalty.on_before_optimizer_step(SimpleNamespace(), task, optimizer)
    optimizer.step()
    # The loss wants the weights to grow, and its small gradient still has its say.
    assert (kernel > moved).all()


def test_what_has_no_gradient_is_left_alone(task):
    penalty = L2SP()
    penalty.on_train_start(SimpleNamespace(), task)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(1)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1)
    before = [p.detach().clone() for p in task.parameters()]
    penalty.on_before_optimizer_step(SimpleNamespace(), task, optimizer)
    assert all(torch.equal(p, q) for p, q in zip(before, task.parameters(), strict=True))


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

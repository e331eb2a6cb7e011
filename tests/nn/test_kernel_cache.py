"""Kernels are computed once for evaluation and again exactly when something changed."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from zoo_lightning.nn import ZooConv2d, ZooLinear, aggregated
from zoo_lightning.nn.fast.kernel_cache import KernelCache


@pytest.fixture(params=["full", "lite"])
def layer(request):
    conv = nn.Conv2d(3, 4, 3, padding=1)
    weight, bias = torch.randn(2, 4, 3, 3, 3), torch.randn(2, 4)
    return ZooConv2d(conv, weight, bias, mode=request.param).eval()


@pytest.fixture
def counted(layer, monkeypatch):
    """How often kernels were aligned or mixed."""
    calls = []

    class Counting(aggregated.SourceKernels):
        def aligned(self):
            if self.alignment is not None:  # otherwise there is nothing to be done
                calls.append("aligned")
            return super().aligned()

    real = layer._mix
    monkeypatch.setattr(layer, "_mix", lambda gates: (calls.append("mixed"), real(gates))[1])
    monkeypatch.setattr(aggregated, "SourceKernels", Counting)
    return calls


X = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))


def fresh(layer):
    """What the layer computes without any cache."""
    with torch.enable_grad():
        return layer(X).detach()


def step_of_an_optimizer(layer):
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    with torch.enable_grad():
        layer(X).square().sum().backward()
    optimizer.step()


def loading_a_state(layer):
    layer.load_state_dict({k: torch.rand_like(v.float()) for k, v in layer.state_dict().items()})


def change_in_place(layer):
    with torch.no_grad():
        layer.alignment[0, 0, 0, 1] += 1


def change_of_the_average(layer):
    layer.update_gate_ema(torch.tensor([0.1, 0.9]), 0.1)
    with torch.no_grad():
        layer.bias.mul_(2)


def a_new_parameter(layer):
    layer.weight = nn.Parameter(torch.randn_like(layer.weight))


def new_data(layer):
    layer.weight.data = torch.randn_like(layer.weight)


def the_same_memory_under_another_parameter(layer):
    layer.weight = nn.Parameter(layer.weight.data)
    with torch.no_grad():
        for _ in range(3):
            layer.weight.mul_(2)


def data_changed_between_training_and_evaluation(layer):
    layer.train()
    layer.weight.data.mul_(3)
    layer.eval()


@torch.no_grad()
def test_kernels_are_kept_while_nothing_changes(layer, counted):
    for _ in range(3):
        layer(X)
    assert len(counted) == 1


@pytest.mark.parametrize(
    "change",
    [
        step_of_an_optimizer, loading_a_state, change_in_place, change_of_the_average,
        a_new_parameter, new_data, the_same_memory_under_another_parameter,
        data_changed_between_training_and_evaluation,
    ],
)  # fmt: skip
def test_kernels_are_made_again_after(layer, change):
    with torch.no_grad():
        before = layer(X)
        torch.testing.assert_close(before, fresh(layer))
        change(layer)
        after = layer(X)
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, fresh(layer), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_parameters_that_are_put_in_place_for_one_call_count_for_that_call(layer):
    other = copy.deepcopy(layer)
    other.weight.data.add_(1)
    before = layer(X)
    found = torch.func.functional_call(layer, dict(other.named_parameters()), X)
    assert not torch.equal(found, before)
    torch.testing.assert_close(found, fresh(other))
    torch.testing.assert_close(layer(X), before)


@torch.no_grad()
def test_kernels_follow_a_change_of_type(layer):
    layer(X)
    found = layer.double()(X.double())
    assert found.dtype == torch.double
    torch.testing.assert_close(found.float(), fresh(copy.deepcopy(layer).float()))


def test_gradients_flow_in_evaluation_mode_too(layer):
    with torch.no_grad():
        layer(X)
    layer(X).sum().backward()
    assert layer.weight.grad is not None
    assert layer.alignment.grad is not None


@torch.no_grad()
def test_kept_kernels_are_in_no_state_copy_or_file(layer):
    keys = set(layer.state_dict())
    expected = layer(X)
    assert set(layer.state_dict()) == keys
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other._aligned._result is None
        assert other._mixed._result is None
        torch.testing.assert_close(other(X), expected)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    torch.testing.assert_close(torch.load(file, weights_only=False)(X), expected)


def test_inference_mode_keeps_kernels_that_serve_afterwards(layer):
    with torch.inference_mode():
        expected = layer(X)
    with torch.no_grad():
        torch.testing.assert_close(layer(X), expected)
    layer(X.clone().requires_grad_()).sum().backward()


@torch.no_grad()
def test_linear_layers_keep_their_aligned_matrices():
    layer = ZooLinear(nn.Linear(3, 4), torch.randn(2, 4, 3), torch.randn(2, 4)).eval()
    expected = layer(torch.ones(2, 3))
    assert layer._aligned._result is not None
    torch.testing.assert_close(layer(torch.ones(2, 3)), expected)


def test_a_cache_does_not_remember_tensors_without_a_version():
    cache, made = KernelCache(), []
    with torch.inference_mode():
        source = torch.ones(1)
        for _ in range(2):
            cache.get((source,), lambda: made.append(1))
    assert len(made) == 2

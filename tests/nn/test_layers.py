"""The invariants of aggregated layers, over shapes, groups, strides, dilations and sources."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import Conv2dSame
from torch import nn

from zoo_lightning.nn import ConvGeometry, SourceKernels, ZooConv2d, ZooLinear, reference
from zoo_lightning.nn.alignment import align, align_and_mix, identity_alignment
from zoo_lightning.nn.fast import per_sample
from zoo_lightning.nn.fast.per_sample import mix
from zoo_lightning.nn.fast.ways import WAYS
from zoo_lightning.nn.folding import fold_state
from zoo_lightning.nn.gate import ConstantGate, Gate, SoftmaxGate, batch_average


@st.composite
def conv_cases(draw):
    """A convolution, its sources and an input, in float64."""
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    depthwise = draw(st.booleans()) and groups > 1
    per_group = 1 if depthwise else draw(st.integers(1, 3))
    options = {
        "stride": draw(st.sampled_from([1, 2, (2, 1)])),
        "dilation": draw(st.sampled_from([1, 2])),
        "padding": draw(st.sampled_from([0, 1, (2, 1)])),
        "bias": draw(st.booleans()),
    }
    kernel = draw(st.sampled_from([1, 2, 3, (3, 1)]))
    outputs = groups * draw(st.integers(1, 3))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    conv = nn.Conv2d(groups * per_group, outputs, kernel, groups=groups, **options).double()
    m, batch = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    weight = torch.randn(m, *conv.weight.shape, dtype=torch.double)
    bias = torch.randn(m, outputs, dtype=torch.double) if conv.bias is not None else None
    x = torch.randn(batch, groups * per_group, 7, draw(st.integers(6, 8)), dtype=torch.double)
    return conv, weight, bias, x


@settings(max_examples=30, deadline=None)
@given(case=conv_cases())
def test_the_reference_is_the_equation_element_by_element(case):
    conv, weight, bias, x = case
    geometry = ConvGeometry(conv.stride, conv.padding, conv.dilation, conv.groups)
    m, out_channels = weight.shape[:2]
    block = out_channels // conv.groups
    gates = torch.rand(len(x), m, dtype=torch.double)
    maps = torch.randn(m, conv.groups, block, block, dtype=torch.double)
    found = reference(x, SourceKernels(weight, bias, maps), gates, geometry)
    kernel = torch.zeros(len(x), *weight.shape[1:], dtype=torch.double)
    offset = torch.zeros(len(x), out_channels, dtype=torch.double)
    for b, i, p, o in itertools.product(*map(range, (len(x), m, out_channels, block))):
        group = p // block
        factor = gates[b, i] * maps[i, group, p % block, o]
        kernel[b, p] += factor * weight[i, group * block + o]
        if bias is not None:
            offset[b, p] += factor * bias[i, group * block + o]
    expected = [F.conv2d(x[b : b + 1], kernel[b], offset[b], *geometry) for b in range(len(x))]
    torch.testing.assert_close(found, torch.cat(expected))
    shared = reference(x, SourceKernels(weight, bias, maps), gates[0], geometry)
    torch.testing.assert_close(shared[:1], found[:1])


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=60, deadline=None)
@given(case=conv_cases(), aligned=st.booleans(), last=st.booleans())
def test_every_way_equals_the_reference_in_value_and_gradient(way, case, aligned, last):
    conv, weight, bias, x = case
    geometry = ConvGeometry(conv.stride, conv.padding, conv.dilation, conv.groups)
    gates = torch.rand(len(x), len(weight), dtype=torch.double)
    maps = identity_alignment(len(weight), weight.shape[1], conv.groups).double()
    maps = maps + torch.randn_like(maps) if aligned else None
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    inputs = {"x": x, "gates": gates, "weight": weight, "bias": bias, "alignment": maps}
    results = []
    for function in (reference, WAYS[way]):
        leaves = {k: v.clone().requires_grad_() for k, v in inputs.items() if v is not None}
        kernels = SourceKernels(*(leaves.get(k) for k in ("weight", "bias", "alignment")))
        y = function(leaves["x"], kernels, leaves["gates"], geometry)
        weights = torch.linspace(-1, 1, y.numel(), dtype=torch.double).view(y.shape)
        results.append((y, torch.autograd.grad((y * weights).sum(), list(leaves.values()))))
    torch.testing.assert_close(results[1][0], results[0][0])
    for expected, found in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(found, expected)


@settings(max_examples=40, deadline=None)
@given(case=conv_cases(), aligned=st.booleans())
def test_full_with_constant_gates_equals_lite_equals_folded(case, aligned):
    conv, weight, bias, x = case
    full = ZooConv2d(conv, weight, bias, mode="full", aligned=aligned).double()
    if aligned:
        nn.init.normal_(full.alignment)
    lite = copy.deepcopy(full)
    lite.mode = "lite"
    constant = torch.rand(len(weight), dtype=torch.double)
    nn.init.zeros_(full.gate.expand.weight)
    with torch.no_grad():
        full.gate.expand.bias.copy_(torch.logit(constant))
    lite.eval()
    lite.gate_ema.copy_(full.gate(full.pool(x))[0])  # gates are float32: take them as they are
    kernel, offset = lite.kernel(lite.gate_ema)
    geometry = ConvGeometry(conv.stride, conv.padding, conv.dilation, conv.groups)
    folded = F.conv2d(x, kernel, offset, *geometry)
    torch.testing.assert_close(full.eval()(x), folded, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(lite(x), folded)


@settings(max_examples=30, deadline=None)
@given(case=conv_cases())
def test_one_source_with_gate_one_is_the_ordinary_layer(case):
    conv, _, _, x = case
    own_bias = None if conv.bias is None else conv.bias[None]
    layer = ZooConv2d(conv, conv.weight[None], own_bias, aligned=True).double()
    nn.init.zeros_(layer.gate.expand.weight)
    nn.init.constant_(layer.gate.expand.bias, 100.0)
    torch.testing.assert_close(layer(x), conv(x))


@settings(max_examples=30, deadline=None)
@given(case=conv_cases(), m=st.integers(2, 5))
def test_identical_sources_with_gates_summing_to_one_reproduce_the_source(case, m):
    conv, _, _, x = case
    weight = conv.weight.expand(m, *conv.weight.shape)
    bias = None if conv.bias is None else conv.bias.expand(m, -1)
    layer = ZooConv2d(conv, weight, bias, gate_start=[1 / m] * m).double()
    torch.testing.assert_close(layer(x), conv(x), rtol=1e-6, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(case=conv_cases())
def test_full_evaluation_of_a_sample_ignores_the_rest_of_its_batch(case):
    conv, weight, bias, x = case
    layer = ZooConv2d(conv, weight, bias).double().eval()
    torch.testing.assert_close(layer(x)[:1], layer(x[:1]))


def test_lite_evaluation_does_not_depend_on_the_batch():
    conv = nn.Conv2d(4, 6, 3)
    layer = ZooConv2d(conv, torch.randn(3, 6, 4, 3, 3), torch.randn(3, 6), mode="lite").eval()
    x = torch.randn(5, 4, 8, 8)
    torch.testing.assert_close(layer(x)[2:3], layer(x[2:3] * 1.0))
    assert torch.equal(layer.gates(x), layer.gates(x * 100))


def test_lite_training_uses_the_batch_average():
    conv = nn.Conv2d(4, 6, 3)
    layer = ZooConv2d(conv, torch.randn(2, 6, 4, 3, 3), None, mode="lite")
    x = torch.randn(5, 4, 8, 8)
    expected = F.conv2d(x, layer.kernel(layer.gate(layer.pool(x)).mean(0))[0])
    torch.testing.assert_close(layer(x), expected)


@settings(max_examples=25, deadline=None)
@given(
    m=st.integers(1, 4), groups=st.sampled_from([1, 2, 3]), block=st.integers(1, 3),
    inputs=st.integers(1, 3),
)  # fmt: skip
def test_alignment_is_the_block_diagonal_map_of_output_channels(m, groups, block, inputs):
    weight = torch.randn(m, groups * block, inputs, 3, 3, dtype=torch.double)
    maps = torch.randn(m, groups, block, block, dtype=torch.double)
    dense = torch.stack([torch.block_diag(*blocks) for blocks in maps])
    expected = torch.einsum("mpo,moikl->mpikl", dense, weight)
    torch.testing.assert_close(align(weight, maps), expected)
    gates = torch.rand(m, dtype=torch.double)
    torch.testing.assert_close(align_and_mix(weight, maps, gates), mix(expected, gates))
    identity = identity_alignment(m, groups * block, groups).double()
    assert torch.equal(align(weight, identity), weight)


def test_a_state_folds_with_the_gates_that_are_given():
    layer = ZooConv2d(nn.Conv2d(2, 4, 1), torch.randn(3, 4, 2, 1, 1), torch.randn(3, 4))
    nn.init.normal_(layer.alignment)
    state = {f"conv.{key}": value for key, value in layer.state_dict().items()}
    folded = fold_state({**state, "head": torch.ones(2)}, {"conv": torch.tensor([0.5, 0.0, 2.0])})
    assert set(folded) == {"conv.weight", "conv.bias", "head"}
    maps = layer.alignment.detach()[:, 0]
    for name, values in (("weight", layer.weight), ("bias", layer.bias)):
        first, _, third = maps @ values.detach().reshape(3, 4, -1)
        found = folded[f"conv.{name}"].reshape(4, -1)
        torch.testing.assert_close(found, first / 2 + 2 * third)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "make",
    [
        lambda s: Conv2dSame(3, 4, 3, stride=s),
        lambda s: Conv2dSame(3, 4, 2, stride=s, bias=False),
        lambda s: nn.Conv2d(3, 4, 3, stride=s, padding="valid"),
        lambda s: nn.Conv2d(3, 4, (3, 2), padding="same", dilation=2),
        lambda s: nn.Conv2d(3, 4, 3, stride=s, padding=1, padding_mode="reflect"),
        lambda s: nn.Conv2d(3, 4, 3, stride=s, padding=(1, 2), padding_mode="circular"),
    ],
)
@pytest.mark.parametrize("mode", ["full", "lite"])
def test_every_kind_of_padding_is_taken_over(make, stride, mode):
    conv = make(stride)
    bias = None if conv.bias is None else conv.bias.detach()[None]
    layer = ZooConv2d(conv, conv.weight.detach()[None], bias, mode=mode)
    nn.init.constant_(layer.gate.expand.bias, 100.0)
    nn.init.zeros_(layer.gate.expand.weight)
    x = torch.randn(2, 3, 9, 10)
    torch.testing.assert_close(layer(x), conv(x))


@pytest.mark.parametrize("mode", ["full", "lite"])
@pytest.mark.parametrize("shape", [(3, 5), (3, 2, 5), (3, 2, 4, 5)])
def test_linear_layer_equals_the_loop_over_samples(mode, shape):
    weight, bias = torch.randn(2, 6, 5).double(), torch.randn(2, 6).double()
    layer = ZooLinear(nn.Linear(5, 6), weight, bias, mode=mode).double()
    nn.init.normal_(layer.alignment)
    x = torch.randn(shape, dtype=torch.double)
    gates = layer.gate(layer.pool(x))
    gates = gates.mean(0).expand_as(gates) if mode == "lite" else gates
    rows = [F.linear(row, *layer.kernel(gate)) for row, gate in zip(x, gates, strict=True)]
    torch.testing.assert_close(layer(x), torch.stack(rows), rtol=1e-6, atol=1e-6)


class _DoubleGate(Gate):
    """Gate without its cast to float32, so that finite differences can be taken."""

    def forward(self, x):
        return torch.sigmoid(self.expand(torch.relu(self.reduce(x))))


@pytest.mark.parametrize("mode", ["full", "lite"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_gradients_agree_with_finite_differences(mode, kernel):
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 4, kernel, padding=kernel // 2, groups=2)
    layer = ZooConv2d(conv, torch.randn(3, *conv.weight.shape), torch.randn(3, 4), mode=mode)
    layer.gate = _DoubleGate(2, 3)
    layer.double()
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    x = torch.randn(2, 2, 4, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *[p.detach().requires_grad_() for p in
                                               layer.parameters()]))  # fmt: skip


def test_a_gate_is_the_sigmoid_of_two_linear_maps_with_a_rectifier_between():
    gate = Gate(4, 2)
    assert gate.reduce.weight.shape == (2, 4)  # a quarter of the channels, and one more
    with torch.no_grad():
        gate.reduce.weight.copy_(torch.tensor([[1.0, 1, 0, 0], [0, 0, -1, -1]]))
        gate.expand.weight.copy_(torch.tensor([[1.0, 5.0], [-1.0, 0.0]]))
        gate.expand.bias.copy_(torch.tensor([0.5, 0.0]))
    found = gate(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    # Hidden units are 3 and, instead of -7, 0.
    assert found.tolist()[0] == pytest.approx([1 / (1 + math.exp(-3.5)), 1 / (1 + math.exp(3))])


def test_released_gates_start_by_the_fan_of_their_outputs():
    gate = Gate(256, 6)
    assert gate.reduce.weight.std().item() == pytest.approx(math.sqrt(2 / 65), rel=0.05)
    assert gate.expand.weight.std().item() == pytest.approx(math.sqrt(2 / 6), rel=0.15)
    assert (gate.expand.bias == 0).all()


def test_released_gates_scatter_around_one_half_and_given_starts_are_exact():
    torch.manual_seed(0)
    x = torch.randn(64, 32).abs()
    released = Gate(32, 4)(x)
    assert released.std() > 0.01
    assert 0.3 < released.mean() < 0.7
    start = torch.tensor([0.9, 0.05, 0.05])
    torch.testing.assert_close(Gate(32, 3, start.tolist())(x), start.expand(64, 3))


def test_gates_with_an_exact_start_still_learn_from_the_input():
    gate = Gate(8, 2, [0.5, 0.5])
    gate(torch.randn(4, 8))[:, 0].sum().backward()
    assert gate.expand.weight.grad.abs().sum() > 0


def test_softmax_gates_sum_to_one_and_start_from_shares():
    x = torch.randn(64, 32).abs()
    gates = SoftmaxGate(32, 4)(x)
    torch.testing.assert_close(gates.sum(dim=1), torch.ones(64))
    assert gates.std() > 0.01
    started = SoftmaxGate(32, 3, [0.9, 0.3, 0.3])
    torch.testing.assert_close(started(x), torch.tensor([0.6, 0.2, 0.2]).expand(64, 3))
    torch.testing.assert_close(started.initial(), torch.tensor([0.6, 0.2, 0.2]))


def test_constant_gates_learn_and_do_not_look_at_the_input():
    gate = ConstantGate(32, 3, [0.9, 0.05, 0.05])
    gates = gate(torch.randn(64, 32))
    torch.testing.assert_close(gates, torch.tensor([0.9, 0.05, 0.05]).expand(64, 3))
    gates[:, 1].sum().backward()
    assert gate.scores.grad.tolist()[1] > 0
    torch.testing.assert_close(ConstantGate(32, 4).initial(), torch.full((4,), 0.5))


@pytest.mark.parametrize("mode", ["full", "lite"])
@pytest.mark.parametrize("gating", ["softmax", "constant"])
def test_layers_compute_with_the_gates_of_every_kind(mode, gating):
    conv = nn.Conv2d(4, 6, 3)
    layer = ZooConv2d(conv, torch.randn(3, *conv.weight.shape), None, mode=mode, gating=gating)
    x = torch.randn(5, 4, 8, 8)
    gates = layer.gate(layer.pool(x))
    gates = gates.mean(0).expand_as(gates) if mode == "lite" else gates
    rows = [F.conv2d(row[None], layer.kernel(gate)[0]) for row, gate in zip(x, gates, strict=True)]
    torch.testing.assert_close(layer(x), torch.cat(rows), rtol=1e-4, atol=1e-4)


def test_gate_ema_starts_from_the_first_average_and_then_follows():
    layer = ZooConv2d(nn.Conv2d(2, 2, 1), torch.randn(2, 2, 2, 1, 1), None)
    torch.testing.assert_close(layer.gate_ema, torch.tensor([0.5, 0.5]))
    layer.update_gate_ema(torch.tensor([0.2, 0.8]), momentum=0.1)
    torch.testing.assert_close(layer.gate_ema, torch.tensor([0.2, 0.8]))
    layer.update_gate_ema(torch.tensor([1.0, 0.0]), momentum=0.1)
    torch.testing.assert_close(layer.gate_ema, torch.tensor([0.28, 0.72]))
    assert layer.gate_updates == 2
    assert not layer.gate_ema.requires_grad


def test_gates_are_counted_only_where_gradients_flow():
    layer = ZooConv2d(nn.Conv2d(2, 2, 1), torch.randn(2, 2, 2, 1, 1), None)
    x = torch.randn(3, 2, 4, 4)
    with torch.no_grad():
        layer(x)
    layer.eval()(x)
    assert layer.gate_count == 0
    layer.train()(x)
    layer(x)
    assert layer.gate_count == 6
    torch.testing.assert_close(
        layer.gate_sum / 6, batch_average(layer.gate(layer.pool(x))).detach()
    )
    copy.deepcopy(layer)  # a sum that still hung on its graph could not be copied


@pytest.mark.parametrize("mode", ["full", "lite"])
def test_autocast_stays_close_to_float32(mode):
    torch.manual_seed(0)
    layer = ZooConv2d(nn.Conv2d(8, 8, 3), torch.randn(3, 8, 8, 3, 3), torch.randn(3, 8), mode=mode)
    x = torch.randn(2, 8, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), rtol=0.05, atol=0.3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_average_that_gates_see_stays_a_number_on_large_maps(dtype):
    layer = ZooConv2d(nn.Conv2d(4, 4, 1), torch.randn(2, 4, 4, 1, 1), None)
    x = (torch.rand(2, 4, 112, 120) + 10).to(dtype)  # a sum of 134,400 at least
    pooled = layer.pool(x)
    assert pooled.dtype == dtype
    torch.testing.assert_close(pooled, x.double().mean((2, 3)).to(dtype))


def test_the_average_that_gates_of_linear_layers_see_is_that_of_all_tokens():
    layer = ZooLinear(nn.Linear(2, 3), torch.randn(2, 3, 2), None)
    tokens = torch.tensor([[[1.0, 4.0], [3.0, 0.0], [2.0, 2.0]]])
    assert layer.pool(tokens).tolist() == [[2.0, 2.0]]


@pytest.mark.parametrize("engine", per_sample.ENGINES)
def test_kernels_made_a_few_channels_at_a_time_give_the_same(engine, monkeypatch):
    monkeypatch.setattr(per_sample, "slice_elements", lambda threads: 1)  # 16 channels, the least
    weight, gates = torch.randn(3, 40, 4, 3, 3).double(), torch.rand(2, 3).double()
    x, geometry = torch.randn(2, 4, 4, 4).double(), ConvGeometry()
    results = []
    for function in (
        lambda x, weight, gates: reference(x, SourceKernels(weight), gates, geometry),
        lambda *given: per_sample.convolve_per_sample(*given, geometry, engine),
    ):
        leaves = [each.clone().requires_grad_() for each in (x, weight, gates)]
        y = function(*leaves)
        weights = torch.linspace(-1, 1, y.numel(), dtype=torch.double).view(y.shape)
        results.append((y, *torch.autograd.grad((y * weights).sum(), leaves)))
    for found, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kernel", [1, 3])
def test_channels_last_input_gives_the_same_result_in_its_own_format(way, kernel):
    x = torch.randn(2, 4, 6, 6)
    kernels, gates = SourceKernels(torch.randn(3, 4, 4, kernel, kernel)), torch.rand(2, 3)
    geometry = ConvGeometry(padding=(1, 1))
    last = x.to(memory_format=torch.channels_last)
    expected = WAYS[way](x, kernels, gates, geometry)
    found = WAYS[way](last, kernels, gates, geometry)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

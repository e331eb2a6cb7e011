"""Plans: which way is taken, that it changes nothing but speed, and that it works everywhere."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from zoo_lightning.errors import ConfigError
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.nn import PLANS, ConvGeometry, ZooConv2d, ZooLinear, plan_table
from zoo_lightning.nn.fast import planner
from zoo_lightning.nn.fast.planner import (
    BEATEN,
    HOPELESS,
    ONE_KERNEL,
    Request,
    costs,
    plan,
    timings,
)
from zoo_lightning.nn.fast.ways import WAYS
from zoo_lightning.nn.reference import REFERENCE

BASE = Request(
    batch=16, sources=5, in_channels=64, out_channels=64, image=(28, 28), kernel=(3, 3),
    geometry=ConvGeometry(padding=(1, 1)), aligned=True, shared=False, training=True,
    of_input=True, device="cpu", dtype=torch.float32, channels_last=True,
)  # fmt: skip


def make(mode="full", kernel=3, groups=1, channels=8, **options):
    conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=groups)
    weight, bias = torch.randn(3, *conv.weight.shape), torch.randn(3, channels)
    layer = ZooConv2d(conv, weight, bias, mode=mode, **options)
    with torch.no_grad():
        layer.alignment.add_(torch.randn_like(layer.alignment), alpha=0.1)
    return layer


def results(layer, x, run=None):
    """Output and all gradients of one training step."""
    layer, x = copy.deepcopy(layer), x.detach().clone().requires_grad_()
    y = (run or layer)(x) if run is None else run(layer, x)
    y.float().square().mean().backward()
    return [y, x.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("mode", ["full", "lite"])
@pytest.mark.parametrize("groups", [1, 4])
def test_results_do_not_depend_on_the_plan(mode, groups):
    layer, x = make(mode, groups=groups, plan=REFERENCE), torch.randn(4, 8, 6, 6)
    expected = results(layer, x)
    for name in PLANS:
        layer.plan = name
        for found, wanted in zip(results(layer, x), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["full", "lite"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_every_plan_equals_the_reference_in_evaluation(mode, kernel):
    layer, x = make(mode, kernel, plan=REFERENCE).eval(), torch.randn(4, 8, 6, 6)
    layer.gate_ema.copy_(torch.tensor([0.2, 0.9, 0.5]))
    expected = results(layer, x)
    for name in PLANS:
        layer.plan = name
        with torch.no_grad():
            torch.testing.assert_close(layer(x), expected[0].detach(), rtol=1e-4, atol=1e-5)
        for found, wanted in zip(results(layer, x), expected, strict=True):
            if wanted is None:
                assert found is None  # lite evaluation does not ask its gates
            else:
                torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_reference_stores_no_kernels():
    layer, x = make("lite", plan=REFERENCE).eval(), torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        layer(x)
    assert layer._aligned._result is None
    assert layer._mixed._result is None


@pytest.mark.parametrize("way", [ONE_KERNEL, *WAYS])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("last", [True, False])
def test_large_layers_in_single_precision_agree_with_double(way, kernel, last):
    # Large enough for oneDNN's products and for several slices of kernels.
    mode = "lite" if way == ONE_KERNEL else "full"
    layer = make(mode, kernel, channels=144, plan=way)
    x = torch.randn(4, 144, 11, 11)
    double = copy.deepcopy(layer).double()
    double.plan = REFERENCE
    expected = results(double, x.double())
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    for found, wanted in zip(results(layer, x), expected, strict=True):
        scale = wanted.abs().max().item()
        torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-4 * scale)


def test_a_network_of_any_plan_computes_the_same():
    x = torch.randn(2, 3, 64, 64)
    found = []
    for name in PLANS:
        torch.manual_seed(0)
        backbone = ZooBackbone("test_resnet", ["random:1", "random:2"], plan=name)
        assert backbone.config["plan"] == name
        assert all(layer.plan == name for layer in backbone.aggregated_layers().values())
        found.append(backbone(x))
    for y in found[1:]:
        torch.testing.assert_close(y, found[0], rtol=1e-3, atol=1e-4)


def test_unknown_plans_are_refused():
    with pytest.raises(ConfigError, match="plan must be one of auto, benchmark"):
        ZooBackbone("test_resnet", ["random:1"], plan="fastest")


def test_names_force_a_way_where_the_mode_has_it():
    for way in WAYS:
        assert plan(way, BASE) == way
    shared = BASE._replace(shared=True)
    assert plan("grouped", shared) == ONE_KERNEL
    assert plan(REFERENCE, shared) == REFERENCE
    assert plan("aligned_outputs", shared) == "aligned_outputs"
    assert plan(ONE_KERNEL, BASE) == plan("auto", BASE)


def test_the_model_prefers_what_measurements_prefer():
    late = BASE._replace(in_channels=512, out_channels=512, image=(4, 4))
    assert plan("auto", BASE) == "grouped"
    assert plan("auto", late) == "aligned_outputs"
    assert plan("auto", late._replace(shared=True)) == "aligned_outputs"
    assert plan("auto", late._replace(shared=True, batch=256)) == ONE_KERNEL
    pointwise = {"kernel": (1, 1), "geometry": ConvGeometry(), "aligned": False}
    assert plan("auto", BASE._replace(**pointwise)) == "unfolded"
    assert plan("auto", late._replace(**pointwise, out_channels=2048)) == "mixed_inputs"
    stem = {"in_channels": 3, "image": (112, 112), "kernel": (7, 7), "of_input": False}
    assert plan("auto", BASE._replace(**stem)) == "looped"


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_every_shape_on_every_device_has_a_plan(device):
    choices = itertools.product([1, 2, 64], [1, 5], [1, 7], [1, 4], [True, False], [True, False])
    for batch, sources, side, groups, shared, training in choices:
        asked = BASE._replace(
            batch=batch, sources=sources, image=(side, side), shared=shared, training=training,
            of_input=training,
            geometry=ConvGeometry(padding=(1, 1), groups=groups), device=device,
        )  # fmt: skip
        assert plan("auto", asked) in (*WAYS, ONE_KERNEL)
        assert all(cost > 0 for cost in costs(asked).values())


@pytest.mark.parametrize("mode", ["full", "lite"])
def test_benchmark_times_each_shape_once_and_leaves_no_trace(mode, monkeypatch):
    planner.forget_timings()
    layer, x = make(mode, plan="benchmark"), torch.randn(2, 8, 6, 6, requires_grad=True)
    timed = []
    real = planner._time
    monkeypatch.setattr(planner, "_time", lambda t, way, *e: (timed.append(way), real(t, way))[1])
    layer(x)
    asked = layer.planned(x, layer.gates(x), training=True)
    estimates = costs(asked)
    hopeful = {w for w, cost in estimates.items() if cost <= HOPELESS * min(estimates.values())}
    assert set(timed) == hopeful == set(timings(asked))
    assert x.grad is None
    assert layer.weight.grad is None
    layer(x)
    assert len(timed) == len(set(timed))
    with torch.no_grad():
        layer(x)  # without gradients another way may be faster
    assert len(timed) > len(set(timed))


def test_batches_of_nearly_the_same_size_share_their_timing(monkeypatch):
    planner.forget_timings()
    layer, timed = make("full", plan="benchmark"), []
    monkeypatch.setattr(planner, "_time", lambda trial, way, enough: timed.append(way) or 1.0)
    sizes = {}
    for batch in (32, 31, 17, 16, 33):
        before = len(timed)
        layer(torch.randn(batch, 8, 6, 6))
        sizes[batch] = len(timed) > before
    assert sizes == {32: True, 31: False, 17: False, 16: True, 33: True}
    planner.forget_timings()


def test_what_cannot_win_is_not_timed(monkeypatch):
    planner.forget_timings()
    monkeypatch.setattr(planner, "costs", lambda asked: {"grouped": 1.0, "looped": HOPELESS + 1})
    layer, timed = make("full", plan="benchmark"), []
    monkeypatch.setattr(planner, "_time", lambda trial, way, enough: timed.append(way) or 1.0)
    layer(torch.randn(2, 8, 6, 6))
    assert timed == ["grouped"]
    planner.forget_timings()


def test_what_is_beaten_in_its_first_run_is_not_run_again(monkeypatch):
    planner.forget_timings()
    clock = iter(range(0, 10**6, 100))
    monkeypatch.setattr(planner.time, "perf_counter_ns", lambda: next(clock))
    monkeypatch.setattr(planner, "costs", lambda asked: {"looped": 2.0, "grouped": 1.0})
    ran = []

    def trial(way):
        ran.append(way)
        if way == "looped":
            [next(clock) for _ in range(int(BEATEN) + 1)]

    assert plan("benchmark", BASE, trial) == "grouped"
    assert ran == ["grouped"] * 4 + ["looped"]
    monkeypatch.setattr(planner, "costs", lambda asked: {"looped": 1.0, "grouped": 2.0})
    assert plan("benchmark", BASE) == "grouped"  # what was timed, also where nothing is to be tried
    assert plan("auto", BASE) == "looped"
    planner.forget_timings()


@pytest.mark.parametrize("mode", ["full", "lite"])
def test_gradients_of_images_are_neither_estimated_nor_timed(mode, monkeypatch):
    planner.forget_timings()
    layer, x = make(mode, plan="benchmark"), torch.randn(2, 8, 6, 6)
    wanted = []
    real = layer._compute
    monkeypatch.setattr(
        layer,
        "_compute",
        lambda way, x, *rest: (wanted.append(x.requires_grad), real(way, x, *rest))[1],
    )
    layer(x)
    assert len(wanted) > 1
    assert not any(wanted)
    asked = layer.planned(x, layer.gates(x), training=True)
    assert asked == layer.planned(x.clone().requires_grad_(), layer.gates(x), True)._replace(
        of_input=False
    )
    assert all(
        costs(asked)[way] < cost for way, cost in costs(asked._replace(of_input=True)).items()
    )
    planner.forget_timings()


def test_the_table_knows_which_layers_see_images():
    backbone = ZooBackbone("test_resnet", ["random:1", "random:2"], plan="benchmark")
    planner.forget_timings()
    plan_table(backbone, torch.randn(2, 3, 32, 32))
    assert {asked.in_channels for asked in planner._TIMED if not asked.of_input} == {3}
    planner.forget_timings()


def test_the_table_names_every_layer_and_changes_nothing():
    backbone = ZooBackbone("test_resnet", ["random:1", "random:2"])
    before = copy.deepcopy(backbone.state_dict())
    table = plan_table(backbone, torch.randn(2, 3, 64, 64)).splitlines()
    names = list(backbone.aggregated_layers())
    assert [line.split()[0].removeprefix("net.") for line in table[1:]] == names
    assert all(any(way in line for way in WAYS) for line in table[1:])
    assert backbone.training
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("groups", [1, 2])
def test_autocast_computes_in_half_and_learns_in_single_precision(way, groups):
    layer = make(groups=groups, plan=way)
    x = torch.randn(2, 8, 6, 6)

    def under_autocast(layer, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return layer(x)

    expected, found = results(layer, x), results(layer, x, under_autocast)
    assert found[0].dtype == torch.bfloat16
    assert all(g.dtype == torch.float32 for g in found[1:])
    for half, single in zip(found, expected, strict=True):
        scale = single.abs().max().item()
        torch.testing.assert_close(half.float(), single, rtol=0.05, atol=0.05 * scale)


@pytest.mark.parametrize("mode", ["full", "lite"])
@pytest.mark.parametrize("last", [True, False])
def test_the_memory_format_is_kept_forward_and_backward(mode, last):
    for kernel, way in itertools.product([1, 3], WAYS):
        layer = make(mode, kernel, plan=way)
        x = torch.randn(2, 8, 6, 6)
        kind = torch.channels_last if last else torch.contiguous_format
        x = x.contiguous(memory_format=kind).requires_grad_()
        y = layer(x)
        assert y.is_contiguous(memory_format=kind)
        y.sum().backward()


@pytest.mark.parametrize("way", ["auto", *WAYS])
def test_gradient_checkpointing_changes_nothing(way):
    layer, x = make(plan=way), torch.randn(3, 8, 6, 6)
    expected = results(layer, x)
    found = results(layer, x, lambda layer, x: checkpoint(layer, x, use_reentrant=False))
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("mode", ["full", "lite"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_layer_compiles_without_a_graph_break(mode, kernel):
    layer, x = make(mode, kernel), torch.randn(3, 8, 6, 6)

    def compiled(layer, x):
        torch.compiler.reset()
        return torch.compile(layer, fullgraph=True, backend="aot_eager")(x)

    for found, expected in zip(results(layer, x, compiled), results(layer, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("mode", ["full", "lite"])
def test_a_layer_in_evaluation_compiles_without_a_graph_break(mode):
    layer, x = make(mode).eval(), torch.randn(3, 8, 6, 6)
    expected = layer(x)
    torch.compiler.reset()
    found = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["full", "lite"])
def test_compiled_layers_do_not_compile_anew_at_every_step(mode):
    layer, x = make(mode), torch.randn(3, 8, 6, 6)
    torch.compiler.reset()
    with torch._dynamo.config.patch({"recompile_limit": 3}):
        step = torch.compile(layer, fullgraph=True, backend="aot_eager")
        for _ in range(6):
            step(x).sum().backward()
    assert float(layer.gate_count) == 18


@pytest.mark.parametrize("way", WAYS)
def test_only_wanted_gradients_are_computed(way):
    layer = make(plan=way)
    for parameter in (layer.weight, layer.alignment, *layer.gate.parameters()):
        parameter.requires_grad_(False)
    x = torch.randn(2, 8, 6, 6, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    layer.weight.requires_grad_(True)
    layer(torch.randn(2, 8, 6, 6)).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("mode", ["full", "lite"])
@pytest.mark.parametrize("training", [True, False])
def test_linear_layers_of_every_plan_equal_the_reference(mode, training):
    sources = torch.randn(3, 6, 8), torch.randn(3, 6)
    layer = ZooLinear(nn.Linear(8, 6), *sources, mode=mode, plan=REFERENCE).train(training)
    x = torch.randn(4, 2, 8)
    expected = layer(x)
    for name in PLANS:
        layer.plan = name
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("batch", "tokens", "inputs", "outputs", "way"),
    [
        (16, 197, 192, 576, "unfolded"),
        (16, 197, 768, 192, "unfolded"),
        (16, 49, 384, 1536, "unfolded"),
        (32, 17, 192, 768, "mixed_inputs"),
    ],
)
def test_layers_of_transformers_have_the_way_that_was_measured_as_fastest(
    batch, tokens, inputs, outputs, way
):
    """As ``results/transformers/planner.csv`` has it."""
    asked = BASE._replace(
        batch=batch, in_channels=inputs, out_channels=outputs, image=(tokens, 1), kernel=(1, 1),
        geometry=ConvGeometry(), aligned=False,
    )  # fmt: skip
    assert plan("auto", asked) == way


def test_an_alignment_within_heads_is_estimated_by_its_blocks():
    whole = BASE._replace(
        in_channels=192, out_channels=576, image=(197, 1), kernel=(1, 1), geometry=ConvGeometry()
    )
    heads, plain = whole._replace(blocks=9), whole._replace(aligned=False)
    extra = [costs(each)["unfolded"] - costs(plain)["unfolded"] for each in (whole, heads)]
    assert extra[0] == pytest.approx(9 * extra[1], rel=0.05)
    assert "aligned_outputs" not in costs(heads)

"""Foreign state dicts fitted to an architecture."""

import string

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zoo_lightning.errors import SourceError
from zoo_lightning.sources.adapting import adapt
from zoo_lightning.sources.spec import Source

SOURCE = Source("moco", "moco.pth")
ORDER = Source("moco", "moco.pth", match="order")
words = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=8)


def under(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def without(state, ending):
    return {key: value for key, value in state.items() if not key.endswith(ending)}


def renamed(state):
    """Other names in the same order, as a foreign implementation would have."""
    return {
        f"_part{i}.{key.rpartition('.')[2]}": value for i, (key, value) in enumerate(state.items())
    }


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parts=st.lists(words, max_size=4), noise=st.dictionaries(words, st.integers(1, 4)))
def test_any_prefix_is_found(parts, noise, small, small_reference, assert_same):
    prefix = "".join(f"{part}." for part in parts)
    state = {f"extra_{key}": torch.zeros(size) for key, size in noise.items()}
    adapted = adapt(state | under(prefix, small), small_reference, SOURCE)
    assert_same(adapted.state, small)
    assert adapted.report.prefix == prefix
    assert adapted.report.matched == adapted.report.total == len(small)
    assert adapted.report.unused == list(state)


def test_the_report_reads_well(small, small_reference):
    state = under("backbone.body.", small) | under("head.", {"weight": torch.zeros(2, 2)})
    summary = adapt(state, small_reference, SOURCE).report.summary()
    assert summary == "90 of 90 tensors matched under 'backbone.body.', 1 left over"


def test_the_result_does_not_share_memory_with_the_reference(small, small_reference):
    adapted = adapt(without(small, "running_mean"), small_reference, SOURCE)
    for key, tensor in adapted.state.items():
        assert tensor.data_ptr() != small_reference[key].data_ptr(), key


@pytest.mark.parametrize("first", ["encoder_k", "encoder_q"])
def test_the_trained_encoder_goes_before_its_momentum_copy(
    first, small, small_reference, assert_same
):
    other = {key: value + 1 for key, value in small.items()}
    query, key = under("module.encoder_q.", small), under("module.encoder_k.", other)
    state = key | query if first == "encoder_k" else query | key
    adapted = adapt(state, small_reference, SOURCE)
    assert_same(adapted.state, small)
    assert adapted.report.also_under == ("module.encoder_k.",)
    assert "as many match under 'module.encoder_k.'" in adapted.report.summary()


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ("student.", "teacher."),
        ("module.student.backbone.", "module.teacher.backbone."),
        ("online_network.", "target_network."),
        ("online_encoder.net.", "target_encoder.net."),
        ("model.", "ema_model.module."),
        ("net.", "net_ema."),
        ("student_net.", "teacherNet."),
        ("generator.", "generator_swa.module."),
        ("online_net.", "target_net."),
    ],
)
@pytest.mark.parametrize("first", ["student", "teacher"])
def test_a_teacher_goes_before_its_student(
    student, teacher, first, small, small_reference, assert_same
):
    left = under(student, {key: value + 1 for key, value in small.items()})
    right = under(teacher, small)
    adapted = adapt(left | right if first == "student" else right | left, small_reference, SOURCE)
    assert_same(adapted.state, small)
    assert adapted.report.also_under == (student,)


def test_otherwise_the_first_in_the_file_wins(small, small_reference):
    state = under("left.", small) | under("right.", small)
    assert adapt(state, small_reference, SOURCE).report.prefix == "left."


@pytest.mark.parametrize("prefix", ["b", "b."])
def test_a_given_prefix_is_taken(prefix, small, small_reference, assert_same):
    other = {key: value + 1 for key, value in small.items()}
    state = under("a.", other) | under("b.", small)
    source = Source("x", "x.pth", prefix=prefix)
    assert_same(adapt(state, small_reference, source).state, small)


def test_a_given_prefix_that_matches_nothing_names_the_best(small, small_reference):
    source = Source("x", "x.pth", prefix="backbone.")
    with pytest.raises(SourceError, match=r"given prefix 'backbone\.'.*under 'encoder\.'"):
        adapt(under("encoder.", small), small_reference, source)


@pytest.mark.parametrize("leaf", ["running_mean", "running_var", "num_batches_tracked"])
def test_missing_statistics_keep_their_initial_value(leaf, small, small_reference):
    state = {k: v + 1 if k.endswith(leaf) else v for k, v in small.items()}
    adapted = adapt(without(state, leaf), small_reference, SOURCE)
    lacking = [key for key in small if key.endswith(leaf)]
    assert adapted.report.missing == lacking
    assert adapted.report.matched == len(small) - len(lacking)
    assert all(torch.equal(adapted.state[key], small_reference[key]) for key in lacking)
    assert f"keep their initial value ({leaf})" in adapted.report.summary()


@pytest.mark.parametrize("key", ["layer2.0.conv2.weight", "layer2.0.bn1.bias", "conv1.1.weight"])
def test_a_missing_kernel_or_norm_parameter_is_refused(key, small, small_reference):
    state = {name: value for name, value in small.items() if name != key}
    with pytest.raises(SourceError, match=rf"'moco' \(moco\.pth\).*missing {key} \("):
        adapt(under("net.", state), small_reference, SOURCE)


def test_a_kernel_of_another_shape_is_refused(small, small_reference):
    key = "layer1.0.conv1.weight"
    state = small | {key: small[key][:, :, :1]}
    with pytest.raises(SourceError) as error:
        adapt(state, small_reference, SOURCE, "test_resnet")
    assert "does not fit test_resnet" in str(error.value)
    wanted = tuple(small[key].shape)
    assert f"{key} is {tuple(state[key].shape)}, expected {wanted}" in str(error.value)


def test_a_long_list_is_cut_and_counted(small, small_reference):
    with pytest.raises(SourceError, match=r"missing .*; and \d+ more"):
        adapt(without(small, "weight"), small_reference, SOURCE)


@pytest.mark.parametrize("architecture", ["resnet18", "resnet26", "mobilenetv3_small_050"])
def test_another_architecture_is_refused(architecture, resnet_reference, plain_state):
    with pytest.raises(SourceError, match=r"fit resnet50|architecture"):
        adapt(plain_state(architecture), resnet_reference, SOURCE, "resnet50")


@pytest.mark.parametrize(
    ("larger", "wanted"), [("resnet34", "resnet18"), ("resnet101", "resnet50")]
)
def test_a_deeper_network_of_the_same_family_is_refused(larger, wanted, plain_state):
    with torch.device("meta"):
        shapes = timm.create_model(larger).state_dict()
    state = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in shapes.items()}
    with pytest.raises(SourceError, match=r"larger architecture: .*layer3"):
        adapt(under("module.", state), plain_state(wanted), SOURCE)


@pytest.mark.parametrize(("channels", "scale"), [(1, None), (4, 3 / 4), (6, 1 / 2)])
def test_the_input_kernel_follows_timms_rule(channels, scale, small, plain_state):
    reference = plain_state("test_resnet", in_chans=channels)
    adapted = adapt(under("m.", small), reference, SOURCE)
    old, new = small["conv1.0.weight"], adapted.state["conv1.0.weight"]
    assert adapted.report.adapted_input
    assert "input kernel adapted" in adapted.report.summary()
    if channels == 1:
        assert torch.equal(new, old.sum(1, keepdim=True))
    else:
        assert torch.equal(new, old.repeat(1, 2, 1, 1)[:, :channels] * scale)
    # timm itself does the same with the same file.
    network = timm.create_model(
        "test_resnet",
        num_classes=0,
        in_chans=channels,
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": dict(small), "num_classes": 0},
    )
    assert torch.equal(network.state_dict()["conv1.0.weight"], new)


def test_an_input_kernel_of_another_size_is_refused(small, small_reference):
    state = small | {"conv1.0.weight": small["conv1.0.weight"].repeat(1, 1, 2, 2)}
    with pytest.raises(SourceError, match=r"conv1\.0\.weight is"):
        adapt(state, small_reference, SOURCE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_cast_and_reported(dtype, small, small_reference, assert_same):
    cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in small.items()}
    adapted = adapt(cast, small_reference, SOURCE)
    expected = {k: v.float() if v.is_floating_point() else v for k, v in cast.items()}
    assert_same(adapted.state, expected)
    name = str(dtype).removeprefix("torch.")
    assert adapted.report.cast == (name,)
    assert f"cast from {name} to float32" in adapted.report.summary()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda kernel: kernel / 0, "infinite or undefined"),
        (lambda kernel: kernel.to(torch.int8), "int8 instead of floating"),
        (lambda kernel: kernel.to_sparse(), "sparse"),
        (lambda kernel: kernel.to("meta"), "without values"),
    ],
)
def test_kernels_without_usable_values_are_refused(change, words, small, small_reference):
    key = "layer1.0.conv1.weight"
    with pytest.raises(SourceError, match=words):
        adapt(small | {key: change(small[key])}, small_reference, SOURCE)


def test_tensors_that_are_not_floating_are_tolerated(small, small_reference, assert_same):
    extra = {
        "queue_ptr": torch.zeros(1, dtype=torch.int64),
        "mask": torch.ones(2, dtype=torch.bool),
    }
    counters = {k: v.int() if k.endswith("tracked") else v for k, v in small.items()}
    adapted = adapt(extra | counters, small_reference, SOURCE)
    assert_same(adapted.state, small)


def test_a_run_that_was_not_folded_is_refused(small, small_reference):
    key = "layer1.0.conv1.weight"
    state = small | {
        key: torch.stack([small[key]] * 3),
        "layer1.0.conv1.alignment": torch.zeros(3, 4, 4),
        "layer1.0.conv1.gate.fc1.weight": torch.zeros(4, 4),
        "layer1.0.conv1.gate_ema": torch.zeros(3),
    }
    with pytest.raises(SourceError, match=r"full or lite mode: fold it first \(`ZooBackbone.fold`"):
        adapt(under("backbone.net.", state), small_reference, SOURCE)


def test_order_matches_where_names_do_not(small, small_reference, assert_same):
    head = {"_fc.weight": torch.zeros(10, 3), "_fc.bias": torch.zeros(10)}
    adapted = adapt(renamed(small) | head, small_reference, ORDER)
    assert adapted.report.by_order
    assert adapted.report.unused[-2:] == list(head)
    kept = without(small, "num_batches_tracked")
    assert_same({key: adapted.state[key] for key in kept}, kept)


def test_order_matching_is_suggested_where_it_would_work(small, small_reference):
    with pytest.raises(SourceError, match="match: order"):
        adapt(renamed(small), small_reference, SOURCE)


def test_order_matching_is_suggested_where_only_some_names_match(small, small_reference):
    state = {k.replace("layer3", "stage3"): v for k, v in small.items()}
    with pytest.raises(SourceError, match=r"missing layer3.*match: order"):
        adapt(state, small_reference, SOURCE)


def test_order_matching_takes_the_counters_of_matched_layers(small, small_reference, assert_same):
    state = {f"x.{k}": v + 7 if k.endswith("tracked") else v for k, v in small.items()}
    adapted = adapt(state, small_reference, ORDER)
    assert_same(adapted.state, {key: state[f"x.{key}"] for key in small})


def test_order_matching_adapts_the_input_kernel(small, plain_state):
    adapted = adapt(renamed(small), plain_state("test_resnet", in_chans=1), ORDER)
    assert adapted.report.adapted_input


def swapped(state):
    """Bias before weight: shapes agree, meanings do not."""
    return dict(sorted(state.items()))


def shortened(state):
    return dict(list(without(state, "num_batches_tracked").items())[:-1])


def with_more_layers(state):
    return state | {"more.weight": torch.zeros(3, 3, 3, 3)}


def with_negative_variance(state):
    return {k: v - 2 if k.endswith("running_var") else v for k, v in state.items()}


def with_complex_variance(state):
    key = next(key for key in state if key.endswith("running_var"))
    return {**state, key: state[key].to(torch.complex64)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swapped, "tensor 1 is|tensor 2 is"),
        (shortened, "at least"),
        (with_more_layers, "not a classifier's"),
        (with_negative_variance, "negative"),
        (with_complex_variance, "complex"),
    ],
)
def test_order_matching_refuses_what_only_seems_to_agree(change, words, small, small_reference):
    state = renamed(change(small))
    if change is with_more_layers:
        state = change(renamed(small))
    with pytest.raises(SourceError, match=f"cannot be matched by order: .*({words})"):
        adapt(state, small_reference, ORDER)


def test_order_matching_is_restricted_to_a_given_prefix(small, small_reference):
    state = {"neck.weight": torch.zeros(3, 3, 3, 3)} | under("net.", renamed(small))
    source = Source("x", "x.pth", prefix="net.", match="order")
    assert adapt(state, small_reference, source).report.prefix == "net."
    with pytest.raises(SourceError, match="no key begins with prefix 'nett"):
        adapt(state, small_reference, Source("x", "x.pth", prefix="nett.", match="order"))

"""Heads of attention are found, and aligned without being mixed."""

import pytest
import torch
from torch import nn

from zoo_lightning.models.architecture import Architecture
from zoo_lightning.models.attention_heads import attention_heads
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.nn import ZooLinear
from zoo_lightning.nn.alignment import align

SOURCES = ["random:0", "random:1", "random:2"]


def heads_of(name):
    architecture = Architecture(name)
    return attention_heads(architecture, architecture.build())


def disturb(backbone, scale=0.1, seed=0):
    """Move all alignments away from the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in backbone.aggregated_layers().values():
            if layer.alignment is not None:
                layer.alignment.add_(
                    scale * torch.randn(layer.alignment.shape, generator=generator)
                )


@pytest.mark.parametrize(
    ("name", "layer", "maps", "index"),
    [
        ("test_vit", "blocks.0.attn.qkv", 4, (0, 1, 0, 1, 2, 3)),
        # Scaled and normalised queries and keys, and two kinds of register tokens.
        ("test_vit3", "blocks.0.attn.qkv", 6, (0, 1, 2, 0, 1, 2, 3, 4, 5)),
        # Queries in a layer, keys and values in another, one head.
        ("pvt_v2_b0", "stages.0.blocks.0.attn.kv", 2, (0, 1)),
        ("mobilevit_xxs", "stages.2.1.transformer.0.attn.qkv", 8, (0, 1, 2, 3) * 2 + (4, 5, 6, 7)),
    ],
)
def test_queries_and_keys_of_a_head_have_one_map(name, layer, maps, index):
    found = heads_of(name)
    assert found.blocks[layer].maps == maps
    assert found.blocks[layer].index == index
    assert not found.undivided


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer", "index"),
    [
        ("swin_tiny_patch4_window7_224", "layers.0.blocks.1.attn.qkv", (0, 1, 2) * 2 + (3, 4, 5)),
        # Head by head: query, key and value of the first head, then of the second.
        ("maxvit_nano_rw_256", "stages.0.blocks.0.attn_grid.attn.qkv", (0, 0, 1, 2, 2, 3)),
    ],
)
def test_heads_of_windowed_attention_are_found(name, layer, index):
    assert heads_of(name).blocks[layer].index == index


def test_layers_of_queries_and_keys_share_their_maps():
    backbone = ZooBackbone("pvt_v2_b0", SOURCES[:2], align="heads")
    query, both = (backbone.net.get_submodule(f"stages.1.blocks.0.attn.{n}") for n in ("q", "kv"))
    assert query.alignment is both.alignment
    assert query.alignment_blocks.tolist() == [0, 1]
    assert both.alignment_blocks.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["levit_128s", "xcit_nano_12_p16_224"])
def test_attention_that_is_not_recognised_is_not_aligned(name):
    undivided = heads_of(name).undivided
    assert any("qkv" in layer for layer in undivided)
    if name == "levit_128s":  # whose queries would be aligned without their keys
        assert not heads_of(name).blocks


def test_a_network_without_attention_has_no_heads():
    found = heads_of("test_resnet")
    assert not found.blocks
    assert not found.undivided


@pytest.mark.parametrize(("align", "count"), [("spatial", 1), ("heads", 7), ("all", 25)])
def test_which_layers_of_a_vit_are_aligned(align, count):
    layers = ZooBackbone("test_vit", SOURCES[:2], align=align).aggregated_layers()
    assert len(layers) == 25
    assert sum(layer.alignment is not None for layer in layers.values()) == count


def test_an_alignment_of_heads_begins_as_exactly_the_identity():
    for layer in ZooBackbone("test_vit", SOURCES, align="all").aggregated_layers().values():
        assert torch.equal(align(layer.weight, layer.maps()), layer.weight)
        assert torch.equal(align(layer.bias, layer.maps()), layer.bias)


def test_aligned_heads_do_not_mix():
    backbone = ZooBackbone("test_vit", SOURCES, align="heads")
    disturb(backbone)
    layer = backbone.net.get_submodule("blocks.2.attn.qkv")
    before = align(layer.weight, layer.maps()).detach().reshape(3, 6, 32, 64)
    for block in range(6):  # queries of two heads, keys of two, values of two
        with torch.no_grad():
            layer.weight.reshape(3, 6, 32, 64)[:, block] += 1
        after = align(layer.weight, layer.maps()).detach().reshape(3, 6, 32, 64)
        changed = [not torch.equal(after[:, i], before[:, i]) for i in range(6)]
        assert changed == [i == block for i in range(6)]
        before = after


def test_scores_do_not_change_if_a_heads_map_is_orthogonal():
    architecture = Architecture("test_vit")
    backbone = ZooBackbone(
        "test_vit", SOURCES[:1], align="heads", gate_init=[0.9999], gating="constant"
    ).eval()
    source = architecture.plain(backbone.loaded[0].state).eval()
    with torch.no_grad():
        for layer in backbone.aggregated_layers().values():
            layer.gate.scores.fill_(50.0)  # a gate of 1
            if layer.alignment_blocks is not None:
                for own in layer.alignment[0, :2]:  # queries and keys of both heads
                    own.copy_(torch.linalg.qr(torch.randn(32, 32)).Q)
        x = architecture.example_input(source)
        changed = backbone.net.get_submodule("blocks.0.attn.qkv")
        assert not torch.allclose(align(changed.weight, changed.maps()), changed.weight)
        torch.testing.assert_close(backbone(x), source(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("test_vit", "full"),
        ("test_vit", "lite"),
        pytest.param("pvt_v2_b0", "full", marks=pytest.mark.slow),
        pytest.param("pvt_v2_b0", "lite", marks=pytest.mark.slow),
    ],
)
def test_a_zoo_with_aligned_heads_computes_by_the_definition_and_folds(name, mode):
    """Values and gradients; ``pvt_v2_b0`` shares maps between layers."""
    backbone = ZooBackbone(name, SOURCES, mode, align="heads", gate_init="sum_to_one")
    disturb(backbone, 0.02)
    reference = ZooBackbone(
        name, SOURCES, mode, align="heads", gate_init="sum_to_one", plan="reference"
    )
    reference.load_state_dict(backbone.state_dict())
    size = 160 if name == "test_vit" else 64
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    found = []
    for each in (backbone, reference):
        each.eval()
        y = each(x)
        y.square().mean().backward()
        layer = next(
            layer
            for layer in each.aggregated_layers().values()
            if layer.alignment_blocks is not None
        )
        found.append((y.detach(), layer.alignment.grad, layer.weight.grad))
        with torch.no_grad():
            torch.testing.assert_close(each(x), y, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(each.fold()(x), y, rtol=1e-4, atol=1e-5)
    for own, wanted in zip(*found, strict=True):
        scale = wanted.abs().max().item()
        torch.testing.assert_close(own, wanted, rtol=1e-3, atol=1e-4 * scale)
    assert found[0][1].abs().max() > 0


@pytest.mark.parametrize("plan", ["grouped", "looped", "unfolded", "mixed_inputs", "mixed_outputs",
                                  "aligned_outputs"])  # fmt: skip
def test_all_ways_agree_for_aligned_heads(plan):
    torch.manual_seed(0)
    like, options = nn.Linear(8, 12), {"aligned": True, "blocks": (0, 0, 1), "num_maps": 2}
    weight, bias = torch.randn(3, 12, 8), torch.randn(3, 12)
    layer = ZooLinear(like, weight, bias, plan=plan, **options).double()
    wanted = ZooLinear(like, weight, bias, plan="reference", **options).double()
    nn.init.normal_(layer.alignment)
    wanted.load_state_dict(layer.state_dict())
    x = torch.randn(2, 5, 8, dtype=torch.double)
    torch.testing.assert_close(layer(x), wanted(x))
    own, other = (torch.autograd.grad(each(x).square().mean(), each.alignment)[0]
                  for each in (layer, wanted))  # fmt: skip
    torch.testing.assert_close(own, other)

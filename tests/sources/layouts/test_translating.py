"""When a translation is used, and what is never joined or copied."""

import pytest
import torch
from timm.models import VisionTransformer
from torch import nn
from torchvision import models

from zoo_lightning.errors import SourceError
from zoo_lightning.sources.adapting import adapt
from zoo_lightning.sources.layouts.layout import join_projections
from zoo_lightning.sources.layouts.translating import translate
from zoo_lightning.sources.spec import Source

SOURCE = Source("mine", "mine.pth")


def torchvision_vit():
    """A small ViT of torchvision."""
    return models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=3)


def tiny_vit():
    """The same network of timm."""
    return VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, mlp_ratio=2, num_classes=0
    )


def test_a_network_that_has_the_foreign_names_itself_takes_the_file_unchanged():
    network = torchvision_vit()
    network.heads = nn.Identity()
    found = adapt(torchvision_vit().state_dict(), network.state_dict(), SOURCE)
    assert (found.report.layout, found.report.matched) == ("", len(network.state_dict()))


def test_matching_by_order_translates_nothing():
    state = {f"module.{key}": tensor for key, tensor in tiny_vit().state_dict().items()}
    by_order = Source("mine", "mine.pth", match="order")
    found = adapt(state, tiny_vit().state_dict(), by_order)
    assert (found.report.layout, found.report.by_order) == ("", True)


def test_an_absent_bias_of_the_keys_is_zero():
    state = {f"blocks.0.attn.{each}.weight": torch.ones(4, 4) for each in "qkv"}
    state |= {f"blocks.0.attn.{each}.bias": torch.ones(4) for each in "qv"}
    joined = join_projections(state)
    assert list(joined) == ["blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.bias"]
    assert joined["blocks.0.attn.qkv.bias"].tolist() == [1.0] * 4 + [0.0] * 4 + [1.0] * 4


@pytest.mark.parametrize("wrong", [torch.ones(4, 5), torch.ones(4, 4, dtype=torch.half), None])
def test_projections_that_do_not_go_together_stay_as_they_are(wrong):
    state = {f"blocks.0.attn.{each}.weight": torch.ones(4, 4) for each in "qv"}
    if wrong is not None:
        state["blocks.0.attn.k.weight"] = wrong
    assert join_projections(state) == state


def test_what_a_small_file_announces_is_not_copied():
    state = torchvision_vit().state_dict()
    huge = torch.ones(1, 1).expand(10**6, 10**6)  # four terabytes
    state["encoder.layers.encoder_layer_0.self_attention.in_proj_weight"] = huge
    with pytest.raises(SourceError):
        adapt(state, tiny_vit().state_dict(), SOURCE)
    positions = {"pos_embed": torch.ones(1, 1, 1).expand(1, 10**10, 32)}
    state = tiny_vit().state_dict() | positions
    assert translate(state, tiny_vit().state_dict()).remarks == ()


def test_a_layout_with_a_tensor_of_another_shape_is_refused_by_name():
    state = torchvision_vit().state_dict()
    del state["encoder.layers.encoder_layer_1.mlp.3.weight"]
    with pytest.raises(SourceError, match=r"blocks\.1\.mlp\.fc2\.weight"):
        adapt(state, tiny_vit().state_dict(), SOURCE)


def test_positions_that_form_no_square_are_refused():
    state = tiny_vit().state_dict()
    state["pos_embed"] = torch.ones(1, 24, 32)
    with pytest.raises(SourceError, match=r"pos_embed is \(1, 24, 32\)"):
        adapt(state, tiny_vit().state_dict(), SOURCE)

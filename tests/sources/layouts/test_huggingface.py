"""Checkpoints of Hugging Face transformers compute in timm's networks what they computed there."""

import pytest
import timm
import torch
from timm.models import ConvNeXt, ResNet, SwinTransformer, VisionTransformer

transformers = pytest.importorskip("transformers")

VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
"""Options of a small vision transformer of ``transformers``."""


def tiny_vit(**options):
    """The same network of timm."""
    options = {
        "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2,
        "mlp_ratio": 2, "num_classes": 0,
    } | options  # fmt: skip
    return VisionTransformer(**options)


def save(model, folder, way):
    """Write a model as ``save_pretrained`` does, or the state of its modules alone."""
    if way == "files":
        model.save_pretrained(folder)
        return folder
    torch.save(model.state_dict(), folder / "model.pth")
    return folder / "model.pth"


@pytest.mark.parametrize("way", ["files", "modules"])
def test_vit_computes_the_same_features(way, tmp_path, scattered, read, assert_agrees):
    model = scattered(transformers.ViTForImageClassification(transformers.ViTConfig(**VIT)))
    network, report = read(save(model, tmp_path, way), tiny_vit)
    assert_agrees(network, lambda x: model.vit(x).last_hidden_state[:, 0], 32)
    assert (report.layout, report.prefix) == ("Hugging Face ViT", "vit.")
    assert (report.matched, report.total) == (30, 30)
    assert sorted(report.unused) == ["classifier.bias", "classifier.weight"]


def test_vit_fits_a_named_architecture_of_timm(tmp_path, scattered, read, assert_agrees):
    config = transformers.ViTConfig(
        hidden_size=64, num_hidden_layers=6, num_attention_heads=2, intermediate_size=192,
        image_size=160, patch_size=16,
    )  # fmt: skip
    model = scattered(transformers.ViTModel(config))
    network, _ = read(save(model, tmp_path, "files"), "test_vit")
    assert_agrees(network, lambda x: model(x).last_hidden_state[:, 0], 160)


def test_positions_of_another_size_are_interpolated_as_timm_does(tmp_path, scattered, read, images):
    model = scattered(transformers.ViTModel(transformers.ViTConfig(**VIT)))
    file = save(model, tmp_path, "files")
    network, report = read(file, lambda: tiny_vit(img_size=48))
    assert report.remarks == ("position embeddings interpolated from 4x4 to 6x6 patches",)
    expected, _ = read(file, tiny_vit)
    expected.set_input_size(img_size=48)  # timm's own interpolation
    with torch.no_grad():
        torch.testing.assert_close(network(images(48)), expected(images(48)))


@pytest.mark.parametrize("way", ["files", "modules"])
@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_dinov2_computes_the_same_features(way, gated, tmp_path, scattered, read, assert_agrees):
    options = {key: value for key, value in VIT.items() if key != "intermediate_size"}
    config = transformers.Dinov2Config(**options, mlp_ratio=2, use_swiglu_ffn=gated)
    model = scattered(transformers.Dinov2Model(config))

    def build():
        if not gated:
            return tiny_vit(init_values=1)
        return tiny_vit(
            init_values=1,
            mlp_ratio=2 * 48 / 32,  # both halves of two thirds of the width, by 8
            mlp_layer=timm.layers.SwiGLUPacked,
            act_layer=torch.nn.SiLU,
        )

    network, report = read(save(model, tmp_path, way), build)
    assert_agrees(network, lambda x: model(x).last_hidden_state[:, 0], 32)
    assert report.unused == ["embeddings.mask_token"]


def test_dinov2_with_registers_computes_the_same_features(tmp_path, scattered, read, assert_agrees):
    options = {key: value for key, value in VIT.items() if key != "intermediate_size"}
    config = transformers.Dinov2WithRegistersConfig(**options, mlp_ratio=2, num_register_tokens=4)
    model = scattered(transformers.Dinov2WithRegistersModel(config))
    network, report = read(
        save(model, tmp_path, "files"),
        lambda: tiny_vit(init_values=1, reg_tokens=4, no_embed_class=True),
    )
    assert_agrees(network, lambda x: model(x).last_hidden_state[:, 0], 32)
    assert report.remarks == ("the class token's position was added to the token",)


def test_deit_with_a_distillation_token_computes_the_same_features(
    tmp_path, scattered, read, assert_agrees
):
    model = scattered(transformers.DeiTModel(transformers.DeiTConfig(**VIT)))
    network, _ = read(
        save(model, tmp_path, "files"),
        lambda: timm.models.deit.VisionTransformerDistilled(
            img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, mlp_ratio=2,
            num_classes=0,
        ),
    )  # fmt: skip

    def both_tokens(x):
        tokens = model(x).last_hidden_state
        return (tokens[:, 0] + tokens[:, 1]) / 2

    assert_agrees(network, both_tokens, 32)


def test_the_encoder_of_mae_computes_the_same_features(tmp_path, scattered, read, assert_agrees):
    config = transformers.ViTMAEConfig(
        **VIT, mask_ratio=0.0, decoder_hidden_size=16, decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2, decoder_intermediate_size=16,
    )  # fmt: skip
    model = scattered(transformers.ViTMAEForPreTraining(config))
    network, report = read(save(model, tmp_path, "files"), tiny_vit)
    # Nothing is masked, but the patches are shuffled, which the class token does not see.
    assert_agrees(network, lambda x: model.vit(x).last_hidden_state[:, 0], 32)
    assert report.prefix == "vit."


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("whole", [False, True], ids=["tower", "both"])
def test_clip_computes_the_same_features(act, whole, tmp_path, scattered, read, assert_agrees):
    vision = transformers.CLIPVisionConfig(**VIT, hidden_act=act)
    if whole:
        text = {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 64, "vocab_size": 8, "bos_token_id": 0, "eos_token_id": 1,
        }  # fmt: skip
        config = transformers.CLIPConfig(vision_config=vision.to_dict(), text_config=text)
        model = scattered(transformers.CLIPModel(config))
        tower = model.vision_model
    else:
        tower = model = scattered(transformers.CLIPVisionModel(vision))
    network, report = read(
        save(model, tmp_path, "files"),
        lambda: tiny_vit(
            pre_norm=True,
            norm_layer=torch.nn.LayerNorm,
            act_layer=timm.layers.QuickGELU if act == "quick_gelu" else torch.nn.GELU,
        ),
    )
    assert_agrees(network, lambda x: tower(x).pooler_output, 32)
    assert report.layout == "Hugging Face CLIP"


def tiny_swin(**options):
    """A small Swin of timm: windows of 4 patches, two stages."""
    options = {
        "img_size": 64, "patch_size": 4, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4),
        "window_size": 4, "mlp_ratio": 2, "num_classes": 0,
    } | options  # fmt: skip
    return SwinTransformer(**options)


@pytest.mark.parametrize("way", ["files", "modules"])
def test_swin_computes_the_same_features(way, tmp_path, scattered, read, assert_agrees):
    config = transformers.SwinConfig(
        embed_dim=16, depths=[2, 2], num_heads=[2, 4], image_size=64, window_size=4, mlp_ratio=2
    )
    model = scattered(transformers.SwinForImageClassification(config))
    network, report = read(save(model, tmp_path, way), tiny_swin)
    assert_agrees(network, lambda x: model.swin(x).pooler_output, 64)
    assert (report.layout, report.matched) == ("Hugging Face Swin", report.total)


@pytest.mark.parametrize("version", [1, 2])
def test_convnext_computes_the_same_features(version, tmp_path, scattered, read, assert_agrees):
    kind, config = {
        1: (transformers.ConvNextForImageClassification, transformers.ConvNextConfig),
        2: (transformers.ConvNextV2ForImageClassification, transformers.ConvNextV2Config),
    }[version]
    model = scattered(kind(config(depths=[1, 2, 1, 1], hidden_sizes=[8, 12, 16, 20])))
    network, report = read(
        save(model, tmp_path, "files"),
        lambda: ConvNeXt(
            depths=(1, 2, 1, 1), dims=(8, 12, 16, 20), num_classes=0, use_grn=version == 2,
            ls_init_value=None if version == 2 else 1,
        ),
    )  # fmt: skip
    inner = model.convnext if version == 1 else model.convnextv2
    assert_agrees(network, lambda x: inner(x).pooler_output, 64)
    assert report.layout == "Hugging Face ConvNeXt"


def test_linear_layers_serve_as_convolutions_of_one_pixel(tmp_path, scattered, read, assert_agrees):
    config = transformers.ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 12, 16, 20])
    model = scattered(transformers.ConvNextModel(config))
    network, _ = read(
        save(model, tmp_path, "files"),
        lambda: ConvNeXt(
            depths=(1, 1, 1, 1), dims=(8, 12, 16, 20), num_classes=0, conv_mlp=True, ls_init_value=1
        ),
    )
    assert_agrees(network, lambda x: model(x).pooler_output, 64)


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_resnet_computes_the_same_features(kind, tmp_path, scattered, read, assert_agrees):
    config = transformers.ResNetConfig(
        depths=[1, 2, 1, 1], hidden_sizes=[32, 64, 128, 256], embedding_size=64, layer_type=kind
    )
    block = timm.models.resnet.BasicBlock
    channels, config.hidden_sizes = (16, 32, 48, 64), [16, 32, 48, 64]
    if kind == "bottleneck":
        block, channels = timm.models.resnet.Bottleneck, (4, 8, 12, 16)
    model = scattered(transformers.ResNetForImageClassification(config))
    network, report = read(
        save(model, tmp_path, "files"),
        lambda: ResNet(block, (1, 2, 1, 1), num_classes=0, channels=channels),
    )
    assert_agrees(network, lambda x: model.resnet(x).pooler_output.flatten(1), 64)
    assert report.layout == "Hugging Face ResNet"

"""LoRA adapters of PEFT as sources: the sum computes what PEFT's network computes."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.models import VisionTransformer
from torch import nn

from zoo_lightning.errors import SourceError
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.models.backbone import load_architecture
from zoo_lightning.sources.spec import Source


def tiny_vit():
    """A small vision transformer."""
    return VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, mlp_ratio=2, num_classes=0
    )


def read(weights, architecture, **options):
    """The network of a source, and the report on its match."""
    recipe = Architecture(architecture)
    (adapted,) = load_architecture(recipe, [Source("mine", str(weights), **options)])
    return recipe.build(adapted.state).eval(), adapted.report


class Small(nn.Module):
    """A convolution and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, 6)

    def forward(self, x):
        """Features of the mean."""
        return self.fc(self.conv(x).mean((2, 3)))


def write_adapter(folder, state, **config):
    """Write an adapter's folder."""
    folder.mkdir()
    save_file(state, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6} | config
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def base(tmp_path):
    """A base network, saved."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Small().eval()
    torch.save(network.state_dict(), tmp_path / "base.pth")
    return network


def factors(scale=1.0):
    """Factors of rank 2 for both layers of the small network."""
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "conv.lora_A": (2, 3, 3, 3), "conv.lora_B": (8, 2, 1, 1), "fc.lora_A": (2, 8),
        "fc.lora_B": (6, 2),
    }  # fmt: skip
    return {
        f"base_model.model.{key}.weight": scale * torch.randn(shape, generator=generator)
        for key, shape in shapes.items()
    }


@pytest.mark.parametrize(("stable", "scale"), [(False, 6 / 2), (True, 6 / 2**0.5)])
def test_the_sum_is_the_base_and_the_path_through_the_factors(tmp_path, base, stable, scale):
    found = factors()
    adapter = write_adapter(tmp_path / "adapter", found, use_rslora=stable)
    network, report = read(adapter, Small, base=str(tmp_path / "base.pth"))
    assert report.remarks == (f"LoRA of rank 2 in 2 tensors, added to {tmp_path / 'base.pth'}",)
    plain = {key.removeprefix("base_model.model."): t for key, t in found.items()}
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        low = nn.functional.conv2d(x, plain["conv.lora_A.weight"])
        y = base.conv(x) + scale * nn.functional.conv2d(low, plain["conv.lora_B.weight"])
        y = y.mean((2, 3))
        down, up = plain["fc.lora_A.weight"], plain["fc.lora_B.weight"]
        expected = base.fc(y) + scale * y @ down.T @ up.T
        torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-4)


def test_patterns_give_a_layer_its_own_alpha(tmp_path, base):
    adapter = write_adapter(tmp_path / "adapter", factors(), alpha_pattern={"fc": 0})
    network, _ = read(adapter, Small, base=str(tmp_path / "base.pth"))
    assert torch.equal(network.fc.weight, base.fc.weight)
    assert not torch.equal(network.conv.weight, base.conv.weight)


def test_the_base_is_found_by_the_path_in_the_adapter(tmp_path, base):
    adapter = write_adapter(tmp_path / "adapter", factors(), base_model_name_or_path="../base.pth")
    assert not torch.equal(read(adapter, Small)[0].fc.weight, base.fc.weight)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"base_model_name_or_path": "org/name"}, r"org/name.*give base:"),
        ({"peft_type": "IA3"}, "peft_type LORA, got 'IA3'"),
        ({"use_dora": True}, "use_dora: True"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: pissa"),
        ({"lora_alpha": None}, "lora_alpha"),
    ],
)
def test_what_cannot_be_added_is_refused(tmp_path, base, config, message):
    adapter = write_adapter(tmp_path / "adapter", factors(), **config)
    with pytest.raises(SourceError, match=message):
        read(adapter, Small)


def test_a_wrong_base_is_refused(tmp_path, base):
    adapter = write_adapter(tmp_path / "adapter", factors())
    torch.save({"other.weight": torch.ones(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(SourceError, match=r"lacks 2 of 2 layers.*conv\.weight"):
        read(adapter, Small, base=str(tmp_path / "other.pth"))
    torch.save(base.state_dict() | {"fc.weight": torch.ones(6, 9)}, tmp_path / "other.pth")
    with pytest.raises(SourceError, match=r"fc\.weight.*\(6, 8\).*\(6, 9\)"):
        read(adapter, Small, base=str(tmp_path / "other.pth"))


def test_factors_that_do_not_go_together_are_refused(tmp_path, base):
    state = factors() | {"base_model.model.fc.lora_B.weight": torch.ones(6, 3)}
    with pytest.raises(SourceError, match=r"fc.*\(6, 3\)"):
        read(write_adapter(tmp_path / "adapter", state), Small)


def test_a_product_that_fits_nothing_is_not_made(tmp_path, base):
    huge = {"lora_A": (1, 10**7), "lora_B": (10**7, 1)}  # 400 terabytes
    state = {f"base_model.model.fc.{key}.weight": torch.ones(shape) for key, shape in huge.items()}
    with pytest.raises(SourceError, match=r"fc\.weight.*\(10000000, 10000000\)"):
        read(write_adapter(tmp_path / "adapter", state), Small, base=str(tmp_path / "base.pth"))


def test_a_base_for_what_is_no_adapter_is_refused(tmp_path, base):
    with pytest.raises(SourceError, match="leave it out"):
        read(tmp_path / "base.pth", Small, base="random:1")


def test_factors_of_other_kinds_of_layers_are_refused(tmp_path, base):
    state = factors() | {"base_model.model.fc.lora_magnitude_vector.weight": torch.ones(6)}
    with pytest.raises(SourceError, match="lora_magnitude_vector"):
        read(write_adapter(tmp_path / "adapter", state), Small)


def test_an_adapter_that_peft_wrote_computes_the_same_features(tmp_path):
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        image_size=32, patch_size=8, layer_norm_eps=1e-6,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.ViTForImageClassification(config)
        model.save_pretrained(tmp_path / "base")
        options = peft.LoraConfig(
            r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "projection"], bias="all",
            modules_to_save=["classifier"], rank_pattern={"v_proj": 2},
        )  # fmt: skip
        adapted = peft.get_peft_model(model, options).eval()
        for key, parameter in adapted.named_parameters():
            if "lora_" in key or key.endswith("bias"):
                nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(tmp_path / "adapter")
    assert "base_layer" in "".join(load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
    network, report = read(tmp_path / "adapter", tiny_vit, base=str(tmp_path / "base"))
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = adapted.base_model.model.vit(x).last_hidden_state[:, 0]
        torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5)
    assert report.layout == "Hugging Face ViT"

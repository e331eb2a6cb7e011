"""The speed benchmark: the usual implementation computes the same, and every figure is written."""

import json
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.memory import measure_here  # noqa: E402
from benchmarks.profile_step import PARTS, multiplications, profile  # noqa: E402
from benchmarks.reference import ReferenceConv2d, reference_network  # noqa: E402
from benchmarks.train_step import ratios, settings, write  # noqa: E402
from benchmarks.variants import SpeedSetting, Variant  # noqa: E402
from zoo_lightning.models.backbone import ZooBackbone  # noqa: E402
from zoo_lightning.nn import ZooConv2d  # noqa: E402

KEYS = [
    "train.full_vs_reference", "train.lite_vs_reference", "eval.full_vs_reference",
    "eval.lite_vs_reference", "train.full_vs_plain", "train.lite_vs_plain", "eval.full_vs_plain",
    "eval.folded_vs_plain", "memory.full_vs_reference", "memory.lite_vs_plain",
]  # fmt: skip
TINY = SpeedSetting("test_resnet", batch=2, size=32, sources=2)


@pytest.mark.parametrize("mode", ["full", "lite"])
@pytest.mark.parametrize("architecture", ["test_resnet", "mobilenetv3_small_050"])
def test_the_usual_implementation_computes_the_same(mode, architecture):
    backbone = ZooBackbone(architecture, ["random:1", "random:2"], mode=mode)
    for layer in backbone.aggregated_layers().values():
        if layer.alignment is not None:
            with torch.no_grad():
                layer.alignment.add_(torch.randn_like(layer.alignment), alpha=0.02)
    usual, x = reference_network(backbone), torch.randn(2, 3, 64, 64)
    scale = backbone(x).abs().max().item()
    torch.testing.assert_close(usual(x), backbone(x), rtol=1e-3, atol=1e-3 * scale)
    usual(x).square().mean().backward()
    backbone(x).square().mean().backward()
    theirs, ours = (
        dict(n.named_parameters())["net.conv_stem.weight" if "mobile" in architecture else
                                   "net.conv1.0.weight"].grad for n in (usual, backbone)
    )  # fmt: skip
    torch.testing.assert_close(theirs, ours, rtol=0.02, atol=0.02 * ours.abs().max().item())


@pytest.mark.parametrize("mode", ["full", "lite"])
def test_the_usual_implementation_of_a_vit_computes_the_same(mode):
    backbone = ZooBackbone("test_vit", ["random:1", "random:2"], mode=mode, image_size=64)
    usual, x = reference_network(backbone), torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(usual(x), backbone(x), rtol=1e-3, atol=1e-4)
    aligned = ZooBackbone("test_vit", ["random:1"], mode=mode, align="heads")
    with pytest.raises(TypeError, match="aligned"):
        reference_network(aligned)


@pytest.mark.parametrize("mode", ["full", "lite"])
def test_the_usual_layer_aligns_biases_too(mode):
    conv = nn.Conv2d(4, 6, 3, padding=1, groups=2)
    weight = torch.randn(3, *conv.weight.shape)
    layer = ZooConv2d(conv, weight, torch.randn(3, 6), mode=mode)
    nn.init.normal_(layer.alignment)
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(ReferenceConv2d(layer)(x), layer(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_command_writes_all_ratios(tmp_path):
    file = tmp_path / "speed.json"
    arguments = "--architecture test_resnet --batch 2 --size 32 --sources 2 --turns 1 --threads 1"
    command = [sys.executable, "benchmarks/train_step.py", *arguments.split(), "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(file.read_text())
    assert all(result[key] > 0 for key in KEYS)
    assert all(key in done.stdout for key in KEYS)


@pytest.mark.usefixtures("one_thread")
def test_a_fused_optimiser_takes_the_same_step():
    usual, fused = Variant("lite", TINY), Variant("lite_fused", TINY)
    assert fused.optimizer.defaults["fused"]
    for variant in (usual, fused):
        variant.train_step()
    for left, right in zip(usual.network.parameters(), fused.network.parameters(), strict=True):
        torch.testing.assert_close(left, right)


@pytest.mark.usefixtures("one_thread")
def test_the_profile_finds_every_part_of_a_step():
    variant = Variant("full", TINY)
    spent = profile(variant, steps=1)
    assert set(spent) == set(PARTS)
    assert all(spent[part] > 0 for part in ("gates", "convolution", "optimiser", "rest"))
    assert multiplications(variant)["plain"] > 0


def test_ratios_above_one_mean_faster_than_the_reference_and_slower_than_plain():
    seconds = {"plain": 1.0, "reference_full": 8.0, "full": 2.0}
    found = ratios({"train": seconds, "eval": {}, "memory": {}})
    assert found == {"train.full_vs_reference": 4.0, "train.full_vs_plain": 2.0}


def test_peak_memory_holds_at_least_the_parameters():
    assert measure_here("full", TINY) > 0


def test_the_sweep_varies_one_thing_at_a_time_and_writes_what_it_has(tmp_path):
    base = SpeedSetting()
    for axis, setting in settings(base):
        changed = {k for k, v in vars(setting).items() if v != vars(base)[k]}
        assert changed <= {axis}
    row = {"axis": "batch", **vars(base), "batch": 8, "train.full_vs_plain": 2.0}
    row |= {"train.lite_vs_plain": 1.5, "eval.full_vs_plain": 2.5}
    row |= {"train.reference_full_vs_plain": 8.0, "train.reference_lite_vs_plain": 7.0}
    write([row], tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"sweep.csv", "sweep.md", "sweep.png"}


def test_no_module_hides_a_library_from_scripts_that_are_run_beside_it():
    # ``python benchmarks/NAME.py`` looks for every import in this folder first.
    ours = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert not ours & (sys.stdlib_module_names | set(packages_distributions()))

"""What trains on a CPU trains on a GPU: the same numbers, no hidden waits, precision and compiling.

Each test runs on the CPU too, where that says something, so that it is known to be right before it
meets a GPU.
"""

import copy
import warnings

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from zoo_lightning import ClassificationTask, ImageFolders, ZooBackbone
from zoo_lightning.callbacks.finite_numbers import FiniteNumbers
from zoo_lightning.nn import ZooConv2d
from zoo_lightning.nn.aggregated import update_gate_emas
from zoo_lightning.nn.fast.ways import WAYS
from zoo_lightning.nn.reference import REFERENCE

SOURCES = ["random:1", "random:2"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def step(network, x):
    """Output and gradients of one step."""
    y = network(x)
    y.float().square().mean().backward()
    return [y, *(p.grad for p in network.parameters() if p.grad is not None)]


@pytest.mark.gpu
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kernel", [1, 3])
def test_every_way_equals_the_reference_on_a_gpu(way, kernel):
    conv = nn.Conv2d(16, 24, kernel, padding=kernel // 2)
    layer = ZooConv2d(conv, torch.randn(3, *conv.weight.shape), torch.randn(3, 24), plan=REFERENCE)
    x = torch.randn(4, 16, 9, 9).contiguous(memory_format=torch.channels_last)
    expected = step(copy.deepcopy(layer).double(), x.double())
    layer.plan = way
    for found, wanted in zip(step(layer.cuda(), x.cuda()), expected, strict=True):
        scale = wanted.abs().max().item()  # matrix products on tensor cores may round to tf32
        torch.testing.assert_close(found.cpu().double(), wanted, rtol=5e-3, atol=5e-3 * scale)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["full", "lite"])
def test_a_step_of_a_backbone_makes_nobody_wait(mode):
    backbone = ZooBackbone("test_resnet", SOURCES, mode=mode).cuda()
    layers = list(backbone.aggregated_layers().values())
    x = torch.randn(4, 3, 64, 64, device="cuda")
    step(backbone, x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(backbone, x)
        update_gate_emas(layers, [layer.take_gate_sum() for layer in layers], 0.1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("precision", "options"),
    [
        ("bf16-mixed", {"fused": True}),
        ("16-mixed", {}),
        ("32-true", {"checkpoint_activations": True, "fused": True}),
    ],
)
def test_trainings_of_any_precision_learn(class_root, device, precision, options):
    if device == "cpu" and precision == "16-mixed":
        pytest.skip("scaled gradients of half precision need a GPU")
    data = ImageFolders(root=str(class_root), image_size=32, batch_size=6, num_workers=0)
    backbone = ZooBackbone("test_resnet", SOURCES, mode="lite")
    task = ClassificationTask(backbone, num_classes=3, lr=1e-3, **options)
    before = copy.deepcopy(task.state_dict())
    trainer = pl.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu", devices=1, precision=precision,
        max_steps=3, max_epochs=-1, limit_val_batches=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[FiniteNumbers()],
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(task, data)
    after = task.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    kernels = [key for key in after if key.endswith("conv1.weight")]
    assert kernels
    assert all(not torch.equal(after[key].cpu(), before[key]) for key in kernels)
    assert int(after["backbone.net.conv1.0.gate_updates"]) == 3


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["full", "lite"])
def test_a_compiled_backbone_computes_the_same_on_a_gpu(mode):
    backbone = ZooBackbone("test_resnet", SOURCES, mode=mode).cuda()
    x = torch.randn(4, 3, 64, 64, device="cuda").contiguous(memory_format=torch.channels_last)
    expected = step(copy.deepcopy(backbone), x)
    torch.compiler.reset()
    found = step(torch.compile(backbone, fullgraph=True, dynamic=False), x)
    for left, right in zip(found, expected, strict=True):
        scale = right.abs().max().item() + 1e-6
        torch.testing.assert_close(left, right, rtol=1e-2, atol=1e-2 * scale)

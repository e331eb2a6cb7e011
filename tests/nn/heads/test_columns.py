"""Heads of maps upsample the stages of a network that has them all in one size, such as a ViT."""

import pytest
import torch

from zoo_lightning import DrawnFaces, LandmarkTask, SegmentationTask, ZooBackbone
from zoo_lightning.nn.heads.maps import MapHead

SOURCES = ["random:0", "random:1"]


@pytest.mark.parametrize(
    ("reductions", "stride", "cells"), [([16] * 4, 4, 16), ([16] * 4, 16, 4), ([14, 14], 4, 16)]
)
def test_stages_of_one_size_are_fused_and_upsampled(reductions, stride, cells):
    head = MapHead([8] * len(reductions), reductions, 5, stride)
    maps = [torch.randn(2, 8, 4, 4) for _ in reductions]
    y = head(maps)
    assert y.shape == (2, 5, cells, cells)
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in head.join.parameters())


def test_stages_of_several_sizes_are_fused_as_before():
    head = MapHead([8, 16], [8, 16], 5, stride=4)
    assert head.upsample is None
    assert head([torch.randn(1, 8, 8, 8), torch.randn(1, 16, 4, 4)]).shape == (1, 5, 8, 8)


@pytest.mark.parametrize(("mode", "output"), [("full", "stages"), ("lite", "map")])
def test_a_vit_zoo_learns_heat_maps(mode, output):
    torch.manual_seed(0)
    backbone = ZooBackbone("test_vit", SOURCES, mode, output=output, image_size=64, align="heads")
    task = LandmarkTask(backbone, num_points=5, head="heatmaps")
    data = DrawnFaces(train_size=8, val_size=1, num_points=5, batch_size=8, num_workers=0)
    data.setup("fit")
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    target = task.codec.encode(batch["points"], (64, 64))
    optimizer, losses = torch.optim.AdamW(task.parameters(), lr=2e-3), []
    for _ in range(12):
        raw = task(batch["image"])
        assert raw.shape == (8, 5, 16, 16)
        loss = task.head.loss(raw, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_a_vit_segments():
    backbone = ZooBackbone("test_vit", SOURCES, "lite", output="stages", image_size=64)
    task = SegmentationTask(backbone, num_classes=3).eval()
    with torch.no_grad():
        assert task(torch.randn(2, 3, 64, 64)).shape[:2] == (2, 3)

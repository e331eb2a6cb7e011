"""The network of a zoo that others trained takes their checkpoints whole."""

from pathlib import Path

import pytest
import torch

from benchmarks.mobilenet025 import mobilenet025
from zoo_lightning import ZooBackbone

ZOO = Path(__file__).parents[3] / "shared" / "data" / "zoo_mobilenet025"


def test_its_features_are_256_and_its_stride_32():
    network = mobilenet025().eval()
    maps = network.stage3(network.stage2(network.stage1(torch.zeros(2, 3, 64, 96))))
    assert maps.shape == (2, 256, 2, 3)
    assert network(torch.zeros(2, 3, 64, 96)).shape == (2, 256)


@pytest.mark.skipif(not ZOO.is_dir(), reason="the zoo of shared data is not here")
def test_every_checkpoint_of_the_zoo_fits_wholly():
    files = sorted(path for path in ZOO.iterdir() if path.suffix in (".pth", ".tar"))
    assert len(files) == 6
    zoo = ZooBackbone("benchmarks.mobilenet025.mobilenet025", [str(path) for path in files])
    keys = sum("num_batches" not in key for key in mobilenet025().state_dict())
    assert all(len(each.state) >= keys for each in zoo.loaded)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(zoo.eval()(images)).all()

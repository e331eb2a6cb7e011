"""Statistics of norm layers, estimated over batches."""

import torch
from torch import nn

from zoo_lightning.layers.norm_statistics import estimate_norms


def test_statistics_are_the_plain_average_over_the_batches_and_nothing_else_changes():
    norm = nn.BatchNorm2d(3, momentum=0.3)
    network = nn.Sequential(norm, nn.Dropout(0.5)).eval()
    norm.running_mean.fill_(7)
    batches = [torch.randn(4, 3, 5, 5) + shift for shift in (0.0, 2.0, 4.0)]
    estimate_norms(network, iter(batches))
    mean = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean)
    assert (norm.momentum, norm.training, network[1].training) == (0.3, False, False)
    assert not network.training


def test_networks_without_such_statistics_do_not_run():
    estimate_norms(nn.GroupNorm(1, 3), [None])

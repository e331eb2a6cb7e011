"""Statistics of norm layers, estimated over batches."""

import pytest
import torch
from torch import nn

from zoo_lightning.nn.norm_statistics import estimate_norms, interleaved


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


def test_batches_that_were_seen_before_do_not_count():
    norm = nn.BatchNorm2d(2, momentum=0.3)
    for _ in range(5):
        norm(torch.randn(4, 2, 3, 3) + 50)
    images = torch.randn(4, 2, 3, 3)
    estimate_norms(norm, [images])
    torch.testing.assert_close(norm.running_mean, images.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, images.transpose(0, 1).flatten(1).var(1))


def test_networks_without_such_statistics_do_not_run():
    estimate_norms(nn.GroupNorm(1, 3), [None])


def test_mixed_batches_have_images_of_all_classes():
    by_class = [torch.full((4, 1, 2, 2), float(label)) for label in range(5)]
    found = interleaved(by_class)
    assert sorted(torch.cat(found)[:, 0, 0, 0].tolist()) == sorted(
        torch.cat(by_class)[:, 0, 0, 0].tolist()
    )
    assert all(len(batch) == 4 for batch in found)
    assert all(len(batch.unique()) >= 4 for batch in found)
    few = interleaved(by_class, limit=10)
    assert sum(map(len, few)) == 10
    assert torch.cat(few).unique().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("count", [2, 3, 5, 7])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_no_mixed_batch_is_of_one_image(count, size):
    batches = torch.rand(count, 1, 2, 2).split(size)
    found = interleaved(batches)
    assert min(map(len, found)) >= 2
    assert count - 1 <= sum(map(len, found)) <= count


def test_statistics_of_mixed_batches_contain_the_deviation_between_classes():
    layer = nn.BatchNorm2d(1)
    by_class = [10.0 * label + torch.rand(4, 1, 2, 2) for label in range(4)]
    estimate_norms(layer, by_class)
    within = float(layer.running_var)
    estimate_norms(layer, interleaved(by_class))
    assert float(layer.running_var) > 100 * within

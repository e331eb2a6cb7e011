"""A candidate replaces an incumbent only if the validation images agree."""

import pytest
import torch

from zoo_lightning.pipelines.guard import gain


@pytest.fixture
def losses():
    return torch.rand(200, generator=torch.Generator().manual_seed(1))


def test_a_model_does_not_replace_one_that_is_the_same(losses):
    found = gain(losses, losses)
    assert (found.mean, found.low, found.high, found.share) == (0, 0, 0, 0)
    assert not found.is_sure


def test_a_small_gain_on_every_image_is_sure_though_images_differ_much(losses):
    found = gain(losses - 0.01, losses)
    assert found.is_sure
    assert found.mean == pytest.approx(0.01)
    assert found.low == pytest.approx(0.01) == found.high
    assert not gain(losses, losses - 0.01).is_sure


def test_a_gain_that_hangs_on_one_image_is_not_sure(losses):
    candidate = losses + 0.01
    candidate[0] = losses[0] - 3.0
    found = gain(candidate, losses)
    assert found.mean > 0
    assert found.share == pytest.approx(1 - 199 / 200 * (1 - 1 / 200) ** 199, abs=0.05)
    assert not found.is_sure


def test_the_interval_has_the_width_of_the_standard_error(losses):
    noise = torch.randn(200, generator=torch.Generator().manual_seed(2))
    found = gain(losses + noise, losses)
    assert (found.high - found.low) / 2 == pytest.approx(
        1.96 * float(noise.std()) / 200**0.5, rel=0.1
    )

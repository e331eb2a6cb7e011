"""A teacher's own input is what its own preprocessing makes of the same pixels."""

import pytest
import torch

from zoo_lightning.errors import ConfigError
from zoo_lightning.models.own_input import OwnInput
from zoo_lightning.sources.normalisation import Normalisation, declared

TASK = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def column(values):
    return torch.tensor(values).view(-1, 1, 1)


def normalised(pixels):
    return (pixels - column(TASK[0])) / column(TASK[1])


@pytest.mark.parametrize(
    ("given", "own"),
    [
        ({"mean": [0.5] * 3, "std": [0.5] * 3}, lambda p: (p - 0.5) / 0.5),
        (
            {"mean": [104, 117, 123], "range": "0..255", "channels": "bgr"},
            lambda p: 255 * p.flip(1) - column([104.0, 117.0, 123.0]),
        ),
        (
            {"mean": 0.4, "std": 0.2, "channels": "grey"},
            lambda p: (((p * column([0.299, 0.587, 0.114])).sum(1, True) - 0.4) / 0.2).expand(
                -1, 3, -1, -1
            ),
        ),
        ({"range": "0..255"}, lambda p: 255 * p),
    ],
)
def test_it_is_the_own_preprocessing_of_the_same_pixels(given, own):
    pixels = torch.rand(2, 3, 5, 4)
    found = OwnInput(TASK, declared("a", given))
    assert not found.unchanged
    torch.testing.assert_close(found(normalised(pixels)), own(pixels), rtol=1e-5, atol=2e-4)


def test_the_same_preprocessing_leaves_every_bit_and_another_size_is_resized():
    images = normalised(torch.rand(2, 3, 8, 8))
    same = OwnInput(TASK, Normalisation(*TASK))
    assert same.unchanged
    assert same(images) is images
    larger = OwnInput(TASK, Normalisation(*TASK), 16)(images)
    assert larger.shape == (2, 3, 16, 16)
    torch.testing.assert_close(larger.mean(), images.mean(), rtol=0.05, atol=0.05)


def test_an_unknown_normalisation_is_the_tasks():
    assert OwnInput(TASK, None).unchanged


def test_channels_that_do_not_fit_the_images_are_refused():
    with pytest.raises(ConfigError, match=r"2 channels .* images of 3 channels"):
        OwnInput(TASK, Normalisation((0.5, 0.5), (0.5, 0.5)))
    with pytest.raises(ConfigError, match=r"bgr.* images of 1 channels"):
        OwnInput(([0.5], [0.5]), Normalisation((0.0,), (1.0,), channels="bgr"))

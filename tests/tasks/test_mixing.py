"""Mixing of batches: same seed same mix, labels that fit the images, nothing global touched."""

import numpy as np
import pytest
import torch

from zoo_lightning.errors import ConfigError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.tasks import ClassificationTask
from zoo_lightning.tasks.mixing import BatchMixing


def batch(size):
    """Images that are constantly 1 where their class is their channel, else 0."""
    labels = torch.arange(size) % 3
    images = torch.nn.functional.one_hot(labels, 3).float()[..., None, None].expand(-1, -1, 16, 16)
    return images, labels


def mixing(mixup=0.0, cutmix=0.0, probability=1.0, label_smoothing=0.0):
    return BatchMixing(3, mixup, cutmix, probability, label_smoothing)


@pytest.mark.parametrize("size", [1, 2, 7, 8])
@pytest.mark.parametrize("options", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 1, "cutmix": 1}])
def test_targets_are_the_shares_that_images_show(size, options):
    images, labels = batch(size)
    seen = []
    for seed in range(4):
        mixed, targets = mixing(**options)(images, labels, seed)
        torch.testing.assert_close(mixed.mean(dim=(2, 3)), targets)
        seen.append(targets)
    assert size == 1 or any(((t > 0.01) & (t < 0.99)).any() for t in seen)
    assert torch.equal(images, batch(size)[0]), "the images given were changed"


def test_a_mix_depends_on_its_seed_alone_and_leaves_numpys_generator():
    images, labels = batch(6)
    images = torch.rand_like(images)
    mix = mixing(mixup=1.0, cutmix=1.0)
    first = mix(images, labels, 3)
    np.random.seed(1)
    expected = np.random.get_state()[1].copy()
    second = mix(images, labels, 3)
    assert np.array_equal(np.random.get_state()[1], expected)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(mix(images, labels, 4)[0], first[0])


def test_probability_zero_is_smoothing_alone():
    images, labels = batch(5)
    mixed, targets = mixing(mixup=1.0, probability=0.0, label_smoothing=0.3)(images, labels, 0)
    assert torch.equal(mixed, images)
    torch.testing.assert_close(targets[0], torch.tensor([0.8, 0.1, 0.1]))
    torch.testing.assert_close(targets[4], torch.tensor([0.1, 0.8, 0.1]))  # which has no partner


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"mixup": -1.0}, "mixup must be at least 0"),
        ({"cutmix": -0.1}, "cutmix must be at least 0"),
        ({"mix_probability": 2.0}, "mix_probability"),
    ],
)
def test_options_outside_their_range_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        ClassificationTask(PlainBackbone("test_resnet"), 3, **options)

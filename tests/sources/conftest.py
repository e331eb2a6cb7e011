"""What the tests of sources share: small networks' states and the paper's foreign layouts."""

from __future__ import annotations

import pytest
import timm
import torch


def _plain_state(architecture, seed=0, **options):
    """Return a headless timm network's initial state under a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return timm.create_model(architecture, num_classes=0, **options).state_dict()


def _assert_same(state, expected):
    """Assert that two states have the same keys and the same bits."""
    assert list(state) == list(expected)
    for key, tensor in expected.items():
        assert state[key].dtype == tensor.dtype, key
        assert torch.equal(state[key], tensor), key


@pytest.fixture(scope="session")
def plain_state():
    """The function that makes a headless network's state: ``(architecture, seed, **options)``."""
    return _plain_state


@pytest.fixture(scope="session")
def assert_same():
    """The assertion that two states have the same keys and the same bits."""
    return _assert_same


@pytest.fixture(scope="session")
def small():
    """State of a small network that plays the source."""
    return _plain_state("test_resnet", seed=1)


@pytest.fixture(scope="session")
def small_reference():
    """State of the same network as it is before any source."""
    return _plain_state("test_resnet", seed=2)


@pytest.fixture(scope="session")
def resnet_reference():
    """State of timm's ResNet-50."""
    return _plain_state("resnet50")


@pytest.fixture
def marker(tmp_path):
    """A file that exists only if a hostile checkpoint was obeyed."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists(), "code in a checkpoint was executed"

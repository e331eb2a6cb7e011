"""What the tests of layouts share: models with values that matter, and the comparison."""

from __future__ import annotations

import pytest
import torch

from zoo_lightning.models.architecture import Architecture
from zoo_lightning.models.backbone import load_architecture
from zoo_lightning.sources.spec import Source


def _scattered(network, seed=0):
    """Return a network in evaluation mode, every parameter and statistic of which has an effect.

    Initial biases, scales and statistics of 0 and 1 would hide tensors that are left out.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if not tensor.is_floating_point() or key.endswith("relative_coords_table"):
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if key.endswith("running_var"):
                tensor.copy_(1 + 0.3 * noise.abs())
            elif tensor.ndim >= 2 and key.endswith("weight"):
                tensor.copy_(noise / tensor[0].numel() ** 0.5)
            elif key.endswith(("weight", "gamma", "lambda1", "layer_scale_parameter")):
                tensor.copy_(1 + 0.2 * noise)
            else:
                tensor.copy_(0.2 * noise)
    return network.eval()


@pytest.fixture(scope="session")
def scattered():
    """The function that gives every tensor of a network values that matter: ``(network, seed)``."""
    return _scattered


@pytest.fixture(scope="session")
def images():
    """The function that makes images: ``(side)`` gives ``(2, 3, side, side)``."""
    return lambda side: torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def read():
    """The function that reads a source into a network: ``(weights, architecture, **source)``.

    Returns the network and the report on the match.
    """

    def load(weights, architecture, **options):
        recipe = Architecture(architecture)
        (adapted,) = load_architecture(recipe, [Source("mine", str(weights), **options)])
        return recipe.build(adapted.state).eval(), adapted.report

    return load


@pytest.fixture(scope="session")
def assert_agrees(images):
    """The assertion that two networks map images to the same features, which vary."""

    def check(network, reference, side, tolerance=1e-5):
        with torch.no_grad():
            ours, theirs = network(images(side)), reference(images(side))
        assert ours.shape == theirs.shape
        assert theirs.std() > 0.1
        assert (theirs[0] - theirs[1]).abs().max() > 100 * tolerance
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)

    return check

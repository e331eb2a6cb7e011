"""How alike sources are."""

import numpy as np
import pytest
import torch

from zoo_lightning.benchmarking.diagnosis import linear_cka, plot_similarity, similarities
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.models.backbone import load_architecture
from zoo_lightning.sources.spec import parse_sources


@pytest.mark.parametrize("samples", [10, 200])
def test_cka_agrees_with_its_definition_by_kernels(samples):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(samples, 20)), rng.normal(size=(samples, 30))
    y[:, :20] += x
    centre = np.eye(samples) - 1 / samples
    kernels = [centre @ each @ each.T @ centre for each in (x, y)]
    wanted = (kernels[0] * kernels[1]).sum() / np.prod([np.linalg.norm(k) for k in kernels])
    assert linear_cka(torch.tensor(x), torch.tensor(y)) == pytest.approx(wanted, rel=1e-9)


def test_cka_does_not_see_rotation_scale_or_order():
    x = torch.randn(50, 8)
    rotation = torch.linalg.qr(torch.randn(8, 8))[0]
    assert linear_cka(x, 3 * x @ rotation) == pytest.approx(1)
    assert linear_cka(x, x[:, torch.randperm(8)] + 5) == pytest.approx(1)
    assert linear_cka(x, torch.ones(50, 4)) == 0


def test_sources_are_compared_layer_by_layer():
    architecture = Architecture("test_resnet")
    sources = parse_sources(["builtin:tiny-imagenet50", "builtin:segmentation", "random:1"])
    states = [each.state for each in load_architecture(architecture, sources)]
    images = [torch.randn(16, 3, 32, 32) for _ in range(2)]
    found = similarities(architecture, states, images)
    assert found[0].layer == "conv1.0"
    for each in found:
        assert torch.allclose(each.cka.diagonal(), torch.ones(3), atol=1e-6)
        assert torch.allclose(each.cka, each.cka.T, atol=1e-6)
        assert torch.allclose(each.cosine.diagonal(), torch.ones(3), atol=1e-6)
    # Relatives are more alike than strangers.
    cka = torch.stack([each.cka for each in found]).mean(dim=0)
    cosine = torch.stack([each.cosine for each in found]).mean(dim=0)
    assert cka[0, 1] > cka[0, 2]
    assert cosine[0, 1] > 0.5 > abs(float(cosine[0, 2]))
    [axes] = plot_similarity(found, ["a", "b", "c"]).axes
    assert len(axes.get_lines()) == 3
    with pytest.raises(ValueError, match="1 sources"):
        plot_similarity(found, ["a"])

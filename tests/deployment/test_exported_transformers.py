"""A zoo of ViTs folds to timm's network, and its exports compute what the folded network does."""

import numpy as np
import pytest
import timm
import torch

from zoo_lightning import (
    ClassificationTask,
    FashionMNISTSubset,
    LandmarkTask,
    ZooBackbone,
)
from zoo_lightning.data import DrawnFaces
from zoo_lightning.deployment.formats import ONNX, TORCH_EXPORT, write_onnx, write_timm
from zoo_lightning.deployment.formats import write_torch_export as write_program
from zoo_lightning.deployment.manifest import manifest_of
from zoo_lightning.deployment.modules import deployable

SIDE = 64


def vit(mode, name="vit_tiny_patch16_224", **options):
    """Backbone of a zoo as it is after some training: aligned, with gates of its own."""
    torch.manual_seed(0)
    options = {"align": "heads", "image_size": SIDE, **options}
    backbone = ZooBackbone(name, ["random:0", "random:1", "random:2"], mode, **options)
    with torch.no_grad():
        for layer in backbone.aggregated_layers().values():
            layer.gate_ema.copy_(torch.rand(3) * 0.4 + 0.1)
            if layer.alignment is not None:
                layer.alignment.add_(0.02 * torch.randn_like(layer.alignment))
    return backbone


def exported(task, data, folder, kinds):
    """Outputs of what is exported for some images, beside those of the folded network."""
    data.setup("fit")
    manifest = manifest_of(task, data.facts())
    network = deployable(task)
    images = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    found = {}
    for kind in kinds:
        kind(task, network, manifest, folder)
        if kind is write_onnx:
            onnxruntime = pytest.importorskip("onnxruntime")
            session = onnxruntime.InferenceSession(
                str(folder / ONNX), providers=["CPUExecutionProvider"]
            )
            found["onnx"] = session.run(None, {"images": images.numpy()})[0]
        elif kind is write_program:
            program = torch.export.load(folder / TORCH_EXPORT).module()
            found["program"] = program(images).numpy()
        else:
            model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
            with torch.no_grad():
                found["timm"] = model(images).numpy()
    with torch.no_grad():
        return network(images).numpy(), found


def test_a_vit_tiny_zoo_folds_to_timms_keys_and_its_exports_agree(tmp_path):
    pytest.importorskip("onnxscript")
    task = ClassificationTask(vit("lite"), num_classes=10).eval()
    folded = task.fold()
    network = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=SIDE).eval()
    assert list(folded.state_dict()) == list(network.state_dict())
    network.load_state_dict(folded.state_dict())
    kinds = (write_onnx, write_program, write_timm)
    wanted, found = exported(task, FashionMNISTSubset(image_size=SIDE), tmp_path, kinds)
    images = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found["keys"] = network(images).numpy()
        found["zoo"] = task(images).numpy()
    assert len(found) == 5
    for outputs in found.values():
        np.testing.assert_allclose(outputs, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_heat_maps_of_a_vit_are_exported(tmp_path):
    task = LandmarkTask(vit("lite", "test_vit", output="stages"), num_points=5, head="heatmaps")
    data = DrawnFaces(train_size=2, val_size=1, num_points=5, image_size=SIDE)
    wanted, found = exported(task.eval(), data, tmp_path, [write_program])
    np.testing.assert_allclose(found["program"], wanted, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [("test_vit", {}), ("mobilevit_xxs", {"image_size": None})],  # with windows
)
def test_a_full_zoo_of_transformers_is_exported_with_a_kernel_for_each_sample(
    name, options, tmp_path
):
    task = ClassificationTask(vit("full", name, **options), num_classes=10).eval()
    kinds = [write_onnx, write_program]
    wanted, found = exported(task, FashionMNISTSubset(image_size=SIDE), tmp_path, kinds)
    for outputs in found.values():
        np.testing.assert_allclose(outputs, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())

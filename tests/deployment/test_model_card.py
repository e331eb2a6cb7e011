"""Model cards: the Hub can read their metadata, and they say what is known and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from zoo_lightning import export
from zoo_lightning.deployment.lineage import Ancestor, Origin, origin_of
from zoo_lightning.deployment.manifest import OUTPUTS, Manifest
from zoo_lightning.deployment.model_card import (
    METRICS,
    PIPELINE_TAGS,
    common_license,
    model_card,
    preparation,
)
from zoo_lightning.prediction.inputs import Images, Item
from zoo_lightning.runs.run_folder import read_checkpoint

HOSTILE = '`x` | <b>y</b>\n---\nlicense: mit\n"{[: #'


def manifest(task="classification", **output):
    given = {"name": "images", "size": [3, 8, 8], "dtype": "float32", "mean": [0.0] * 3,
             "std": [1.0] * 3, "preprocessing": {"kind": "crop"}}  # fmt: skip
    return Manifest(task, "resnet18", "lite", given, {"names": OUTPUTS[task], **output})


def card(found, **options):
    return ModelCard(model_card(found, ["timm"], Origin(**options)))


def test_an_export_has_a_card_that_the_hub_can_read(finished):
    folder = export(finished, "torch-export", "out", say=lambda line: None)
    written = ModelCard.load(folder / "README.md")
    data = written.data.to_dict()
    summary = json.loads((finished / "summary.json").read_text())
    assert data["library_name"] == "torch"
    assert data["pipeline_tag"] == "keypoint-detection"
    assert data["metrics"] == ["nme"]
    assert {"zoo_lightning", "landmarks"} <= {*data["tags"]}
    assert "license" not in data
    [result] = written.data.eval_results
    assert result.metric_value == pytest.approx(summary["test"]["test/nme"])
    assert result.dataset_name == "DrawnFaces"
    for part in ("## Results", "## Use", "## Intended use", "## Sources", "## Training cost",
                 "random:1", "torch.export.load", f"steps: {summary['steps']}"):  # fmt: skip
        assert part in written.text


@pytest.mark.parametrize("task", [*PIPELINE_TAGS])
def test_every_task_has_its_tag_and_metric(task):
    name, on_hub = METRICS[task]
    found = card(manifest(task), summary={"test": {name: 0.25}, "seed": 1})
    assert found.data.pipeline_tag == PIPELINE_TAGS[task]
    assert found.data.eval_results[0].metric_type == on_hub


def test_sources_of_the_hub_are_base_models():
    sources = [Ancestor("a", "timm:a.x", "", "mit", "timm/a.x"), Ancestor("b", "b.pth")]
    several = card(manifest(), sources=sources).data.to_dict()
    assert several["base_model"] == ["timm/a.x"]
    assert several["base_model_relation"] == "merge"
    assert "license" not in several
    alone = card(manifest(), sources=sources[:1]).data.to_dict()
    assert alone["base_model_relation"] == "finetune"
    assert alone["license"] == "mit"


def test_a_licence_is_named_only_if_all_sources_have_it():
    mit, unknown, random = Ancestor("a", "a", license="mit"), Ancestor("b", "b"), Ancestor(
        "c", "random:1", license="")  # fmt: skip
    assert common_license(Origin(sources=[mit, random])) == "mit"
    assert common_license(Origin(sources=[mit, unknown])) is None
    assert common_license(Origin(sources=[random])) is None
    run = Ancestor("r", "runs/r", sources=[mit])
    assert common_license(Origin(sources=[run])) == "mit"


def test_names_of_users_change_neither_metadata_nor_tables():
    sources = [Ancestor(HOSTILE, HOSTILE, HOSTILE)]
    found = card(
        manifest(classes=[HOSTILE]),
        summary={"test": {"test/acc": 0.5, HOSTILE: 1.0}, "seed": 0},
        data=HOSTILE,
        sources=sources,
    )
    assert "license" not in found.data.to_dict()
    assert found.data.eval_results[0].dataset_name == HOSTILE
    assert "\n---" not in found.text.replace("|---", "")
    rows = [line for line in found.text.splitlines() if "`'x'" in line and line.startswith("|")]
    assert [row.replace("\\|", "").count("|") for row in rows] == [3, 5]


def test_the_sources_of_a_run_that_is_a_source_are_followed(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "private" / "team" / "first")
    content = read_checkpoint(run / "checkpoints" / "best.ckpt")
    content["hyper_parameters"]["backbone"]["init_args"]["sources"] = [str(run), "builtin:faces5"]
    found = origin_of(Path("elsewhere/model.ckpt"), content)
    first, shipped = found.sources
    assert first.weights == "team/first"
    assert [each.weights for each in first.sources] == ["random:1", "random:2"]
    assert shipped.license == "mit"
    assert "private" not in model_card(manifest(), ["timm"], found)


def test_figures_that_are_no_numbers_are_left_out():
    found = card(manifest(), summary={"test": {"test/acc": float("nan")}, "compute": None})
    assert found.data.eval_results is None
    assert "nan" not in found.text


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"kind": "crop", "squeeze": None, "crops": 1}, "shorter side has 8 pixels, bilinear"),
        ({"kind": "crop", "squeeze": 10, "crops": 1}, "resize it to 10x10 pixels, bicubic"),
        ({"kind": "crop", "squeeze": 10, "crops": 10}, "cut out 10 crops of 8x8 pixels"),
        ({"kind": "square", "around": "image", "margin": 1.0}, "pad it with black to a square"),
        ({"kind": "square", "around": "face", "margin": 1.5}, "face's box, 1.5 times"),
    ],
)
def test_a_card_says_in_words_how_an_image_becomes_an_input(told, words):
    assert words in preparation({"size": [3, 8, 8], "preprocessing": told})


@pytest.mark.parametrize(
    ("bands", "words"),
    [
        (None, "Pillow"),
        ({"deep": False, "chosen": "grey"}, "Pillow"),
        ({"deep": True, "chosen": "grey"}, "torchvision"),
        ({"deep": False, "chosen": [0]}, "torchvision"),
    ],
)
def test_a_card_says_whose_resizing_it_is(bands, words):
    told = {"kind": "crop", "squeeze": None, "crops": 1}
    given = {"size": [1, 8, 8], "preprocessing": told}
    assert words in preparation(given if bands is None else given | {"bands": bands})


def test_an_image_prepared_by_the_words_of_the_card_is_the_input(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    given = {"size": [3, 8, 8], "preprocessing": {"kind": "crop", "squeeze": None, "crops": 1}}
    [prepared] = Images([Item(tmp_path / "a.png", "a")], given)
    small = image.resize((10, 8), Image.Resampling.BILINEAR).crop((1, 0, 9, 8))
    assert np.array_equal(prepared.pixels[0].numpy(), np.asarray(small).transpose(2, 0, 1))

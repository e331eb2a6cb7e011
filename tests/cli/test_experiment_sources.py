"""``sources check`` and ``sources rank``: an experiment's sources without a training."""

import json
from pathlib import Path

import pytest
import timm
import torch

BACKBONE = "model.init_args.backbone.init_args"
CHECK = ["sources", "check", "--experiment", "tiny"]
RANK = ["sources", "rank", "--experiment", "tiny"]


def save(name: str, architecture: str = "test_resnet", prefix: str = "") -> None:
    """Write a headless network's random weights."""
    state = timm.create_model(architecture, num_classes=0).state_dict()
    torch.save({"state_dict": {prefix + key: value for key, value in state.items()}}, name)


# check


def test_check_says_what_matched_and_needs_no_data(tiny, command):
    tiny(data={"class_path": "LandmarkCSV", "init_args": {"root": "nowhere"}})
    save("a.pth", prefix="module.")
    found = command(*CHECK, f"--{BACKBONE}.sources", "[a.pth, random:1]")
    assert found.status == 0, found.err
    title, *lines, note = found.out.splitlines()
    assert title == "tiny: test_resnet (pooled features)"
    assert lines == [
        "fits          a (a.pth): 90 of 90 tensors matched under 'module.'",
        "fits          random-1 (random:1): 90 of 90 tensors matched",
    ]
    assert note.startswith("note          preprocessing of a is unknown")
    assert not Path("runs").exists()


def test_check_names_every_source_that_does_not_fit(tiny, command):
    tiny()
    save("other.pth", "resnet18")
    found = command(*CHECK, "--sources", "random:1,other.pth,builtin:nowhere,random:2")
    line = found.refused()
    assert "2 of 4 sources do not fit test_resnet: other, nowhere" in line
    assert "does not fit  Source 'other' (other.pth) is not of the architecture" in found.out
    assert "does not fit  Source 'nowhere': No shipped source 'nowhere'" in found.out
    assert found.out.count("\nfits  ") == 2


def run_with(name, mean, architecture="test_resnet"):
    """A finished run whose images had another mean."""
    Path(name).mkdir()
    save(f"{name}/best.ckpt", architecture)
    noted = {"mean": [mean] * 3, "std": [0.2] * 3}
    summary = {"checkpoint": "best.ckpt", "preprocessing": noted}
    Path(name, "summary.json").write_text(json.dumps(summary))


def test_check_says_whose_first_layer_is_transformed_and_whose_input_is_unknown(tiny, command):
    tiny()
    run_with("run_a", 0.5)
    save("other.pth")
    found = command(*CHECK, "--sources", "run_a,other.pth,builtin:faces5")
    assert found.status == 0, found.err
    lines = {line.split()[1]: line for line in found.out.splitlines() if line.startswith("fits")}
    assert lines["run_a"].endswith("transformed from RGB in 0..1, mean 0.5, std 0.2")
    assert "transformed" not in lines["other"]
    assert "transformed" not in lines["faces5"]
    assert "note          preprocessing of other is unknown" in found.out
    assert "warning" not in found.out


def test_check_warns_of_a_first_layer_that_cannot_be_transformed(tiny, command):
    tiny()
    run_with("run_a", 0.5, "test_nfnet")
    found = command(*CHECK, "--sources", "run_a", "--architecture", "test_nfnet",
                    "--model.backbone", "PlainBackbone")  # fmt: skip
    assert found.status == 0, found.err
    assert "warning       Sources see images that are normalised otherwise" in found.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sources", "chek"], "Did you mean 'check'?"),
        (["sources"], "'sources inspect'"),
        (["sources", "check", "--experiment", "tiyn"], "Did you mean 'tiny'?"),
        ([*CHECK, "--architecture=test_resnt"], "Did you mean 'test_resnet'?"),
        ([*CHECK, "--architecture=nf_resnet26", "--sources=random:1"], "cannot be aggregated"),
        ([*CHECK, f"--{BACKBONE}.sources=[]"], "tiny has no sources"),
        ([*RANK, "--samples=1"], "--samples must be at least 2"),
        ([*RANK, "--samples=many"], "--samples"),
        ([*RANK, "--sources=random:1,a.pth,b.pth"], "2 of 3 sources do not fit"),
        ([*RANK, "--data=ImageFolders", "--data.root=nowhere"], "folder nowhere"),
    ],
)
def test_a_mistake_is_named_in_one_line(tiny, command, words, message):
    tiny()
    assert message in command(*words).refused()


@pytest.mark.parametrize("name", ["check", "rank"])
def test_the_help_is_short(name, command):
    found = command("sources", name, "--help")
    assert found.status == 0
    assert found.out.startswith(f"usage: python -m zoo_lightning sources {name} --experiment NAME")


# rank


def test_rank_puts_the_source_that_knows_faces_first(tiny, command):
    tiny()
    words = ["--sources", "random:1,builtin:rotation,builtin:faces5", "--data.train_size=150"]
    found = command(*RANK, *words, "--data.image_size=64", "--samples=120")
    assert found.status == 0, found.err
    title, header, first, *rest, meaning = found.out.splitlines()
    assert title == "tiny: 120 training samples, test_resnet, 96 features"
    assert header.split() == ["source", "logme", "negative_linear_mse", "weights"]
    assert first.split()[:2] == ["1", "faces5"]
    assert len(rest) == 2
    assert meaning.startswith("logme: log evidence")


def test_rank_repeats_itself_and_does_not_augment(tiny, command):
    tiny()
    options = ["--samples=20", "--json"]
    first, second, augmented = (
        command(*RANK, *options, f"--data.augment={augment}")
        for augment in ("false", "false", "true")
    )
    assert first.status == 0, first.err
    content = json.loads(first.out)
    assert first.out == second.out == augmented.out
    assert (content["experiment"], content["samples"]) == ("tiny", 20)
    assert {row["name"] for row in content["rows"]} == {"random-1", "random-2"}
    logme = [row["logme"] for row in content["rows"]]
    assert logme == sorted(logme, reverse=True)


def test_rank_works_for_stages(tiny, command):
    tiny(**{f"{BACKBONE}.output": "stages", "model.init_args.head": "heatmaps"})
    found = command(*RANK, "--samples=10", "--json")
    assert found.status == 0, found.err
    assert json.loads(found.out)["num_features"] > 96


def test_rank_finds_the_source_that_tells_classes_apart(tiny, class_root, command):
    data = {"root": str(class_root), "image_size": 32, "batch_size": 4, "num_workers": 0}
    options = {"val_fraction": 0.2, **data}
    tiny(
        data={"class_path": "ImageFolders", "init_args": options},
        **{"model.class_path": "ClassificationTask", "model.init_args.lr": 0.01},
    )
    trained = command("fit", "--experiment", "tiny", "--run_dir", "trained")
    assert trained.status == 0, trained.err
    found = command(*RANK, "--sources=random:7,trained", "--json")
    assert found.status == 0, found.err
    content = json.loads(found.out)
    assert content["scores"] == ["logme", "h_score"]
    assert [row["name"] for row in content["rows"]] == ["trained", "random-7"]
    assert content["rows"][0]["h_score"] > content["rows"][1]["h_score"]
    assert command(*RANK, "--sources=random:7,trained", "--json").out == found.out


def test_rank_sees_a_source_as_it_was_trained_whatever_the_datas_normalisation(tiny, command):
    # A vision transformer has no padding, in which 0 is another colour in each normalisation.
    tiny()
    save("a.pth", "test_vit")
    source = '[{weights: a.pth, mean: [0.5, 0.4, 0.3], std: [0.2, 0.3, 0.4]}, "random:1"]'
    words = [*RANK, "--architecture", "test_vit", f"--{BACKBONE}.sources", source]
    words += ["--samples", "16", "--data.image_size", "160", "--json"]
    scores = []
    for data in (["--data.mean", "[0.5,0.4,0.3]", "--data.std", "[0.2,0.3,0.4]"], []):
        found = command(*words, *data)
        assert found.status == 0, found.err
        rows = {row["name"]: row for row in json.loads(found.out)["rows"]}
        scores.append(rows)
    (same, other) = scores
    assert other["a"]["logme"] == pytest.approx(same["a"]["logme"], rel=1e-3)
    assert other["random-1"]["logme"] != pytest.approx(same["random-1"]["logme"], rel=1e-3)

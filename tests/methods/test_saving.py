"""Ensembles and averages as checkpoints: what was saved is what is loaded, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from zoo_lightning import ClassificationTask, LandmarkTask, PlainBackbone, ZooBackbone, load_task
from zoo_lightning.errors import ConfigError, SourceError
from zoo_lightning.methods.ensembles import average_tasks, joint_task
from zoo_lightning.methods.saving import save_ensemble, save_task
from zoo_lightning.runs.run_folder import read_checkpoint
from zoo_lightning.sources.inspecting import inspect
from zoo_lightning.sources.own_runs import describe_ensemble, networks_in
from zoo_lightning.sources.spec import Source

IMAGES = {"image_size": 32, "mean": [0.5, 0.4, 0.5], "std": [0.2, 0.2, 0.3]}

POINTS = {
    **IMAGES,
    "preprocessing": {"kind": "square", "around": "image", "margin": 1.0},
    "num_points": 5,
    "scheme": "five",
    "flip": [1, 0, 2, 4, 3],
}

CLASSES = {
    **IMAGES,
    "preprocessing": {"kind": "crop", "squeeze": None, "crops": 1},
    "classes": ["ant", "bee", "cat"],
}

HEATMAPS = {"head": "heatmaps", "loss": "heatmap_mse", "decode": "argmax", "flip_test": True}


def classifier(seed: int, sources: list[str] | None = None) -> ClassificationTask:
    torch.manual_seed(seed)
    task = ClassificationTask(PlainBackbone("test_resnet", sources), num_classes=3)
    torch.nn.init.normal_(task.head.weight)
    return task.eval()


def pointer(seed: int, **options: object) -> LandmarkTask:
    torch.manual_seed(seed)
    output = "stages" if "head" in options else "pooled"
    task = LandmarkTask(PlainBackbone("test_resnet", output=output), num_points=5, **options)
    last = task.head.final if "head" in options else task.head
    torch.nn.init.normal_(last.weight)
    task.flip.copy_(torch.tensor(POINTS["flip"]))
    return task.eval()


def write_run(folder: Path, task: object, **noted: object) -> Path:
    """Write what a finished run's checkpoint holds."""
    facts = POINTS if isinstance(task, LandmarkTask) else CLASSES
    content = {
        "zoo_lightning": {"task": type(task).__name__, "version": "0", "data": facts, **noted},
        "hyper_parameters": dict(task.hparams),
        "state_dict": task.state_dict(),
        "global_step": 7,
        "optimizer_states": [{"state": {}}],
        "callbacks": {"some": 1},
        "loops": {"fit_loop": {}},
    }
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(content, folder / "checkpoints" / "best.ckpt")
    return folder


def runs_of(folder: Path, tasks: list) -> list[Path]:
    return [write_run(folder / f"run{i}", task) for i, task in enumerate(tasks)]


@pytest.fixture
def saved(tmp_path):
    """An ensemble of two classifiers in ``both``."""
    save_ensemble(runs_of(tmp_path, [classifier(0), classifier(1)]), tmp_path / "both")
    return tmp_path / "both"


@pytest.mark.parametrize(
    "make",
    [
        classifier,
        pointer,
        lambda seed: pointer(seed, head="heatmaps"),
        lambda seed: pointer(seed, **HEATMAPS),
    ],
    ids=["classes", "coordinates", "shares of heat maps", "learned heat maps, mirrored"],
)
@torch.no_grad()
def test_a_saved_ensemble_predicts_what_its_networks_do_together(make, tmp_path):
    tasks = [make(seed) for seed in range(3)]
    path = save_ensemble(runs_of(tmp_path, tasks), tmp_path / "all")
    assert path == tmp_path / "all" / "checkpoints" / "best.ckpt"
    wanted, loaded = joint_task(tasks), load_task(tmp_path / "all")
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(images), wanted(images))
    if isinstance(wanted, LandmarkTask):
        assert torch.equal(loaded.points(images), wanted.points(images))
    assert torch.allclose(loaded.fold()(images), loaded(images), rtol=1e-4, atol=1e-5)
    assert (loaded.method, len(loaded.networks())) == ("ensemble", 3)
    ones = [task.backbone.parameter_counts()["training"] for task in tasks]
    assert loaded.parameter_counts()["training"] == sum(ones)
    count = sum(p.numel() for p in tasks[0].parameters())
    assert sum(p.numel() for p in loaded.parameters()) == 3 * count


def test_the_file_holds_the_networks_without_their_trainings(saved):
    content = read_checkpoint(saved / "checkpoints" / "best.ckpt")
    networks = networks_in(content)
    assert [network["global_step"] for network in networks] == [7, 7]
    assert {key for network in networks for key in network} == {
        "zoo_lightning", "hyper_parameters", "state_dict", "global_step", "run"
    }  # fmt: skip
    noted = content["zoo_lightning"]
    assert (noted["task"], noted["data"]) == ("ClassificationTask", CLASSES)
    runs = [str(saved.parent / name) for name in ("run0", "run1")]
    assert describe_ensemble(content) == f"an ensemble of 2 networks ({', '.join(runs)})"


def test_an_ensemble_needs_neither_the_sources_nor_the_runs(tmp_path):
    source = PlainBackbone("test_resnet").net.state_dict()
    torch.save(source, tmp_path / "source.pth")
    tasks = [classifier(seed, [str(tmp_path / "source.pth")]) for seed in range(2)]
    runs = runs_of(tmp_path, tasks)
    path = save_ensemble(runs, tmp_path / "both.ckpt")
    assert path == tmp_path / "both.ckpt"
    (tmp_path / "source.pth").unlink()
    for run in runs:
        (run / "checkpoints" / "best.ckpt").unlink()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_task(path)(images), joint_task(tasks)(images))


def test_an_average_is_a_checkpoint_like_any_other(tmp_path):
    tasks = [classifier(seed) for seed in range(2)]
    runs = runs_of(tmp_path, tasks)
    soup = average_tasks(tasks)
    path = save_task(soup, runs[0], tmp_path / "soup", "greedy-soup")
    loaded = load_task(tmp_path / "soup")
    assert (loaded.method, loaded.ensemble) == ("greedy-soup", None)
    wanted = soup.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in loaded.state_dict().items())
    assert read_checkpoint(path)["zoo_lightning"]["data"] == CLASSES
    source = PlainBackbone("test_resnet", [str(path)]).net.state_dict()
    assert torch.equal(source["conv1.0.weight"], soup.backbone.net.state_dict()["conv1.0.weight"])
    with pytest.raises(ConfigError, match="save_ensemble"):
        save_task(joint_task(tasks), runs[0], tmp_path / "other", "ensemble")


def test_networks_without_a_joint_output_are_refused(saved, tmp_path):
    run = tmp_path / "run0"
    with pytest.raises(ConfigError, match="both is an ensemble of 2 networks"):
        save_ensemble([run, saved], tmp_path / "three")
    with pytest.raises(ConfigError, match="at least one"):
        save_ensemble([], tmp_path / "none")
    other = write_run(tmp_path / "other", classifier(2), data=CLASSES | {"image_size": 64})
    with pytest.raises(ConfigError, match=r"image_size is 32 in .*run0 and 64 in .*other"):
        save_ensemble([run, other], tmp_path / "sizes")
    heads = [pointer(0, head="heatmaps"), pointer(1, **HEATMAPS)]
    with pytest.raises(ConfigError, match="must be alike"):
        save_ensemble(runs_of(tmp_path / "heads", heads), tmp_path / "mixed")
    assert {path.name for path in tmp_path.iterdir()} == {"both", "run0", "run1", "other", "heads"}


DAMAGES = {
    "no networks": lambda content: content.update(members={}),
    "a list of networks": lambda content: content.update(members=[1]),
    "a network that is none": lambda content: content["members"].update({"2": 5}),
    "nested": lambda content: content["members"].update({"2": dict(content)}),
    "no weights": lambda content: content["members"]["1"].pop("state_dict"),
    "no options": lambda content: content["members"]["2"].update(hyper_parameters={}),
    "weights of another": lambda content: content["members"]["1"]["state_dict"].popitem(),
    "another task": lambda content: content["members"]["2"]["zoo_lightning"].update(task="PPOTask"),
    "other classes": lambda content: content["members"].update(
        {"2": read_checkpoint(Path("four/checkpoints/best.ckpt"))}
    ),
    "sources that are none": lambda content: content["members"]["2"]["hyper_parameters"][
        "backbone"
    ]["init_args"].update(sources=3),
    "no word of the data": lambda content: content["zoo_lightning"].update(data=3),
    "no task": lambda content: content["zoo_lightning"].pop("task"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_ensemble_is_refused_in_one_line(saved, tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    if damage == "other classes":
        write_run(Path("four"), ClassificationTask(PlainBackbone("test_resnet"), num_classes=4))
    content = torch.load(saved / "checkpoints" / "best.ckpt", weights_only=True)
    DAMAGES[damage](content)
    torch.save(content | {"more": torch.zeros(2, 2)}, "broken.ckpt")
    with pytest.raises(ConfigError, match=r"broken\.ckpt") as caught:
        load_task("broken.ckpt")
    assert len(str(caught.value).splitlines()) == 1


def test_half_an_ensemble_is_refused(saved):
    path = saved / "checkpoints" / "best.ckpt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ConfigError, match=r"best\.ckpt is truncated or damaged"):
        load_task(saved)


class Evil:
    """Reading it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("marker",)


def test_an_ensemble_does_not_choose_what_code_is_called(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = torch.load(saved / "checkpoints" / "best.ckpt", weights_only=True)
    backbone = content["members"]["2"]["hyper_parameters"]["backbone"]
    backbone["init_args"]["architecture"] = "os.abort"
    torch.save(content, "calls.ckpt")
    with pytest.raises(ConfigError, match=r"calls\.ckpt, network 2 of 2, is refused: .*os\.abort"):
        load_task("calls.ckpt")
    backbone["init_args"]["architecture"] = "test_resnet"
    backbone["class_path"] = "subprocess.Popen"
    torch.save(content, "class.ckpt")
    with pytest.raises(ConfigError, match="does not fit"):
        load_task("class.ckpt")
    content["members"]["1"]["run"] = Evil()
    torch.save(content, "code.ckpt")
    with pytest.raises(ConfigError, match=r"code\.ckpt is refused: reading it would call"):
        load_task("code.ckpt")
    assert not Path("marker").exists()


def test_an_ensemble_is_no_source(saved):
    path = saved / "checkpoints" / "best.ckpt"
    with pytest.raises(SourceError, match=r"'x'.*an ensemble of 2 networks .*run0.* one of them"):
        PlainBackbone("test_resnet", [{"name": "x", "weights": str(path)}])
    with pytest.raises(SourceError, match="an ensemble of 2 networks"):
        inspect(Source("x", str(path)))


def test_an_ensemble_has_no_gates_to_report(tmp_path, command):
    zoos = [
        ClassificationTask(ZooBackbone("test_resnet", ["random:1", "random:2"]), num_classes=3)
        for _ in range(2)
    ]
    save_ensemble(runs_of(tmp_path, zoos), tmp_path / "zoos")
    command("gates", "--ckpt_path", tmp_path / "zoos").refused(
        "gates are reported for one zoo", "an ensemble of 2 networks", "run0", "one of them"
    )

"""Weight files made to harm: no code in them is run, nothing is written, no memory is filled."""

import io
import itertools
import os
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from zoo_lightning.errors import ConfigError, SourceError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.models.architecture import OURS, Architecture, is_vouched_for, vouch_for
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.runs.run_folder import read_checkpoint
from zoo_lightning.sources.adapting import adapt
from zoo_lightning.sources.files import read_file
from zoo_lightning.sources.reading import read_weights
from zoo_lightning.sources.spec import Source
from zoo_lightning.tasks import ClassificationTask
from zoo_lightning.tasks.loading import load_task


class Mkdir:
    """Makes a folder when a careless reader unpickles it."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


class Evaluate(Mkdir):
    """The same through the builtin that runs any text."""

    def __reduce__(self):
        return eval, (f"__import__('os').mkdir({str(self.marker)!r})",)


class Rebuilt(Mkdir):
    """The same, hidden in the state of an object that is harmless by itself."""

    def __reduce__(self):
        return OrderedDict, (), None, None, iter([("a", Mkdir(self.marker))])


def zipped_pickle(content: bytes) -> bytes:
    """A pickle where ``torch.save`` puts its own, in an archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return stream.getvalue()


def saved(content: object, **options) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def tarred(content: bytes) -> bytes:
    """In the archive of tape, which torch wrote in its first years."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def in_an_archive(content: bytes, name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, content)
    return stream.getvalue()


WAYS = {
    "torch.save": saved,
    "torch.save of old": lambda content: saved(content, _use_new_zipfile_serialization=False),
    "pickle 0": lambda content: pickle.dumps(content, protocol=0),
    "pickle 2": lambda content: pickle.dumps(content, protocol=2),
    "pickle 5": lambda content: pickle.dumps(content, protocol=5),
    "pickle in a zip": lambda content: zipped_pickle(pickle.dumps(content)),
    "pickle 2 in a zip": lambda content: zipped_pickle(pickle.dumps(content, protocol=2)),
    "tar": lambda content: tarred(pickle.dumps(content, protocol=2)),
    "checkpoint in a zip": lambda content: in_an_archive(saved(content), "weights.pth"),
}


@pytest.mark.parametrize("suffix", ["pth", "ckpt", "pt", "bin", "safetensors"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [Mkdir, Evaluate, Rebuilt])
def test_code_in_a_weight_file_is_not_run(tmp_path, marker, kind, way, suffix):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(WAYS[way]({"state_dict": {"a.weight": torch.zeros(2, 2)}, "x": kind(marker)}))
    with pytest.raises(SourceError, match=rf"w\.{suffix}"):
        read_file(path)
    with pytest.raises(ConfigError, match=rf"w\.{suffix}"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["../outside.pth", "/tmp/outside.pth", "a/../../outside.pth"])
def test_an_archive_whose_entries_lead_outside_writes_nothing(tmp_path, small, name):
    folder = tmp_path / "inner"
    folder.mkdir()
    stream = io.BytesIO(saved(small))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr(name, b"written")
    (folder / "w.pth").write_bytes(stream.getvalue())
    before = sorted(tmp_path.rglob("*"))
    try:
        state = read_file(folder / "w.pth")
    except SourceError as error:
        assert "w.pth" in str(error)  # noqa: PT017
    else:
        assert state.keys() == small.keys()
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/outside.pth").exists()


def header(text: str, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode() + data


ONE = '{"a":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}'

LIES = {
    "header of 2^63 bytes": struct.pack("<Q", 1 << 63) + b"{}",
    "header of 90 MB that is not there": struct.pack("<Q", 90_000_000) + b"{" + bytes(100),
    "two tensors in one place": header(
        '{"a":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},'
        '"b":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}',
        bytes(4),
    ),
    "a hole": header(
        '{"a":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},'
        '"b":{"dtype":"F32","shape":[1,1],"data_offsets":[8,12]}}',
        bytes(12),
    ),
    "offsets backwards": header(
        '{"a":{"dtype":"F32","shape":[1,1],"data_offsets":[4,0]}}', bytes(4)
    ),
    "bytes left over": header(
        '{"a":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}', bytes(40)
    ),
    "shape that overflows": header(
        '{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}'
    ),
    "deep nesting": header("[" * 100_000),
    "twice the same key": header(
        '{"a":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},'
        '"a":{"dtype":"F32","shape":[9,9],"data_offsets":[0,324]}}',
        bytes(4),
    ),
    "no UTF-8": struct.pack("<Q", 4) + b'{"\xff}',
    "no tensor": header("{}"),
    "metadata alone": header('{"__metadata__":{"a":"b"}}'),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_header_of_safetensors_that_lies_is_refused(tmp_path, lie, suffix):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(LIES[lie])
    with pytest.raises(SourceError, match=rf"w\.{suffix}"):
        read_file(path)


def test_a_trillion_numbers_in_a_kilobyte_are_refused_by_their_shape(tmp_path, small_reference):
    state = dict(small_reference)
    state["conv1.0.weight"] = torch.zeros(1).expand(1_000_000, 1_000_000)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(SourceError, match=r"conv1\.0\.weight is \(1000000, 1000000\), expected"):
        adapt(read_file(tmp_path / "w.pth"), small_reference, Source("a", "w.pth"))


def test_a_number_that_all_of_a_kernel_shares_is_taken_as_a_kernel(small_reference):
    state = dict(small_reference)
    shape = state["conv1.0.weight"].shape
    state["conv1.0.weight"] = torch.ones(1, 1, 1, 1).expand(shape)
    taken = adapt(state, small_reference, Source("a", "w.pth")).state["conv1.0.weight"]
    taken[0] += 1  # memory of its own, so that training cannot move all of it at once
    assert taken[1].eq(1).all()


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(8, 3, 3, 3).to_sparse(),
        torch.zeros(8, 3, 3, 3, dtype=torch.complex64),
        torch.zeros(8, 3, 3, 3, dtype=torch.int64),
        torch.full((8, 3, 3, 3), float("nan")),
        torch.full((8, 3, 3, 3), 1e300, dtype=torch.float64),
        torch.zeros(0, 3, 3, 3),
        torch.zeros(8, 3, 3, 3, device="meta"),
    ],
    ids=["sparse", "complex", "integers", "NaN", "beyond float32", "empty", "meta"],
)
def test_tensors_that_are_no_weights_are_refused(small_reference, wrong):
    reference = {"conv.weight": torch.zeros(8, 3, 3, 3), "conv.bias": torch.zeros(8)}
    with pytest.raises(SourceError, match=r"conv\.weight"):
        adapt({**reference, "conv.weight": wrong}, reference, Source("a", "w.pth"))


def test_an_input_kernel_of_complex_numbers_is_not_made_real_by_other_channels(small_reference):
    state = dict(small_reference)
    state["conv1.0.weight"] = state["conv1.0.weight"][:, :1].to(torch.complex64)
    with pytest.raises(SourceError, match=r"conv1\.0\.weight"):
        adapt(state, small_reference, Source("a", "w.pth"))


def test_a_weight_file_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(SourceError, match=r"w\.pth is not a file"):
        read_file(tmp_path / "w.pth")


TENFOLD = (f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in itertools.pairwise("abcdefghi"))
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(TENFOLD)

CARDS = {
    "unsafe tag": "name: !!python/object/apply:os.mkdir [marker]\n",
    "bomb": BOMB,
    "itself": "name: &n [*n]\n",
    "deep": "[" * 50_000,
    "number": "name: !!int x\n",
    "time": "steps: 2024-13-45\n",
}


@pytest.mark.parametrize("kind", CARDS)
def test_a_hostile_card_beside_weights_is_not_obeyed(tmp_path, monkeypatch, small, kind):
    monkeypatch.chdir(tmp_path)
    save_file(small, "w.safetensors")
    Path("w.yaml").write_text(CARDS[kind])
    assert read_weights(Source("a", "w.safetensors"), "test_resnet").normalisation is None
    assert not Path("marker").exists()


# Runs


CALLED = []


def network_that_tells() -> torch.nn.Module:
    """A network's function that leaves a trace when it is called."""
    CALLED.append(1)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())


def run_checkpoint(**changes: object) -> dict:
    """What a checkpoint of a run has at least, with other entries."""
    init_args = {"architecture": "test_resnet", "sources": ["random:1"]}
    return {
        "zoo_lightning": {"task": "ClassificationTask", "version": "0"},
        "hyper_parameters": {
            "num_classes": 2,
            "backbone": {"class_path": "ZooBackbone", "init_args": init_args},
        },
        "state_dict": {"a": torch.zeros(2, 2)},
        "global_step": 1,
        **changes,
    }


@pytest.mark.parametrize("name", ["os.abort", "subprocess.Popen", "antigravity.fly", "tests.evil"])
def test_a_checkpoint_does_not_choose_what_code_is_called(tmp_path, name):
    content = run_checkpoint()
    content["hyper_parameters"]["backbone"]["init_args"]["architecture"] = name
    torch.save(content, tmp_path / "run.ckpt")
    with pytest.raises(ConfigError, match=rf"is refused: .*calling {name}.*--architecture {name}"):
        load_task(tmp_path / "run.ckpt")


def test_an_architecture_that_the_user_names_is_called(tmp_path, monkeypatch):
    name = "zoo_lightning.models.nature_cnn.nature_cnn"
    task = ClassificationTask(PlainBackbone(name), num_classes=2)
    content = run_checkpoint(hyper_parameters=dict(task.hparams), state_dict=task.state_dict())
    torch.save(content, tmp_path / "run.ckpt")
    monkeypatch.setattr("zoo_lightning.models.architecture._vouched", set())
    with pytest.raises(ConfigError, match="is refused"):
        load_task(tmp_path / "run.ckpt")
    loaded = load_task(tmp_path / "run.ckpt", architecture=name).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in task.state_dict().items())


@pytest.mark.parametrize(
    ("words", "afterwards"),
    [
        (["export", "--format", "timm"], "with a config.yaml"),
        (["predict", "--images", "a.png"], "the data lack"),
        (["gates"], "with a config.yaml"),
    ],
    ids=["export", "predict", "gates"],
)
def test_commands_call_an_architecture_only_if_it_is_named(
    tmp_path, monkeypatch, command, words, afterwards
):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    name = "zoo_lightning.models.nature_cnn.nature_cnn"
    if words == ["gates"]:
        backbone = ZooBackbone(name, ["random:1", "random:2"])
    else:
        backbone = PlainBackbone(name)
    task = ClassificationTask(backbone, num_classes=2)
    content = run_checkpoint(hyper_parameters=dict(task.hparams), state_dict=task.state_dict())
    if words[0] == "predict":
        content["zoo_lightning"]["data"] = {"image_size": 8}
    torch.save(content, "run.ckpt")
    monkeypatch.setattr("zoo_lightning.models.architecture._vouched", set())
    given = [words[0], "--ckpt_path", "run.ckpt", "--output", "out", *words[1:]]
    refused = command(*given)
    assert refused.status == 2
    assert f"run.ckpt is refused: its network is made by calling {name}" in refused.err
    named = command(*given, "--architecture", name)
    assert named.status == 2
    assert "is refused" not in named.err
    assert afterwards in named.err


def test_what_configurations_and_code_name_is_vouched_for(monkeypatch):
    monkeypatch.setattr("zoo_lightning.models.architecture._vouched", set())
    assert is_vouched_for("resnet18")
    assert all(map(is_vouched_for, OURS))
    assert not is_vouched_for("torch.nn.Identity")
    Architecture("torch.nn.Identity")
    assert is_vouched_for("torch.nn.Identity")
    label = Architecture(network_that_tells).label
    assert is_vouched_for(label)
    vouch_for(None)
    assert not is_vouched_for("None")
    assert not CALLED


@pytest.mark.parametrize(
    "changes",
    [
        {"zoo_lightning": 3},
        {"zoo_lightning": {}},
        {"zoo_lightning": {"task": ["ClassificationTask"]}},
        {"hyper_parameters": None},
        {"hyper_parameters": {}},
        {"hyper_parameters": {"backbone": "ZooBackbone"}},
        {"hyper_parameters": {"backbone": {"class_path": "ZooBackbone"}}},
        {"state_dict": torch.zeros(2, 2)},
        {"global_step": "many"},
        {"zoo_lightning": {"task": "ClassificationTask", "data": {"classes": "cats"}}},
        {"zoo_lightning": {"task": "ClassificationTask", "data_options": [1]}},
    ],
)
def test_a_checkpoint_of_the_wrong_shape_is_refused(tmp_path, changes):
    torch.save(run_checkpoint(**changes) | {"more": torch.zeros(2, 2)}, tmp_path / "run.ckpt")
    with pytest.raises(ConfigError, match=r"run\.ckpt is damaged, or of another version"):
        load_task(tmp_path / "run.ckpt")


@pytest.mark.parametrize(
    "described",
    [
        {"class_path": "subprocess.Popen", "init_args": {"args": ["mkdir", "marker"]}},
        {"class_path": "ZooBackbone", "init_args": {"architecture": "test_resnet"}},
        {"class_path": "ZooBackbone", "init_args": {"architecture": 5, "sources": ["random:1"]}},
        {"class_path": "ZooBackbone", "init_args": {"architecture": "resnet18", "sources": 3}},
        {"class_path": "ZooBackbone", "init_args": {"sources": ["random:1"], "x": 1}},
    ],
)
def test_a_checkpoint_builds_nothing_but_backbones_of_ours(tmp_path, monkeypatch, described):
    monkeypatch.chdir(tmp_path)
    content = run_checkpoint(hyper_parameters={"num_classes": 2, "backbone": described})
    torch.save(content, "run.ckpt")
    with pytest.raises((ConfigError, SourceError)):
        load_task("run.ckpt")
    assert not Path("marker").exists()

"""Weight files that nobody vouches for."""

import argparse
import collections
import os
import pickle
import struct

import pytest
import torch
from safetensors.torch import save_file

from zoo_lightning.errors import SourceError
from zoo_lightning.sources.files import read_contents, read_file, unwrap


class Command:
    """Runs a command when a careless reader unpickles it."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def containers(state):
    other = {key: torch.zeros_like(value) for key, value in state.items()}
    return {
        "bare": state,
        "ordered": collections.OrderedDict(state),
        "state_dict": {"epoch": 3, "arch": "x", "state_dict": state, "optimizer": {"state": {}}},
        "model": {"model": state, "args": argparse.Namespace(lr=0.1)},
        "model_state": {"step": torch.tensor(3), "model_state": state},
        "model_state_dict": {"model_state_dict": state},
        "average before model": {"model": other, "state_dict_ema": state},
        "average in its own container": {"state_dict": other, "ema": {"state_dict": state}},
        "average without weights": {"model": state, "ema": {"decay": torch.tensor(0.9)}},
        "model_ema": {"model_ema": state, "model": other},
        "teacher first": {"teacher": state, "student": other},
        "student first": {"student": other, "teacher": state},
        "student alone": {"student": state},
        "target after online": {"online_network": other, "target_network": state},
        "net": {"net": state},
        "module": {"module": state},
        "backbone": {"backbone": state, "head": {"weight": torch.zeros(2, 2)}},
        "nested": {"model": {"state_dict": {"module": state}}},
    }


@pytest.mark.parametrize("kind", list(containers({})))
def test_the_usual_containers_are_unwrapped(kind, small, tmp_path, assert_same):
    path = tmp_path / "weights.pth"
    torch.save(containers(small)[kind], path)
    assert_same(read_file(path), small)


@pytest.mark.parametrize(
    "wrapper", ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."]
)
@pytest.mark.parametrize("place", [0, 1])
def test_wrappers_of_modules_are_taken_out_of_keys(wrapper, place, small, tmp_path, assert_same):
    def wrapped(key):
        parts = key.split(".")
        return ".".join([*parts[:place], wrapper + ".".join(parts[place:])])

    torch.save({"state_dict": {wrapped(k): v for k, v in small.items()}}, tmp_path / "w.pth")
    assert_same(read_file(tmp_path / "w.pth"), small)


@pytest.mark.parametrize(
    ("content", "taken", "others"),
    [
        (lambda a, b: {"state_dict": a, "optimizer": optimizer(a)}, ["state_dict"], []),
        (lambda a, b: {"student": b, "teacher": a, "epoch": 3}, ["teacher"], ["student"]),
        (lambda a, b: {"state_dict": b, "model_ema": a}, ["model_ema"], ["state_dict"]),
        (lambda a, b: {"state_dict": a, "last_model": module(b)}, ["state_dict"], ["last_model"]),
        (lambda a, b: {"ema": {"model": a, "net": b}, "model": b}, ["ema", "model"],
         ["model", "ema.net"]),
        (lambda a, b: {"model": a, "state_dict": a}, ["model"], []),
        (lambda a, b: {"model": a, "head": {"fc.weight": torch.zeros(4, 8)}}, ["model"], []),
        (lambda a, b: {"target_network": a, "online_network": b}, ["target_network"],
         ["online_network"]),
        (lambda a, b: a, [], []),
    ],
)  # fmt: skip
def test_containers_with_other_weights_of_the_network_are_named(
    content, taken, others, small, tmp_path, assert_same
):
    other = {key: torch.zeros_like(value) for key, value in small.items()}
    torch.save(content(small, other), tmp_path / "a.pth")
    found = read_contents(tmp_path / "a.pth")
    assert_same(found.state, small)
    assert (list(found.containers), list(found.others)) == (taken, others)
    for name in found.others:  # each is what the option takes
        assert_same(read_file(tmp_path / "a.pth", name), unwrap(module(other))
                    if name == "last_model" else other)  # fmt: skip


def module(state):
    return {f"module.{key}": value for key, value in state.items()}


def optimizer(state):
    moments = {i: {"exp_avg": value, "step": 3} for i, value in enumerate(state.values())}
    return {"state": moments, "param_groups": [{"lr": 0.1, "params": [*moments]}]}


def test_unknown_containers_are_joined_by_dots(small, assert_same):
    state = unwrap({"base": {"trunk": small}, "loss": 0.1})
    assert_same(state, {f"base.trunk.{key}": value for key, value in small.items()})


def test_a_container_that_holds_itself_ends(small, assert_same):
    content = {"model": {}, "state_dict": small}
    content["model"]["model"] = content["model"]["state_dict"] = content["model"]
    assert_same(unwrap(content), small)


@pytest.mark.parametrize("name", ["w.pth", "w.pth.tar", "w.pt", "w.ckpt", "w.bin", "w"])
@pytest.mark.parametrize("zipped", [True, False])
def test_both_formats_of_torch_are_read(name, zipped, small, tmp_path, assert_same):
    torch.save(small, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert_same(read_file(tmp_path / name), small)


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_safetensors_are_read_whatever_their_ending(name, small, tmp_path, assert_same):
    save_file(small, tmp_path / name)
    assert_same(dict(sorted(read_file(tmp_path / name).items())), dict(sorted(small.items())))


def raw_pickle(content, path):
    path.write_bytes(pickle.dumps(content["hook"], protocol=2))


def modern_pickle(content, path):
    path.write_bytes(pickle.dumps(content, protocol=4))


def zipped(content, path):
    torch.save(content, path)


def legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [raw_pickle, modern_pickle, zipped, legacy])
def test_a_file_that_would_run_code_is_refused_and_not_run(write, tmp_path, marker):
    path = tmp_path / "weights.pth"
    write({"state_dict": {"a": torch.zeros(2, 2)}, "hook": Command(marker)}, path)
    with pytest.raises(
        SourceError, match=r"weights\.pth is refused: .*(system|any code).*state_dict\(\)"
    ):
        read_file(path)


def test_a_whole_pickled_network_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "network.pth")
    with pytest.raises(SourceError, match=r"refused: .*Linear.*state_dict\(\)"):
        read_file(tmp_path / "network.pth")


@pytest.mark.parametrize("write", [zipped, legacy])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(write, share, small, tmp_path):
    path = tmp_path / "weights.pth"
    write(small, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(SourceError, match=r"weights\.pth is truncated or damaged"):
        read_file(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated_safetensors_are_refused(share, small, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(small, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(SourceError, match=r"weights\.safetensors is damaged"):
        read_file(path)


HEADERS = {
    "longer than the file": struct.pack("<Q", 1 << 60) + b"{}",
    "not JSON": struct.pack("<Q", 4) + b"{abc",
    "offsets beyond the end": b'{"a":{"dtype":"F32","shape":[4,4],"data_offsets":[0,64]}}',
    "shape beyond the offsets": b'{"a":{"dtype":"F32","shape":[999,999],"data_offsets":[0,4]}}1234',
    "negative shape": b'{"a":{"dtype":"F32","shape":[-1,4],"data_offsets":[0,4]}}1234',
    "unknown type": b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}1234',
}


@pytest.mark.parametrize("lie", HEADERS)
def test_safetensors_with_a_lying_header_are_refused(lie, tmp_path):
    path = tmp_path / "weights.safetensors"
    content = HEADERS[lie]
    if content.startswith(b"{"):
        header = content[: content.rindex(b"}") + 1]
        content = struct.pack("<Q", len(header)) + content
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"weights\.safetensors is damaged or not safetensors"):
        read_file(path)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_an_empty_file_is_refused(name, tmp_path):
    (tmp_path / name).touch()
    with pytest.raises(SourceError, match="is empty"):
        read_file(tmp_path / name)


@pytest.mark.parametrize("text", ["hello, these are no weights\n", "<html>Not found</html>", "x"])
def test_a_text_file_is_refused(text, tmp_path):
    (tmp_path / "w.pth").write_text(text)
    with pytest.raises(SourceError, match=r"w\.pth is not a checkpoint: it begins with"):
        read_file(tmp_path / "w.pth")


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3, "acc": torch.tensor(0.5)}, "text"])
def test_a_checkpoint_without_weights_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(SourceError, match="holds no weights"):
        read_file(tmp_path / "w.pth")


def test_a_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "moco_v1.pth").touch()
    with pytest.raises(SourceError, match=r"does not exist. Did you mean 'moco_v1\.pth'"):
        read_file(tmp_path / "moco_v2.pth")


@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
def test_a_torchscript_archive_is_refused(tmp_path):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "w.pt")
    with pytest.raises(SourceError, match="TorchScript"):
        read_file(tmp_path / "w.pt")

"""Damaged and invented checkpoints: weights that fit, or an error of ours that names the file."""

import io
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import save_file

from zoo_lightning.errors import ConfigError, SourceError, ZooError
from zoo_lightning.runs.run_folder import read_checkpoint
from zoo_lightning.sources.adapting import adapt
from zoo_lightning.sources.files import CONTAINERS, read_file, unwrap
from zoo_lightning.sources.inspecting import format_inspection, inspect
from zoo_lightning.sources.spec import Source
from zoo_lightning.tasks.loading import load_task

REFERENCE = {
    "stem.weight": torch.zeros(4, 3, 3, 3),
    "norm.weight": torch.ones(4),
    "norm.bias": torch.zeros(4),
    "norm.running_mean": torch.zeros(4),
    "norm.running_var": torch.ones(4),
    "norm.num_batches_tracked": torch.tensor(0),
    "blocks.0.weight": torch.zeros(4, 4, 1, 1),
}
"""A small network's state."""


def saved(content: object, **options: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def as_safetensors(folder) -> bytes:
    save_file(REFERENCE, folder / "w.safetensors")
    return (folder / "w.safetensors").read_bytes()


def zip_with(name: str, content: bytes, whole: bytes) -> bytes:
    """An archive with one entry's content changed and its checksum right."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(stream, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, content if entry.endswith(name) else old.read(entry))
    return stream.getvalue()


@pytest.mark.cases(150, 2000)
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "pickle in zip", "data in zip"])
def test_a_damaged_weight_file_is_read_or_refused(try_all, damaged, attempt, tmp_path, kind):
    path = tmp_path / "weights.bin"
    whole = saved({"state_dict": REFERENCE})
    wrap = lambda content: content  # noqa: E731
    if kind == "legacy":
        whole = saved({"state_dict": REFERENCE}, _use_new_zipfile_serialization=False)
    elif kind == "safetensors":
        whole = as_safetensors(tmp_path)
    elif kind != "zip":
        archive, name = whole, "data.pkl" if kind == "pickle in zip" else "data/0"
        entry = next(n for n in zipfile.ZipFile(io.BytesIO(archive)).namelist() if n.endswith(name))
        whole = zipfile.ZipFile(io.BytesIO(archive)).read(entry)
        wrap = lambda content: zip_with(name, content, archive)  # noqa: E731

    def check(content: bytes) -> None:
        path.write_bytes(wrap(content))
        state, said = attempt(SourceError, read_file, path)
        if state is None:
            assert str(path) in said
        else:
            assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())

    try_all(check, content=damaged(whole))


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool,
          torch.complex64, torch.uint8]  # fmt: skip

SHAPES = st.sampled_from(
    [
        (4, 3, 3, 3),
        (4,),
        (),
        (4, 4, 1, 1),
        (2, 4, 3, 3, 3),
        (4, 1, 3, 3),
        (0,),
        (4, 3),
        (1, 1, 1, 1),
    ]
)

TENSORS = st.builds(
    lambda shape, dtype, value: torch.full(shape, value).to(dtype),
    SHAPES,
    st.sampled_from(DTYPES),
    st.sampled_from([0.0, 1.0, float("nan"), float("inf"), 65504.0]),
)

KEYS = st.one_of(
    st.sampled_from([*REFERENCE, *CONTAINERS, "ema", "state_dict_ema", "head.weight", "fc.bias"]),
    st.builds(
        lambda prefix, key: prefix + key,
        st.sampled_from(["module.", "backbone.", "module.encoder_q.", "a.b.", ".", ""]),
        st.sampled_from(list(REFERENCE)),
    ),
    st.text(max_size=4),
    st.integers(0, 3),
)

CONTENTS = st.recursive(
    TENSORS | st.none() | st.integers() | st.text(max_size=4) | st.lists(TENSORS, max_size=2),
    lambda inner: st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)


@pytest.mark.cases(300, 5000)
def test_any_content_fits_wholly_or_is_refused(try_all, attempt):
    def check(content: object, changes: dict, prefix: str | None, match: str) -> None:
        state = unwrap(content)
        assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
        given = {f"module.{key}": value for key, value in REFERENCE.items()} | changes | state
        source = Source("x", "x.pth", prefix, match)
        for tensors in (state, given):
            tensors = {key: each for key, each in tensors.items() if isinstance(key, str)}
            adapted, said = attempt(SourceError, adapt, tensors, REFERENCE, source)
            if adapted is None:
                assert "'x'" in said
                continue
            assert adapted.state.keys() == REFERENCE.keys()
            for key, wanted in REFERENCE.items():
                assert adapted.state[key].shape == wanted.shape
                assert adapted.state[key].dtype == wanted.dtype
                assert adapted.state[key].isfinite().all()
            assert adapted.report.summary()

    names = st.builds(lambda key: f"module.{key}", st.sampled_from(list(REFERENCE)))
    try_all(
        check,
        content=CONTENTS,
        changes=st.dictionaries(names, TENSORS, max_size=2),
        prefix=st.sampled_from([None, "module.", "", "nowhere."]),
        match=st.sampled_from(["name", "order"]),
    )


@pytest.mark.cases(60, 1000)
def test_any_checkpoint_is_inspected_or_refused(try_all, attempt, tmp_path):
    path = tmp_path / "w.pth"

    def check(content: object) -> None:
        torch.save(content, path)
        seen, said = attempt(ZooError, inspect, Source("x", str(path)))
        assert said if seen is None else format_inspection(seen)

    try_all(check, content=CONTENTS)


@pytest.mark.cases(40, 1000)
def test_any_checkpoint_of_a_run_is_loaded_or_refused(try_all, attempt, tmp_path):
    path = tmp_path / "run.ckpt"
    numbers = np.float32([0.5])
    plain = st.one_of(st.none(), st.integers(), st.text(max_size=4), TENSORS, st.just({}))
    described = st.fixed_dictionaries(
        {"class_path": st.sampled_from(["ZooBackbone", "PlainBackbone", "os.system", "Ensemble"])},
        optional={
            "init_args": st.dictionaries(
                st.sampled_from(["architecture", "sources", "mode", "align", "gate_init", "x"]),
                st.sampled_from(
                    ["test_resnet", "os.abort", ["random:1"], "lite", "all", [0.5], 3, None, {}]
                ),
            )
        },
    )

    def check(ours: object, options: dict, backbone: object, state: object, step: object) -> None:
        content = {
            "zoo_lightning": ours,
            "hyper_parameters": {**options, "backbone": backbone},
            "state_dict": state,
            "global_step": step,
            "weights": torch.from_numpy(numbers).reshape(1, 1),
        }
        torch.save(content, path)
        for read in (read_checkpoint, load_task):
            found, said = attempt((ConfigError, ZooError), read, path)
            assert found is not None or said

    try_all(
        check,
        ours=plain | st.fixed_dictionaries({"task": st.sampled_from(["LandmarkTask", "BaseTask"])}),
        options=st.dictionaries(st.sampled_from(["lr", "head", "num_points", "x"]), plain),
        backbone=plain | described,
        state=plain | st.dictionaries(st.text(max_size=3), TENSORS, max_size=2),
        step=plain,
    )

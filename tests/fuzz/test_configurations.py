"""Files of options that are spoilt: options of ours, or an error of ours that names the file."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import strategies as st

from zoo_lightning.deployment.manifest import read_manifest
from zoo_lightning.errors import ConfigError, SourceError, ZooError
from zoo_lightning.experiments.resolving import resolve
from zoo_lightning.sources.shipped import FOLDER, read_card
from zoo_lightning.sources.spec import parse_sources
from zoo_lightning.sweeps.parameters import Distribution
from zoo_lightning.sweeps.schema import read_sweep

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

TAGS = [
    "!!python/object/apply:os.mkdir [marker]", "!!python/name:os.system", "!!python/object:x.Y {}",
    "!!int x", "!!float ''", "!!bool maybe", "!!timestamp soon", "!!binary ä", "!!set [1]",
    "!!omap 1", "&a [*a]", "*b", "<<: 1", "2024-13-45", "0o9", "1:99:99", "? {a: 1} : 2", "- - -",
    "${oc.env:HOME}", "${nowhere}", "${", "%YAML 3.0", "---", "...", "|", ">", "@", "`", "\t",
]  # fmt: skip
"""Pieces of YAML that need care."""

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["val/nme", "test/nme", "a.b", "random:1", "builtin:faces5", "x.pth"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["min", "max", "value", "values", "distribution", "mu", "sigma", "q", "a", "name",
                 "weights", "prefix", "match", "parameters", "probabilities", "goal", "type"]
            ) | st.integers() | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)  # fmt: skip


def spoilt_yaml(spoilt, text: str) -> st.SearchStrategy[str]:
    """A text with pieces that need care in it, besides those that any text may have."""
    place = st.tuples(st.integers(0, len(text)), st.integers(0, 20), st.sampled_from(TAGS))

    def apply(changes: list[tuple[int, int, str]]) -> str:
        content = text
        for start, count, new in changes:
            content = content[:start] + new + content[start + count :]
        return content

    return st.lists(place, min_size=1, max_size=3).map(apply) | spoilt(text)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The present folder, in which nothing may be made."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not (tmp_path / "marker").exists(), "code in a file of options was executed"


def write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


@pytest.mark.cases(200, 10_000)
def test_a_spoilt_sweep_file_is_a_sweep_or_refused(try_all, spoilt, attempt, folder):
    text = (EXPERIMENTS / "sweeps/landmarks.yaml").read_text()
    path = folder / "sweep.yaml"

    def check(content: str) -> None:
        write(path, content)
        sweep, said = attempt(ConfigError, read_sweep, path)
        if sweep is None:
            assert str(path) in said
            assert "\n" not in said
        else:
            assert sweep.parameters
            assert all(isinstance(each, Distribution) for each in sweep.parameters.values())

    try_all(check, content=spoilt_yaml(spoilt, text))


@pytest.mark.cases(200, 10_000)
def test_any_content_is_a_sweep_or_refused(try_all, attempt, folder):
    path = folder / "sweep.yaml"
    known = {"method": "random", "metric": {"name": "val/nme"}, "parameters": {"x": {"value": 1}}}

    def check(changes: dict) -> None:
        path.write_text(yaml.safe_dump(known | changes), encoding="utf-8")
        sweep, said = attempt(ConfigError, read_sweep, path)
        assert (sweep is None) == bool(said)
        for each in sweep.parameters.values() if sweep else ():
            each.value(0.5)

    keys = st.sampled_from(["method", "metric", "parameters", "early_terminate", "command", "x",
                            "run_cap", "name", "controller", "kind"])  # fmt: skip
    try_all(check, changes=st.dictionaries(keys, VALUES, min_size=1, max_size=3))


@pytest.mark.cases(200, 10_000)
def test_a_spoilt_card_is_a_card_or_refused(try_all, spoilt, attempt, folder):
    text = (FOLDER / "space-invaders.yaml").read_text()
    path = folder / "card.yaml"

    def check(content: str) -> None:
        write(path, content)
        card, said = attempt(SourceError, read_card, path)
        if card is None:
            assert said
        else:
            assert len(card.preprocessing.mean) == card.preprocessing.input_size[0]

    try_all(check, content=spoilt_yaml(spoilt, text))


@pytest.mark.cases(200, 10_000)
def test_any_list_of_sources_is_parsed_or_refused(try_all, attempt):
    def check(given: object) -> None:
        sources, said = attempt(SourceError, parse_sources, given)
        if sources is None:
            assert said
        else:
            assert len({source.name for source in sources}) == len(sources) == len(given)

    try_all(check, given=st.lists(VALUES, max_size=3) | VALUES)


@pytest.mark.cases(100, 5000)
def test_metadata_of_an_export_are_a_manifest_or_refused(try_all, spoilt, attempt):
    good = {
        "task": "landmarks", "architecture": "x", "method": "lite", "version": "0",
        "input": {"size": [3, 8, 8], "mean": [0, 0, 0], "std": [1, 1, 1],
                  "preprocessing": {"kind": "square", "around": "image", "margin": 1.0}},
        "output": {"names": {"points": "x"}, "num_points": 5, "flip": None, "mirrored": False},
    }  # fmt: skip

    def check(text: str) -> None:
        manifest, said = attempt(ConfigError, read_manifest, text, "model.onnx")
        if manifest is None:
            assert said.startswith("model.onnx")

    assert read_manifest(json.dumps(good), "x").task == "landmarks"
    check("[" * 100_000)
    try_all(check, text=spoilt(json.dumps(good)))


@pytest.mark.cases(15, 200)
def test_a_spoilt_experiment_is_resolved_or_refused_in_one_line(try_all, spoilt, attempt, folder):
    text = (EXPERIMENTS / "landmarks.yaml").read_text()
    path = folder / "bad.yaml"

    def check(content: str) -> None:
        write(path, content)
        reader, said = attempt(ZooError, resolve, path)
        if reader is None:
            assert said
            assert "\n" not in said
        else:
            assert reader.options.model.class_path

    try_all(check, content=spoilt_yaml(spoilt, text))

"""Files of options that are no plain YAML: experiments, configurations, sweeps; refused."""

import os
import time
from pathlib import Path

import pytest

from zoo_lightning.errors import ConfigError, SourceError
from zoo_lightning.experiments.finding import find_experiment
from zoo_lightning.files.plain_yaml import read_yaml
from zoo_lightning.sources.shipped import read_card
from zoo_lightning.sweeps.schema import read_sweep

SECONDS = 30.0
"""More processor time than any of these may take."""

FILES = {
    "itself": "model: &m {init_args: *m}\n",
    "an alias of nothing": "model: *nothing\n",
    "object": "model: !!python/object/apply:os.mkdir [marker]\n",
    "object of old": "model: !!python/object/new:os.mkdir [marker]\n",
    "name": "model: !!python/name:os.system\n",
    "module": "model: !!python/module:antigravity\n",
    "tuple": "model: !!python/tuple [1]\n",
    "own tag": "model: !mine {a: 1}\n",
    "number that is none": "seed_everything: !!int x\n",
    "truth that is none": "seed_everything: !!bool perhaps\n",
    "control characters": "model: \x00\x01\n",
    "two documents": "model: 1\n---\nmodel: 2\n",
    "list": "- 1\n- 2\n",
    "key that is a list": "? [1, 2]\n: 3\n",
}

INTERPOLATIONS = {
    "of nothing": "seed_everything: ${no.such.key}\n",
    "of itself": "seed_everything: ${seed_everything}\n",
    "not closed": "seed_everything: ${data\n",
    "of a variable that is not set": "seed_everything: ${oc.env:NO_SUCH_VARIABLE}\n",
    "of an unknown kind": "seed_everything: ${exec:ls}\n",
}


def fit(command, *words: object):
    """Try to train, and measure how long it takes to be refused."""
    start = time.process_time()  # whatever else the machine does
    result = command("fit", "--experiment", "tiny", "--run_dir", "run", *words)
    return result, time.process_time() - start


def assert_refused(result, *words: str) -> None:
    result.refused(*words)
    assert not Path("marker").exists()
    assert not list(Path("run").rglob("*.ckpt"))


@pytest.mark.parametrize("kind", FILES)
def test_a_hostile_experiment_is_refused_in_one_line(tiny, command, kind):
    tiny()
    Path("experiments/bad.yaml").write_text(FILES[kind])
    result, seconds = fit(command, "--experiment", "bad")
    assert_refused(result, "experiments/bad.yaml")
    assert seconds < SECONDS


@pytest.mark.parametrize("kind", INTERPOLATIONS)
def test_an_interpolation_that_leads_nowhere_is_named(tiny, command, kind):
    tiny()
    Path("experiments/bad.yaml").write_text(INTERPOLATIONS[kind])
    assert_refused(fit(command, "--experiment", "bad")[0], "seed_everything", "expected")


@pytest.mark.parametrize("kind", ["object", "own tag"])
@pytest.mark.parametrize("words", [("--config", "bad.yaml"), ("--config=bad.yaml",)], ids=len)
def test_so_is_a_configuration_and_one_that_a_configuration_names(tiny, command, kind, words):
    tiny()
    Path("bad.yaml").write_text(FILES[kind])
    result, seconds = fit(command, *words)
    assert_refused(result, "bad.yaml")
    assert seconds < SECONDS
    Path("outer").mkdir()
    Path("bad.yaml").rename("outer/inner.yaml")
    Path("outer/good.yaml").write_text("data: inner.yaml\n")
    result, seconds = fit(command, "--config", "outer/good.yaml")
    assert_refused(result, "inner.yaml")
    assert seconds < SECONDS


@pytest.mark.parametrize("kind", FILES)
def test_a_hostile_sweep_file_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    Path("sweep.yaml").write_text(FILES[kind])
    with pytest.raises(ConfigError, match=r"sweep\.yaml"):
        read_sweep(Path("sweep.yaml"))
    assert not Path("marker").exists()


@pytest.mark.parametrize("kind", FILES)
def test_a_hostile_card_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    Path("card.yaml").write_text(FILES[kind])
    with pytest.raises(SourceError, match=r"card\.yaml"):
        read_card(Path("card.yaml"))
    assert not Path("marker").exists()


def test_aliases_that_save_writing_are_welcome(tmp_path):
    text = "size: &size 64\ndata: {image_size: *size, others: [*size, *size]}\n"
    (tmp_path / "a.yaml").write_text(text)
    assert read_yaml(tmp_path / "a.yaml")["data"] == {"image_size": 64, "others": [64, 64]}


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..", "", "\0", "a" * 5000, "experiments", "*"]
)
def test_a_name_that_is_no_experiments_is_unknown(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="unknown experiment"):
        find_experiment(name)


def test_a_pipe_in_place_of_a_file_of_options_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("sweep.yaml")
    os.mkfifo("a.yaml")
    with pytest.raises(ConfigError, match="unknown experiment"):
        find_experiment("a.yaml")

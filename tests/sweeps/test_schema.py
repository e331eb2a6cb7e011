"""Sweep files: W&B's own schema takes those that are shipped; what cannot be right is refused."""

from pathlib import Path

import pytest
import yaml

from zoo_lightning.errors import ConfigError
from zoo_lightning.sweeps.schema import find_sweep, read_sweep

REPOSITORY = Path(__file__).resolve().parents[2]
SHIPPED = sorted((REPOSITORY / "experiments" / "sweeps").glob("*.yaml"))

RIGHT = {
    "method": "random",
    "metric": {"name": "val/nme"},
    "parameters": {"lr": {"values": [0.1, 0.2]}},
}


def write(folder: Path, **changes: object) -> Path:
    """A sweep file with changes; ``None`` removes a key."""
    content = {key: value for key, value in (RIGHT | changes).items() if value is not None}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_sweeps_pass_wandbs_own_schema_and_ours(path):
    sweeps = pytest.importorskip("sweeps")
    content = yaml.safe_load(path.read_text())
    assert sweeps.schema_violations_from_proposed_config(content) == []
    assert read_sweep(path).content == content
    assert path.read_text().startswith(f"# python -m zoo_lightning sweep {path.stem}")


def test_the_shipped_sweeps_cover_all_methods_and_tasks():
    found = [read_sweep(path) for path in SHIPPED]
    assert {sweep.method for sweep in found} == {"grid", "random", "bayes"}
    tasks = {path.stem.partition("-")[0] for path in SHIPPED}
    assert tasks == {"classification", "landmarks", "multi", "regression", "rl", "segmentation"}
    assert any(sweep.method == "bayes" and sweep.early for sweep in found)


def test_a_sweep_is_found_by_its_name_and_the_present_folders_own_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_sweep("landmarks").parent.name == "sweeps"
    own = tmp_path / "experiments" / "sweeps"
    own.mkdir(parents=True)
    (own / "landmarks.yaml").write_text("method: grid\n")
    assert find_sweep("landmarks").resolve() == own / "landmarks.yaml"
    with pytest.raises(ConfigError, match="Did you mean 'landmarks'"):
        find_sweep("landmark")


def bad(**parameter: object) -> dict:
    return {"parameters": {"lr": parameter}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"job": "a"}, ["job", "Launch"]),
        ({"image_uri": "a"}, ["image_uri", "Launch"]),
        ({"imports": ["a"]}, ["imports", "Launch"]),
        ({"metod": "grid"}, ["metod", "Did you mean 'method'"]),
        ({"method": "custom"}, ["method", "'custom'", "grid, random or bayes"]),
        ({"kind": "job"}, ["kind", "'job'"]),
        ({"controller": {"type": "local"}}, ["controller", "local"]),
        ({"name": 3}, ["name", "text", "3"]),
        ({"run_cap": 0}, ["run_cap", "0", "at least 1"]),
        ({"command": "fit"}, ["command", "list"]),
        ({"metric": {"name": "test/nme"}}, ["metric.name", "test data", "val/nme"]),
        ({"metric": {"name": "val/nme", "goal": "min"}}, ["metric.goal", "minimize or maximize"]),
        ({"metric": {"name": "val/nme", "target": "1"}}, ["metric.target", "'1'"]),
        ({"metric": {"name": "val/nme", "impute": "mean"}}, ["metric.impute", "latest"]),
        ({"metric": {"nam": "val/nme"}}, ["metric.nam", "Did you mean 'name'"]),
        ({"metric": None, "method": "bayes"}, ["bayes", "metric"]),
        (
            {"metric": None, "early_terminate": {"type": "hyperband", "min_iter": 1}},
            ["early_terminate", "metric"],
        ),
        ({"early_terminate": {"type": "median"}}, ["early_terminate.type", "hyperband"]),
        ({"early_terminate": {"type": "hyperband"}}, ["min_iter, or max_iter and s"]),
        ({"early_terminate": {"type": "hyperband", "min_iter": 0}}, ["min_iter", "at least 1"]),
        (
            {"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 1}},
            ["early_terminate.eta", "above 1"],
        ),
        (
            {"early_terminate": {"type": "hyperband", "max_iter": 2, "s": 1}},
            ["max_iter 2", "eta 3"],
        ),
        ({"parameters": {}}, ["parameters", "expected"]),
        ({"parameters": {"lr": 0.1}}, ["parameters.lr", "{value: 0.1}"]),
        ({"parameters": {"0lr": {"value": 1}}}, ["parameters", "'0lr'"]),
        (bad(distribution="normall"), ["parameters.lr", "Did you mean 'normal'"]),
        (bad(distribution="normal", min=1), ["parameters.lr.min", "normal"]),
        (bad(distribution="uniform", min=1), ["parameters.lr", "needs max"]),
        (bad(min=1, max=2.0), ["parameters.lr", "1", "2.0", "without a distribution"]),
        (bad(min=2, max=1), ["parameters.lr", "min 2", "max 1"]),
        (bad(distribution="uniform", min="1e-4", max=1.0), ["lr.min", "'1e-4'", "1.0e-4"]),
        (bad(values=["1e-4", "1e-3"]), ["lr.values", "'1e-4'", "1.0e-4"]),
        (bad(distribution="log_uniform_values", min=0.0, max=1.0), ["lr.min", "above 0"]),
        (bad(distribution="q_uniform", min=0, max=1, q=0), ["lr.q", "above 0"]),
        (bad(distribution="normal", sigma=-1), ["lr.sigma", "-1"]),
        (bad(values=[]), ["parameters.lr.values", "list"]),
        (bad(values=[1, 2], probabilities=[0.5, 0.6]), ["lr.probabilities", "sum 1.1"]),
        (bad(values=[1, 2], probabilities=[1.0]), ["lr.probabilities", "1 of sum 1 for 2"]),
        (bad(unknown=1), ["parameters.lr", "unknown"]),
        ({"method": "grid", **bad(min=0.0, max=1.0)}, ["parameters.lr", "'uniform'", "no grid"]),
        (
            {"method": "grid", **bad(values=[1, 2], probabilities=[0.5, 0.5])},
            ["parameters.lr", "no grid"],
        ),
        (
            {"parameters": {"a.b": {"value": 1}, "a": {"parameters": {"b": {"value": 2}}}}},
            ["a.b is there twice"],
        ),
    ],
)
def test_what_cannot_be_right_is_refused_by_name(tmp_path, changes, words):
    path = write(tmp_path, **changes)
    with pytest.raises(ConfigError) as caught:
        read_sweep(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "", "\x00"])
def test_what_is_no_sweep_file_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_sweep(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_distributions_are_inferred_as_wandb_does(tmp_path):
    given = {
        "a": {"value": None},
        "b": {"values": [1, "x"]},
        "c": {"min": 1, "max": 3},
        "d": {"min": 1.0, "max": 3.0},
        "e": {"values": [1, 2], "probabilities": [0.1, 0.9]},
        "f": {"distribution": "q_normal"},
    }
    sweep = read_sweep(write(tmp_path, parameters=given))
    kinds = {path[0]: each.kind for path, each in sweep.parameters.items()}
    assert kinds == {
        "a": "constant",
        "b": "categorical",
        "c": "int_uniform",
        "d": "uniform",
        "e": "categorical_w_probabilities",
        "f": "q_normal",
    }
    assert sweep.parameters[("f",)].options == {"mu": 0.0, "sigma": 1.0, "q": 1.0}


def test_nested_parameters_keep_their_place(tmp_path):
    given = {"model": {"parameters": {"init_args": {"parameters": {"lr": {"value": 1}}}}}}
    sweep = read_sweep(write(tmp_path, parameters=given))
    assert list(sweep.parameters) == [("model", "init_args", "lr")]

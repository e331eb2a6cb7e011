"""What a sweep leaves: the order of trials, importances, pictures, the table."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from zoo_lightning.sweeps.report import (
    Result,
    format_best,
    importances,
    plot_importances,
    plot_parallel_coordinates,
    ranked,
    short_names,
    write_best,
    write_report,
)
from zoo_lightning.sweeps.schema import SweepMetric, read_sweep

pytestmark = pytest.mark.filterwarnings("ignore")

PARAMETERS = {
    "model.init_args.lr": {"distribution": "log_uniform_values", "min": 1.0e-4, "max": 1.0},
    "model.init_args.mode": {"values": ["lite", "full", [0.5, None]]},
    "data.batch": {"min": 4, "max": 64},
}


@pytest.fixture
def sweep(tmp_path):
    content = {"method": "random", "metric": {"name": "m"}, "parameters": PARAMETERS}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
    return read_sweep(tmp_path / "s.yaml")


def made(count: int) -> list[Result]:
    """Trials whose figure is the learning rate's distance from 0.01, in decades."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(count):
        lr = float(10 ** rng.uniform(-4, 0))
        mode = PARAMETERS["model.init_args.mode"]["values"][index % 3]
        parameters = {
            "model.init_args.lr": lr,
            "model.init_args.mode": mode,
            "data.batch": int(rng.integers(4, 65)),
        }
        found.append(Result(index, "done", abs(np.log10(lr) + 2), parameters, 3, 1.5))
    return found


def test_the_parameter_that_decides_is_the_important_one(sweep):
    pytest.importorskip("optuna")
    found = importances(made(60), sweep, SweepMetric("m"))
    assert next(iter(found)) == "model.init_args.lr"
    assert found["model.init_args.lr"] > 0.5
    assert sum(found.values()) == pytest.approx(1)
    turned = [Result(r.index, r.state, -r.value, r.parameters) for r in made(60)]
    other = importances(turned, sweep, SweepMetric("m", "maximize"))
    assert other == pytest.approx(found)


def test_few_trials_say_nothing_about_importances(sweep):
    assert importances(made(3), sweep, SweepMetric("m")) == {}
    same = [Result(r.index, "done", 1.0, r.parameters) for r in made(9)]
    assert importances(same, sweep, SweepMetric("m")) == {}


def test_the_best_comes_first_whatever_the_goal():
    results = [*made(5), Result(9, "pruned", 0.0, {}), Result(10, "failed", None, {})]
    values = [result.value for result in ranked(results, SweepMetric("m"))]
    assert values == sorted(values)
    assert len(values) == 5
    falling = [result.value for result in ranked(results, SweepMetric("m", "maximize"))]
    assert falling == sorted(values, reverse=True)
    table = format_best(results, SweepMetric("m"), 2).splitlines()
    assert table[0].split() == ["trial", "m", "lr", "mode", "batch"]
    assert len(table) == 3


def test_everything_is_written_and_values_can_be_read_again(sweep, tmp_path):
    pytest.importorskip("optuna")
    results = [*made(12), Result(12, "failed", None, {}, note="out of luck")]
    folder = tmp_path / "out"
    write_report(folder, results, sweep, SweepMetric("m"))
    lines = (folder / "trials.csv").read_text().splitlines()
    assert len(lines) == 14
    assert lines[-1].endswith("out of luck")
    assert json.loads((folder / "importances.json").read_text())
    for name in ("parallel-coordinates", "importances"):
        with Image.open(folder / "pictures" / f"{name}.png") as image:
            assert image.width > 500
    best = ranked(results, SweepMetric("m"))[0]
    path = write_best(folder, {"model": {"lr": None}}, best, SweepMetric("m"))
    assert yaml.safe_load(path.read_text()) == {"model": {"lr": None}}
    assert f"# Trial {best.index:04d}" in path.read_text()


def test_figures_take_a_single_trial_and_values_that_do_not_vary():
    one = made(1)
    assert plot_parallel_coordinates(one, SweepMetric("m"), {"model.init_args.lr"})
    same = [Result(i, "done", 1.0, one[0].parameters) for i in range(3)]
    assert plot_parallel_coordinates(same, SweepMetric("m", "maximize"))
    with pytest.raises(ValueError, match="no trials"):
        plot_parallel_coordinates([], SweepMetric("m"))
    with pytest.raises(ValueError, match="no importances"):
        plot_importances({}, SweepMetric("m"))


def test_lines_of_the_best_differ_from_the_rest_without_colour():
    figure = plot_parallel_coordinates(ranked(made(9), SweepMetric("m")), SweepMetric("m"))
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    colours = {line.get_color() for line in lines}
    assert all(len({float(colour)}) == 1 for colour in colours)  # shades of grey
    dashes = {line.get_linestyle() for line in lines if float(line.get_color()) == 0}
    assert dashes == {"-", "--", "-."}


def test_names_are_as_short_as_they_differ():
    names = ["model.init_args.lr", "data.init_args.lr", "model.mode"]
    assert list(short_names(names).values()) == ["model.init_args.lr", "data.init_args.lr", "mode"]


def test_results_are_of_whole_trials_only(fake):
    fake.write(parameters={"how": {"values": ["quick", "fails"]}, "x": {"value": 1.0}})
    fake.run(count=2)
    trials = fake.open()
    begun = trials.study.ask()  # by a worker that died before it noted anything
    assert begun.number == 2
    found = trials.results()
    assert [(each.index, each.state, each.value) for each in found] == [
        (0, "done", 1.25),
        (1, "failed", None),
    ]
    assert found[0].parameters == {"how": "quick"}
    assert found[0].validations == 4
    assert found[1].note.startswith("out of luck")
    assert not Path("best.yaml").exists()

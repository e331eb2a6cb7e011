"""Tables of finished runs: choices, differences, verdicts and files."""

import csv
import json
from dataclasses import replace

import pytest

from zoo_lightning.benchmarking.costs import Cost
from zoo_lightning.benchmarking.grid import (
    Cell,
    Comparison,
    cells_of,
    open_comparison,
    with_needed,
)
from zoo_lightning.benchmarking.plots import plot_learning_curves, plot_quality_against_compute
from zoo_lightning.benchmarking.report import (
    BY_VALIDATION,
    HINDSIGHT,
    format_table,
    learning_curves,
    make_tables,
    verdict,
    write_tables,
)
from zoo_lightning.benchmarking.statistics import image_differences
from zoo_lightning.benchmarking.tuning import check_untuned, choose, rates, trials_of
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.recipe import FinishedRun, Setting
from zoo_lightning.methods.recipes import RECIPES, find_recipes

OPTIONS = {
    "seed_everything": 0,
    "trainer": {"max_steps": 8},
    "data": {"class_path": "DrawnFaces", "init_args": {}},
    "model": {
        "class_path": "zoo_lightning.tasks.LandmarkTask",
        "init_args": {
            "lr": 0.002,
            "backbone": {
                "class_path": "ZooBackbone",
                "init_args": {"architecture": "test_resnet", "sources": ["random:1", "random:2"]},
            },
        },
    },
}

FIGURES = {
    "scratch": [(9.0, 9.1), (9.2, 9.0), (9.1, 9.4)],
    "single random-1": [(7.0, 7.1), (7.4, 6.9), (7.1, 7.0)],
    "single random-2": [(6.9, 7.2), (7.6, 7.2), (7.4, 7.3)],
    "lite": [(6.5, 6.6), (6.8, 6.8), (6.6, 6.5)],
    "full": [(7.2, 7.0), (7.3, 7.2), (7.1, 7.1)],
}
"""By method, for each seed the validation and the test figure."""


def finish(comparison, cell, validation, test):
    folder = comparison.run(cell)
    folder.mkdir(parents=True, exist_ok=True)
    summary = {"seconds": 10.0 + cell.seed, "peak_memory_mb": 500,
               "validation": {"val/nme": validation}, "test": {"test/nme": test}}  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    rows = f"step,val/nme\n4,{validation + 1}\n8,{validation}\n"
    (folder / "metrics.csv").write_text(rows)


@pytest.fixture
def comparison(tmp_path):
    return open_comparison(tmp_path / "out", OPTIONS)


@pytest.fixture
def cells(comparison):
    recipes = find_recipes(["scratch", "single", "lite", "full"], comparison.task)
    found = cells_of(recipes, list(comparison.sources), [0, 1, 2], [1.0])
    for cell in found:
        finish(comparison, cell, *FIGURES[cell.label][cell.seed])
    return found


def test_cells_have_folders_of_their_own_and_come_seed_by_seed(cells):
    assert len({cell.path for cell in cells}) == len(cells) == 15
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    assert str(cells[1].path) == "runs/data-1/single-random-1/0"


def test_the_best_single_source_is_chosen_by_hindsight_and_by_validation(comparison, cells):
    [table] = make_tables(comparison, cells)
    assert table.row(HINDSIGHT).figures == {0: 7.1, 1: 6.9, 2: 7.0}
    # In seed 0 validation takes the other one.
    assert table.row(BY_VALIDATION).figures == {0: 7.2, 1: 6.9, 2: 7.0}
    assert table.reference == HINDSIGHT


def test_few_lucky_seeds_make_no_best_single_source(comparison, cells):
    for cell in cells:
        if cell.label == "single random-1" and cell.seed:
            (comparison.run(cell) / "summary.json").unlink()
    path = comparison.run(next(c for c in cells if c.label == "single random-1")) / "summary.json"
    lucky = json.loads(path.read_text())
    lucky["test"]["test/nme"] = 0.1
    path.write_text(json.dumps(lucky))
    [table] = make_tables(comparison, cells)
    assert table.row(HINDSIGHT).figures == table.row("single random-2").figures
    assert table.reference == HINDSIGHT


def test_verdicts_say_where_zoos_win_tie_and_lose(comparison, cells):
    [table] = make_tables(comparison, cells)
    lite, full = verdict(table)
    assert lite.startswith(f"lite ties with {HINDSIGHT}: -0.37 ± ")
    assert full.startswith(f"full ties with {HINDSIGHT}: +0.10 ± ")
    for seed in range(3):
        table.row("lite").figures[seed] = table.row(HINDSIGHT).figures[seed] - 1 - seed / 100
        table.row("full").figures[seed] = table.row(HINDSIGHT).figures[seed] + 1 + seed / 100
    lite, full = verdict(table)
    assert lite.startswith("lite wins against")
    assert full.startswith("full loses to")


def test_tables_are_written_with_all_numbers(comparison, cells):
    tables = make_tables(comparison, cells)
    tables[0].row("lite").cost = Cost(12.34, 5.0, 1.01, 370_000)
    write_tables(comparison, tables)
    lines = format_table(tables[0]).splitlines()
    assert len(lines) == 2 + 7
    assert len({line.count("|") for line in lines}) == 1
    written = (comparison.folder / "table.md").read_text()
    assert written.startswith("# out\n")
    assert "| 12.3 | 1.01 | 370,000 |" in written
    with (comparison.folder / "table.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 7 * 3
    assert rows[0].keys() >= {"fraction", "method", "seed", "test/nme"}
    content = json.loads((comparison.folder / "runs.json").read_text())
    assert content[0]["reference"] == HINDSIGHT
    assert content[0]["rows"][0]["figures"] == {"0": 7.1, "1": 6.9, "2": 7.0}


def test_without_costs_a_table_has_no_columns_for_them(comparison, cells):
    [table] = make_tables(comparison, cells)
    write_tables(comparison, [table])
    written = (comparison.folder / "table.md").read_text()
    assert "multiply-adds, M" not in written
    assert "Times" not in written
    assert len({line.count("|") for line in format_table(table).splitlines()}) == 1


def test_what_an_informed_start_took_counts_as_training(comparison, cells):
    [cell] = [each for each in cells if each.label == "lite" and each.seed == 1]
    path = comparison.run(cell) / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"start_seconds": 7.5}))
    [table] = make_tables(comparison, cells)
    assert table.row("lite").seconds == {0: 10.0, 1: 18.5, 2: 12.0}


def test_unfinished_cells_are_left_out(comparison, cells):
    (comparison.run(cells[0]) / "summary.json").unlink()
    [table] = make_tables(comparison, cells)
    assert sorted(table.row("scratch").figures) == [1, 2]
    assert make_tables(comparison, [cells[0]])[0].rows == []


def test_quality_is_drawn_over_compute_with_a_line_for_each_method(comparison, cells):
    [table] = make_tables(comparison, cells)
    with pytest.raises(ValueError, match="no method's training costs"):
        plot_quality_against_compute([table])
    for k, row in enumerate(table.rows):
        row.multiply_adds |= dict.fromkeys(row.figures, 1000 * (k + 1))
        row.cost = Cost(50.0 if row.label == "scratch" else 10.0, 1.0, 1.0, 1000)
    figure = plot_quality_against_compute([table])
    [axes] = figure.axes
    assert axes.get_ylabel() == "test NME, %"
    assert axes.get_xlabel().endswith("multiply-adds")
    low, high = axes.get_ylim()
    assert low > high  # the better, the higher
    [legend] = figure.legends
    names = {text.get_text() for text in legend.get_texts()}
    assert names == {HINDSIGHT, BY_VALIDATION, "scratch (inference of 5 networks)", "lite", "full"}


def test_budgets_are_joined_to_lines_in_units_of_one_training(comparison, cells):
    tables = []
    for budget in (1.0, 4.0):
        [table] = make_tables(comparison, cells)
        for row in table.rows:
            row.units |= dict.fromkeys(row.figures, budget)
        tables.append(replace(table, budget=budget))
    figure = plot_quality_against_compute(tables)
    [axes] = figure.axes
    assert axes.get_xlabel().endswith("trainings of one network")
    lines = [container.lines[0] for container in axes.containers]
    assert [list(line.get_xdata()) for line in lines] == [[1.0, 4.0]] * 5
    black = [line.get_color() for line in lines].count("#000000")
    assert black == 2  # the zoos


def test_learning_curves_are_those_of_the_seeds(comparison, cells):
    [table] = make_tables(comparison, cells)
    curves = learning_curves(comparison, cells, table)
    assert len(curves["lite"]) == 3
    assert curves["lite"][0] == {4: 7.5, 8: 6.5}
    [axes] = plot_learning_curves(curves, "val/nme").axes
    assert len(axes.get_lines()) == 5
    with pytest.raises(ValueError, match="no learning curves"):
        plot_learning_curves({}, "val/nme")


def with_compute(comparison, cell, **others):
    """Let a finished cell say what it has cost, 630 multiply-adds without its teachers."""
    path = comparison.run(cell) / "summary.json"
    parts = {"training": 600, "validation": 30}
    parts |= {"teachers": others.pop("teachers")} if "teachers" in others else {}
    compute = {"multiply_adds": 1, "seconds": 1.0, "parts": parts, **others}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"compute": compute}))


def test_a_method_costs_what_all_that_it_needed_has_cost(comparison, cells):
    for cell in cells:
        with_compute(comparison, cell)
    ensemble, taught = Cell("ensemble", seed=1), Cell("distillation", seed=1)
    for cell in (ensemble, taught):
        finish(comparison, cell, 6.0, 6.0)
        with_compute(comparison, cell, teachers=1260)
    # Two members and its own; teachers that a recipe chose are among the cells it is made from.
    assert comparison.cost(ensemble) == comparison.cost(taught) == (3 * 630, 3 * 11.0, None)
    assert comparison.cost(Cell("lite", seed=1)) == (630, 11.0, None)
    [table] = make_tables(comparison, cells)
    assert table.row(BY_VALIDATION).multiply_adds == dict.fromkeys(range(3), 2 * 630)
    assert table.row(HINDSIGHT).multiply_adds == dict.fromkeys(range(3), 630)
    assert table.row(BY_VALIDATION).seconds == {0: 20.0, 1: 22.0, 2: 24.0}
    with_compute(comparison, Cell("lite", seed=2), teachers=1000)  # of the experiment's own
    assert comparison.cost(Cell("lite", seed=2)).multiply_adds == 1630
    with_compute(comparison, Cell("lite", seed=2), teachers=None)  # that nobody counted
    assert comparison.cost(Cell("lite", seed=2)).multiply_adds is None
    (comparison.run(Cell("single", "random-2", 1)) / "summary.json").write_text(
        json.dumps({"seconds": 5.0, "validation": {"val/nme": 1.0}, "test": {"test/nme": 1.0}})
    )
    assert comparison.cost(ensemble) == (None, 11.0 + 5.0 + 11.0, None)


def test_what_a_method_is_made_from_shares_its_budget(comparison):
    recipes = find_recipes(["lite", "ensemble", "tried-single"], comparison.task, needed=False)
    cells = cells_of(recipes, list(comparison.sources), [0], [1.0], [1.0, 4.0])
    assert {cell.method for cell in cells} == {"lite", "ensemble", "tried-single"}
    found = with_needed(comparison, cells)
    paths = [str(cell.path) for cell in found]
    assert len(paths) == len(set(paths)) == 6 + 2 * 4
    # Of four trainings each of two members has two; half of them is for trying two sources.
    assert "runs/data-1-budget-2/single-random-1/0" in paths
    assert "runs/data-1-budget-1/single-random-1/0" in paths
    assert "runs/data-1-budget-0.25/single-random-2/0" in paths
    setting = Setting(comparison.sources, finished={"single": [FinishedRun(None, "random-2", 1.0)]})
    own = {
        cell.label: comparison.configured(cell, setting, RECIPES[cell.method], None)["budget"]
        for cell in cells
        if cell.budget == 4 and cell.method != "ensemble"
    }
    assert own == {"lite": 4.0, "tried-single": 2.0}
    ensemble = next(cell for cell in cells if cell.method == "ensemble" and cell.budget == 4)
    for cell in comparison.closure(ensemble):
        finish(comparison, cell, 6.0, 6.0)
        with_compute(comparison, cell, unit=315)
    found = make_tables(comparison, [ensemble])[0].row("ensemble")
    assert found.units == {0: 6.0}


def test_intervals_contain_the_sampling_of_test_images(comparison, cells):
    [table] = make_tables(comparison, cells)
    seeds_only = table.row("lite").interval.half
    for cell in cells:
        figure = FIGURES[cell.label][cell.seed][1]
        errors = [figure - 2 + k % 5 for k in range(50)]
        if cell.label == "full":
            errors = errors[:12]  # one of several processes has written its share
        rows = "".join(f"{k // 2}.png,{error}\n" for k, error in enumerate(errors))
        (comparison.run(cell) / "test_errors.csv").write_text(f"image,nme\n{rows}")
    [table] = make_tables(comparison, cells)
    assert len(table.row("lite").image_means()) == 50
    assert table.row("lite").interval.half > seeds_only
    assert table.between(table.row("lite"), table.row("scratch")).half > 0
    assert table.row("full").images == {}
    assert image_differences(table.row("lite").images, table.row("full").images) == {}


def test_a_comparison_goes_on_with_its_own_options_only(comparison):
    again = open_comparison(comparison.folder, None)
    assert again == comparison
    changed = {**OPTIONS, "trainer": {"max_steps": 9}}
    with pytest.raises(ConfigError, match=r"trainer\.max_steps \(8, now 9\)"):
        open_comparison(comparison.folder, changed)
    with pytest.raises(ConfigError, match="is no comparison"):
        open_comparison(comparison.folder / "elsewhere", None)


def test_every_method_tries_the_same_number_of_rates_and_the_best_is_kept(comparison):
    recipes = find_recipes(["single", "l2-sp", "lite"], comparison.task)
    trials = trials_of(comparison, recipes, [1.0], 3)
    assert rates(comparison, 3) == [0.00025, 0.002, 0.016]
    assert {(cell.label, cell.seed) for cell in trials} == {
        ("single random-1", 1000), ("single random-2", 1000), ("lite", 1000), ("l2-sp", 1000)
    }  # fmt: skip
    for cell in trials:
        finish(comparison, cell, {0.00025: 8.0, 0.002: 7.0, 0.016: 7.5}[cell.lr], 1.0)
    assert comparison.chosen_lr(Cell("lite")) is None
    [l2_sp] = [cell for cell in trials if cell.label == "l2-sp" and cell.lr == 0.002]
    single = find_recipes(["single"], comparison.task)
    assert len(comparison.missing(l2_sp)) == 2  # no rate is chosen yet
    choose(comparison, trials, higher_is_better=False)
    # It begins from what the best rates' trials of the single sources gave.
    assert [run.folder.name for run in comparison.finished(single[0], l2_sp)] == ["lr-0.002"] * 2
    assert comparison.missing(l2_sp) == []
    assert comparison.chosen_lr(Cell("lite", seed=4)) == 0.002
    assert comparison.chosen_lr(Cell("full")) is None
    assert rates(comparison, 2) == [0.00025, 0.002]
    assert rates(comparison, 4) == [0.00025, 0.000707, 0.002, 0.00566]
    with pytest.raises(ConfigError, match="--tune 1: expected at least 2"):
        rates(comparison, 1)


def test_what_tuning_took_is_said_and_not_added(comparison, cells):
    trials = trials_of(comparison, find_recipes(["lite"], comparison.task), [1.0], 3)
    for cell in trials:
        finish(comparison, cell, 7.0, 1.0)
    tables = make_tables(comparison, cells)
    assert tables[0].row("lite").tuning_seconds == 3 * 1010
    assert tables[0].row("lite").seconds == {0: 10.0, 1: 11.0, 2: 12.0}
    write_tables(comparison, tables)
    written = (comparison.folder / "table.md").read_text()
    assert "choosing learning rates took seconds that the totals leave out: lite 3030" in written


def test_a_task_without_a_figure_is_refused(comparison):
    options = {**OPTIONS, "model": {**OPTIONS["model"], "class_path": "Poetry"}}
    with pytest.raises(ConfigError, match="Poetry cannot be compared"):
        make_tables(Comparison(comparison.folder, options), [])


def test_while_the_test_data_are_held_out_validation_is_what_counts(comparison, cells):
    held = Comparison(comparison.folder, comparison.options, hold_out=True)
    [table] = make_tables(held, cells)
    assert table.metric.name == "val/nme"
    assert table.metric.unit == "validation NME, %"
    assert table.row("lite").figures == {0: 6.5, 1: 6.8, 2: 6.6}
    write_tables(held, [table])
    assert "test data are held out" in (held.folder / "table.md").read_text()
    assert held.summary(cells[0]) is not None
    path = comparison.run(cells[0]) / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "test": {}}))
    assert held.summary(cells[0]) is not None
    assert comparison.trained(cells[0]) is not None
    assert comparison.summary(cells[0]) is None  # a test is wanted


def test_what_others_tuned_stays_and_a_method_with_runs_keeps_its_rate(comparison):
    trials = {
        name: trials_of(comparison, find_recipes([name], comparison.task), [1.0], 3)
        for name in ("scratch", "lite")
    }
    for cell in [each for found in trials.values() for each in found]:
        finish(comparison, cell, {0.00025: 8.0, 0.002: 7.0, 0.016: 7.5}[cell.lr], 1.0)
    for found in trials.values():
        check_untuned(comparison, found)
        choose(comparison, found, higher_is_better=False)
    assert comparison.chosen_lr(Cell("scratch")) == comparison.chosen_lr(Cell("lite")) == 0.002
    finish(comparison, Cell("lite", seed=3), 7.0, 7.0)
    for cell in trials["scratch"] + trials["lite"]:
        finish(comparison, cell, {0.00025: 6.0, 0.002: 7.0, 0.016: 7.5}[cell.lr], 1.0)
        choose(comparison, [cell], higher_is_better=False)
    assert comparison.chosen_lr(Cell("lite")) == 0.002


def test_runs_with_budgets_keep_their_rate_too(comparison):
    finish(comparison, Cell("lite", seed=3, budget=4.0), 7.0, 7.0)
    trials = trials_of(comparison, find_recipes(["lite"], comparison.task), [1.0], 2)
    with pytest.raises(ConfigError, match=r"budget-4/lite/3/summary\.json was trained without"):
        check_untuned(comparison, trials)


def test_runs_from_before_tuning_are_not_averaged_with_tuned_ones(comparison):
    finish(comparison, Cell("lite", seed=3), 7.0, 7.0)
    trials = trials_of(comparison, find_recipes(["lite"], comparison.task), [1.0], 2)
    with pytest.raises(ConfigError, match=r"lite/3/summary.json was trained without tuning"):
        check_untuned(comparison, trials)

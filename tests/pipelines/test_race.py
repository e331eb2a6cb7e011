"""The race of ``fit --method auto``: who is expected to end best, and what that costs."""

import json
from pathlib import Path

import pytest

from zoo_lightning.errors import ConfigError
from zoo_lightning.pipelines import race
from zoo_lightning.pipelines.race import Racer, full_budget, up_to
from zoo_lightning.pipelines.stage import StageRun
from zoo_lightning.runs.pool import Execution


def stages(folder, losses, steps=1600):
    """Stages that are finished after a sixteenth of their training, by their two losses."""
    runs = []
    for name, (half, loss) in losses.items():
        run = StageRun(folder / "stages" / name, "", {"model": {}})
        run.folder.mkdir(parents=True, exist_ok=True)
        content = {
            "steps": steps // 16, "seconds": 1.0, "stop_after": 1 / 16,
            "validation": {"val/nme": loss},
            "losses": {str(steps // 64): 9.0, str(steps // 32): half, str(steps // 16): loss},
        }  # fmt: skip
        (run.folder / "summary.json").write_text(json.dumps(content))
        runs.append(run)
    return runs


def test_the_first_is_the_one_that_will_be_ahead(tmp_path):
    lines = []
    runs = stages(tmp_path, {"a": (1.0, 0.9), "b": (2.0, 1.2), "c": (1.0, 1.1)})
    racers = race.compare(tmp_path, runs, 1 / 16, Execution(report=lines.append))
    # four doublings, each of which repeats half of the last reduction in logarithms
    assert [each.run.name for each in racers] == ["b", "a", "c"]
    expected = [1.2 * 0.6**2, 0.9 * 0.9**2, 1.1 * 1.1**2]
    assert [each.expected() for each in racers] == pytest.approx(expected)
    assert racers[0].expected(1 / 8) == pytest.approx(1.2 * 0.6**0.5)
    assert any("b: validation loss 2 after half of these steps, 1.2 after all" in x for x in lines)


@pytest.mark.parametrize(
    ("losses", "number", "expected"),
    [
        # far ones that learn fast in their first steps, and a near one
        ({"far": (18.5, 12.7), "further": (17.0, 12.5), "near": (9.3, 8.8)}, 2, "far near"),
        ({"far": (18.5, 12.7), "further": (17.0, 12.5), "near": (9.3, 8.8)}, 3,
         "far further near"),
        # the best so far is expected to stay it
        ({"a": (1.0, 0.5), "b": (1.0, 0.9), "c": (1.0, 0.8)}, 2, "a c"),
    ],
)  # fmt: skip
def test_the_best_so_far_goes_on_with_those_that_are_expected_to_be(losses, number, expected):
    racers = [
        Racer(StageRun(Path(name), "", {}), 480, *each, 1 / 16) for name, each in losses.items()
    ]
    racers.sort(key=Racer.expected)
    chosen = race.choose_finalists(racers, number)
    assert " ".join(each.run.name for each in chosen) == expected


def test_losses_are_kept_for_when_the_trainings_have_gone_on(tmp_path):
    runs = stages(tmp_path, {"a": (1.0, 0.9), "b": (1.0, 0.8)})
    before = race.compare(tmp_path, runs, 1 / 16, Execution())
    stages(tmp_path, {"a": (0.5, 0.1), "b": (0.5, 0.4)}, steps=3200)
    after = race.compare(tmp_path, runs, 1 / 16, Execution())
    assert [(each.before, each.after) for each in after] == [(1.0, 0.8), (1.0, 0.9)]
    assert [each.run.name for each in after] == [each.run.name for each in before]


def test_a_task_without_any_loss_left_is_no_error(tmp_path):
    racers = race.compare(tmp_path, stages(tmp_path, {"a": (0.0, 0.0)}), 1 / 16, Execution())
    assert 0 < racers[0].expected() < 1e-11


def test_a_training_that_was_not_validated_at_its_end_is_refused(tmp_path):
    [run] = stages(tmp_path, {"a": (1.0, 0.9)})
    summary = json.loads((run.folder / "summary.json").read_text())
    (run.folder / "summary.json").write_text(json.dumps(summary | {"steps": 99}))
    with pytest.raises(ConfigError, match="without a validation; leave out"):
        race.compare(tmp_path, [run], 1 / 16, Execution())


@pytest.mark.parametrize(
    ("candidates", "finished", "cost"),
    [(4, 1, 4 / 16 + 2 / 16 + 7 / 8), (3, 2, 3 / 16 + 2 / 16 + 2 * 7 / 8),
     (5, 3, 5 / 16 + 3 / 16 + 3 * 7 / 8), (3, 9, 3 / 16 + 3 / 16 + 3 * 7 / 8)],
)  # fmt: skip
def test_all_trainings_together_cost_the_budget(candidates, finished, cost):
    assert full_budget(4.0, candidates, finished) == pytest.approx(4.0 / cost)


def test_a_training_goes_on_in_its_folder():
    run = StageRun(Path("x"), "v", {"budget": 2.0})
    first = up_to(run, 1 / 8)
    assert (first.folder, first.variant, first.options) == (
        Path("x"), "v", {"budget": 2.0, "stop_after": 1 / 8},
    )  # fmt: skip
    assert up_to(first, 1.0).options == {"budget": 2.0} == run.options


@pytest.mark.parametrize(
    ("reached", "wanted", "done"), [(None, 1.0, True), (0.25, 0.25, True), (0.25, 1.0, False)]
)
def test_a_stage_is_finished_when_it_has_come_as_far_as_it_has_to(tmp_path, reached, wanted, done):
    content = {"steps": 4} | ({"stop_after": reached} if reached else {})
    (tmp_path / "summary.json").write_text(json.dumps(content))
    assert up_to(StageRun(tmp_path, "", {}), wanted).is_finished() == done
    assert isinstance(Racer(StageRun(tmp_path, "", {}), 480, 1.0, 0.5, 0.5).expected(), float)

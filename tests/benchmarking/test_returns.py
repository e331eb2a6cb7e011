"""What policies score in training: windows, averages, and the table."""

from zoo_lightning.benchmarking.grid import Cell, open_comparison
from zoo_lightning.benchmarking.returns import format_returns, returns_in_training, training_curves

BACKBONE = {"init_args": {"architecture": "nature_cnn"}}

OPTIONS = {"model": {"class_path": "PPOTask", "init_args": {"backbone": BACKBONE}}}


def log(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["step,charts/episodic_return,losses/policy_loss"]
    path.write_text("\n".join([*lines, *rows]) + "\n")
    return path


def test_scores_are_averaged_in_windows_of_steps(tmp_path):
    rows = ["10,1,", "10,,0.5", "40,3,", "50,8,", "51,6,", "110,9,"]
    path = log(tmp_path / "metrics.csv", rows)
    assert returns_in_training(path, 50) == {50: 4, 100: 6, 150: 9}


def test_a_row_for_each_game_gives_the_curve_of_a_row_for_each_rollout(tmp_path):
    games = log(tmp_path / "games.csv", ["3,1,", "9,2,", "10,3,", "14,8,"])
    rollouts = log(tmp_path / "rollouts.csv", ["10,2,", "20,8,"])
    expected = {20: 5}
    assert returns_in_training(games, 20, rollout=10) == expected
    assert returns_in_training(rollouts, 20, rollout=10) == expected


def test_policies_are_compared_by_the_whole_training_and_by_its_end(tmp_path):
    comparison = open_comparison(tmp_path, OPTIONS)
    cells = [Cell("scratch", "", seed) for seed in (0, 1, 2)]
    for cell in cells[:2]:
        # A game at every step, which scores the step's number and the seed.
        rows = [f"{step},{step + cell.seed},0.1" for step in range(1, 101)]
        log(comparison.run(cell) / "metrics.csv", rows)
        (comparison.run(cell) / "summary.json").write_text('{"test": {"a": 1}}')
    log(comparison.run(cells[2]) / "metrics.csv", ["1,1,0.1"])  # has not ended
    curves = training_curves(comparison, cells)
    assert list(curves) == ["scratch"]
    assert list(curves["scratch"]) == [0, 1]
    assert list(curves["scratch"][0]) == list(range(5, 101, 5))
    [row] = format_returns(curves).splitlines()[2:]
    # Two seeds half a point to each side: Student's t of one degree of freedom is 12.706.
    assert row == "| scratch | 2 | 51.00 ± 6.35 | 96.00 ± 6.35 |"


def test_the_end_of_a_training_is_told_by_steps_not_by_windows_with_games():
    curves = {"a": {0: {50: 1.0, 95: 5.0, 100: 7.0}, 1: {50: 2.0}}, "b": {0: {40: 1.0}}}
    rows = format_returns(curves).splitlines()[2:]
    assert rows[0].endswith("| 6.00 |")  # of the one seed in whose end games ended
    assert rows[1].endswith("| 1.00 |  |")


def test_a_training_in_which_no_game_ended_is_left_out(tmp_path):
    comparison = open_comparison(tmp_path, OPTIONS)
    cell = Cell("scratch")
    log(comparison.run(cell) / "metrics.csv", ["8,,0.1"])
    (comparison.run(cell) / "summary.json").write_text('{"test": {"a": 1}}')
    assert training_curves(comparison, [cell]) == {}

"""The benchmark of transformers measures layers that compute what they should, and writes rows."""

import csv
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.variants import SpeedSetting  # noqa: E402
from benchmarks.vision_transformers import (  # noqa: E402
    layer_rows,
    layer_steps,
    network_row,
    planned_row,
    write,
)


def test_a_row_has_the_ratios_and_what_is_expected_of_them(tmp_path):
    (row,) = layer_rows(turns=1, tokens=(4,))
    assert row["m/n"] == 1.25
    assert row["m/Bn"] == 0.0781
    assert row["full_vs_plain"] > 0
    write([row], tmp_path / "layers.csv")
    with (tmp_path / "layers.csv").open() as file:
        assert float(next(csv.DictReader(file))["lite_vs_plain"]) == row["lite_vs_plain"]


def test_the_steps_are_those_of_one_layer_and_of_two_zoos():
    steps = layer_steps(3, 2, 2, inputs=4, outputs=5)
    assert list(steps) == ["plain", "full", "lite"]
    for step in steps.values():
        step()


def test_networks_of_a_fixed_size_are_built_for_the_benchmarks_images():
    torch.manual_seed(0)
    row = network_row(
        SpeedSetting("test_vit", batch=2, size=32, sources=2), turns=1, everything=True
    )
    assert row["plain_s"] > 0
    assert {"full_vs_plain", "lite_vs_plain", "lite_heads_vs_plain", "lite_all_vs_plain"} < set(row)


def test_all_ways_of_a_layer_are_timed_beside_the_planners_choice():
    row = planned_row(2, 3, 8, 8, turns=1)
    assert row["chosen_vs_fastest"] >= 1
    assert {"unfolded_ms", "mixed_inputs_ms", f"{row['chosen']}_ms", f"{row['fastest']}_ms"} <= set(
        row
    )

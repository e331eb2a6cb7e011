"""What the measurement of memory says of memory that grows and of memory that does not."""

import json

import pytest

from benchmarks.memory_over_time import COMMANDS, draw, growth


def test_growth_is_seen_whatever_the_beginning_takes():
    flat = [(100 * k, 500.0 if k < 10 else 900.0, float(k)) for k in range(1, 201)]
    assert growth(flat) == {"settled_mb": 900.0, "end_mb": 900.0, "per_1000_batches_mb": 0.0}
    leaking = [(100 * k, 500.0 + k, float(k)) for k in range(1, 201)]
    assert growth(leaking)["per_1000_batches_mb"] == pytest.approx(10)


def test_all_that_was_measured_is_drawn(tmp_path):
    rows = [(k, 900.0 + k % 3, float(k)) for k in range(1, 40)]
    for kind in COMMANDS:
        (tmp_path / f"memory_{kind}.json").write_text(json.dumps({**growth(rows), "rows": rows}))
    draw(tmp_path)
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")

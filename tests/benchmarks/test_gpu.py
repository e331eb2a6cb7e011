"""The script for GPUs runs whole on a CPU, and the planner's constants can be found again."""

import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import gpu, ppo  # noqa: E402
from benchmarks.planner_rates import LAYERS, fit_rates, lost_time  # noqa: E402
from zoo_lightning.nn.fast.planner import RATES, Rates, Request, costs  # noqa: E402
from zoo_lightning.nn.reference import ConvGeometry  # noqa: E402


@pytest.mark.usefixtures("one_thread")
def test_a_quick_run_on_the_cpu_has_every_figure(tmp_path, monkeypatch, capsys):
    pytest.importorskip("ale_py")
    monkeypatch.setattr(ppo, "ENVS", 2)
    gpu.main(["--device", "cpu", "--quick", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "gpu.json").read_text())
    measured = {(row["architecture"], row["variant"]) for row in found["steps"]}
    assert measured == {
        (setting.architecture, name) for setting in gpu.QUICK_SETTINGS for name in gpu.COLUMNS
    }
    assert found["left_out"] == []
    assert all(row["eval"] > 0 for row in found["steps"])
    assert all((row["train"] is None) == (row["variant"] == "folded") for row in found["steps"])
    assert set(found["ppo"]) == {"plain", "lite", "full"}
    assert found["constants"]["row"] in capsys.readouterr().out
    assert eval("{" + found["constants"]["row"] + "}", {"Rates": Rates})["cpu"].conv > 0
    assert "| test_resnet | 2 | 32 | bf16 | lite |" in (tmp_path / "gpu.md").read_text()


def test_what_there_is_no_time_for_is_named(tmp_path):
    gpu.main(["--device", "cpu", "--quick", "--seconds", "0", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["steps"] == []
    assert "test_resnet bf16, plain: no time left" in found["left_out"]
    assert "planner constants: 0 of 6 layers" in found["left_out"]


def test_without_a_gpu_the_script_says_so(tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(tmp_path)])
    assert "--device cpu --quick" in capsys.readouterr().err


def requests():
    for inputs, outputs, kernel, stride, side, groups in LAYERS:
        for shared in (True, False):
            yield Request(
                64, 5, inputs, outputs, (side, side), (kernel, kernel),
                ConvGeometry((stride, stride), (kernel // 2,) * 2, groups=groups),
                kernel > 1, shared, True, inputs > 3, "cuda", torch.float32, True,
            )  # fmt: skip


def test_rates_that_explain_the_measurements_are_found():
    true = Rates(*(value * factor for value, factor in zip(
        RATES["cuda"], (0.3, 0.5, 2, 0.4, 3, 0.7, 1.5, 0.6), strict=True)))  # fmt: skip
    measured = [(asked, costs(asked, true)) for asked in requests()]
    found = fit_rates(measured, RATES["cuda"])
    for name, expected in true._asdict().items():
        # Depthwise kernels are so few that their reordering hardly shows: the present rate counts.
        rel = 0.05 if name != "reorder" else 0.7
        assert getattr(found, name) == pytest.approx(expected, rel=rel), name
    assert lost_time(measured, true) == pytest.approx(0)
    assert lost_time(measured, found) < 0.01
    assert lost_time(measured, RATES["cuda"]) >= lost_time(measured, found)

"""The comparison on three kinds of zoo: what is run, by whom, and what the table says of it."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import kinds_of_zoo, zoo_table  # noqa: E402
from benchmarks.kinds_of_zoo import (  # noqa: E402
    KINDS,
    TARGETS,
    ZOO_METHODS,
    ProgramJob,
    ZooCell,
    cells,
    command,
    members,
)
from benchmarks.zoo_table import columns, paired, read_run, table  # noqa: E402
from zoo_lightning.experiments.resolving import resolve  # noqa: E402
from zoo_lightning.runs.pool import claimed  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is absent")


def test_each_single_source_is_trained_once_for_all_zoos_that_have_it():
    wanted = list(cells([0], ["flowers17"], KINDS))
    singles = [cell.method for cell in wanted if cell.method.startswith("single")]
    assert len(singles) == len(set(singles)) == 3 + 2 + 2
    assert len(wanted) == 7 + len(KINDS) * len(ZOO_METHODS)
    assert len({cell.path for cell in wanted}) == len(wanted)


@needs_data
@pytest.mark.filterwarnings("ignore:LightningCLI's args parameter")
@pytest.mark.parametrize(
    ("target", "method"),
    [
        ("faces68", "single segmentation"),
        ("faces68-230", "released full"),
        ("flowers17", "average"),
        ("cifar10-500", "ours lite"),
    ],
)
def test_every_command_line_is_one_that_the_program_takes(target, method, tmp_path):
    words = command(ZooCell(target, "descendants", method, 3), DATA, tmp_path)
    backbone = resolve(overrides=words[1:]).options.model.init_args.backbone
    assert backbone.class_path.endswith(
        "ZooBackbone" if " f" in method or "ours" in method else "PlainBackbone"
    )
    names = [
        source["weights"] if isinstance(source, dict) else source
        for source in backbone.init_args.sources
    ]
    assert len(names) == (1 if method.startswith("single") else 3)
    if "ZooBackbone" in backbone.class_path:
        assert backbone.init_args.gate_init == ("greedy" if "ours" in method else "released")
        assert backbone.init_args.mode == method.split()[1]


@needs_data
def test_halves_have_every_class_and_the_chosen_points_once(tmp_path):
    kinds_of_zoo.make_halves(DATA, tmp_path)
    kinds_of_zoo.make_halves(DATA, tmp_path)  # a second time changes nothing
    halves = [{p.name for p in (tmp_path / f"halves/animals{i}/train").iterdir()} for i in (0, 1)]
    whole = {p.name for p in (DATA / "tiny_imagenet50/train").iterdir()}
    assert halves[0] | halves[1] == whole
    assert not halves[0] & halves[1]
    original = (DATA / "faces5/train.csv").read_text().splitlines()[1].split(",")
    mouth = (tmp_path / "halves/mouth/train.csv").read_text().splitlines()[1].split(",")
    assert mouth == [original[0], *original[7:11]]


def test_the_pool_matches_first_trains_each_cell_once_and_keeps_no_checkpoints(
    tmp_path, monkeypatch
):
    ended = []

    def program(words):
        folder = Path(words[words.index("--output" if words[0] == "sources" else "--run_dir") + 1])
        ended.append(str(folder.relative_to(tmp_path)))
        if words[0] == "sources":
            for name in members(folder.name, TARGETS["flowers17"]):
                (folder / f"{name}.safetensors").touch()
        else:
            (folder / "checkpoints").mkdir()
            (folder / "summary.json").write_text("{}")
        return 0

    class Here:
        def __init__(self, job):
            self.job = job

        def wait(self):
            return kinds_of_zoo.main(self.job.arguments())

    monkeypatch.setattr(kinds_of_zoo, "zoo_lightning", program)
    monkeypatch.setattr(
        ProgramJob, "start", lambda job, device: (job.folder.mkdir(parents=True), Here(job))[1]
    )
    words = ["run", "--data", "data", "--run_dir", str(tmp_path), "--seeds", "0"]
    words += ["--targets", "flowers17", "--kinds", "strangers"]
    with claimed(tmp_path / "flowers17/strangers/average/0"):
        assert kinds_of_zoo.main(words) == 0
    assert ended[0] == "matched/flowers17/strangers"
    assert len(set(ended)) == len(ended) == 1 + 3 + len(ZOO_METHODS) - 1  # one was taken
    assert not list(tmp_path.rglob("checkpoints"))
    shutil.rmtree(tmp_path / "flowers17/strangers/average/0")
    assert kinds_of_zoo.main(words) == 0
    assert ended[-1] == "flowers17/strangers/average/0"
    assert len(set(ended)) == len(ended)


def test_a_paired_interval_is_that_of_the_t_test():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(1, 1, 5), rng.normal(0, 1, 5)
    difference, half, seeds = paired(dict(enumerate(ours)), dict(enumerate(theirs)))
    interval = ttest_rel(ours, theirs).confidence_interval(0.95)
    assert seeds == 5
    assert difference - half == pytest.approx(interval.low)
    assert difference + half == pytest.approx(interval.high)


def test_the_best_single_is_chosen_by_validation_in_each_seed_and_by_test_over_all():
    def figures(test, val):
        return {s: {"test": t, "val": v} for s, (t, v) in enumerate(zip(test, val, strict=True))}

    runs = {
        ("faces68", "", "single eyes"): figures([5, 6], [4, 9]),
        ("faces68", "", "single mouth"): figures([7, 7], [5, 8]),
    }
    found = columns(runs, "faces68", "complementary")
    assert found["best single, hindsight"] == {0: 5, 1: 6}
    assert found["best single, validation"] == {0: 5, 1: 7}


def test_figures_come_from_the_run_and_the_table_says_how_many_seeds(tmp_path):
    target = TARGETS["faces68"]
    for seed, error in enumerate([6.0, 7.0, 8.0]):
        for method in ("single eyes", "single mouth", "ours lite"):
            kind = "" if "single" in method else "complementary"
            folder = tmp_path / ZooCell("faces68", kind, method, seed).path
            folder.mkdir(parents=True)
            better = error - (0.5 if "ours" in method else 0.0)
            (folder / "summary.json").write_text(json.dumps({"test": {"test/nme": better}}))
            (folder / "metrics.csv").write_text("step,val/nme\n1,9.0\n2,\n3,6.5\n4,6.75\n")
    assert read_run(folder, target) == {"test": 7.5, "val": 6.5}
    assert read_run(folder.parent, target) is None
    assert zoo_table.main(["--run_dir", str(tmp_path), "--output", str(tmp_path / "out")]) == 0
    written = (tmp_path / "out" / "table.md").read_text()
    assert "| 7.00 ± 1.00 |" in written
    assert "| -0.50 ± 0.00 (3) |" in written
    assert len(json.loads((tmp_path / "out" / "runs.json").read_text())) == 9
    assert table({}).count("\n") == 2

"""Every callback class of Lightning works beside a run's own, or is refused in one line."""

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.callbacks import Callback

from zoo_lightning.callbacks.averaged_weights import AveragedWeights
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.refused_callbacks import UNFIT, check_callbacks

FIT = ("fit", "--experiment", "tiny", "--run_dir", "run", "--run_test", "false")

TOGETHER = {
    "DeviceStatsMonitor": {"cpu_stats": False},
    "LambdaCallback": {},
    "LearningRateMonitor": {"logging_interval": "step"},
    "ModelCheckpoint": {"every_n_train_steps": 2, "save_top_k": -1, "filename": "{step}"},
    "RichModelSummary": {},
    "Timer": {"duration": {"hours": 1}},
    "TQDMProgressBar": {},
    "EarlyStopping": {"monitor": "val/nme", "patience": 100},
}
"""Classes with options that are tried in one training."""

REFUSED = {
    "BackboneFinetuning": ({}, "head_init"),
    "BatchSizeFinder": ({}, "data.batch_size"),
    "EMAWeightAveraging": ({}, "average_weights"),
    "GradientAccumulationScheduler": ({"scheduling": {0: 2}}, "accumulate_grad_batches"),
    "LearningRateFinder": ({}, "compare --tune"),
    "OnExceptionCheckpoint": ({"dirpath": "exceptions"}, "last.ckpt"),
    "ModelPruning": ({"pruning_fn": "l1_unstructured"}, "exported"),
    "SpikeDetection": ({}, "on_nonfinite"),
    "StochasticWeightAveraging": ({"swa_lrs": 0.01}, "average_weights"),
    "WeightAveraging": ({}, "average_weights"),
}

ELSEWHERE = {
    "Callback": "base class",
    "Checkpoint": "base class",
    "ProgressBar": "base class",
    "BaseFinetuning": "base class, refused as BackboneFinetuning is",
    "BasePredictionWriter": "base class",
    "RichProgressBar": "below",
    "ModelSummary": "below",
    "ThroughputMonitor": "below",
}


def given(name, options):
    path = name if "." in name else f"lightning.pytorch.callbacks.{name}"
    return {"class_path": path, **({"init_args": options} if options else {})}


def summary():
    return json.loads(Path("run/summary.json").read_text())


def test_every_callback_of_lightning_has_its_place_here():
    known = {*TOGETHER, *REFUSED, *ELSEWHERE}
    assert set(lightning_callbacks.__all__) <= known, "new in Lightning: decide, and test it"


def test_callbacks_that_work_do_what_they_are_for(tiny, command):
    words = [json.dumps([given(*each) for each in TOGETHER.items()])]
    tiny(**{"trainer.max_steps": 4, "trainer.enable_progress_bar": True})
    done = command(*FIT, "--trainer.callbacks", *words, "--trainer.log_every_n_steps", "1")
    assert done.status == 0, done.err
    assert summary()["steps"] == 4
    assert {path.name for path in Path("run/checkpoints").iterdir()} == {
        "best.ckpt", "last.ckpt", "step=2.ckpt", "step=4.ckpt"
    }  # fmt: skip
    with open("run/metrics.csv", encoding="utf-8") as file:
        assert any(name.startswith("lr-") for name in next(csv.reader(file)))
    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)["callbacks"]
    assert len([key for key in state if key.startswith("Timer")]) == 1


@pytest.mark.parametrize("name", REFUSED)
def test_callbacks_that_do_not_are_refused(tiny, command, name):
    options, said = REFUSED[name]
    words = json.dumps([given(name, options)])
    command(*FIT, "--trainer.callbacks", words).refused(name, said)
    assert not Path("run").exists()


@pytest.mark.parametrize("kind", UNFIT, ids=lambda kind: kind.__name__)
def test_refused_with_all_that_derive_from_them(kind):
    derived = type("Mine", (kind,), {"__init__": lambda self: None})
    with pytest.raises(ConfigError, match=r"trainer\.callbacks Mine"):
        check_callbacks([derived()])


KEEPER = "ModelCheckpoint"

CONTRADICTIONS = {
    "two progress bars": ([("RichProgressBar", {}), ("TQDMProgressBar", {})], "2 progress bars"),
    "two timers": ([("Timer", {"duration": "00:01:00:00"}), ("Timer", {})], "2 timers"),
    "two summaries": ([("ModelSummary", {}), ("RichModelSummary", {})], "2 model summaries"),
    "two stops alike": (
        [("EarlyStopping", {"monitor": "val/nme"}), ("EarlyStopping", {"monitor": "val/nme"})],
        "2 alike",
    ),
    "a folder elsewhere": (
        [(KEEPER, {"dirpath": "elsewhere", "monitor": "val/nme"})],
        "is not in the run folder run",
    ),
    "nothing kept": ([(KEEPER, {"save_top_k": 0})], "save_top_k 0"),
    "no best kept": (
        [(KEEPER, {"save_top_k": 0, "save_last": True, "monitor": "val/nme"})],
        "save_top_k 0",
    ),
    "never saved": ([(KEEPER, {"every_n_epochs": 0})], "saves nothing"),
    "weights only as the best": (
        [(KEEPER, {"monitor": "val/nme", "save_weights_only": True})],
        "save_weights_only",
    ),
    "weights only as the last": (
        [(KEEPER, {"save_last": True, "save_weights_only": True})],
        "save_weights_only",
    ),
    "the last by another": ([(KEEPER, {"filename": "last"})], "filename 'last'"),
    "several called best": (
        [(KEEPER, {"filename": "best", "save_top_k": 3, "monitor": "val/nme"})],
        "filename 'best'",
    ),
    "other weights at an epoch's end": (
        [(KEEPER, {"monitor": "val/nme", "save_on_train_epoch_end": True})],
        "save_on_train_epoch_end",
    ),
    "other weights at some step": (
        [(KEEPER, {"monitor": "val/nme", "every_n_train_steps": 3})],
        "every_n_train_steps",
    ),
    "a single batch's loss": ([("EarlyStopping", {"monitor": "train/loss"})], "a single batch"),
    "no such metric": ([(KEEPER, {"monitor": "val/nm"})], "Did you mean 'val/nme'"),
    "metric of another task": (
        [("EarlyStopping", {"monitor": "val/acc", "mode": "max"})],
        "val/nme",
    ),
    "what its constructor refuses": (
        [("EarlyStopping", {"monitor": "val/nme", "mode": "up"})],
        "`mode` can be min, max, got up",
    ),
    "what the run has": ([("zoo_lightning.callbacks.gates.GateEMA", {})], "gate_momentum"),
    "what the run has, too": (
        [("zoo_lightning.callbacks.checkpoints.LastCheckpoint", {"folder": "x"})],
        "every run has it",
    ),
}
"""Callbacks that contradict each other or what a run is, and what the one line says."""


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions_are_refused_before_anything_is_read(tiny, command, name):
    callbacks, said = CONTRADICTIONS[name]
    words = json.dumps([given(*each) for each in callbacks])
    tiny(**{"trainer.enable_progress_bar": True})
    command(*FIT, "--trainer.callbacks", words, "--sources", "nowhere.pt,random:1").refused(said)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("name", "options", "words", "said"),
    [
        ("Timer", {}, ("--trainer.max_time", "00:01:00:00"), "trainer.max_time"),
        ("LearningRateMonitor", {}, ("--trainer.logger", "false"), "trainer.logger"),
        ("DeviceStatsMonitor", {}, ("--trainer.logger", "false"), "trainer.logger"),
        ("TQDMProgressBar", {}, ("--trainer.enable_progress_bar", "false"), "enable_progress_bar"),
        (
            KEEPER,
            {"save_weights_only": True, "filename": "{step}"},
            ("--average_weights", "true"),
            "averaged weights",
        ),
    ],
)
def test_contradictions_to_other_options_are_refused(tiny, command, name, options, words, said):
    callbacks = json.dumps([given(name, options)])
    command(*FIT, "--trainer.callbacks", callbacks, *words).refused(said)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("EarlyStopping", {"monitor": "val/nme"}, "val/episodic_return"),
        ("EarlyStopping", {"monitor": "charts/episodic_return", "mode": "max"}, "val/episodic"),
        (
            "EarlyStopping",
            {"monitor": "val/episodic_return", "mode": "max", "check_on_train_epoch_end": True},
            "one epoch",
        ),
        ("Timer", {"duration": {"hours": 1}, "interval": "epoch"}, "one epoch"),
        (KEEPER, {"every_n_epochs": 2}, "one epoch"),
    ],
)
def test_policies_have_one_epoch_and_metrics_of_their_own(tiny, command, name, options, said):
    words = ("fit", "--experiment", "rl-source", "--run_dir", "run", "--trainer.accelerator", "cpu")
    command(*words, "--trainer.callbacks", json.dumps([given(name, options)])).refused(name, said)


@pytest.mark.parametrize(
    "first", [("compare", "--run_dir", "out", "--methods", "single"), (*FIT, "--method", "single")]
)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"monitor": "val/auc", "mode": "max"}, "set monitor: val/nme"),
        ({"dirpath": "run/kept"}, "dirpath"),
        ({"save_top_k": 0}, "save_top_k"),
    ],
)
def test_commands_of_several_runs_refuse_them_before_the_first(tiny, command, first, options, said):
    rest = () if first[0] == "fit" else ("--experiment", "tiny")
    words = json.dumps([given(KEEPER, options)])
    first = (*first[:-1], "single:random-1")
    command(*first, *rest, "--trainer.callbacks", words).refused(said)
    assert not Path("run").exists()
    assert not Path("out").exists()


OWN = """
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.utilities.exceptions import MisconfigurationException

class Logs(Callback):
    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("val/mine", 1.0 + trainer.global_step)

class Stops(EarlyStopping):
    pass

class Fails(Callback):
    def __init__(self):
        raise KeyError("no such thing")

class Refuses(Callback):
    def on_fit_start(self, trainer, pl_module):
        raise MisconfigurationException("needs two optimizers")
"""


@pytest.fixture
def own(tiny, tmp_path, monkeypatch):
    """A module ``own_callbacks`` beside the experiment ``tiny``."""
    (tmp_path / "own_callbacks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_callbacks", None)


def test_callbacks_of_a_module_of_ones_own_may_log_and_monitor_what_they_like(own, command):
    words = [
        {"class_path": "own_callbacks.Logs"},
        {
            "class_path": "own_callbacks.Stops",
            "init_args": {"monitor": "val/mine", "patience": 1},
        },
    ]
    done = command(*FIT, "--trainer.callbacks", json.dumps(words))
    assert done.status == 0, done.err
    assert summary()["steps"] == 8  # the second validation is no better, and the last one


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("Fails", {}, "no such thing"),
        ("Refuses", {}, "needs two optimizers"),
        ("Stops", {"monitor": "val/other"}, "val/other"),
        ("Missing", {}, "Missing"),
    ],
)
def test_what_they_refuse_themselves_is_one_line(own, command, name, options, said):
    described = {"class_path": f"own_callbacks.{name}", "init_args": options}
    command(*FIT, "--trainer.callbacks", json.dumps([described])).refused(said)
    assert not list(Path().rglob("last.ckpt"))


def test_averaged_weights_of_ours_are_not_refused():
    check_callbacks([AveragedWeights(), Callback()])


@pytest.mark.parametrize("name", ["RichProgressBar", "TQDMProgressBar"])
def test_a_progress_bar_takes_the_place_of_ours(tiny, command, name):
    tiny(**{"trainer.enable_progress_bar": True, "trainer.max_steps": 2})
    done = command(*FIT, "--trainer.callbacks", json.dumps([given(name, {})]))
    assert done.status == 0, done.err
    assert summary()["steps"] == 2


def test_a_progress_bar_that_is_switched_off_is_refused(tiny, command):
    words = json.dumps([given("RichProgressBar", {})])
    command(*FIT, "--trainer.callbacks", words, "--trainer.enable_progress_bar", "false").refused(
        "enable_progress_bar"
    )


@pytest.mark.parametrize("own", [None, "ModelSummary", "RichModelSummary"])
def test_one_summary_of_the_model_and_no_operations_of_zero(tiny, command, own, caplog):
    tiny(**{"trainer.enable_model_summary": True, "trainer.max_steps": 2})
    words = json.dumps([given(own, {"max_depth": 2})] if own else [])
    caplog.set_level("INFO")
    done = command(*FIT, "--trainer.callbacks", words)
    assert done.status == 0, done.err
    said = caplog.text + done.out  # the log may stand in done.err once more
    shown = said.count("ZooBackbone ") or said.count("ZooBack…")  # a narrow table cuts it
    assert shown == 1
    if not own:
        assert "FLOPs" not in said
        assert "parameters" in said
    else:
        [total] = {line.split()[0] for line in said.splitlines() if "Total Flops" in line.title()}
        assert total != "0"


def images_of(batch):
    return len(batch["image"])


def test_throughput_is_logged(tiny, command):
    options = {"batch_size_fn": f"{__name__}.images_of", "window_size": 2}
    tiny(**{"trainer.max_steps": 4, "trainer.log_every_n_steps": 1})
    done = command(*FIT, "--trainer.callbacks", json.dumps([given("ThroughputMonitor", options)]))
    assert done.status == 0, done.err
    assert "train/device/samples_per_sec" in Path("run/metrics.csv").read_text().splitlines()[0]


AVERAGES = "zoo_lightning.callbacks.averaged_weights.AveragedWeights"


def test_a_run_with_averaged_weights_of_the_users_is_resumed_with_them(tiny, command):
    tiny(**{"model.init_args.schedule": "constant"})
    callbacks = ("--trainer.callbacks", json.dumps([given(AVERAGES, {"norm_images": 4})]))
    assert command(*FIT, *callbacks, "--trainer.max_steps", "4").status == 0
    words = ("fit", "--experiment", "tiny", "--ckpt_path", "run", "--run_test", "false")
    command(*words).refused("average_weights is False")
    resumed = command(*words, *callbacks)
    assert resumed.status == 0, resumed.err
    assert summary()["steps"] == 8


def test_checkpoints_of_weights_alone_are_not_resumed_from(tiny, command):
    options = {"save_weights_only": True, "every_n_train_steps": 2, "filename": "weights"}
    callbacks = ("--trainer.callbacks", json.dumps([given(KEEPER, options)]))
    assert command(*FIT, *callbacks, "--trainer.max_steps", "2").status == 0
    file = "run/checkpoints/weights.ckpt"
    words = ("--experiment", "tiny", "--run_dir", "other")
    command("fit", *words, "--ckpt_path", file).refused("weights only", "--init_from")
    assert not Path("other").exists()
    assert command("test", *words, "--ckpt_path", file).status == 0


@pytest.mark.parametrize(
    "move", [shutil.move, pytest.param(shutil.copytree, marks=pytest.mark.slow)]
)
def test_a_moved_run_keeps_the_users_best_checkpoint_and_its_score(tiny, command, move):
    tiny(**{"model.init_args.schedule": "constant"})
    keeper = given(KEEPER, {"monitor": "val/nme", "filename": "mine-{step}"})
    callbacks = ("--trainer.callbacks", json.dumps([keeper]))
    assert command(*FIT, *callbacks, "--trainer.max_steps", "4").status == 0
    [best] = Path("run/checkpoints").glob("mine-*.ckpt")
    last = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    [state] = [s for key, s in last["callbacks"].items() if key.startswith(KEEPER)]
    # A score that no later validation reaches.
    state["best_model_score"] = state["kth_value"] = torch.tensor(0.0)
    state["best_k_models"] = {str(best.resolve()): torch.tensor(0.0)}
    torch.save(last, "run/checkpoints/last.ckpt")
    move("run", "place")
    words = ("fit", "--experiment", "tiny", "--run_dir", "place", "--ckpt_path", "last")
    other = json.dumps([given(KEEPER, {"monitor": "val/auc", "mode": "max"})])
    command(*words, "--trainer.callbacks", other).refused("best by val/nme", "by val/auc")
    resumed = command(*words, *callbacks, "--run_test", "false")
    assert resumed.status == 0, resumed.err
    found = json.loads(Path("place/summary.json").read_text())
    assert found["checkpoint"] == f"checkpoints/{best.name}"
    assert found["validation"] == {"val/nme": 0.0}
    assert found["steps"] == 8
    assert [path.name for path in Path("place/checkpoints").glob("mine-*")] == [best.name]
    for option in ("--ckpt_path", "--init_from"):
        first = ("test",) if option == "--ckpt_path" else ("fit", "--trainer.max_steps", "1")
        done = command(*first, "--experiment", "tiny", option, "place", "--run_dir", "next")
        assert done.status == 0, done.err
    exported = command("export", "--ckpt", "place", "--format", "timm", "--output", "exported")
    assert exported.status == 0, exported.err


def test_pipelines_take_the_users_best_checkpoint_for_theirs(tiny, command):
    keeper = given(KEEPER, {"monitor": "val/nme", "filename": "mine"})
    words = ("--trainer.callbacks", json.dumps([keeper]), "--trainer.logger", "false")
    tiny(**{"trainer.max_steps": 2, "trainer.val_check_interval": 2})
    done = command(
        "fit", "--experiment", "tiny", "--run_dir", "run", "--method", "ensemble", *words
    )
    assert done.status == 0, done.err
    assert Path("run/stages/single-random-1/checkpoints/mine.ckpt").is_file()
    assert summary()["test"]
    tested = command("test", "--ckpt_path", "run", "--run_dir", "tested")
    assert tested.status == 0, tested.err


def test_two_that_keep_a_best_are_told_apart_in_one_line(tiny, command, caplog):
    caplog.set_level("INFO")
    keepers = [
        given(KEEPER, {"monitor": "val/nme", "filename": "nme"}),
        given(KEEPER, {"monitor": "val/auc", "mode": "max", "filename": "auc"}),
    ]
    words = ("--trainer.callbacks", json.dumps(keepers), "--trainer.max_steps", "4")
    done = command(*FIT, *words)
    assert done.status == 0, done.err
    assert "the run's best checkpoint is that by val/nme" in caplog.text + done.err
    assert summary()["checkpoint"] == "checkpoints/nme.ckpt"
    assert Path("run/checkpoints/auc.ckpt").is_file()


def test_callbacks_that_log_may_be_tried_in_a_fast_run(tiny, command):
    words = json.dumps([given("LearningRateMonitor", {}), given(KEEPER, {"monitor": "val/nme"})])
    done = command(*FIT, "--trainer.callbacks", words, "--trainer.fast_dev_run", "true")
    assert done.status == 0, done.err


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"dirpath": "run/kept", "filename": "mine"},
    ],
)
def test_a_run_whose_checkpoints_the_user_places_is_addressed_by_its_folder(tiny, command, options):
    keeper = given("ModelCheckpoint", {"monitor": "val/nme", **options})
    done = command(*FIT, "--trainer.callbacks", json.dumps([keeper]), "--trainer.max_steps", "4")
    assert done.status == 0, done.err
    assert not Path("run/checkpoints/best.ckpt").exists()
    tested = command("test", "--ckpt_path", "run", "--output", "tested")
    assert tested.status == 0, tested.err
    named = json.loads(Path("tested/summary.json").read_text())["checkpoint"]
    assert Path("tested", named).resolve() == Path("run", summary()["checkpoint"]).resolve()
    words = ("--trainer.callbacks", json.dumps([keeper]), "--trainer.max_steps", "4")
    resumed = command("fit", "--experiment", "tiny", "--ckpt_path", "run", *words)
    assert resumed.status == 0, resumed.err
    assert summary()["test"]


SWAPPED = '''
from lightning.pytorch.callbacks import Callback


class Swap(Callback):
    """Validates an average that it takes out again before anything is saved."""

    before, after = {hooks!r}

    def _swap_in(self, trainer, module):
        self.kept = {{name: each.clone() for name, each in module.state_dict().items()}}
        for each in module.parameters():
            each.data.mul_(0.9)

    def _swap_out(self, trainer, module):
        module.load_state_dict(self.kept)


setattr(Swap, Swap.before, Swap._swap_in)
setattr(Swap, Swap.after, Swap._swap_out)
'''
"""A module of a callback that many projects write for moving averages."""


@pytest.mark.parametrize(
    ("hooks", "averages"),
    [
        (("on_validation_epoch_start", "on_validation_epoch_end"), "false"),
        (("on_validation_epoch_start", "on_validation_epoch_end"), "true"),
        (("on_validation_start", "on_validation_end"), "false"),
    ],
)
def test_weights_that_are_swapped_in_for_a_validation_only_are_refused(
    tiny, command, monkeypatch, hooks, averages
):
    tiny()
    name = f"swap_{hooks[0]}_{averages}"
    Path(f"{name}.py").write_text(SWAPPED.format(hooks=hooks))
    monkeypatch.syspath_prepend(".")
    done = command(*FIT, "--trainer.callbacks", f"{name}.Swap", "--average_weights", averages)
    done.refused("trainer.callbacks Swap changes", "average_weights")
    assert not list(Path("run/checkpoints").glob("*.ckpt"))

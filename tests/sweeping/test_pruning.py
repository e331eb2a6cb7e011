"""Hyperband stops the runs that W&B's own engine stops."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_lightning.errors import ConfigError
from zoo_lightning.sweeping.pruning import bands_of, lags, pruner_of
from zoo_lightning.sweeping.schema import Hyperband, Metric

pytestmark = pytest.mark.filterwarnings("ignore")

FORMS = [
    {"min_iter": 1, "eta": 2},
    {"min_iter": 2, "eta": 1.5},
    {"min_iter": 3},
    {"max_iter": 27, "s": 2},
    {"max_iter": 9, "s": 5, "eta": 2},
]


def hyperband(given: dict) -> Hyperband:
    return Hyperband(
        given.get("min_iter"), given.get("max_iter"), given.get("s"), given.get("eta", 3),
        given.get("strict", False),
    )  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=7))
def test_the_same_runs_are_stopped_as_by_wandbs_engine(form, goal, histories):
    sweeps = pytest.importorskip("sweeps")
    runs = [
        # Under the name that the server's answers have: pydantic 2 ignores the field's own.
        sweeps.SweepRun(name=str(i), state="running", sampledHistory=[{"m": v} for v in history])
        for i, history in enumerate(histories)
    ]
    assert [len(run.history) for run in runs] == [len(history) for history in histories]
    config = {
        "method": "random",
        "metric": {"name": "m", "goal": goal},
        "early_terminate": {"type": "hyperband", **form},
        "parameters": {"a": {"values": [1]}},
    }
    theirs = {run.name for run in sweeps.stop_runs(config, runs)}
    early = hyperband(form)
    ours = {
        str(i)
        for i, history in enumerate(histories)
        if lags(history, histories, early, goal == "maximize")
    }
    assert ours == theirs


def test_bands_are_counted_from_the_beginning_or_from_the_end():
    assert bands_of(hyperband({"min_iter": 2, "eta": 2}))[:4] == [2, 4, 8, 16]
    assert bands_of(hyperband({"max_iter": 27, "s": 2})) == [3, 9]


def test_the_study_asks_the_rule_and_leaves_out_what_was_put_back():
    optuna = pytest.importorskip("optuna")
    early = hyperband({"min_iter": 1, "eta": 2})
    metric = Metric("m", "minimize")
    study = optuna.create_study(pruner=pruner_of(early, metric))
    for value in (1.0, 2.0):
        trial = study.ask()
        for step in range(3):
            trial.report(value, step)
        study.tell(trial, value)
    put_back = study.ask()
    for step in range(3):
        put_back.report(100.0, step)
    study.tell(put_back, state=optuna.trial.TrialState.FAIL)
    bad, good = study.ask(), study.ask()
    for trial, value in ((bad, 5.0), (good, 0.5)):
        trial.report(value, 0)
        assert not trial.should_prune()
        trial.report(value, 1)
    assert bad.should_prune()
    assert not good.should_prune()


def test_strict_follows_the_paper_by_optunas_own_pruner():
    optuna = pytest.importorskip("optuna")
    metric = Metric("m")
    found = pruner_of(hyperband({"max_iter": 27, "s": 3, "strict": True}), metric)
    assert isinstance(found, optuna.pruners.HyperbandPruner)
    assert isinstance(
        pruner_of(hyperband({"min_iter": 2, "strict": True}), metric),
        optuna.pruners.HyperbandPruner,
    )
    with pytest.raises(ConfigError, match=r"eta: 1\.5 with strict"):
        pruner_of(hyperband({"min_iter": 1, "eta": 1.5, "strict": True}), metric)

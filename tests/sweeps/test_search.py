"""Parameters in Optuna and back, and trials stopped as W&B's own engine stops them."""

import itertools
import json

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_lightning.errors import ConfigError
from zoo_lightning.sweeps.schema import EarlyTermination, SweepMetric, read_sweep
from zoo_lightning.sweeps.search import SearchSpace, bands_of, lags, pruner_of

pytestmark = pytest.mark.filterwarnings("ignore")

MANY = {
    "b": {"values": [None, True, 1, "1", [0.5, 0.5], {"k": 1.0e-7}]},
    "a.lr": {"distribution": "log_uniform_values", "min": 1.0e-5, "max": 1.0e-1},
    "n": {"distribution": "normal", "mu": 5.0},
    "i": {"min": 1, "max": 4},
    "c": {"value": [None]},
    "p": {"values": ["x", "y"], "probabilities": [0.25, 0.75]},
    "q": {"distribution": "q_uniform", "min": 0, "max": 8, "q": 2},
}


@pytest.fixture
def space(tmp_path):
    """A space of a sweep with these parameters."""

    def make(method: str, parameters: dict) -> SearchSpace:
        content = {"method": method, "metric": {"name": "m"}, "parameters": parameters}
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
        return SearchSpace(read_sweep(tmp_path / "s.yaml"))

    return make


def test_a_grid_has_every_point_once_in_wandbs_order(space):
    sweeps = pytest.importorskip("sweeps")
    parameters = {
        "z": {"values": [1, 2, 2]},
        "a": {"values": [None, "x"]},
        "k": {"value": 7},
        "m": {"min": 1, "max": 3},
    }
    grid = space("grid", parameters)
    assert grid.size == 12
    ours = [
        {".".join(path): value for path, value in grid.values(grid.drawn(i)).items()}
        for i in range(grid.size)
    ]
    runs = []
    config = {"method": "grid", "parameters": parameters}
    for _ in range(grid.size):
        runs.append(sweeps.next_run(config, runs))
    theirs = [{key: each["value"] for key, each in run.config.items()} for run in runs]
    assert ours == theirs
    assert sweeps.next_run(config, runs) is None


def test_random_draws_depend_on_the_trials_number_alone_and_differ(space):
    first, second = space("random", MANY), space("random", MANY)
    drawn = [first.drawn(index) for index in range(50)]
    assert drawn == [second.drawn(index) for index in range(50)]
    assert len({json.dumps(each) for each in drawn}) == 50
    lrs = [each["a.lr"] for each in drawn]
    assert min(lrs) < 1e-4 < 1e-2 < max(lrs)


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_values_of_any_type_arrive_intact_through_the_database(space, tmp_path, method):
    found = space(method, MANY)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=url, sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(12):
        trial = study.ask()
        found.suggest(trial)
        study.tell(trial, 1.0)
    again = optuna.load_study(study_name=study.study_name, storage=url)
    seen = [found.values(trial.params) for trial in again.trials]
    choices = MANY["b"]["values"]
    for values in seen:
        match = [c for c in choices if c == values[("b",)] and type(c) is type(values[("b",)])]
        assert match
        assert 1e-5 <= values[("a.lr",)] <= 1e-1
        assert values[("c",)] == [None]
        assert type(values[("i",)]) is int
        assert values[("p",)] in ("x", "y")
        assert values[("q",)] in (0, 2, 4, 6, 8)
    assert len({json.dumps(values[("b",)]) for values in seen}) > 2


def test_a_distribution_that_optuna_lacks_is_searched_by_its_quantile(space):
    found = space("bayes", MANY)
    kinds = optuna.distributions
    assert isinstance(found.distributions["quantile of n"], kinds.FloatDistribution)
    assert found.distributions["a.lr"].log
    assert isinstance(found.distributions["i"], kinds.IntDistribution)
    chosen = {name: each.to_external_repr(0.5) if name.startswith("quantile") else
              each.to_external_repr(1) for name, each in found.distributions.items()}  # fmt: skip
    assert found.values(chosen)[("n",)] == pytest.approx(5.0)


def test_every_grid_index_is_a_different_point(space):
    grid = space("grid", {"a": {"values": [1, 2]}, "b": {"values": [3, 4, 5]}})
    points = {tuple(grid.values(grid.drawn(i)).values()) for i in range(6)}
    assert points == set(itertools.product([1, 2], [3, 4, 5]))


FORMS = [
    {"min_iter": 1, "eta": 2},
    {"min_iter": 2, "eta": 1.5},
    {"min_iter": 3},
    {"max_iter": 27, "s": 2},
    {"max_iter": 9, "s": 5, "eta": 2},
]


def hyperband(given: dict) -> EarlyTermination:
    return EarlyTermination(
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
    early = hyperband({"min_iter": 1, "eta": 2})
    metric = SweepMetric("m", "minimize")
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
    metric = SweepMetric("m")
    found = pruner_of(hyperband({"max_iter": 27, "s": 3, "strict": True}), metric)
    assert isinstance(found, optuna.pruners.HyperbandPruner)
    assert isinstance(
        pruner_of(hyperband({"min_iter": 2, "strict": True}), metric),
        optuna.pruners.HyperbandPruner,
    )
    with pytest.raises(ConfigError, match=r"early_terminate\.eta .*1\.5"):
        pruner_of(hyperband({"min_iter": 1, "eta": 1.5, "strict": True}), metric)

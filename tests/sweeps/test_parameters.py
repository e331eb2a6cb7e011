"""Distributions mean what W&B's own sampling makes of them."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_lightning.errors import ConfigError
from zoo_lightning.sweeps.parameters import read_parameters

pytestmark = pytest.mark.filterwarnings("ignore")

KINDS = [
    {"values": [0.1, "a", None, True, [1, 2]]},
    {"values": ["a", "b", "c"], "probabilities": [0.2, 0.5, 0.3]},
    {"min": -2, "max": 5},
    {"min": -2.0, "max": 5.0},
    {"distribution": "q_uniform", "min": 0.3, "max": 4.0, "q": 0.5},
    {"distribution": "q_uniform", "min": 0, "max": 40, "q": 8},
    {"distribution": "log_uniform", "min": -9.0, "max": -2.0},
    {"distribution": "log_uniform_values", "min": 1e-5, "max": 0.1},
    {"distribution": "q_log_uniform", "min": 0.0, "max": 5.0, "q": 2},
    {"distribution": "q_log_uniform_values", "min": 8, "max": 256, "q": 8},
    {"distribution": "inv_log_uniform", "min": 1.0, "max": 3.0},
    {"distribution": "inv_log_uniform_values", "min": 0.01, "max": 0.5},
    {"distribution": "normal", "mu": 3.0, "sigma": 0.5},
    {"distribution": "q_normal", "mu": 0.0, "sigma": 10, "q": 2},
    {"distribution": "log_normal", "mu": -1.0, "sigma": 0.3},
    {"distribution": "q_log_normal", "mu": 2.0, "sigma": 1.0, "q": 0.5},
    {"distribution": "beta", "a": 2.0, "b": 5.0},
    {"distribution": "q_beta", "a": 2.0, "b": 2.0, "q": 0.125},
    {"value": {"nested": [None, 1.5e-7]}},
]


def names(given: dict) -> str:
    return given.get("distribution") or "-".join(given)


def ours(given: dict):
    return read_parameters({"x": given})[("x",)]


@pytest.mark.parametrize("given_keys", KINDS, ids=names)
@settings(max_examples=20, deadline=None)
@given(st.floats(0.001, 0.999))
def test_quantiles_are_wandbs(given_keys, quantile):
    hyper = pytest.importorskip("sweeps.params").HyperParameter("x", given_keys)
    found, theirs = ours(given_keys).value(quantile), hyper.ppf(quantile)
    if isinstance(theirs, (np.generic, np.ndarray)):
        theirs = theirs.item()
    if isinstance(theirs, float):
        quantum = given_keys.get("q", 0)
        # Exactly between two multiples rounding may fall either way.
        near = found == pytest.approx(theirs, rel=1e-7, abs=1e-9)
        assert near or abs(found - theirs) == pytest.approx(quantum)
    else:
        assert found == theirs
    assert type(found) is type(theirs)


@pytest.mark.parametrize("given_keys", KINDS, ids=names)
def test_values_are_plain_types_that_json_keeps(given_keys):
    for quantile in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = ours(given_keys).value(quantile)
        assert json.loads(json.dumps(value)) == value
        assert type(value) in (int, float, str, bool, list, dict, type(None))
        assert not isinstance(value, float) or math.isfinite(value)


def test_draws_follow_the_distribution():
    quantiles = np.random.default_rng(0).random(4000)
    normal = [ours({"distribution": "normal", "mu": 2, "sigma": 3}).value(q) for q in quantiles]
    assert np.mean(normal) == pytest.approx(2, abs=0.15)
    assert np.std(normal) == pytest.approx(3, abs=0.15)
    picked = ours({"values": ["a", "b"], "probabilities": [0.9, 0.1]})
    assert np.mean([picked.value(q) == "a" for q in quantiles]) == pytest.approx(0.9, abs=0.02)
    never = ours({"values": ["a", "b", "c"], "probabilities": [0.5, 0.5, 0.0]})
    assert {never.value(q) for q in (*quantiles, 1.0)} == {"a", "b"}


def test_points_of_a_grid_are_each_there_once():
    assert ours({"values": [1, True, 1, 1.0, None]}).points() == [1, True, 1.0, None]
    assert ours({"min": 1, "max": 3}).points() == [1, 2, 3]
    found = ours({"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.25}).points()
    assert found == [0.0, 0.25, 0.5, 0.75]
    with pytest.raises(ConfigError, match="no grid"):
        ours({"distribution": "normal"}).points()

"""Advantages agree with sums written out by hand in numpy, for any ends and time limits."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_lightning.rl.advantages import (
    add_cut_off_value,
    explained_variance,
    generalised_advantages,
)


def written_out(rewards, values, ended, last, discount, smoothing):
    """The definition: for every step a sum over all later ones of the same return."""
    steps, envs = rewards.shape
    found = np.zeros_like(rewards)
    for env in range(envs):
        for t in range(steps):
            weight = 1.0
            for k in range(t, steps):
                following = last[env] if k == steps - 1 else values[k + 1, env]
                bootstrap = 0.0 if ended[k, env] else discount * following
                found[t, env] += weight * (rewards[k, env] + bootstrap - values[k, env])
                if ended[k, env]:
                    break
                weight *= discount * smoothing
    return found


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 12),
    envs=st.integers(1, 4),
    discount=st.floats(0, 1),
    smoothing=st.floats(0, 1),
    share=st.floats(0, 1),
)
def test_advantages_are_the_sums_of_their_definition(seed, steps, envs, discount, smoothing, share):
    rng = np.random.default_rng(seed)
    rewards, values = rng.normal(size=(2, steps, envs))
    ended, last = rng.random((steps, envs)) < share, rng.normal(size=envs)
    found = generalised_advantages(
        *map(torch.from_numpy, (rewards, values, ended, last)), discount, smoothing
    )
    expected = written_out(rewards, values, ended, last, discount, smoothing)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


def test_with_full_smoothing_they_are_returns_less_values():
    rewards = torch.tensor([[1.0], [2.0], [4.0]])
    values = torch.tensor([[0.5], [0.25], [3.0]])
    ended = torch.tensor([[False], [False], [True]])
    found = generalised_advantages(rewards, values, ended, torch.tensor([9.0]), 0.5, 1.0)
    torch.testing.assert_close(found + values, torch.tensor([[3.0], [4.0], [4.0]]))


def test_a_game_that_is_cut_off_counts_what_it_would_still_have_brought():
    rewards = add_cut_off_value(
        torch.tensor([1.0, 1.0]), torch.tensor([True, False]), torch.tensor([10.0, 10.0]), 0.9
    )
    assert rewards.tolist() == [10.0, 1.0]
    # The value of the next game's beginning does not enter.
    advantages = generalised_advantages(
        rewards[None], torch.zeros(1, 2), torch.tensor([[True, True]]), torch.ones(2) * 99, 0.9, 1.0
    )
    assert advantages.tolist() == [[10.0, 1.0]]


def test_explained_variance_is_one_for_perfect_values_and_zero_for_constants():
    returns = torch.randn(50)
    assert explained_variance(returns, returns) == 1
    assert explained_variance(torch.zeros(50), returns).abs() < 1e-6
    assert torch.isnan(explained_variance(returns, torch.ones(50)))

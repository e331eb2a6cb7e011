"""PPO's losses agree with loops over samples written in numpy, and with torch's distributions."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_lightning.rl.losses import (
    divergences,
    evaluate_actions,
    from_moments,
    moments,
    normalise,
    policy_loss,
    sample_actions,
    value_loss,
)

samples = given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 20), clip=st.floats(0.01, 0.9))


@settings(deadline=None, max_examples=60)
@samples
def test_the_policy_loss_is_the_clipped_objective_sample_by_sample(seed, size, clip):
    log_ratio, advantages = np.random.default_rng(seed).normal(size=(2, size))
    objective = 0.0
    for log_r, advantage in zip(log_ratio, advantages, strict=True):
        ratio = math.exp(log_r)
        clipped = min(max(ratio, 1 - clip), 1 + clip)
        objective += min(ratio * advantage, clipped * advantage) / size
    found = policy_loss(torch.from_numpy(log_ratio), torch.from_numpy(advantages), clip)
    np.testing.assert_allclose(found.item(), -objective, rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=60)
@samples
def test_the_value_loss_takes_the_greater_error_sample_by_sample(seed, size, clip):
    values, old, returns = np.random.default_rng(seed).normal(size=(3, size))
    plain, clipped = 0.0, 0.0
    for value, before, target in zip(values, old, returns, strict=True):
        near = before + min(max(value - before, -clip), clip)
        plain += 0.5 * (value - target) ** 2 / size
        clipped += 0.5 * max((value - target) ** 2, (near - target) ** 2) / size
    arguments = [torch.from_numpy(each) for each in (values, old, returns)]
    np.testing.assert_allclose(value_loss(*arguments).item(), plain, rtol=1e-9)
    np.testing.assert_allclose(value_loss(*arguments, clip).item(), clipped, rtol=1e-9)


def test_beyond_the_clip_a_better_action_gets_no_more_gradient():
    log_ratio = torch.tensor([0.3, 0.3], requires_grad=True)
    policy_loss(log_ratio, torch.tensor([1.0, -1.0]), 0.1).backward()
    assert log_ratio.grad[0] == 0
    assert log_ratio.grad[1] > 0


def test_actions_are_judged_as_by_torchs_categorical_distribution():
    logits, actions = torch.randn(30, 5), torch.randint(5, (30,))
    reference = torch.distributions.Categorical(logits=logits)
    found = evaluate_actions(logits, actions)
    torch.testing.assert_close(found.log_prob, reference.log_prob(actions))
    torch.testing.assert_close(found.entropy, reference.entropy())


def test_actions_are_drawn_as_often_as_they_are_likely():
    logits = torch.tensor([0.1, 0.2, 0.7]).log().expand(20_000, 3)
    generator = torch.Generator().manual_seed(0)
    shares = sample_actions(logits, generator).bincount(minlength=3) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.7]), atol=0.015, rtol=0)


def test_normalised_advantages_have_mean_zero_and_deviation_one():
    advantages = torch.randn(100) * 3 + 5
    found = normalise(advantages, advantages.mean(), advantages.std())
    torch.testing.assert_close(found.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(), torch.tensor(1.0))


def test_advantages_that_hardly_differ_are_enlarged_as_far_as_the_eps_allows():
    found = normalise(torch.tensor([3e-6]), torch.tensor(1e-6), torch.tensor(1e-6))
    torch.testing.assert_close(found, torch.tensor([2 / 1.01]))  # deviation 1e-6 and 1e-8


def test_moments_of_two_processes_add_up_to_those_of_all_samples():
    parts = torch.randn(40, dtype=torch.float64).split([15, 25])
    mean, deviation = from_moments(moments(parts[0]) + moments(parts[1]))
    torch.testing.assert_close(mean, torch.cat(parts).mean())
    torch.testing.assert_close(deviation, torch.cat(parts).std())


def test_divergences_vanish_where_nothing_has_changed():
    assert all(value == 0 for value in divergences(torch.zeros(9), 0.1).values())
    log_ratio = torch.tensor([0.0, 0.05, 0.5, -0.5])
    found = divergences(log_ratio, 0.1)
    assert found["clipfrac"] == 0.5
    torch.testing.assert_close(found["old_approx_kl"], -log_ratio.mean())
    torch.testing.assert_close(found["approx_kl"], (log_ratio.exp() - 1 - log_ratio).mean())

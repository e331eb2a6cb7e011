"""Generalised advantage estimation (Schulman et al., arXiv:1506.02438) with time limits.

Shapes: ``T`` steps of ``N`` environments.
"""

from __future__ import annotations

import torch
from torch import Tensor


def generalised_advantages(
    rewards: Tensor,
    values: Tensor,
    ended: Tensor,
    last_values: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Compute generalised advantages ``Â_t = Σ_l (γλ)^l δ_{t+l}`` (equations 11, 16).

    ``δ_t = r_t + γ V(s_{t+1}) - V(s_t)``. At the end of a return ``V(s_{t+1})`` and the rest of the
    sum are 0.

    Args:
        rewards: ``(T, N)``, where truncated games include the value of the last state, see
            :func:`add_cut_off_value`.
        values: ``(T, N)``, values ``V(s_t)``.
        ended: ``(T, N)`` bool, whether the return ends with step t.
        last_values: ``(N,)``, values of the states after the last step.
        gamma: discount ``γ`` in [0, 1].
        gae_lambda: ``λ`` in [0, 1].

    Returns:
        Advantages ``(T, N)``; ``advantages + values`` are the targets of the value function.
    """
    advantages = torch.empty_like(values)
    going_on = (~ended).to(values.dtype)
    following, carried = last_values, torch.zeros_like(last_values)
    for t in reversed(range(len(rewards))):
        error = rewards[t] + gamma * following * going_on[t] - values[t]
        carried = error + gamma * gae_lambda * going_on[t] * carried
        advantages[t] = carried
        following = values[t]
    return advantages


def add_cut_off_value(
    rewards: Tensor, truncated: Tensor, final_values: Tensor, gamma: float
) -> Tensor:
    """Add ``γ V(s')`` to the rewards of games that a time limit truncated.

    The value of the last state estimates the rewards that the game would still have brought (Pardo
    et al., *Time Limits in Reinforcement Learning*, ICML 2018).

    Args:
        rewards: ``(N,)``, rewards of a step.
        truncated: ``(N,)`` bool, whether the game was truncated.
        final_values: ``(N,)``, values of the last states; ignored where not truncated.
        gamma: discount ``γ``.
    """
    return torch.where(truncated, rewards + gamma * final_values, rewards)


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """Explained variance ``1 - Var(returns - values) / Var(returns)``.

    1 is perfect, 0 no better than a constant.

    NaN where all returns are the same.
    """
    spread = returns.var(correction=0)
    unexplained = (returns - values).var(correction=0) / spread
    return torch.where(spread > 0, 1 - unexplained, torch.full_like(spread, float("nan")))

"""Generalised advantage estimation (Schulman et al., arXiv:1506.02438), and time limits.

``T`` steps of ``N`` environments.
"""

from __future__ import annotations

import torch
from torch import Tensor


def generalised_advantages(
    rewards: Tensor,
    values: Tensor,
    ended: Tensor,
    last_values: Tensor,
    discount: float,
    smoothing: float,
) -> Tensor:
    """``Â_t = Σ_l (γλ)^l δ_{t+l}`` with ``δ_t = r_t + γ V(s_{t+1}) - V(s_t)`` (equations 11, 16).

    Nothing is carried over the end of a return: there ``V(s_{t+1})`` and the sum's rest are 0.

    Args:
        rewards: ``(T, N)``; where a game was cut off they include what it would have brought, see
            :func:`add_cut_off_value`.
        values: ``(T, N)``, ``V(s_t)``.
        ended: ``(T, N)`` bool, whether the return ends with step t.
        last_values: ``(N,)``, values of the states after the last step.
        discount: ``γ`` in [0, 1].
        smoothing: ``λ`` in [0, 1].

    Returns:
        ``(T, N)``. Plus ``values`` they are the returns to learn values from.
    """
    advantages = torch.empty_like(values)
    going_on = (~ended).to(values.dtype)
    following, carried = last_values, torch.zeros_like(last_values)
    for t in reversed(range(len(rewards))):
        error = rewards[t] + discount * following * going_on[t] - values[t]
        carried = error + discount * smoothing * going_on[t] * carried
        advantages[t] = carried
        following = values[t]
    return advantages


def add_cut_off_value(
    rewards: Tensor, truncated: Tensor, final_values: Tensor, discount: float
) -> Tensor:
    """Rewards of a step with ``γ V(s')`` added where a time limit, not the game, ended it.

    More reward would have come there, and its estimate is the value of the last state seen (Pardo
    et al., *Time Limits in Reinforcement Learning*, ICML 2018).

    Args:
        rewards: ``(N,)``.
        truncated: ``(N,)`` bool.
        final_values: ``(N,)``, values of the last states; anything where not truncated.
        discount: ``γ``.
    """
    return torch.where(truncated, rewards + discount * final_values, rewards)


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """``1 - Var(returns - values) / Var(returns)``: 1 is perfect, 0 no better than a constant.

    NaN where all returns are the same.
    """
    spread = returns.var(correction=0)
    unexplained = (returns - values).var(correction=0) / spread
    return torch.where(spread > 0, 1 - unexplained, torch.full_like(spread, float("nan")))

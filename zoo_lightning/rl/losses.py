"""PPO's losses (Schulman et al., *Proximal Policy Optimization Algorithms*, arXiv:1707.06347).

``B`` samples of ``A`` actions. Everything is a pure function; entropy and losses are means over the
batch, and a loss is what is to become smaller.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Choice(NamedTuple):
    """What a policy says of the actions that were taken.

    Attributes:
        log_prob: ``(B,)``, logarithm of the action's probability.
        entropy: ``(B,)``, of the whole distribution, in nats.
    """

    log_prob: Tensor
    entropy: Tensor


def judge_actions(logits: Tensor, actions: Tensor) -> Choice:
    """Log-probabilities of actions ``(B,)`` int64 under ``logits`` ``(B, A)``, and entropies."""
    log_probs = logits.log_softmax(dim=-1)
    entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
    return Choice(log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1), entropy)


def draw_actions(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Actions ``(B,)`` int64, drawn from ``softmax(logits)`` of ``(B, A)``."""
    probabilities = logits.softmax(dim=-1)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)


def normalise(advantages: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """``(Â - mean) / (deviation + 1e-8)``."""
    return (advantages - mean) / (deviation + 1e-8)


def moments(advantages: Tensor) -> Tensor:
    """Number, sum and sum of squares of advantages ``(B,)``, to add up over processes."""
    count = advantages.new_tensor(float(len(advantages)))
    return torch.stack([count, advantages.sum(), advantages.square().sum()])


def from_moments(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (with Bessel's correction) of what :func:`moments` has added up."""
    count, total, squares = sums.unbind()
    mean = total / count
    variance = (squares - count * mean.square()) / (count - 1)
    return mean, variance.clamp(min=0).sqrt()


def policy_loss(log_ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """``-E[min(r Â, clip(r, 1 - ε, 1 + ε) Â)]`` (equation 7).

    Args:
        log_ratio: ``(B,)``, ``log r``: new log-probability less that at the time of acting.
        advantages: ``(B,)``.
        clip: ``ε``.
    """
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratio * advantages, clipped * advantages).mean()


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None = None
) -> Tensor:
    """Half the mean squared error of the values.

    With ``clip``, the greater of the error and that of a value which may not go further than
    ``clip`` from the one at the time of acting, sample by sample (as in OpenAI's baselines).

    Args:
        values: ``(B,)``.
        old_values: ``(B,)``, at the time of acting.
        returns: ``(B,)``, to be met.
        clip: how far, or ``None``.
    """
    errors = (values - returns).square()
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        errors = torch.maximum(errors, (near - returns).square())
    return errors.mean() / 2


def divergences(log_ratio: Tensor, clip: float) -> dict[str, Tensor]:
    """How far the policy has gone since it acted, for the log.

    ``old_approx_kl`` is ``E[-log r]``, ``approx_kl`` is ``E[(r - 1) - log r]`` of smaller variance
    (Schulman, *Approximating KL Divergence*, 2020), ``clipfrac`` the share of samples whose ratio
    lies outside ``1 ± clip``.
    """
    ratio = log_ratio.exp()
    return {
        "old_approx_kl": (-log_ratio).mean(),
        "approx_kl": (ratio - 1 - log_ratio).mean(),
        "clipfrac": ((ratio - 1).abs() > clip).float().mean(),
    }

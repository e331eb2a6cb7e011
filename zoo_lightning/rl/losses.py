"""PPO's losses (Schulman et al., *Proximal Policy Optimization Algorithms*, arXiv:1707.06347).

Shapes: ``B`` samples of ``A`` actions. All functions are pure; losses are means over the batch, and
    are minimised.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ActionEvaluation(NamedTuple):
    """Log-probabilities of the taken actions and entropies of the policy.

    Attributes:
        log_prob: ``(B,)``, log-probability of the action.
        entropy: ``(B,)``, entropy of the whole distribution, in nats.
    """

    log_prob: Tensor
    entropy: Tensor


def evaluate_actions(logits: Tensor, actions: Tensor) -> ActionEvaluation:
    """Compute log-probabilities of actions ``(B,)`` under ``logits`` ``(B, A)``, and entropies."""
    log_probs = logits.log_softmax(dim=-1)
    entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
    return ActionEvaluation(log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1), entropy)


def sample_actions(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Sample actions ``(B,)`` int64 from ``softmax(logits)`` of ``(B, A)``."""
    probabilities = logits.softmax(dim=-1)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)


def normalise(advantages: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Normalise advantages: ``(Â - mean) / (deviation + 1e-8)``."""
    return (advantages - mean) / (deviation + 1e-8)


def moments(advantages: Tensor) -> Tensor:
    """Compute number, sum and sum of squares of advantages ``(B,)``, to be summed over ranks."""
    count = advantages.new_full((), float(len(advantages)))
    return torch.stack([count, advantages.sum(), advantages.square().sum()])


def from_moments(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and standard deviation (Bessel-corrected) from sums of :func:`moments`."""
    count, total, squares = sums.unbind()
    mean = total / count
    variance = (squares - count * mean.square()) / (count - 1)
    return mean, variance.clamp(min=0).sqrt()


def policy_loss(log_ratio: Tensor, advantages: Tensor, clip_coef: float) -> Tensor:
    """Compute PPO's clipped policy loss ``-E[min(r Â, clip(r, 1-ε, 1+ε) Â)]`` (equation 7).

    Args:
        log_ratio: ``(B,)``, ``log r``: new log-probability minus that at the time of acting.
        advantages: ``(B,)``, estimated advantages ``Â``.
        clip_coef: ``ε`` by which the ratio is clipped, above 0.
    """
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_coef, 1 + clip_coef)
    return -torch.minimum(ratio * advantages, clipped * advantages).mean()


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, clip_coef: float | None = None
) -> Tensor:
    """Compute half the mean squared error of the values, optionally clipped.

    With ``clip_coef``, each sample's error is the greater of that of the value and that of the
    value clipped to within ``clip_coef`` of the old value (as in OpenAI's baselines).

    Args:
        values: ``(B,)``, predicted values.
        old_values: ``(B,)``, values at the time of acting.
        returns: ``(B,)``, target values.
        clip_coef: largest change of a value, or ``None`` for no clipping.
    """
    errors = (values - returns).square()
    if clip_coef is not None:
        near = old_values + (values - old_values).clamp(-clip_coef, clip_coef)
        errors = torch.maximum(errors, (near - returns).square())
    return errors.mean() / 2


def divergences(log_ratio: Tensor, clip_coef: float) -> dict[str, Tensor]:
    """Measure how far the policy has moved from the one that acted, for logging.

    ``old_approx_kl`` is ``E[-log r]``, ``approx_kl`` is ``E[(r - 1) - log r]`` of smaller variance
    (Schulman, *Approximating KL Divergence*, 2020), ``clipfrac`` the share of samples whose ratio
    lies outside ``1 ± clip_coef``.
    """
    ratio = log_ratio.exp()
    return {
        "old_approx_kl": (-log_ratio).mean(),
        "approx_kl": (ratio - 1 - log_ratio).mean(),
        "clipfrac": ((ratio - 1).abs() > clip_coef).float().mean(),
    }

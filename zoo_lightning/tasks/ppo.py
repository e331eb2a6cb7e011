"""Proximal policy optimisation of a policy on a backbone's features."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from zoo_lightning.backbone import Backbone, ZooBackbone
from zoo_lightning.callbacks.gate_ema import GateEMA
from zoo_lightning.callbacks.gate_log import GateLog
from zoo_lightning.callbacks.zoo_warnings import ZooWarnings
from zoo_lightning.data.loading import sample_generator
from zoo_lightning.envs.stepping import Environments, Game
from zoo_lightning.errors import ConfigError
from zoo_lightning.rl.acting import as_bytes, fill
from zoo_lightning.rl.advantages import explained_variance
from zoo_lightning.rl.filming import Film, film_game
from zoo_lightning.rl.losses import (
    divergences,
    draw_actions,
    from_moments,
    judge_actions,
    moments,
    normalise,
    policy_loss,
    value_loss,
)
from zoo_lightning.rl.networks import PolicyValueHead
from zoo_lightning.rl.playing import Act, play_games, random_player, summarise
from zoo_lightning.rl.rollout import Rollout, Samples
from zoo_lightning.tasks.base import BaseTask
from zoo_lightning.tasks.ppo_checks import (
    check_backbone,
    check_game,
    check_length,
    check_numbers,
)
from zoo_lightning.tasks.schedules import Schedule

Normalisation = Literal["rank", "global", "none"]


class PPOTask(BaseTask):
    """PPO (Schulman et al., arXiv:1707.06347) with the details that made it reproducible.

    A batch is a rollout: the policy acts in the data module's environments, then learns from what
    it saw in ``epochs`` passes of ``minibatches`` optimiser steps each. So ``trainer.global_step``
    counts ``epochs · minibatches`` steps a rollout; what is logged has the agent's steps on its
    axis. Acting is in evaluation mode and learning in training mode; the network must be the same
    function in both, or ratios are not 1 when learning begins: lite zoos therefore learn with the
    gates' moving average (``steady``), and backbones with batch norm or dropout are refused.

    Random numbers come from the seed, the rollout and the process alone and games are part of the
    checkpoint (see :class:`~zoo_lightning.data.atari.AtariData`), so a run that goes on learns what
    it would have learned without a break.

    Logs under CleanRL's names, at every rollout: ``charts/SPS`` (agent steps per second of acting
    and learning, since the start), ``charts/learning_rate`` and
    ``losses/{policy_loss,value_loss,entropy,old_approx_kl,approx_kl,clipfrac,explained_variance}``
    (averages over its optimiser steps); where whole games ended in it, ``charts/episodic_return``
    and ``charts/episodic_length`` (unclipped score and agent steps, averages over those games of
    the first process). In validation
    ``val/episodic_return`` and ``val/episodic_length`` of whole games. For the test's figures see
    :meth:`test_step`.

    Args:
        backbone: with pooled features of the environments' observations, as bytes.
        num_actions: ``A``; the command line takes it from the data.
        discount: ``γ`` in [0, 1].
        smoothing: ``λ`` of generalised advantage estimation, in [0, 1].
        epochs: passes over a rollout.
        minibatches: parts into which each pass divides the rollout.
        clip: ``ε`` of the probability ratio, above 0.
        clip_values: whether values, too, may only go ``clip`` far in one rollout.
        value_weight: of the value loss.
        entropy_weight: of the entropy bonus.
        max_grad_norm: to which the norm of all gradients together is clipped; 0 for no limit.
        normalisation: of advantages, in each minibatch: over the samples of this process
            (``rank``), of all processes (``global``), or ``none``.
        deterministic: in validation, test and prediction take the likeliest action instead of
            drawing one.
        lr: learning rate at the start.
        optimizer: any optimiser that timm knows by name.
        weight_decay: of kernels and head matrices.
        schedule: of the learning rate, over the rollouts; ``warmup`` and ``milestones`` count them.
        optimisation: further options of :class:`~zoo_lightning.tasks.base.BaseTask`.

    Raises:
        ConfigError: options outside their range, a backbone that acts otherwise than it learns, or
            a head of other actions than the environments have.
    """

    monitor: ClassVar[str] = "val/episodic_return"
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"

    def __init__(
        self,
        backbone: Backbone,
        num_actions: int = 6,
        discount: float = 0.99,
        smoothing: float = 0.95,
        epochs: int = 4,
        minibatches: int = 4,
        clip: float = 0.1,
        clip_values: bool = True,
        value_weight: float = 0.5,
        entropy_weight: float = 0.01,
        max_grad_norm: float = 0.5,
        normalisation: Normalisation = "rank",
        deterministic: bool = False,
        lr: float = 2.5e-4,
        optimizer: str = "adam",
        weight_decay: float = 0.0,
        schedule: Schedule = "linear",
        **optimisation: Any,
    ) -> None:
        super().__init__(
            backbone,
            lr=lr,
            optimizer=optimizer,
            weight_decay=weight_decay,
            schedule=schedule,
            **optimisation,
        )
        check_numbers(discount, smoothing, epochs, minibatches, clip, max_grad_norm)
        if normalisation not in get_args(Normalisation):
            raise ConfigError(
                f"unknown normalisation {normalisation!r}; expected one of: "
                f"{', '.join(get_args(Normalisation))}"
            )
        check_backbone(backbone)
        self.automatic_optimization = False
        self.num_actions = num_actions
        self.discount, self.smoothing = discount, smoothing
        self.epochs, self.minibatches = epochs, minibatches
        self.clip, self.clip_values = clip, clip_values
        self.value_weight, self.entropy_weight = value_weight, entropy_weight
        self.max_grad_norm = max_grad_norm
        self.normalisation = normalisation
        self.deterministic = deterministic
        self.head = PolicyValueHead(backbone.num_features, num_actions)
        if isinstance(backbone, ZooBackbone):
            for layer in backbone.aggregated_layers().values():
                layer.steady = True
        self.register_buffer("rollouts_done", torch.zeros((), dtype=torch.long))
        self.register_buffer("agent_steps", torch.zeros((), dtype=torch.long))
        self._rollout: Rollout | None = None
        self._seen: np.ndarray | None = None

    def configure_callbacks(self) -> list[Callback]:
        """Gates' moving average, their log layer by layer, and warnings."""
        if not isinstance(self.backbone, ZooBackbone):
            return []
        momentum = self.hparams["gate_momentum"]
        return [GateEMA(momentum), GateLog(every_batch=True), ZooWarnings()]

    def setup(self, stage: str) -> None:
        """Check head, environments and the training's length, before anything runs.

        Raises:
            ConfigError: the head is for other actions, the Trainer has a length of its own, or a
                rollout has fewer steps than minibatches.
        """
        if stage == "fit" and not self.trainer.fast_dev_run:
            check_length(self.trainer)
        data = self.trainer.datamodule
        steps = getattr(data, "num_envs", 1) * getattr(data, "rollout_steps", self.minibatches)
        if stage == "fit" and steps < self.minibatches:
            raise ConfigError(
                f"minibatches is {self.minibatches}, but a rollout has {steps} steps to divide; "
                "give fewer minibatches, or more data.num_envs or data.rollout_steps"
            )
        found = getattr(data, "num_actions", self.num_actions)
        if found != self.num_actions:
            raise ConfigError(
                f"the head has {self.num_actions} actions, the environments have {found}; give "
                f"environments of {self.num_actions} actions or train a head of {found} "
                "(num_actions)"
            )

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(B, A)`` and values ``(B,)`` of observations ``(B, C, H, W)``."""
        return self.head(self.backbone(observations))

    def _total_steps(self) -> int | None:
        """Rollouts of the whole training, which the schedule is stepped by."""
        loader = self.trainer.datamodule.train_dataloader()
        return len(loader) * max(self.trainer.max_epochs or 1, 1)

    def optimizer_options(self, name: str) -> dict[str, Any]:
        """Adam's ``ε``, and Adam in one pass over the parameters: a fifth of the time on CPUs."""
        if name not in ("adam", "adamw"):
            return {}
        # That one divides float16's gradients by their scale itself, too late for clipping.
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        return {"eps": 1e-5, "fused": not scaled}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradients, which half precision has unscaled by now."""
        if self.max_grad_norm:
            clip_grad_norm_(self.parameters(), self.max_grad_norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add how far the log's axis has come."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["zoo_lightning"]["logged_until"] = int(self.agent_steps) + 1

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that does not belong to this task, configuration and game.

        Raises:
            ConfigError: naming what the checkpoint has and what is given.
        """
        before = checkpoint.get("zoo_lightning", {}).get("data")
        if before and self._trainer is not None:  # weights to start from may be of any game
            check_game(before, self.trainer.datamodule.facts(), self.trainer.training)
        super().on_load_checkpoint(checkpoint)

    def facts(self) -> dict[str, Any]:
        """The game, and the agent's steps in training."""
        game = getattr(self.trainer.datamodule, "game", "")
        return {"game": game, "agent_steps": int(self.agent_steps)}

    # Acting.

    def on_train_start(self) -> None:
        """Begin the games, or go on with those of the checkpoint."""
        self._seen = self.trainer.datamodule.begin_training()
        self._seconds, self._steps_before = 0.0, int(self.agent_steps)

    def collect(self, envs: Environments, steps: int) -> tuple[Rollout, list[Game]]:
        """Act for some steps in each environment, going on from what was seen last.

        Returns:
            The rollout with its advantages, in buffers that the next one overwrites, and the games
            that ended.
        """
        if self._rollout is None:
            self._rollout = Rollout(steps, envs.num_envs, envs.observation_shape, self.device)
        self.eval()
        self._seen, last_values, games = fill(
            self._rollout, self, envs, self._seen, self.discount, self._generator(0)
        )
        self.train()
        self._rollout.estimate(last_values, self.discount, self.smoothing)
        return self._rollout, games

    def _generator(self, purpose: int) -> torch.Generator:
        """Random numbers of a rollout: from the seed, its number and the process alone."""
        seed = getattr(self.trainer.datamodule, "seed", 0)
        place = 2 * self.trainer.global_rank + purpose
        return sample_generator(seed, int(self.rollouts_done), place)

    def player(self, seed: int) -> Act:
        """The policy as a player of whole games, drawing actions or taking the likeliest."""
        generator = torch.Generator().manual_seed(seed)

        @torch.inference_mode()
        def act(observations: np.ndarray) -> np.ndarray:
            logits = self(as_bytes(observations, self.device))[0].cpu()
            if self.deterministic:
                return logits.argmax(dim=-1).numpy()
            return draw_actions(logits, generator).numpy()

        return act

    # Learning.

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One rollout and the optimiser steps on it."""
        data, start = self.trainer.datamodule, time.monotonic()
        rollout, games = self.collect(data.train_envs, data.rollout_steps)
        losses = self.learn(rollout)
        self.rollouts_done += 1
        self.agent_steps += data.steps_per_rollout
        self._seconds += time.monotonic() - start
        self._log_rollout(rollout, games, losses)
        self.lr_schedulers().step()

    def learn(self, rollout: Rollout) -> dict[str, Tensor]:
        """All passes over a rollout; gives the losses, averages over the optimiser steps."""
        optimizer = self.optimizers()
        # Numbers are drawn on the CPU, so that they are the same on every device.
        generator = self._generator(1)
        numbers = rollout.learnable()
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        # Steps that the environment chose are left out, and may leave fewer than minibatches.
        minibatches = max(min(self.minibatches, len(numbers)), 1)
        for _ in range(self.epochs):
            order = torch.randperm(len(numbers), generator=generator).to(self.device)
            for part in numbers[order].tensor_split(minibatches):
                loss, noted = self.losses(rollout.samples(part))
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
                for name, value in noted.items():
                    sums[name] += value
        return {name: value / (self.epochs * minibatches) for name, value in sums.items()}

    def losses(self, samples: Samples) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and what is logged of it."""
        logits, values = self(samples.observations)
        choice = judge_actions(logits, samples.actions)
        log_ratio = choice.log_prob - samples.log_probs
        advantages = self._normalised(samples.advantages)
        clip = self.clip if self.clip_values else None
        noted = {
            "policy_loss": policy_loss(log_ratio, advantages, self.clip),
            "value_loss": value_loss(values, samples.values, samples.returns, clip),
            "entropy": choice.entropy.mean(),
        }
        loss = (
            noted["policy_loss"]
            + self.value_weight * noted["value_loss"]
            - self.entropy_weight * noted["entropy"]
        )
        noted = {name: value.detach() for name, value in noted.items()}
        return loss, noted | divergences(log_ratio.detach(), self.clip)

    def _normalised(self, advantages: Tensor) -> Tensor:
        if self.normalisation == "none" or len(advantages) < 2:
            return advantages
        if self.normalisation == "rank" or self.trainer.world_size == 1:
            return normalise(advantages, advantages.mean(), advantages.std())
        sums = moments(advantages)
        dist.all_reduce(sums)
        return normalise(advantages, *from_moments(sums))

    def _log_rollout(self, rollout: Rollout, games: list[Game], losses: dict[str, Tensor]) -> None:
        explained = explained_variance(rollout.values.flatten(), rollout.returns.flatten())
        values = {f"losses/{name}": value for name, value in losses.items()}
        values["losses/explained_variance"] = explained
        values["charts/learning_rate"] = self.optimizers().param_groups[0]["lr"]
        self.log_dict(values, batch_size=1)
        speed = (int(self.agent_steps) - self._steps_before) / self._seconds
        self.log("charts/SPS", speed, prog_bar=True, batch_size=1)
        self.log("step", self._axis(), batch_size=1)
        if not games:
            return
        values = {
            "charts/episodic_return": float(np.mean([game.score for game in games])),
            "charts/episodic_length": float(np.mean([game.length for game in games])),
        }
        self.log("return", values["charts/episodic_return"], True, logger=False, batch_size=1)
        # Not by ``log``, which would repeat them at all later rollouts in which no game ends.
        for logger in self.loggers:
            logger.log_metrics(values, step=int(self.agent_steps))

    def _axis(self) -> Tensor:
        """Agent steps, over which everything is logged."""
        return self.agent_steps.cpu().double()  # not every device has doubles

    # Judging.

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Play whole games."""
        data = self.trainer.datamodule
        games = self._play(data.val_games, data.judging_seed)
        scores, lengths = self._gathered(games)
        self.log("val/episodic_return", scores.mean(), prog_bar=True, batch_size=1)
        self.log("val/episodic_length", lengths.mean(), batch_size=1)
        self.log("step", self._axis(), batch_size=1)

    def _play(self, total: int, seed: int, act: Act | None = None) -> list[Game]:
        data = self.trainer.datamodule
        share = data.share(total)
        if not share:
            return []
        return play_games(data.judging_envs(share), act or self.player(seed), share, seed)

    def _gathered(self, games: list[Game]) -> tuple[Tensor, Tensor]:
        """Scores and lengths of the games of all processes."""
        mine = [(game.score, game.length) for game in games]
        shares = [mine]
        if self.trainer.world_size > 1:
            shares = [[]] * self.trainer.world_size
            dist.all_gather_object(shares, mine)
        table = torch.tensor([row for share in shares for row in share], dtype=torch.float64)
        return table[:, 0], table[:, 1]

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Play whole games, as many at random, and compare with the literature.

        They are none of those that the validation plays, by which the checkpoint was chosen. Logs
        the figures of :func:`~zoo_lightning.rl.playing.summarise` under ``test/``.

        Returns:
            ``scores`` and ``lengths`` of the games.
        """
        data = self.trainer.datamodule
        scores, lengths = self._gathered(self._play(data.test_games, data.test_seed))
        random = random_player(self.num_actions, data.test_seed)
        random_scores, _ = self._gathered(self._play(data.test_games, data.test_seed, random))
        figures = summarise(getattr(data, "game", ""), scores, lengths, random_scores)
        self.log_dict({f"test/{name}": value for name, value in figures.items()}, batch_size=1)
        self.log("step", self._axis(), batch_size=1)
        return {"scores": scores, "lengths": lengths}

    def predict_step(self, batch: Any, batch_idx: int = 0) -> Film:
        """Play one game and film it."""
        data = self.trainer.datamodule
        return film_game(data.judging_envs(1), self.player(data.judging_seed), data.judging_seed)

"""Proximal policy optimisation (PPO) of a policy on a backbone's features."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LRScheduler

from zoo_lightning.callbacks.gates import GateLog
from zoo_lightning.data.loading import sample_generator
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.option_names import RenamedOptions
from zoo_lightning.models.backbone import Backbone, ZooBackbone
from zoo_lightning.models.nature_cnn import PolicyValueHead
from zoo_lightning.rl.advantages import explained_variance
from zoo_lightning.rl.environments.stepping import Environments, Game
from zoo_lightning.rl.evaluation import Act, play_games, random_player, summarise
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
from zoo_lightning.rl.rollout import Rollout, Samples, as_bytes, collect_rollout
from zoo_lightning.rl.video import Film, film_game
from zoo_lightning.tasks.base import BaseTask
from zoo_lightning.tasks.optimisation import Schedule

Normalisation = Literal["rank", "global", "none"]


class PPOTask(BaseTask, metaclass=RenamedOptions):
    """Train a policy by PPO (Schulman et al., arXiv:1707.06347), with CleanRL's details.

    A training step collects a rollout in the data module's environments and learns from it in
    ``update_epochs`` passes of ``num_minibatches`` optimiser steps each. So ``trainer.global_step``
    counts ``update_epochs · num_minibatches`` steps per rollout; metrics are logged over agent
    steps. Options have CleanRL's names.

    The policy acts in evaluation mode and learns in training mode; the network must compute the
    same in both, so that ratios are 1 when learning begins. Lite zoos therefore learn with the
    gates' moving average (``steady``), and backbones with batch norm or dropout are refused.

    Random numbers depend only on the seed, the rollout and the process, and games are part of the
    checkpoint (see :class:`~zoo_lightning.data.atari.AtariData`), so a resumed run gives the same
    result as an uninterrupted one.

    Logs under CleanRL's names, at every rollout: ``charts/SPS`` (agent steps per second of acting
    and learning, since the beginning), ``charts/learning_rate`` and
    ``losses/{policy_loss,value_loss,entropy,old_approx_kl,approx_kl,clipfrac,explained_variance}``
    (averages over its optimiser steps); where games ended in it, ``charts/episodic_return`` and
    ``charts/episodic_length`` (unclipped score and agent steps, averages over those games of the
    first process). In validation ``val/episodic_return`` and ``val/episodic_length`` of whole
    games. For the test's metrics see :meth:`test_step`.

    Args:
        backbone: network with pooled features of the environments' observations, as bytes.
        num_actions: number ``A`` of actions; the command line takes it from the data.
        gamma: discount ``γ`` of later rewards, in [0, 1].
        gae_lambda: ``λ`` of generalised advantage estimation, in [0, 1].
        update_epochs: number of passes over a rollout.
        num_minibatches: number of parts into which each pass divides the rollout.
        clip_coef: ``ε`` by which the probability ratio is clipped, above 0.
        clip_vloss: whether the value loss, too, is clipped at ``clip_coef``.
        vf_coef: weight of the value loss.
        ent_coef: weight of the entropy bonus.
        max_grad_norm: limit to which the global gradient norm is clipped; 0 for no limit.
        norm_adv: how advantages are normalised in each minibatch: over the samples of this process
            (``rank``), of all processes (``global``), or not at all (``none``).
        deterministic: whether validation, test and prediction take the most probable action instead
            of sampling one.
        lr: learning rate at the beginning.
        optimizer: name of any optimiser in timm.
        weight_decay: weight decay of kernels and head matrices.
        schedule: learning-rate schedule over the rollouts; ``warmup`` and ``milestones`` count
            rollouts.
        optimisation: further options of :class:`~zoo_lightning.tasks.base.BaseTask`.

    Raises:
        ConfigError: an option is outside its range, the backbone computes differently in training
            and evaluation, or the environments have other actions than the head.
    """

    former_names: ClassVar[Mapping[str, str]] = {
        "discount": "gamma",
        "smoothing": "gae_lambda",
        "epochs": "update_epochs",
        "minibatches": "num_minibatches",
        "clip": "clip_coef",
        "clip_values": "clip_vloss",
        "value_weight": "vf_coef",
        "entropy_weight": "ent_coef",
        "normalisation": "norm_adv",
    }
    monitor: ClassVar[str] = "val/episodic_return"
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"
    rollouts_done: Tensor
    """Number of rollouts learned from, a scalar buffer."""
    agent_steps: Tensor
    """Number of agent steps taken in training, a scalar buffer."""

    def __init__(
        self,
        backbone: Backbone,
        num_actions: int = 6,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        update_epochs: int = 4,
        num_minibatches: int = 4,
        clip_coef: float = 0.1,
        clip_vloss: bool = True,
        vf_coef: float = 0.5,
        ent_coef: float = 0.01,
        max_grad_norm: float = 0.5,
        norm_adv: Normalisation = "rank",
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
        check_numbers(gamma, gae_lambda, update_epochs, num_minibatches, clip_coef, max_grad_norm)
        if norm_adv not in get_args(Normalisation):
            raise ConfigError(
                f"unknown norm_adv {norm_adv!r}; expected one of: "
                f"{', '.join(get_args(Normalisation))}"
            )
        check_backbone(backbone)
        self.automatic_optimization = False
        self.num_actions = num_actions
        self.gamma, self.gae_lambda = gamma, gae_lambda
        self.update_epochs, self.num_minibatches = update_epochs, num_minibatches
        self.clip_coef, self.clip_vloss = clip_coef, clip_vloss
        self.vf_coef, self.ent_coef = vf_coef, ent_coef
        self.max_grad_norm = max_grad_norm
        self.norm_adv = norm_adv
        self.deterministic = deterministic
        self.configure_models()
        self.configure_losses()
        self.configure_metrics()
        self.register_buffer("rollouts_done", torch.zeros((), dtype=torch.long))
        self.register_buffer("agent_steps", torch.zeros((), dtype=torch.long))
        self._rollout: Rollout | None = None
        self._seen: np.ndarray | None = None
        self._seconds, self._steps_before = 0.0, 0
        # The buffers' values on the host, which it would otherwise have to wait for.
        self._rollouts, self._steps = 0, 0

    def configure_models(self) -> None:
        """Create the head, and let a lite zoo learn with the gate average that it acts with."""
        self.head = PolicyValueHead(self.backbone.num_features, self.num_actions)
        if isinstance(self.backbone, ZooBackbone):
            for layer in self.backbone.aggregated_layers().values():
                layer.steady = True

    @classmethod
    def logged_metrics(cls, options: Mapping[str, Any]) -> list[str]:
        """List the losses, returns, game lengths and reference scores that the task logs."""
        losses = ("policy_loss", "value_loss", "entropy", "old_approx_kl", "approx_kl", "clipfrac",
                  "explained_variance")  # fmt: skip
        charts = ("learning_rate", "SPS", "episodic_return", "episodic_length")
        names = [f"losses/{name}" for name in losses] + [f"charts/{name}" for name in charts]
        names += [f"val/{name}" for name in ("episodic_return", "episodic_length")]
        ends = ("", "_std", "_median", "_min", "_max")
        names += [f"test/episodic_return{end}" for end in ends]
        names += ["test/episodic_length", "test/random_return"]
        return [*names, "test/reference_*", "test/human_*"]

    def configure_callbacks(self) -> list[Callback]:
        """Create the base class's callbacks, with gates logged at every rollout."""
        callbacks = super().configure_callbacks()
        return [GateLog(every_batch=True) if isinstance(c, GateLog) else c for c in callbacks]

    def setup(self, stage: str) -> None:
        """Check the head against the environments, and the training's length.

        Raises:
            ConfigError: the head is for other actions, the Trainer has a length of its own, or a
                rollout has fewer steps than minibatches.
        """
        if stage == "fit" and not getattr(self.trainer, "fast_dev_run", False):
            check_length(self.trainer)
        data = self.data()
        steps = getattr(data, "num_envs", 1) * getattr(data, "num_steps", self.num_minibatches)
        if stage == "fit" and steps < self.num_minibatches:
            raise ConfigError(
                f"num_minibatches is {self.num_minibatches}, but a rollout has {steps} steps to "
                "divide; give fewer num_minibatches, or more data.num_envs or data.num_steps"
            )
        found = getattr(data, "num_actions", self.num_actions)
        if found != self.num_actions:
            raise ConfigError(
                f"the head has {self.num_actions} actions, the environments have {found}; give "
                f"environments of {self.num_actions} actions or train a head of {found} "
                "(num_actions)"
            )

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits ``(B, A)`` and values ``(B,)`` of observations ``(B, C, H, W)``."""
        return self.head(self.backbone(observations))

    def total_steps(self) -> int | None:
        """Number of rollouts in the whole training, each of which is a schedule step."""
        loader = self.data().train_dataloader()
        return len(loader) * max(self.trainer.max_epochs or 1, 1)

    def optimizer_options(self, name: str) -> dict[str, Any]:
        """Return CleanRL's ``eps`` for Adam and AdamW, and their fused implementation."""
        if name not in ("adam", "adamw"):
            return {}
        # Fused Adam divides float16's gradients by their scale itself, too late for clipping.
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        return {"eps": 1e-5, "fused": not scaled}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the global gradient norm, after half-precision gradients were unscaled."""
        if self.max_grad_norm:
            clip_grad_norm_(self.parameters(), self.max_grad_norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add to a checkpoint the agent step up to which metrics are logged."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["zoo_lightning"]["logged_until"] = int(self.agent_steps) + 1

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a checkpoint belongs to this task, its options and its game.

        Raises:
            ConfigError: they differ; the message has the checkpoint's and the given values.
        """
        before = checkpoint.get("zoo_lightning", {}).get("data")
        if before and self._attached() is not None:  # initial weights may be of any game
            check_game(before, self.data().facts(), self.trainer.training)
        super().on_load_checkpoint(checkpoint)

    def learns_from_teachers(self) -> bool:
        """Whether the training uses teachers: a policy's does not."""
        return False

    def facts(self) -> dict[str, Any]:
        """Facts for ``summary.json``: the game, and the number of agent steps in training."""
        game = getattr(self.data(), "game", "")
        return {"game": game, "agent_steps": int(self.agent_steps)}

    # Acting.

    def on_train_start(self) -> None:
        """Begin the games, or resume those of the checkpoint."""
        self._seen = self.data().begin_training()
        self._rollouts, self._steps = int(self.rollouts_done), int(self.agent_steps)
        self._seconds, self._steps_before = 0.0, self._steps

    def collect(self, envs: Environments, steps: int) -> tuple[Rollout, list[Game]]:
        """Collect a rollout: act in each environment, from the last observations onwards.

        Args:
            envs: environments to act in.
            steps: number of steps in each environment.

        Returns:
            The rollout with its advantages, in buffers that the next one overwrites, and the games
            that ended.
        """
        if self._rollout is None:
            self._rollout = Rollout(steps, envs.num_envs, envs.observation_shape, self.device)
        assert self._seen is not None, "the training has not begun"
        self.eval()
        self._seen, last_values, games = collect_rollout(
            self._rollout, self, envs, self._seen, self.gamma, self._generator(0)
        )
        self.train()
        self._rollout.estimate(last_values, self.gamma, self.gae_lambda)
        return self._rollout, games

    def _generator(self, purpose: int) -> torch.Generator:
        """Random numbers of a rollout: they depend on seed, its number and process alone."""
        seed = getattr(self.data(), "seed", 0)
        place = 2 * self.trainer.global_rank + purpose
        return sample_generator(seed, self._rollouts, place)

    def player(self, seed: int) -> Act:
        """Create a player that acts by the policy, sampling actions or taking the most probable.

        Args:
            seed: seed of the sampled actions.
        """
        generator = torch.Generator().manual_seed(seed)

        @torch.inference_mode()
        def act(observations: np.ndarray) -> np.ndarray:
            logits = self(as_bytes(observations, self.device))[0].cpu()
            if self.deterministic:
                return logits.argmax(dim=-1).numpy()
            return sample_actions(logits, generator).numpy()

        return act

    # Learning.

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Collect a rollout and take the optimiser steps on it."""
        data, begin = self.data(), time.monotonic()
        rollout, games = self.collect(data.train_envs, data.num_steps)
        losses = self.learn(rollout)
        self._rollouts, self._steps = self._rollouts + 1, self._steps + data.steps_per_rollout
        self.rollouts_done += 1
        self.agent_steps += data.steps_per_rollout
        self._seconds += time.monotonic() - begin
        self._log_rollout(rollout, games, losses)
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, LRScheduler)
        scheduler.step()

    def learn(self, rollout: Rollout) -> dict[str, Tensor]:
        """Update the policy on a rollout; return the losses, averaged over optimiser steps.

        Where the environment chose all actions of a process, there is nothing to learn from, and no
        losses.
        """
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        # Numbers are drawn on the CPU, so that they are the same on every device.
        generator = self._generator(1)
        numbers = rollout.learnable()
        minibatches = self._minibatches(len(numbers))
        if not minibatches:
            return {}
        sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        orders = [
            torch.randperm(len(numbers), generator=generator) for _ in range(self.update_epochs)
        ]
        for order in torch.stack(orders).to(self.device):
            for part in numbers[order].tensor_split(minibatches):
                loss, noted = self.losses(rollout.samples(part))
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
                for name, value in noted.items():
                    sums[name] += value
        return {name: value / (self.update_epochs * minibatches) for name, value in sums.items()}

    def _minibatches(self, steps: int) -> int:
        """Number of minibatches of a rollout, the same in all processes.

        Steps that the environment chose are left out, and may leave fewer than minibatches; and
        processes that took another number of optimiser steps would wait for each other for ever.

        Args:
            steps: number of steps of this process's rollout that can be learned from.
        """
        if self.trainer.world_size == 1:
            return min(self.num_minibatches, steps)
        fewest = torch.tensor(min(self.num_minibatches, steps), device=self.device)
        dist.all_reduce(fewest, op=dist.ReduceOp.MIN)
        return int(fewest)

    def losses(self, samples: Samples) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a minibatch, and the values to log.

        Args:
            samples: minibatch of ``B`` samples of the rollout.
        """
        logits, values = self(samples.observations)
        choice = evaluate_actions(logits, samples.actions)
        log_ratio = choice.log_prob - samples.log_probs
        advantages = self._normalised(samples.advantages)
        clip = self.clip_coef if self.clip_vloss else None
        noted = {
            "policy_loss": policy_loss(log_ratio, advantages, self.clip_coef),
            "value_loss": value_loss(values, samples.values, samples.returns, clip),
            "entropy": choice.entropy.mean(),
        }
        loss = (
            noted["policy_loss"]
            + self.vf_coef * noted["value_loss"]
            - self.ent_coef * noted["entropy"]
        )
        noted = {name: value.detach() for name, value in noted.items()}
        return loss, noted | divergences(log_ratio.detach(), self.clip_coef)

    def _normalised(self, advantages: Tensor) -> Tensor:
        if self.norm_adv == "none" or len(advantages) < 2:
            return advantages
        if self.norm_adv == "rank" or self.trainer.world_size == 1:
            return normalise(advantages, advantages.mean(), advantages.std())
        sums = moments(advantages)
        dist.all_reduce(sums)
        return normalise(advantages, *from_moments(sums))

    def _log_rollout(self, rollout: Rollout, games: list[Game], losses: dict[str, Tensor]) -> None:
        explained = explained_variance(rollout.values.flatten(), rollout.returns.flatten())
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        values: dict[str, Tensor | float] = {f"losses/{n}": value for n, value in losses.items()}
        values["losses/explained_variance"] = explained
        values["charts/learning_rate"] = optimizer.param_groups[0]["lr"]
        self.log_dict(values, batch_size=1)
        speed = (self._steps - self._steps_before) / self._seconds
        self.log("charts/SPS", speed, prog_bar=True, batch_size=1)
        self.log("step", self._axis(), batch_size=1)
        if not games:
            return
        played = {
            "charts/episodic_return": float(np.mean([game.score for game in games])),
            "charts/episodic_length": float(np.mean([game.length for game in games])),
        }
        self.log("return", played["charts/episodic_return"], True, logger=False, batch_size=1)
        # Not by ``log``, which would repeat them at all later rollouts in which no game ends.
        for logger in self.loggers:
            logger.log_metrics(played, step=self._steps)

    def _axis(self) -> Tensor:
        """Agent's steps, over which everything is logged."""
        if not self.trainer.training:  # of a checkpoint, perhaps
            return self.agent_steps.cpu().double()
        return torch.tensor(self._steps, dtype=torch.float64)  # not every device has doubles

    # Evaluating.

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Play whole games and log their mean score and length."""
        data = self.data()
        games = self._play(data.val_games, data.eval_seed)
        scores, lengths = self._gathered(games)
        self.log("val/episodic_return", scores.mean(), prog_bar=True, batch_size=1)
        self.log("val/episodic_length", lengths.mean(), batch_size=1)
        self.log("step", self._axis(), batch_size=1)

    def _play(self, total: int, seed: int, act: Act | None = None) -> list[Game]:
        data = self.data()
        share = data.share(total)
        if not share:
            return []
        return play_games(data.eval_envs(share), act or self.player(seed), share, seed)

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
        """Play whole games with the policy and at random, and compare with published scores.

        Their seeds differ from those of the validation games, by which the checkpoint was chosen.
        Logs the values of :func:`~zoo_lightning.rl.evaluation.summarise` under ``test/``.

        Returns:
            ``scores`` and ``lengths`` of the games.
        """
        data = self.data()
        scores, lengths = self._gathered(self._play(data.test_games, data.test_seed))
        random = random_player(self.num_actions, data.test_seed)
        random_scores, _ = self._gathered(self._play(data.test_games, data.test_seed, random))
        figures = summarise(getattr(data, "game", ""), scores, lengths, random_scores)
        self.log_dict({f"test/{name}": value for name, value in figures.items()}, batch_size=1)
        self.log("step", self._axis(), batch_size=1)
        return {"scores": scores, "lengths": lengths}

    def predict_step(self, batch: Any, batch_idx: int = 0) -> Film:
        """Play one game and record it."""
        data = self.data()
        return film_game(data.eval_envs(1), self.player(data.eval_seed), data.eval_seed)


def check_game(before: Mapping[str, Any], here: Mapping[str, Any], learning: bool) -> None:
    """Check a checkpoint's game and environment against those that are given.

    Args:
        before: facts of the data in the checkpoint.
        here: facts of the data that are given.
        learning: whether training is resumed, which needs the same environment; evaluation in a
            changed environment only gives a warning.

    Raises:
        ConfigError: the game differs, or, if ``learning``, the environment.
    """
    if before["game"] != here["game"]:
        raise ConfigError(
            f"the checkpoint's policy learned {before['game']}, and data.game is {here['game']}; "
            f"give --data.game {before['game']}"
        )
    then, now = before["environment"], here["environment"]
    changed = [
        f"data.{name} is {then[name]!r} in the checkpoint, {now[name]!r} here"
        for name in then
        if name != "num_threads" and name in now and then[name] != now[name]
    ]
    if changed and learning:
        raise ConfigError(
            f"the checkpoint has another environment: {'; '.join(changed)}; resuming a run takes "
            "its own options"
        )
    if changed:
        rank_zero_warn(
            f"the policy plays in an environment it did not learn in: {'; '.join(changed)}"
        )


def check_length(trainer: Any) -> None:
    """Check that no Trainer option changes the training's length, which the data set.

    Args:
        trainer: the Trainer, or its options, which are ``None`` if not given.

    Raises:
        ConfigError: an option does; the message names it.
    """
    for name, default in (("max_epochs", 1), ("max_steps", -1), ("limit_train_batches", 1.0)):
        found = getattr(trainer, name)
        found = default if found is None else found
        # One batch is 1, all of them are 1.0.
        if found != default or type(found) is not type(default):
            raise ConfigError(
                f"trainer.{name} is {found!r}: the length of a training on games is "
                "data.total_steps, all of it one epoch; leave the option out or set "
                "trainer.max_epochs 1"
            )


def check_numbers(
    gamma: float,
    gae_lambda: float,
    update_epochs: int,
    num_minibatches: int,
    clip_coef: float,
    max_grad_norm: float,
) -> None:
    """Check that PPO's hyper-parameters are in their ranges.

    Raises:
        ConfigError: one is not; the message names it.
    """
    for name, value in (("gamma", gamma), ("gae_lambda", gae_lambda)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} must lie in [0, 1], got {value}")
    for name, value in (("update_epochs", update_epochs), ("num_minibatches", num_minibatches)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    if clip_coef <= 0:
        raise ConfigError(f"clip_coef must be above 0, got {clip_coef}")
    if max_grad_norm < 0:
        raise ConfigError(f"max_grad_norm must be at least 0, got {max_grad_norm}")


def check_backbone(backbone: Backbone) -> None:
    """Check that a backbone computes the same in training and evaluation mode.

    Raises:
        ConfigError: it has a batch norm or dropout layer; the message names it.
    """
    kinds = (_BatchNorm, _DropoutNd)
    for name, module in backbone.named_modules():
        if isinstance(module, kinds):
            raise ConfigError(
                f"layer {name!r} is a {type(module).__name__}, which computes otherwise in "
                "training than in evaluation, so the policy would learn from another function than "
                "it acts by; use an architecture without it, such as nature_cnn"
            )

"""PPO learns, acts by the function it learns from, and goes on as if it had never stopped.

Most tests play a game of ours in which the picture says which button to press.
"""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader

from zoo_lightning import PlainBackbone, PPOTask, ZooBackbone
from zoo_lightning.data.atari import RolloutLoader
from zoo_lightning.errors import ConfigError
from zoo_lightning.models.nature_cnn import orthogonal
from zoo_lightning.rl.environments.stepping import Game, Step


class SmallNet(nn.Module):
    """A convolution and a hidden layer for pictures of 8x8 pixels."""

    input_size = (1, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.conv = orthogonal(nn.Conv2d(1, 4, 4, stride=4), 1.4)
        self.hidden = orthogonal(nn.Linear(16, 32), 1.4)

    def forward(self, x):
        """Features (B, 32)."""
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        return torch.relu(self.hidden(torch.relu(self.conv(x)).flatten(1)))


def small_net():
    return SmallNet()


class Signals:
    """The bright half of the picture tells the right one of two buttons, which scores 1.

    Games last ten steps and are then cut off, or over if `over` says so. After every fifth step the
    environment presses a button of its own, the wrong one, which costs 100 points.
    """

    num_actions = 2
    observation_shape = (1, 8, 8)

    def __init__(self, num_envs=4, over=True):
        self.num_envs, self.over = num_envs, over

    def reset(self, seed):
        """Begin all games."""
        self.rng = np.random.default_rng(seed)
        self.ages, self.scores = np.zeros(self.num_envs, int), np.zeros(self.num_envs)
        return self._show()

    def _show(self):
        self.right = self.rng.integers(2, size=self.num_envs)
        seen = np.zeros((self.num_envs, 1, 8, 8), dtype=np.uint8)
        for env, side in enumerate(self.right):
            seen[env, 0, :, 4 * side : 4 * side + 4] = 255
        return seen

    def step(self, actions):
        """Press the buttons."""
        chosen = self.ages % 5 != 4
        rewards = np.where(chosen, actions == self.right, -100.0).astype(np.float32)
        self.scores += rewards
        self.ages += 1
        done = self.ages == 10
        games = [Game(int(i), float(self.scores[i]), 10) for i in np.flatnonzero(done)]
        self.ages[done], self.scores[done] = 0, 0.0
        truncated = done & (not self.over)
        last = np.full((self.num_envs, 1, 8, 8), 77, np.uint8) if truncated.any() else None
        return Step(self._show(), rewards, done, truncated, chosen, last, games)

    def state_dict(self):
        """Where the games are."""
        state = self.rng.bit_generator.state
        return {"rng": state, "right": self.right.tolist(), "ages": self.ages.tolist(),
                "scores": self.scores.tolist()}  # fmt: skip

    def load_state_dict(self, state):
        """Go on."""
        self.reset(0)
        self.rng.bit_generator.state = state["rng"]
        self.ages, self.scores = np.array(state["ages"]), np.array(state["scores"])
        self.right = np.array(state["right"])
        seen = np.zeros((self.num_envs, 1, 8, 8), dtype=np.uint8)
        for env, side in enumerate(self.right):
            seen[env, 0, :, 4 * side : 4 * side + 4] = 255
        return seen


class SignalData(pl.LightningDataModule):
    """As AtariData, but for signals."""

    num_actions, val_games, test_games, seed = 2, 4, 6, 0

    def __init__(self, rollouts=4, steps=16, **options):
        super().__init__()
        self.rollouts, self.num_steps = rollouts, steps
        self.train_envs, self.saved = Signals(**options), {}
        self.train_seed = self.eval_seed = 5
        self.test_seed = 6

    def begin_training(self):
        """Begin, or go on."""
        if self.saved:
            return self.train_envs.load_state_dict(self.saved)
        return self.train_envs.reset(self.trainer.global_rank)

    @property
    def steps_per_rollout(self):
        """Over all processes."""
        return self.train_envs.num_envs * self.num_steps * self.trainer.world_size

    def eval_envs(self, games):
        """Games for their score."""
        return Signals(min(games, 4))

    def share(self, games):
        """Of this process."""
        return len(range(self.trainer.global_rank, games, self.trainer.world_size))

    def train_dataloader(self):
        """Rollouts."""
        return RolloutLoader(self.rollouts)

    def val_dataloader(self):
        """All games of a validation."""
        return DataLoader(range(1), batch_size=None)

    test_dataloader = val_dataloader

    def state_dict(self):
        """Where the games are."""
        return self.train_envs.state_dict() if hasattr(self.train_envs, "rng") else {}

    def load_state_dict(self, state):
        """Keep for later."""
        self.saved = state


def make_trainer(folder, **options):
    options = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, **options}
    return pl.Trainer(
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        default_root_dir=folder,
        **options,
    )


def make_task(kind="plain", **options):
    """A task with a small network; in a zoo with gates scattered and averages far from them."""
    torch.manual_seed(0)
    if kind == "plain":
        return PPOTask(PlainBackbone(small_net), num_actions=2, **options)
    zoo = ZooBackbone(small_net, ["random:1", "random:2", "random:3"], mode=kind,
                      gate_init="released")  # fmt: skip
    for layer in zoo.aggregated_layers().values():
        layer.gate_ema.copy_(torch.tensor([0.2, 0.9, 0.4]))
    return PPOTask(zoo, num_actions=2, **options)


def with_rollout(task, data, folder, **options):
    """The task's first rollout, with the games that ended."""
    found = SimpleNamespace()

    class Stop(Exception):
        pass

    def learn(rollout):
        found.rollout = rollout
        raise Stop

    task.learn = learn
    trainer = make_trainer(folder, **options)
    with pytest.raises(Stop):
        trainer.fit(task, datamodule=data)
    del task.learn
    return found.rollout


@pytest.mark.parametrize("kind", ["plain", "lite", "full"])
def test_before_the_first_update_every_ratio_is_one(kind, tmp_path):
    task = make_task(kind)
    rollout = with_rollout(task, SignalData(), tmp_path)
    task.train()
    # In minibatches of whatever size, as they come in learning.
    for part in rollout.learnable().split(7):
        samples = rollout.samples(part)
        _, noted = task.losses(samples)
        assert noted["approx_kl"].abs() < 1e-6
        assert noted["clipfrac"] == 0
        logits, values = task(samples.observations)
        chosen = logits.log_softmax(dim=-1).gather(1, samples.actions[:, None]).squeeze(1)
        ratio = (chosen - samples.log_probs).exp()
        torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-5, rtol=0)
        torch.testing.assert_close(values, samples.values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "lite", "full"])
def test_in_bfloat16_ratios_differ_from_one_by_rounding_only(kind, tmp_path):
    task = make_task(kind)
    rollout = with_rollout(task, SignalData(), tmp_path, precision="bf16-mixed")
    task.train()
    for part in rollout.learnable().split(7):
        samples = rollout.samples(part)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits, values = task(samples.observations)
        assert logits.dtype == values.dtype == torch.float32
        # The heads' part of it is exact: nothing is rounded to bfloat16 after the features.
        assert not torch.equal(logits, logits.bfloat16().float())
        chosen = logits.log_softmax(dim=-1).gather(1, samples.actions[:, None]).squeeze(1)
        ratio = (chosen - samples.log_probs).exp()
        torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=2e-3, rtol=0)
        torch.testing.assert_close(values, samples.values, atol=1e-2, rtol=1e-2)


class NoteGradients(pl.Callback):
    """The norm of all gradients that the optimiser took its step by."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_train_start(self, trainer, pl_module):
        """Look after every step: a manual step's clipping comes within it."""

        def note(optimizer, *args):
            gradients = [p.grad for p in pl_module.parameters()]
            self.norms.append(float(nn.utils.get_total_norm(gradients)))

        trainer.optimizers[0].register_step_post_hook(note)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_gradients_are_clipped_in_the_losss_own_scale(precision, tmp_path):
    options = {"precision": precision}
    if precision == "16-mixed":  # as with a GPU, whose scaler Lightning does not make elsewhere
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        options = {"plugins": [MixedPrecision("16-mixed", "cpu", scaler=scaler)]}
    noted, limit = NoteGradients(), 0.01
    before = make_task(max_grad_norm=limit).state_dict()
    task = make_task(max_grad_norm=limit)
    make_trainer(tmp_path, callbacks=[noted], **options).fit(task, datamodule=SignalData(2))
    assert len(noted.norms) >= 15
    assert max(noted.norms) == pytest.approx(limit, rel=1e-3)
    assert min(noted.norms) > limit / 2  # and not small because they were clipped while scaled
    after = task.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert not torch.equal(before["head.policy.weight"], after["head.policy.weight"])


def test_with_the_batchs_own_gates_lite_would_learn_from_another_function(tmp_path):
    task = make_task("lite")
    rollout = with_rollout(task, SignalData(), tmp_path)
    for layer in task.backbone.aggregated_layers().values():
        layer.steady = False
    samples = rollout.samples(rollout.learnable())
    task.train()
    assert (task(samples.observations)[1] - samples.values).abs().max() > 0.01


def test_a_lite_zoos_gates_learn_although_it_computes_with_their_average(tmp_path):
    task = make_task("lite")
    rollout = with_rollout(task, SignalData(), tmp_path)
    task.train()
    loss, _ = task.losses(rollout.samples(rollout.learnable()))
    loss.backward()
    for layer in task.backbone.aggregated_layers().values():
        assert layer.gate.expand.bias.grad.abs().max() > 0


def test_steps_that_the_environment_chose_are_not_learned_from(tmp_path):
    rollout = with_rollout(make_task(), SignalData(), tmp_path)
    learned = rollout.samples(rollout.learnable())
    assert len(learned.actions) == 4 * (16 - 3)
    assert rollout.rewards.min() == -100
    rewards = rollout.rewards.flatten()[rollout.learnable()]
    assert set(rewards.tolist()) == {0.0, 1.0}


def test_a_game_cut_off_brings_the_value_of_what_was_seen_last(tmp_path):
    task = make_task(gamma=0.9)
    rollout = with_rollout(task, SignalData(over=False), tmp_path)
    with torch.no_grad():
        value = task(torch.full((1, 1, 8, 8), 77, dtype=torch.uint8))[1]
    assert rollout.ended[9].all()
    assert rollout.ended.sum() == 4
    expected = (-100 + 0.9 * value).expand(4)
    torch.testing.assert_close(rollout.rewards[9], expected)
    torch.testing.assert_close(rollout.returns[9], expected)


@pytest.mark.parametrize("kind", ["plain", "lite"])
def test_it_learns_which_button_to_press(kind, tmp_path):
    task = make_task(kind, lr=1e-2, gamma=0.0)
    data = SignalData(rollouts=24, steps=32)
    trainer = make_trainer(tmp_path)
    trainer.fit(task, datamodule=data)
    # Eight of ten steps are the player's, the others cost 200.
    assert trainer.callback_metrics["val/episodic_return"] > 7.7 - 200
    (found,) = trainer.test(task, datamodule=data, verbose=False)
    assert found["test/episodic_return"] > 7.7 - 200
    assert found["test/random_return"] < 5.5 - 200
    assert found["test/episodic_length"] == 10
    names = {
        "charts/SPS", "charts/episodic_return", "charts/episodic_length", "charts/learning_rate",
        "losses/policy_loss", "losses/value_loss", "losses/entropy", "losses/approx_kl",
        "losses/old_approx_kl", "losses/clipfrac", "losses/explained_variance",
    }  # fmt: skip
    if kind == "lite":
        names |= {f"gates/{layer}/random-{n}" for layer in ("conv", "hidden") for n in (1, 2, 3)}
    assert names <= seen_metrics(kind, tmp_path)


def seen_metrics(kind, folder):
    """Names of everything that a rollout logs."""
    trainer = make_trainer(folder, logger=pl.loggers.CSVLogger(folder, name="", version=""))
    trainer.fit(make_task(kind), datamodule=SignalData(rollouts=1))
    return set((folder / "metrics.csv").read_text().partition("\n")[0].split(","))


def test_scores_are_logged_of_those_rollouts_only_in_which_games_ended(tmp_path):
    trainer = make_trainer(tmp_path, logger=pl.loggers.CSVLogger(tmp_path, name="", version=""))
    trainer.fit(make_task(), datamodule=SignalData(rollouts=6, steps=4))
    with (tmp_path / "metrics.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["charts/episodic_return"]]
    # Games last ten steps: they end in the third and in the fifth rollout of four steps.
    assert [int(row["step"]) for row in rows] == [3 * 16, 5 * 16]
    assert {float(row["charts/episodic_length"]) for row in rows} == {10.0}


def test_the_learning_rate_falls_to_zero_over_the_rollouts(tmp_path):
    rates = []

    class Note(pl.Callback):
        def on_train_batch_end(self, trainer, *args):
            rates.append(float(trainer.logged_metrics["charts/learning_rate"]))

    make_trainer(tmp_path, callbacks=[Note()]).fit(make_task(lr=0.4), datamodule=SignalData(4))
    assert rates == pytest.approx([0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize("kind", ["plain", "lite"])
def test_a_run_that_goes_on_learns_what_it_would_have_learned(kind, tmp_path):
    straight = make_task(kind)
    make_trainer(tmp_path).fit(straight, datamodule=SignalData(6))

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, task, *args):
            if task.rollouts_done == 3:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    make_trainer(tmp_path, callbacks=[Save()]).fit(make_task(kind), datamodule=SignalData(6))
    resumed = make_task(kind)
    torch.manual_seed(99)  # nothing hangs on the global generator
    trainer = make_trainer(tmp_path)
    trainer.fit(
        resumed, datamodule=SignalData(6), ckpt_path=tmp_path / "half.ckpt", weights_only=True
    )
    assert resumed.agent_steps == straight.agent_steps == 6 * 64
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_a_head_of_other_actions_than_the_environments_have_is_refused(tmp_path):
    task = PPOTask(PlainBackbone(small_net), num_actions=3)
    with pytest.raises(ConfigError, match="head has 3 actions, the environments have 2"):
        make_trainer(tmp_path).fit(task, datamodule=SignalData())


def test_more_minibatches_than_steps_are_refused(tmp_path):
    task = PPOTask(PlainBackbone(small_net), num_actions=2, num_minibatches=1000)
    with pytest.raises(ConfigError, match="num_minibatches is 1000, but a rollout has"):
        make_trainer(tmp_path).fit(task, datamodule=SignalData())


@pytest.mark.parametrize(("steps", "minibatches"), [(1, 1), (1, 4), (2, 8)])
def test_rollouts_of_few_or_no_steps_to_learn_from_bring_no_undefined_losses(
    steps, minibatches, tmp_path
):
    task = make_task(num_minibatches=minibatches)
    found, learn = [], task.learn

    def noting(rollout):
        before = [each.clone() for each in task.parameters()]
        found.append((len(rollout.learnable()), learn(rollout)))
        if not found[-1][0]:
            assert all(map(torch.equal, before, task.parameters()))
        return found[-1][1]

    task.learn = noting
    data = SignalData(rollouts=6, steps=steps)
    data.num_envs = data.train_envs.num_envs
    make_trainer(tmp_path).fit(task, datamodule=data)
    assert min(count for count, _ in found) == (0 if steps == 1 else 4)
    assert all(bool(losses) is (count > 0) for count, losses in found)
    assert all(value.isfinite() for _, losses in found for value in losses.values())
    assert all(each.isfinite().all() for each in task.parameters())


def test_all_processes_take_as_many_optimiser_steps_as_the_one_with_the_fewest(monkeypatch):
    task = make_task(num_minibatches=8)
    task.trainer = SimpleNamespace(world_size=1)
    assert [task._minibatches(steps) for steps in (0, 3, 100)] == [0, 3, 8]
    asked = []

    def other_process(tensor, op):
        asked.append(op)
        tensor.clamp_(max=2)

    task.trainer.world_size = 2
    monkeypatch.setattr(torch.distributed, "all_reduce", other_process)
    assert [task._minibatches(steps) for steps in (1, 100)] == [1, 2]
    assert set(asked) == {torch.distributed.ReduceOp.MIN}


def test_validation_and_test_play_other_games(tmp_path):
    played = []

    class Noting(SignalData):
        def eval_envs(self, games):
            """Environments that note their seed."""
            envs = super().eval_envs(games)
            real = envs.reset
            envs.reset = lambda seed, *rest: (played.append(seed), real(seed, *rest))[1]
            return envs

    task, data = make_task(), Noting(1)
    trainer = make_trainer(tmp_path)
    trainer.validate(task, datamodule=data, verbose=False)
    seen, played[:] = set(played), []
    trainer.test(task, datamodule=data, verbose=False)
    assert seen
    assert played
    assert not seen & set(played)


@pytest.mark.parametrize(
    "options", [{"max_epochs": 2}, {"max_steps": 3}, {"limit_train_batches": 1}]
)
def test_a_length_of_the_trainers_own_is_refused(options, tmp_path):
    with pytest.raises(ConfigError, match=f"{next(iter(options))} is .*data.total_steps"):
        make_trainer(tmp_path, **options).fit(make_task(), datamodule=SignalData(2))


def train_share(folder: Path) -> None:
    """Train as one of two processes, and save what each of them has."""
    task, data = make_task("lite", norm_adv="global", lr=1e-2), SignalData(3)
    trainer = make_trainer(folder, devices=2, strategy="ddp")
    trainer.fit(task, datamodule=data)
    seen = torch.from_numpy(data.train_envs.right)
    torch.save({**task.state_dict(), "seen": seen}, folder / f"{trainer.global_rank}.pt")


@pytest.mark.slow
def test_two_processes_play_different_games_and_learn_one_policy(tmp_path, program):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **program.environment,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "NODE_RANK": "0",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path)],
            env={**environment, "LOCAL_RANK": str(rank), "RANK": str(rank)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [rank.communicate(timeout=480)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(errors)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert not torch.equal(first.pop("seen"), second.pop("seen"))
    assert first["agent_steps"] == 3 * 2 * 64
    start = make_task("lite").state_dict()
    moved = (first["backbone.net.hidden.weight"] - start["backbone.net.hidden.weight"]).abs().max()
    assert moved > 1e-3
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=0, atol=0, msg=key)


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_share(Path(sys.argv[1]))
    os._exit(0)

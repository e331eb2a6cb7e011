r"""Agent steps per second of PPO on an Atari game: ours against Stable-Baselines3's.

    pip install -e '.[bench]'
    python -m benchmarks.ppo --json FILE

All variants have the same game, preprocessing and hyper-parameters. They take turns in one process,
a rollout with its updates each, so that other load on the machine affects them equally; figures are
medians over the turns, including Lightning's overhead and logging. ``x_vs_sb3`` above 1 means more
steps per second than Stable-Baselines3; ``least`` is the emulator and the plain network alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from threading import Semaphore, Thread
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lightning.pytorch as pl
import numpy as np
import torch

from benchmarks.stable_baselines import stable_baselines
from zoo_lightning import AtariData, PlainBackbone, PPOTask, ZooBackbone

ENVS, EPOCHS, MINIBATCHES = 8, 4, 4
VARIANTS = ("plain", "lite", "full", "sb3", "least")
SOURCES = ["random:1", "random:2", "random:3"]

Turn = Callable[[], None]
"""Function that does one rollout with its updates."""


class TakeTurns(pl.Callback):
    """Let a Trainer in a thread of its own train on one batch at a time."""

    def __init__(self) -> None:
        self.go, self.done = Semaphore(0), Semaphore(0)
        self._begun = False

    def on_train_batch_start(self, *args: Any) -> None:
        """Report that the previous batch is done and logged, and wait for the next turn."""
        if self._begun:
            self.done.release()
        self._begun = True
        self.go.acquire()

    def on_train_end(self, *args: Any) -> None:
        """Report that the last batch is done."""
        self.done.release()

    def turn(self) -> None:
        """Train on one batch."""
        self.go.release()
        self.done.acquire()


def our_turns(
    kind: str,
    game: str,
    steps: int,
    turns: int,
    folder: str,
    precision: str = "32-true",
    accelerator: str = "cpu",
) -> Turn:
    """A training of this package, set up as on the command line."""
    data = AtariData(game, total_steps=turns * ENVS * steps, num_envs=ENVS, num_steps=steps)
    if kind == "plain":
        backbone: Any = PlainBackbone("nature_cnn")
    else:
        backbone = ZooBackbone("nature_cnn", SOURCES, mode=kind)
    task = PPOTask(
        backbone, num_actions=data.num_actions, update_epochs=EPOCHS, num_minibatches=MINIBATCHES
    )
    taking_turns = TakeTurns()
    trainer = pl.Trainer(
        accelerator=accelerator,
        precision=precision,
        max_epochs=1,
        limit_val_batches=0,
        callbacks=[taking_turns],
        logger=pl.loggers.CSVLogger(folder, name=kind),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    Thread(target=trainer.fit, args=(task, data)).start()
    return taking_turns.turn


def their_turns(game: str, steps: int) -> Turn:
    """Stable-Baselines3's PPO with the same settings."""
    model = stable_baselines(game, ENVS, steps, MINIBATCHES, n_epochs=EPOCHS)
    return lambda: model.learn(ENVS * steps, reset_num_timesteps=False) and None


def least_turns(game: str, steps: int) -> Turn:
    """Play the games and compute the network and its gradients, as often as PPO has to.

    Nothing else is done, nothing is learned from what is played: no PPO with this emulator and this
    network takes less time.
    """
    data = AtariData(game, total_steps=ENVS * steps, num_envs=ENVS, num_steps=steps)
    task = PPOTask(PlainBackbone("nature_cnn"), num_actions=data.num_actions)
    task = task.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(task.parameters(), fused=True)
    envs, numbers = data.train_envs, np.random.default_rng(0)
    observations = envs.reset(0)

    def last(pixels: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(pixels).contiguous(memory_format=torch.channels_last)

    def turn() -> None:
        nonlocal observations
        for _ in range(steps):
            with torch.no_grad():
                task(last(observations))
            actions = numbers.integers(data.num_actions, size=ENVS)
            observations = envs.step(actions).observations
        images = last(np.tile(observations, (steps // MINIBATCHES, 1, 1, 1)))
        for _ in range(EPOCHS * MINIBATCHES):
            logits, values = task(images)
            optimizer.zero_grad()
            (logits.square().mean() + values.square().mean()).backward()
            optimizer.step()

    return turn


def measure(
    variants: list[str],
    game: str,
    turns: int,
    threads: int,
    steps: int = 128,
    precision: str = "32-true",
) -> dict[str, Any]:
    """Steps per second of all variants, their ratios, and the seconds behind them."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    with tempfile.TemporaryDirectory() as folder:
        players: dict[str, Turn] = {}
        for name in variants:
            if name == "sb3":
                players[name] = their_turns(game, steps)
            elif name == "least":
                players[name] = least_turns(game, steps)
            else:
                players[name] = our_turns(name, game, steps, turns + 1, folder, precision)
        for number in range(turns + 1):  # the first turn is a warm-up
            for name, turn in players.items():
                start = time.perf_counter()
                turn()
                if number:
                    seconds[name].append(time.perf_counter() - start)
    speeds = {name: ENVS * steps / median(each) for name, each in seconds.items()}
    ratios = {
        f"{name}_vs_sb3": speed / speeds["sb3"]
        for name, speed in speeds.items()
        if name != "sb3" and "sb3" in speeds
    }
    setting = {
        "game": game,
        "envs": ENVS,
        "steps": steps,
        "epochs": EPOCHS,
        "minibatches": MINIBATCHES,
        "sources": len(SOURCES),
        "turns": turns,
        "threads": threads,
        "precision": precision,
        "torch": torch.__version__,
    }
    return {**ratios, "steps_per_second": speeds, "setting": setting, "seconds": seconds}


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--game", default="breakout")
    parser.add_argument("--turns", type=int, default=8, help="timed rollouts of each variant")
    parser.add_argument(
        "--steps", type=int, default=128, help="steps of each environment in a rollout"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--precision", default="32-true", help="precision of our variants, such as bf16-mixed"
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    result = measure(
        options.variants,
        options.game,
        options.turns,
        options.threads,
        options.steps,
        options.precision,
    )
    for name, speed in result["steps_per_second"].items():
        print(f"{name:6} {speed:6.0f} steps/s")
    for name in result:
        if "_vs_" in name:
            print(f"{name:14} {result[name]:.2f}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    main()

r"""Learning curves of PPO from scratch on an Atari game: ours beside Stable-Baselines3's.

    pip install -e '.[bench]'
    python -m benchmarks.ppo_curves --run_dir DIR --game breakout --steps 500000 --seeds 0,1 \
        --output results/rl

Each training has a folder below ``--run_dir``. Finished trainings are not repeated, and the same
command resumes ours from their last checkpoint (Stable-Baselines3's start again); several commands
may share the work by ``--only`` and ``--seeds``. ``--report`` trains nothing and compares what is
there, stopped trainings as far as they came.

Both have the same game, preprocessing, hyper-parameters, linear schedule and number of steps.
``curves.png``, ``curves.md`` and ``curves.json`` compare the unclipped scores of the whole games
that ended within windows of steps in training, and each window's mean over the seeds.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from matplotlib.figure import Figure

from zoo_lightning.benchmarking.report import markdown
from zoo_lightning.benchmarking.returns import RETURN, Curve, returns_in_training
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.plotting.figures import new_figure, save_figure
from zoo_lightning.runs.pool import resume_words
from zoo_lightning.runs.run_folder import METRICS, SUMMARY, write_summary

ENVS, STEPS, MINIBATCHES = 8, 128, 4
WHO = ("ours", "sb3")

CURVES = "curves.json"

Curves = dict[str, dict[int, Curve]]
"""Curves by implementation and by seed."""


def train_ours(game: str, seed: int, steps: int, folder: Path) -> None:
    """Train by the experiment ``rl-source``, or resume its run."""
    words = [
        sys.executable, "-m", "zoo_lightning", "fit", "--experiment", "rl-source",
        "--data.game", game, "--data.total_steps", str(steps), "--seed_everything", str(seed),
        "--run_dir", str(folder),
    ]  # fmt: skip
    subprocess.run([*words, *resume_words(folder)], check=True)


def train_theirs(game: str, seed: int, steps: int, folder: Path) -> None:
    """Train by Stable-Baselines3's PPO, and write the scores in the format of our runs."""
    from stable_baselines3.common.callbacks import BaseCallback

    from benchmarks.stable_baselines import stable_baselines

    rows: list[tuple[int, float]] = []
    folder.mkdir(parents=True, exist_ok=True)

    class Note(BaseCallback):
        """Scores of the games that ended, by the steps done."""

        def _on_step(self) -> bool:
            rows.extend(
                (self.num_timesteps, info["episode"]["r"])
                for info in self.locals["infos"]
                if "episode" in info
            )
            return True

        def _on_rollout_end(self) -> None:
            with atomic_file(folder / METRICS) as part, part.open("w", newline="") as stream:
                table = csv.writer(stream)
                table.writerow(["step", RETURN])
                table.writerows(rows)

    model = stable_baselines(
        game, ENVS, STEPS, MINIBATCHES, seed=seed, learning_rate=lambda left: 2.5e-4 * left
    )
    model.learn(steps, callback=Note())
    write_summary(folder, {"game": game, "seed": seed, "agent_steps": steps})


def curve_of(folder: Path, window: int, steps: int) -> Curve:
    """Mean unclipped scores of a training's games, by the last agent step of each window.

    The window in which a training was stopped is left out, and so are games after the last step:
    Stable-Baselines3 plays its last rollout to the end.

    Args:
        folder: folder of the training.
        window: agent steps in a window.
        steps: agent steps of a complete training.
    """
    curve = returns_in_training(folder / METRICS, window, ENVS * STEPS)
    curve = {end: score for end, score in curve.items() if end - window < steps}
    if not (folder / SUMMARY).is_file():
        with (folder / METRICS).open(newline="") as stream:
            until = max((float(row["step"]) for row in csv.DictReader(stream)), default=0)
        curve = {end: score for end, score in curve.items() if end <= until}
    return curve


def known_curves(options: argparse.Namespace, seeds: list[int]) -> Curves:
    """Curves of all trainings, from their folders or from ``curves.json``.

    The file keeps curves that were trained elsewhere, or earlier and for more steps.
    """
    path = options.output / CURVES
    kept = json.loads(path.read_text()) if path.is_file() else {}
    setting = {"game": options.game, "steps": options.steps, "window": options.window}
    if any(kept.get(key, value) != value for key, value in setting.items()):
        raise SystemExit(f"{path} is of another setting than {setting}; give another --output")
    curves: Curves = {name: {} for name in WHO}
    for name in WHO:
        curves[name] = {
            int(seed): {int(end): value for end, value in curve.items()}
            for seed, curve in kept.get("curves", {}).get(name, {}).items()
        }
        for seed in seeds:
            folder = options.run_dir / f"{name}-{seed}"
            if (folder / METRICS).is_file():
                curve = curve_of(folder, options.window, options.steps)
                if max(curve, default=0) >= max(curves[name].get(seed, {}), default=0):
                    curves[name][seed] = curve
    options.output.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as part:
        part.write_text(json.dumps({**setting, "curves": curves}, indent=1) + "\n")
    return curves


def plot_curves(curves: Curves, game: str) -> Figure:
    """Plot every seed as a thin line, and their mean as a thick one."""
    figure = new_figure(6.5, 4.0)
    axes = figure.subplots()
    for name, colour, dash in (("ours", "black", "-"), ("sb3", "0.5", "--")):
        runs = list(curves[name].values())
        for curve in runs:
            axes.plot(list(curve), list(curve.values()), dash, color=colour, lw=0.8)
        if runs:
            common = sorted(set.intersection(*(set(curve) for curve in runs)))
            values = [mean(curve[end] for curve in runs) for end in common]
            label = {"ours": "ours", "sb3": "Stable-Baselines3"}[name]
            axes.plot(common, values, dash, color=colour, lw=2.5, label=f"{label}, mean of seeds")
    axes.set(xlabel="agent steps", ylabel="episodic return in training", title=game)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def format_curves(curves: Curves) -> str:
    """Table in Markdown: windows by trainings, and means over the seeds if all have a score."""
    present = {name: by_seed for name, by_seed in curves.items() if by_seed}
    names = [f"{name} {seed}" for name, by_seed in present.items() for seed in by_seed]
    heads = ["steps", *names, *(f"{name}, mean" for name in present)]
    rows = []
    every = [curve for by_seed in present.values() for curve in by_seed.values()]
    for end in sorted(set.union(*(set(curve) for curve in every))):
        values = [curve.get(end) for curve in every]
        for by_seed in present.values():
            scores = [curve.get(end) for curve in by_seed.values()]
            values.append(None if None in scores else mean(scores))
        rows.append([f"{end:,}", *("" if value is None else f"{value:.1f}" for value in values)])
    return markdown(heads, rows)


def main(arguments: list[str] | None = None) -> None:
    """Train, and write the curves."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run_dir", type=Path, required=True)
    parser.add_argument("--game", default="breakout")
    parser.add_argument("--steps", type=int, default=500_000, help="agent steps of each training")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--only", choices=WHO, help="train only one of both")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--window", type=int, default=50_000, help="agent steps in a window")
    parser.add_argument("--output", type=Path, help="folder for curves.json, .md and .png")
    options = parser.parse_args(arguments)
    seeds = [int(word) for word in options.seeds.split(",")]
    trainers = {"ours": train_ours, "sb3": train_theirs}
    for seed in [] if options.report else seeds:
        for name in (options.only,) if options.only else WHO:
            folder = options.run_dir / f"{name}-{seed}"
            if not (folder / SUMMARY).is_file():
                trainers[name](options.game, seed, options.steps, folder)
    if options.output:
        curves = known_curves(options, seeds)
        save_figure(plot_curves(curves, options.game), options.output / "curves.png")
        (options.output / "curves.md").write_text(format_curves(curves))


if __name__ == "__main__":
    main()

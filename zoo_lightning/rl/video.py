"""Record games in colour and write them as MP4 if PyAV is installed, otherwise as GIF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.rl.evaluation import Act

if TYPE_CHECKING:
    from zoo_lightning.rl.environments.atari import AtariEnvs

PER_SECOND = 15
"""Frames per second of a video: one frame for each agent step of four frames, at 60 Hz."""


class Film(NamedTuple):
    """Frames and score of a recorded game.

    Attributes:
        frames: ``(T, H, W, 3)`` uint8.
        score: score of the whole game.
    """

    frames: np.ndarray
    score: float


def film_game(envs: AtariEnvs, act: Act, seed: int) -> Film:
    """Play a game and record it with a second emulator that repeats the actions.

    Args:
        envs: environment of a single game.
        act: function that chooses the actions.
        seed: seed of the game.
    """
    observations = envs.reset(seed)
    camera = envs.film()
    first, _ = camera.reset(seed=np.array([envs.seed_of(0)]))
    frames = [first[0, 0].copy()]
    while True:
        step = envs.step(act(observations))
        pressed = envs.last_actions
        frames.append(camera.step(pressed)[0][0, 0].copy())
        observations = step.observations
        if step.games:
            return Film(np.stack(frames), step.games[0].score)


def write_film(film: Film, stem: Path) -> Path:
    """Write a recorded game as a video file, at twice the screen's size.

    Args:
        film: recorded game.
        stem: path of the file without its suffix.

    Returns:
        Path of the file.
    """
    frames = film.frames.repeat(2, axis=1).repeat(2, axis=2)
    try:
        import av
    except ImportError:
        return write_gif(frames, stem.with_suffix(".gif"))
    path = stem.with_suffix(".mp4")
    with atomic_file(path) as part, av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=PER_SECOND)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_gif(frames: np.ndarray, path: Path) -> Path:
    """Write frames ``(T, H, W, 3)`` as a looping GIF; returns the path."""
    first, *others = map(Image.fromarray, frames)
    with atomic_file(path) as part:
        first.save(
            part,
            format="GIF",
            save_all=True,
            append_images=others,
            duration=1000 // PER_SECOND,
            loop=0,
        )
    return path

"""One game on film: in the colours of the screen, as mp4 where PyAV is installed, else as GIF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from zoo_lightning.rl.playing import Act
from zoo_lightning.whole_files import whole_file

if TYPE_CHECKING:
    from zoo_lightning.envs.atari import AtariEnvs

PER_SECOND = 15
"""Frames a second: the machine's 60, of which an action lasts four."""


class Film(NamedTuple):
    """A filmed game.

    Attributes:
        frames: ``(T, H, W, 3)`` uint8.
        score: of the whole game.
    """

    frames: np.ndarray
    score: float


def film_game(envs: AtariEnvs, act: Act, seed: int) -> Film:
    """Play a game and look at it through a second emulator that gets the same actions.

    Args:
        envs: of one game.
        act: the player.
        seed: of the game.
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
    """Write a film twice as large as the screen was.

    Args:
        film: the game.
        stem: file without its suffix.

    Returns:
        The file.
    """
    frames = film.frames.repeat(2, axis=1).repeat(2, axis=2)
    try:
        import av
    except ImportError:
        return write_gif(frames, stem.with_suffix(".gif"))
    path = stem.with_suffix(".mp4")
    with whole_file(path) as part, av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=PER_SECOND)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_gif(frames: np.ndarray, path: Path) -> Path:
    """Write frames ``(T, H, W, 3)`` as a GIF that repeats; returns the file."""
    first, *others = map(Image.fromarray, frames)
    with whole_file(path) as part:
        first.save(
            part,
            format="GIF",
            save_all=True,
            append_images=others,
            duration=1000 // PER_SECOND,
            loop=0,
        )
    return path

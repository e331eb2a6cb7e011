"""A game is filmed to its end and written as mp4 or GIF."""

import sys

import pytest
from PIL import Image

from zoo_lightning.rl.environments import AtariEnvs
from zoo_lightning.rl.evaluation import random_player
from zoo_lightning.rl.video import film_game, write_film


@pytest.fixture(scope="module")
def film():
    envs = AtariEnvs("breakout", 1, learning=False, max_frames=120, noop_max=1)
    return film_game(envs, random_player(4, 0), seed=0)


def test_the_film_has_a_frame_for_every_decision_and_the_first(film):
    assert film.frames.shape == (31, 210, 160, 3)
    assert film.frames.any()


def test_it_is_written_as_mp4_where_possible(film, tmp_path):
    av = pytest.importorskip("av")
    path = write_film(film, tmp_path / "folder" / "game")
    assert path.suffix == ".mp4"
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 31
    assert (frames[0].width, frames[0].height) == (320, 420)


def test_it_is_written_as_gif_otherwise(film, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    path = write_film(film, tmp_path / "game")
    assert path.suffix == ".gif"
    with Image.open(path) as image:
        assert image.size == (320, 420)
        assert image.n_frames > 1  # equal ones are joined

"""Games are counted per environment, so that short ones are not favoured."""

import numpy as np

from zoo_lightning.rl.environments.stepping import Game, Step
from zoo_lightning.rl.evaluation import play_games, random_player


class Clocks:
    """Environment ``i`` has games of ``i + 1`` steps with a score of their length."""

    num_envs = 3

    def reset(self, seed):
        """Begin."""
        self.ages = np.zeros(3, dtype=int)
        return np.zeros((3, 1, 1, 1), dtype=np.uint8)

    def step(self, actions):
        """One more step for all."""
        self.ages += 1
        over = self.ages == np.arange(3) + 1
        games = [Game(i, float(self.ages[i]), int(self.ages[i])) for i in np.flatnonzero(over)]
        self.ages[over] = 0
        seen = np.zeros((3, 1, 1, 1), dtype=np.uint8)
        return Step(seen, np.ones(3), over, over & False, ~over | over, None, games)


def test_every_environment_plays_its_share_however_long_its_games_are():
    games = play_games(Clocks(), random_player(2, 0), 7, seed=0)
    assert sorted(game.env for game in games) == [0, 0, 0, 1, 1, 2, 2]


def test_random_play_uses_all_actions_equally_often():
    act = random_player(4, 0)
    actions = np.concatenate([act(np.zeros((8, 1))) for _ in range(500)])
    shares = np.bincount(actions, minlength=4) / len(actions)
    assert np.abs(shares - 0.25).max() < 0.03

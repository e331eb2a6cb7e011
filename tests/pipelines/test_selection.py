"""Selection of a result among finished stages: paired bootstrap over validation images."""

from types import SimpleNamespace

import pytest
import torch

from zoo_lightning.analysis.measuring import Scores
from zoo_lightning.pipelines.selection import Candidate, compared, gain, select


def test_scores_of_a_candidate_are_those_of_its_images():
    scores = Scores(torch.tensor([0.0, 100.0]), torch.tensor([0.5, 1.5]))
    runs = tuple(SimpleNamespace(name=name) for name in ("x", "y"))
    candidate = Candidate(runs, scores)
    assert (candidate.name, candidate.loss) == ("x + y", 1.0)


@pytest.fixture
def losses():
    return torch.rand(200, generator=torch.Generator().manual_seed(1))


def test_a_model_does_not_replace_one_that_is_the_same(losses):
    found = gain(losses, losses)
    assert (found.mean, found.low, found.high, found.share) == (0, 0, 0, 0)
    assert not found.is_sure


def test_a_small_gain_on_every_image_is_sure_though_images_differ_much(losses):
    found = gain(losses - 0.01, losses)
    assert found.is_sure
    assert found.mean == pytest.approx(0.01)
    assert found.low == pytest.approx(0.01) == found.high
    assert not gain(losses, losses - 0.01).is_sure


def test_what_is_right_more_often_is_not_replaced_for_its_confidence(losses):
    errors = 100.0 * (losses > 0.5)
    fewer = torch.where(losses > 0.6, errors, 0.0)
    incumbent = Scores(errors, losses)
    assert compared(Scores(fewer, losses - 0.01), incumbent).replaces
    assert not compared(Scores(errors, losses - 0.01), incumbent).replaces
    assert not compared(Scores(fewer, losses + 0.01), incumbent).replaces


def test_a_gain_that_hangs_on_one_image_is_not_sure(losses):
    candidate = losses + 0.01
    candidate[0] = losses[0] - 3.0
    found = gain(candidate, losses)
    assert found.mean > 0
    assert found.share == pytest.approx(1 - 199 / 200 * (1 - 1 / 200) ** 199, abs=0.05)
    assert not found.is_sure


def test_the_interval_has_the_width_of_the_standard_error(losses):
    noise = torch.randn(200, generator=torch.Generator().manual_seed(2))
    found = gain(losses + noise, losses)
    assert (found.high - found.low) / 2 == pytest.approx(
        1.96 * float(noise.std()) / 200**0.5, rel=0.1
    )


def candidate(name, losses, errors):
    return Candidate((SimpleNamespace(name=name),), Scores(errors, losses))


def test_an_ensemble_has_to_be_better_than_the_best_network(losses):
    errors, lines = 100.0 * (losses > 0.5), []
    fewer = torch.where(losses > 0.6, errors, 0.0)
    first, second = candidate("x", losses, errors), candidate("y", losses - 0.1, fewer)
    joint = candidate("x + y", losses - 0.05, fewer)
    chosen, found = select([first, second], [joint], lines.append)
    assert chosen is second
    assert list(found) == ["y", "x + y"]
    assert found["x + y"].loss.mean == pytest.approx(-0.05)
    assert found["x + y"].error.mean == 0
    assert lines[0].startswith("  y replaces x: +0.1000")
    assert lines[1].startswith("  x + y does not replace y: -0.0500")


def test_a_network_alone_is_selected_without_a_comparison(losses):
    alone = candidate("x", losses, losses)
    assert select([alone], [], pytest.fail) == (alone, {})

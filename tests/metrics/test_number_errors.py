"""Errors of numbers: by their definitions, whatever the batches, without unknown numbers."""

import math

import pytest
import torch

from zoo_lightning.metrics import NumberErrors

STD = torch.tensor([2.0, 50.0])


def errors(found, wanted, names=("age", "dose"), std=STD, batch=7):
    metric = NumberErrors(names)
    metric.set_scale(std)
    for rows in torch.arange(len(found)).split(batch):
        metric.update(found[rows], wanted[rows])
    return {name: float(value) for name, value in metric.compute().items()}


@pytest.fixture
def numbers():
    generator = torch.Generator().manual_seed(0)
    wanted = 1990 + STD * torch.randn(40, 2, generator=generator)
    return wanted + STD * torch.randn(40, 2, generator=generator) / 2, wanted


def ranks(values):
    return values.argsort().argsort().double()


def test_all_metrics_have_their_definitions_whatever_the_batches(numbers):
    found, wanted = numbers
    result = errors(found, wanted)
    away = (found - wanted).double()
    mae, rmse = away.abs().mean(0), away.square().mean(0).sqrt()
    spread = (wanted.double() - wanted.double().mean(0)).square().mean(0)
    r2 = 1 - away.square().mean(0) / spread
    for index, name in enumerate(("age", "dose")):
        assert result[f"mae/{name}"] == pytest.approx(float(mae[index]), rel=1e-4)
        assert result[f"rmse/{name}"] == pytest.approx(float(rmse[index]), rel=1e-4)
        assert result[f"r2/{name}"] == pytest.approx(float(r2[index]), rel=1e-3)
        pair = torch.stack([ranks(found[:, index]), ranks(wanted[:, index])])
        wanted_rho = float(torch.corrcoef(pair)[0, 1])
        assert result[f"spearman/{name}"] == pytest.approx(wanted_rho, abs=1e-4)
    assert result["mae"] == pytest.approx(float(mae.mean()), rel=1e-4)
    assert result["nmae"] == pytest.approx(float((100 * mae / STD).mean()), rel=1e-4)
    assert errors(found, wanted, batch=40) == pytest.approx(result)


def test_one_target_has_no_names_of_its_own(numbers):
    found, wanted = (each[:, :1] for each in numbers)
    result = errors(found, wanted, ["age"], STD[:1])
    assert set(result) == {"nmae", "mae", "rmse", "r2", "spearman"}


def test_unknown_numbers_are_left_out(numbers):
    found, wanted = numbers
    fewer = errors(found[:30], wanted[:30])
    torn = wanted.clone()
    torn[30:] = torch.nan
    assert errors(found, torn) == pytest.approx(fewer)
    torn[:, 1] = torch.nan
    result = errors(found, torn)
    assert math.isnan(result["mae/dose"])
    assert result["mae"] == result["mae/age"]


def test_what_has_no_order_has_no_correlation(numbers):
    found, wanted = numbers
    constant = errors(found * 0 + 1990, wanted)
    assert math.isnan(constant["spearman"])
    assert constant["r2"] <= 0
    alone = errors(found[:1], wanted[:1])
    assert math.isnan(alone["r2"])
    assert alone["mae"] > 0

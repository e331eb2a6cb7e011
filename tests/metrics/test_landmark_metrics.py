"""Accumulated landmark metrics: the same for any batches and any number of processes."""

import pytest
import torch

from zoo_lightning.metrics import landmarks
from zoo_lightning.metrics.functional import error_auc, failure_rate, per_image_nme
from zoo_lightning.metrics.landmarks import ErrorAUC, FailureRate, NormalizedMeanError

METRICS = [NormalizedMeanError, FailureRate, ErrorAUC]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(11, 5, 2, generator=generator) * 100
    noise = torch.randn(11, 5, 2, generator=generator) * torch.linspace(0.5, 9, 11).view(-1, 1, 1)
    return target + noise, target, torch.linspace(40, 60, 11)


def test_values_are_those_of_the_pure_functions(batch):
    nme = per_image_nme(*batch)
    expected = [100 * nme.mean(), 100 * failure_rate(nme, 0.1), error_auc(nme, 0.1)]
    for metric, value in zip(METRICS, expected, strict=True):
        torch.testing.assert_close(metric()(*batch), value)
    exact = ErrorAUC(rule="exact")(*batch)
    torch.testing.assert_close(exact, error_auc(nme, 0.1, rule="exact"))
    assert 0 < expected[1] < 100
    assert 0 < expected[2] < 1


@pytest.mark.parametrize("metric", METRICS)
def test_uneven_batches_give_the_value_of_one_batch(metric, batch):
    whole, parts = metric(), metric()
    whole.update(*batch)
    for rows in (slice(0, 1), slice(1, 8), slice(8, 8), slice(8, 11)):
        parts.update(*(tensor[rows] for tensor in batch))
    torch.testing.assert_close(parts.compute(), whole.compute())


@pytest.mark.parametrize("metric", METRICS)
def test_summed_states_of_two_processes_give_the_value_of_one(metric, batch):
    whole, first, second = metric(), metric(), metric()
    whole.update(*batch)
    first.update(*(tensor[:3] for tensor in batch))
    second.update(*(tensor[3:] for tensor in batch))
    for state in ("total", "images"):  # what dist_reduce_fx="sum" does
        setattr(first, state, getattr(first, state) + getattr(second, state))
    torch.testing.assert_close(first.compute(), whole.compute())


@pytest.mark.parametrize("metric", METRICS)
def test_half_precision_predictions_are_not_measured_in_half_precision(metric, batch):
    pred, target, distance = batch
    half, single = metric(), metric()
    half.update(pred.half(), target, distance)
    single.update(pred.half().float(), target, distance)
    assert half.compute() == single.compute()


@pytest.mark.parametrize("metric", METRICS)
def test_a_reset_metric_forgets(metric, batch):
    twice, once = metric(), metric()
    twice.update(*(tensor[:4] for tensor in batch))
    twice.reset()
    for one in (twice, once):
        one.update(*(tensor[4:] for tensor in batch))
    assert twice.compute() == once.compute()


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_say_which_direction_is_better(metric):
    assert metric().higher_is_better is (metric is ErrorAUC)


@pytest.mark.parametrize("metric", [FailureRate, ErrorAUC])
def test_a_threshold_must_be_positive(metric):
    with pytest.raises(ValueError, match="greater than 0"):
        metric(threshold=0.0)


def test_thresholds_are_respected(batch):
    strict, lax = FailureRate(0.02), FailureRate(1.0)
    assert strict(*batch) > 50
    assert lax(*batch) == 0


@pytest.mark.parametrize("metric", METRICS)
def test_points_that_do_not_count_change_nothing(metric, batch):
    pred, target, distance = batch
    visible = torch.ones(11, 5, dtype=torch.bool)
    visible[:, 3:] = False
    masked, cut = metric(), metric()
    masked.update(pred, target, distance, visible)
    cut.update(pred[:, :3], target[:, :3], distance)
    torch.testing.assert_close(masked.compute(), cut.compute())


@pytest.mark.parametrize("metric", METRICS)
def test_a_models_precision_does_not_reach_the_sums(metric, batch):
    model = torch.nn.ModuleList([metric()]).to(torch.bfloat16).half()
    assert model[0].total.dtype == torch.float64
    assert model[0].images.dtype == torch.int64


def test_sums_on_a_device_without_float64_are_float32(monkeypatch):
    monkeypatch.setattr(landmarks, "sum_dtype", lambda device: torch.float32)
    metric = torch.nn.ModuleList([NormalizedMeanError()]).to("cpu")[0]
    assert metric.total.dtype == torch.float32
    metric.reset()
    assert metric.total.dtype == torch.float32

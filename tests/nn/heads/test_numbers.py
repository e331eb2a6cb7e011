"""The head of numbers: standardised inside, in the targets' units outside."""

import pytest
import torch
import torch.nn.functional as F

from zoo_lightning.nn.heads import NumberHead

MEAN, STD = torch.tensor([1990.0, -0.5]), torch.tensor([12.0, 0.01])


def head(**options):
    torch.manual_seed(0)
    made = NumberHead(6, 2, **options)
    made.set_scale(MEAN, STD)
    return made


def test_outputs_are_in_units_and_begin_at_the_mean():
    made, features = head(), torch.randn(4, 6)
    raw = F.linear(features, made.weight, made.bias)
    torch.testing.assert_close(made(features), raw * STD + MEAN)
    assert ((made(features) - MEAN).abs() < 0.2 * STD).all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert made(features).dtype == torch.float32


def test_one_linear_layer_computes_the_same():
    made, features = head(), torch.randn(4, 6)
    torch.testing.assert_close(made.as_linear()(features), made(features))


def test_a_map_to_units_becomes_one_to_standardised_targets():
    made, features = head(), torch.randn(4, 6)
    weight, bias = torch.randn(2, 6), torch.randn(2)
    with torch.no_grad():
        solved = made.standardised(weight, bias)
        made.weight.copy_(solved[0])
        made.bias.copy_(solved[1])
    wanted = F.linear(features, weight, bias)
    torch.testing.assert_close(made(features), wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("loss", ["mse", "l1", "huber"])
def test_the_loss_is_that_of_standardised_targets_and_leaves_out_unknown_ones(loss):
    made, found = head(loss=loss, delta=0.5), torch.randn(5, 2) * STD + MEAN
    wanted = torch.randn(5, 2) * STD + MEAN
    functions = {
        "mse": F.mse_loss,
        "l1": F.l1_loss,
        "huber": lambda a, b: F.huber_loss(a, b, delta=0.5),
    }
    expected = functions[loss]((found - MEAN) / STD, (wanted - MEAN) / STD)
    torch.testing.assert_close(made.loss(found, wanted), expected, rtol=1e-3, atol=1e-3)
    wanted[1:, 1] = torch.nan
    given = found.clone().requires_grad_()
    made.loss(given, wanted).backward()
    assert given.grad.isfinite().all()
    assert (given.grad[1:, 1] == 0).all()
    assert (given.grad[:, 0] != 0).all()
    assert made.loss(found, torch.full((5, 2), torch.nan)) == 0


def test_errors_of_an_image_are_averaged_over_its_known_targets():
    made = head()
    wanted = MEAN + torch.tensor([[1.0, 3.0], [2.0, torch.nan], [torch.nan, torch.nan]]) * STD
    errors = made.absolute_errors(MEAN.repeat(3, 1), wanted)
    torch.testing.assert_close(errors[:2], torch.tensor([2.0, 2.0]), rtol=1e-3, atol=1e-3)
    assert errors[2].isnan()

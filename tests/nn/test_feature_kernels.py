"""The distance of features from frozen networks': against NumPy, and what it does not depend on."""

import numpy as np
import pytest
import torch

from zoo_lightning.nn.feature_kernels import (
    cosine_kernel,
    joint_features,
    kernel_distance,
    kernel_errors,
    teachers_to_follow,
)


def test_the_distance_is_the_root_mean_square_of_differences_of_cosines():
    student, teacher = torch.randn(6, 4), torch.randn(6, 9)
    kernels = []
    for each in (student.numpy(), teacher.numpy()):
        centred = each - each.mean(0)
        unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        kernels.append(unit @ unit.T)
    wanted = np.sqrt(((kernels[0] - kernels[1]) ** 2).mean())
    found = kernel_distance(kernel_errors(student, [teacher]))
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_a_rotation_a_shift_and_a_scale_of_features_do_not_matter():
    features = torch.randn(5, 4)
    rotation, _ = torch.linalg.qr(torch.randn(4, 4))
    torch.testing.assert_close(cosine_kernel(3 * features @ rotation + 7), cosine_kernel(features))
    assert float(kernel_distance(kernel_errors(features, [features @ rotation]))) < 2e-4


def test_the_diagonal_selects_features_and_large_teachers_do_not_dominate():
    useful, useless = torch.randn(6, 4), 1e4 * torch.randn(6, 40)
    alone = joint_features([useful, useless], [torch.ones(4), torch.zeros(40)])
    torch.testing.assert_close(cosine_kernel(alone), cosine_kernel(useful))
    both = joint_features([useful, useless], [torch.ones(4), torch.ones(40)])
    squares = both.square()
    assert float(squares[:, :4].sum()) == pytest.approx(float(squares[:, 4:].sum()), rel=1e-4)


def test_the_diagonal_learns_which_features_agree():
    same, other = torch.randn(32, 6), torch.randn(32, 6)
    logits = [torch.zeros(6, requires_grad=True), torch.zeros(6, requires_grad=True)]
    optimizer = torch.optim.Adam(logits, lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        scales = [each.sigmoid() for each in logits]
        kernel_distance(kernel_errors(same, [joint_features([same, other], scales)])).backward()
        optimizer.step()
    assert logits[0].mean() > 0.5 > -0.5 > logits[1].mean()


def test_images_that_are_all_the_same_give_finite_gradients():
    features = torch.ones(4, 3, requires_grad=True)
    kernel_distance(kernel_errors(features, [torch.ones(4, 5)])).backward()
    assert features.grad.isfinite().all()


def test_an_image_always_follows_the_teacher_from_which_it_differs_most():
    errors = torch.tensor([[0.1, 0.9, 0.2], [0.5, 0.3, 0.2], [0.4, 0.2, 0.7]])
    generator = torch.Generator().manual_seed(0)
    for drop, least, most in ((0.0, 9, 9), (0.5, 3, 8), (1.0, 3, 3)):
        kept = teachers_to_follow(errors, drop, generator)
        assert least <= int(kept.sum()) <= most
        assert kept[1, 0] == kept[0, 1] == kept[2, 2] == 1


def test_what_an_image_does_not_follow_has_no_part_in_the_distance():
    errors = torch.tensor([[4.0, 100.0], [100.0, 16.0]])
    counted = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert float(kernel_distance(errors, counted)) == pytest.approx(10**0.5)
    assert float(kernel_distance(errors)) == pytest.approx(55**0.5)

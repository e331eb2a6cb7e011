"""Masks of whole images from maps of scores, names of their files, and colours."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zoo_lightning.data.segmentation.label_files import IGNORED
from zoo_lightning.data.segmentation.whole_images import (
    areas_of,
    mask_in_image,
    mask_names,
    overlaid,
    palette,
    square_box,
)


def test_scores_are_enlarged_bilinearly_as_torch_does():
    torch.manual_seed(0)
    scores = torch.randn(5, 6, 6)
    wanted = F.interpolate(scores[None], (90, 90), mode="bilinear")[0].argmax(0)
    found = mask_in_image(scores.numpy(), square_box((90, 90)), (90, 90))
    assert (found == wanted.numpy()).mean() > 0.999


def test_the_padding_of_a_square_is_cut_off_again():
    torch.manual_seed(0)
    scores = torch.randn(3, 8, 8)
    wanted = F.interpolate(scores[None], (80, 80), mode="bilinear")[0].argmax(0)[20:60]
    found = mask_in_image(scores.numpy(), square_box((80, 40)), (80, 40))
    assert found.shape == (40, 80)
    assert (found == wanted.numpy()).mean() > 0.999


def test_what_the_map_does_not_cover_has_no_class():
    found = mask_in_image(np.ones((2, 4, 4)), (10, 0, 20, 10), (30, 10))
    assert (found[:, 10:20] == 0).all()
    assert (found[:, :10] == IGNORED).all()
    assert (found[:, 20:] == IGNORED).all()
    assert areas_of(found, 2).tolist() == [pytest.approx(1 / 3), 0]
    assert (mask_in_image(np.ones((2, 4, 4)), (40, 0, 50, 10), (30, 10)) == IGNORED).all()


def test_masks_have_their_images_names_unless_two_would_be_one():
    assert mask_names(["test/images/a.jpg", "test/images/b.c.jpg"]) == ["a.png", "b.c.png"]
    assert mask_names(["a/x.jpg", "b/x.jpg"]) == ["a/x.png", "b/x.png"]
    assert mask_names(["x.jpg", "x.png", "y.png"]) == ["00000-x.png", "00001-x.png", "y.png"]
    assert mask_names(["../x.jpg", "y.png"]) == ["00000-x.png", "y.png"]
    assert mask_names(["/data/x.jpg"]) == ["x.png"]


def test_colours_of_classes_differ_and_the_first_is_left_out_of_overlays():
    colours = palette()
    assert len({tuple(colour) for colour in colours[:40].tolist()}) == 40
    pixels = np.full((1, 3, 3), 100, np.uint8)
    found = overlaid(pixels, np.array([[0, 1, IGNORED]], np.uint8))
    assert found[0, 0].tolist() == [100] * 3
    assert found[0, 1].tolist() == [(100 + int(c)) // 2 for c in colours[1]]

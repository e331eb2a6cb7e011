"""All landmark figures at once: hand-computed, against plain loops, and added up over processes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_lightning.metrics.functional import error_auc
from zoo_lightning.metrics.landmarks import LandmarkErrors

STATES = ("sums", "images", "point_sums", "point_images")


def make_batch(images=11, points=5, subsets=2, seed=0):
    """Arguments of ``update``: errors from near 0 to 0.3, some points and subsets left out."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(images, points, 2, generator=generator) * 100
    spread = torch.linspace(0.5, 9, images).view(-1, 1, 1)
    pred = target + torch.randn(images, points, 2, generator=generator) * spread
    visible = torch.rand(images, points, generator=generator) < 0.7
    visible[:, 0] = True
    return {
        "pred": pred,
        "target": target,
        "distances": {
            "interocular": torch.rand(images, generator=generator) * 20 + 40,
            "box": torch.rand(images, generator=generator) * 40 + 80,
        },
        "visible": visible,
        "subsets": torch.rand(images, subsets, generator=generator) < 0.5,
    }


def rows(batch, part):
    """The images of a slice."""
    return {
        key: {name: each[part] for name, each in value.items()}
        if isinstance(value, dict)
        else value[part]
        for key, value in batch.items()
    }


def by_loop(batch, normalization):
    """NME (N,) in float64, and the sums and counts of each point, by a loop over everything."""
    pred, target, mask = (batch[key].numpy() for key in ("pred", "target", "visible"))
    distance = batch["distances"][normalization].numpy().astype(float)
    errors, of_points = [], [[] for _ in range(pred.shape[1])]
    for i in range(len(pred)):
        lengths = []
        for k in range(pred.shape[1]):
            if mask[i, k]:
                x, y = pred[i, k].astype(float) - target[i, k].astype(float)
                lengths.append((x * x + y * y) ** 0.5 / distance[i])
                of_points[k].append(lengths[-1])
        errors.append(sum(lengths) / len(lengths))
    return np.array(errors), [100 * np.mean(each) if each else np.nan for each in of_points]


def test_values_of_a_hand_computed_example():
    metric = LandmarkErrors(2, "interocular", (0.1, 0.5), ("box", "interocular"), ("easy", "none"))
    metric.update(
        torch.tensor([[[3.0, 4.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 2.0]]]),
        torch.zeros(2, 2, 2),
        {"interocular": torch.tensor([10.0, 20.0]), "box": torch.tensor([20.0, 5.0])},
        visible=torch.tensor([[True, True], [False, True]]),
        subsets=torch.tensor([[False, False], [True, False]]),
    )
    # The images' errors are 0.3 and 0.1 (0.15 and 0.4 of the box).
    values = {name: float(value) for name, value in metric.compute().items()}
    simpson = 1 / 3e3  # of an error at the threshold: the weight of the last grid point
    assert values == {
        "nme": pytest.approx(20),
        "nme_box": pytest.approx(27.5),
        "failure_rate": pytest.approx(50),
        "auc": pytest.approx(simpson / 2, rel=1e-5),
        "failure_rate@0.5": 0,
        "auc@0.5": pytest.approx((0.4 + 0.8) / 2, abs=2e-4),
        "nme/easy": pytest.approx(10),
        "failure_rate/easy": 0,
        "auc/easy": pytest.approx(simpson, rel=1e-5),
    }
    assert metric.point_nme().tolist() == pytest.approx([50, 10])


@given(st.integers(1, 40), st.integers(1, 7), st.integers(0, 3), st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_all_values_equal_plain_loops(images, points, subsets, seed):
    batch = make_batch(images, points, subsets, seed)
    names = [f"part{s}" for s in range(subsets)]
    metric = LandmarkErrors(points, "box", (0.1, 0.08), ("interocular",), names)
    for part in (slice(0, images // 3), slice(images // 3, images)):
        metric.update(**rows(batch, part))
    values = metric.compute()
    nme, of_points = by_loop(batch, "box")
    expected = {"nme": 100 * nme.mean(), "nme_interocular": by_loop(batch, "interocular")[0].mean()}
    expected["nme_interocular"] *= 100
    for end, threshold in (("", 0.1), ("@0.08", 0.08)):
        expected[f"failure_rate{end}"] = 100 * np.mean(nme > threshold)
        expected[f"auc{end}"] = error_auc(torch.from_numpy(nme), threshold)
    for s, name in enumerate(names):
        part = nme[batch["subsets"][:, s].numpy()]
        if len(part):
            expected[f"nme/{name}"] = 100 * part.mean()
            expected[f"failure_rate/{name}"] = 100 * np.mean(part > 0.1)
            expected[f"auc/{name}"] = error_auc(torch.from_numpy(part), 0.1)
    assert set(values) == set(expected)
    for name, value in values.items():
        assert float(value) == pytest.approx(float(expected[name]), rel=1e-5, abs=1e-6), name
    assert metric.point_nme().tolist() == pytest.approx(of_points, rel=1e-5, nan_ok=True)


def test_summed_states_of_two_processes_give_the_values_of_one():
    batch = make_batch()
    whole, first, second = (
        LandmarkErrors(5, "box", (0.1, 0.08), ("interocular",), ("a", "b")) for _ in range(3)
    )
    whole.update(**batch)
    first.update(**rows(batch, slice(0, 3)))
    second.update(**rows(batch, slice(3, 11)))
    for state in STATES:  # what dist_reduce_fx="sum" does
        setattr(first, state, getattr(first, state) + getattr(second, state))
    torch.testing.assert_close(first.compute(), whole.compute())
    torch.testing.assert_close(first.point_nme(), whole.point_nme())
    assert set(whole._defaults) == set(STATES)
    assert all(reduce.__name__ == "dim_zero_sum" for reduce in whole._reductions.values())


def test_a_million_images_lose_no_precision():
    metric = LandmarkErrors(1, "box")
    target = torch.zeros(50_000, 1, 2)
    pred, distances = target + torch.tensor([0.1, 0.0]), {"box": torch.ones(50_000)}
    for _ in range(20):
        metric.update(pred, target, distances)
    assert metric.images.unique().item() == 1_000_000
    assert float(metric.sums[0, 0]) == pytest.approx(1e6 * 100 * float(np.float32(0.1)), rel=1e-12)


def test_a_lost_prediction_is_a_failure_and_stays_in_its_subset():
    batch = make_batch(4)
    batch["pred"][1, 0] = torch.nan
    batch["subsets"] = torch.tensor([[True, False], [False, True], [True, False], [True, True]])
    metric = LandmarkErrors(5, "box", subsets=("clean", "lost"))
    metric.update(**batch)
    values = metric.compute()
    assert values["nme"].isnan()
    assert values["nme/lost"].isnan()
    assert torch.isfinite(values["nme/clean"])
    assert values["failure_rate/lost"] >= 50
    assert torch.isfinite(values["auc"])


def test_points_that_never_count_have_no_error():
    batch = make_batch()
    batch["visible"][:, 3] = False
    metric = LandmarkErrors(5, "box", subsets=("a", "b"))
    metric.update(**batch)
    assert metric.point_nme().isnan().tolist() == [False, False, False, True, False]


def test_neither_mask_nor_subsets_are_needed():
    batch = make_batch()
    metric, masked = LandmarkErrors(5, "box"), LandmarkErrors(5, "box")
    metric.update(batch["pred"], batch["target"], batch["distances"])
    everything = torch.ones(11, 5, dtype=torch.bool)
    masked.update(batch["pred"], batch["target"], batch["distances"], everything)
    assert metric.compute() == masked.compute()
    assert set(metric.compute()) == {"nme", "failure_rate", "auc"}
    empty = rows(batch, slice(0, 0))
    metric.update(empty["pred"], empty["target"], empty["distances"], empty["visible"])
    assert metric.compute() == masked.compute()


def test_a_validation_before_a_fit_does_not_hinder_it():
    batch = make_batch()
    metric, fresh = (LandmarkErrors(5, "box", subsets=("a", "b")) for _ in range(2))
    with torch.inference_mode():
        metric.update(**batch)
    metric.update(**batch)
    fresh.update(**batch)
    assert metric.compute()["nme"] == pytest.approx(float(fresh.compute()["nme"]))
    metric.reset()
    metric.update(**batch)
    assert metric.compute() == fresh.compute()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thresholds": (0.1, 0.0)}, "greater than 0"),
        ({"thresholds": ()}, "At least one threshold"),
        ({"thresholds": (0.1, 0.1)}, "differ"),
        ({"subsets": ("pose", "pose")}, "differ"),
        ({"num_points": 0}, "At least one"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LandmarkErrors(**({"num_points": 5, "normalization": "box"} | options))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distances": {"height": torch.ones(11)}}, "'box'.*present are height"),
        ({"distances": {"box": torch.zeros(11)}}, "'box'.*11 of 11"),
        ({"subsets": None}, r"\(11, 2\)"),
        ({"subsets": torch.ones(11, 3)}, r"\(11, 3\)"),
        ({"pred": torch.zeros(11, 4, 2)}, r"\(B, 5, 2\)"),
        ({"visible": torch.zeros(11, 5, dtype=torch.bool)}, "11 of 11 images have no point"),
    ],
)
def test_batches_that_make_no_sense_are_refused(change, message):
    metric = LandmarkErrors(5, "box", subsets=("a", "b"))
    with pytest.raises(ValueError, match=message):
        metric.update(**(make_batch() | change))


def test_faces_without_a_distance_are_left_out_of_what_is_divided_by_it():
    batch = make_batch(12)
    batch["subsets"][:, 0] = torch.arange(12) % 4 == 0  # all of them lack the distance
    lacking = torch.arange(12) % 2 == 0
    batch["distances"]["interocular"][lacking] = torch.nan
    thresholds = (0.1, 0.05)
    options = {"also": ["box"], "subsets": ["a", "b"], "thresholds": thresholds}
    whole = LandmarkErrors(5, "interocular", **options)
    for part in (
        slice(0, 5),
        slice(5, 6),
        slice(6, 7),
        slice(7, 12),
    ):  # some batches wholly lack it
        whole.update(**rows(batch, part))
    others = LandmarkErrors(5, "interocular", **options)
    others.update(**rows(batch, ~lacking))
    found, expected = whole.compute(), others.compute()
    boxes = by_loop(batch, "box")[0]
    assert float(found.pop("nme_box")) == pytest.approx(100 * boxes.mean())
    expected.pop("nme_box")
    assert found.keys() == expected.keys()
    assert "nme/a" not in found
    for name, value in found.items():
        assert float(value) == pytest.approx(float(expected[name])), name
    assert torch.allclose(whole.point_nme(), others.point_nme(), equal_nan=True)
    for wrong in (0.0, -1.0, float("inf")):  # which is no face that lacks points
        batch["distances"]["interocular"][3] = wrong
        with pytest.raises(ValueError, match="'interocular'"):
            whole.update(**batch)

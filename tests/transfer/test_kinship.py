"""Which networks descend from which: relations of made-up weights and of the shipped sources."""

import pytest
import torch

from zoo_lightning.sources.files import read_file
from zoo_lightning.sources.shipped import shipped_path
from zoo_lightning.transfer.kinship import kin_of


def network(seed):
    """Weights of a network of three layers."""
    generator = torch.Generator().manual_seed(seed)
    return {f"{n}.weight": torch.randn(16, 8, 3, 3, generator=generator) for n in range(3)}


def descendant(ancestor, seed, distance=0.3, batches=0):
    """Weights that were moved in a random direction."""
    moved = {
        key: tensor + distance * network(seed)[key]
        for key, tensor in ancestor.items()
        if key.endswith("weight")
    }
    return moved | ({"0.num_batches_tracked": torch.tensor(batches)} if batches else {})


def parents(kin):
    return {each.name: each.parents for each in kin.descents}


def test_the_ancestor_is_the_one_from_which_the_others_differ_independently():
    ancestor = network(0)
    states = {f"child{n}": descendant(ancestor, n) for n in (1, 2, 3)} | {"ancestor": ancestor}
    kin = kin_of(states)
    assert {pair.relation for pair in kin.pairs} == {"relatives"}
    assert parents(kin) == {
        "ancestor": [], "child1": ["ancestor"], "child2": ["ancestor"], "child3": ["ancestor"]
    }  # fmt: skip
    assert "the ancestor" in kin.descents[-1].remark


def test_without_the_ancestor_it_is_said_to_be_absent():
    kin = kin_of({f"child{n}": descendant(network(0), n) for n in (1, 2, 3)})
    assert set(map(tuple, parents(kin).values())) == {()}
    assert all("not here" in each.remark for each in kin.descents)


def test_of_two_the_one_with_fewer_batches_is_the_ancestor():
    ancestor = network(0) | {"0.num_batches_tracked": torch.tensor(100)}
    kin = kin_of({"child": descendant(ancestor, 1, batches=150), "ancestor": ancestor})
    assert parents(kin) == {"child": ["ancestor"], "ancestor": []}


def test_of_two_without_counters_nothing_tells_the_ancestor():
    ancestor = network(0)
    kin = kin_of({"a": descendant(ancestor, 1), "b": ancestor})
    assert parents(kin) == {"a": [], "b": []}
    assert all("nothing tells" in each.remark for each in kin.descents)


def test_a_descendant_of_a_descendant_has_the_nearer_parent():
    first = network(0) | {"0.num_batches_tracked": torch.tensor(100)}
    second = descendant(first, 1, batches=200)
    states = {
        "first": first,
        "second": second,
        "third": descendant(second, 2, batches=300),
        "other": descendant(first, 3, batches=250),
    }
    assert parents(kin_of(states)) == {
        "first": [], "second": ["first"], "third": ["second"], "other": ["first"]
    }  # fmt: skip


def test_strangers_have_no_descent():
    kin = kin_of({"a": network(0), "b": network(1)})
    assert [(pair.relation, pair.equal) for pair in kin.pairs] == [("strangers", 0)]
    assert kin.descents == []


def test_the_scale_of_a_kernel_changes_nothing():
    ancestor = network(0)
    scaled = {key: 7 * tensor for key, tensor in ancestor.items()}
    [pair] = kin_of({"a": ancestor, "b": scaled}).pairs
    assert pair.cosine == pytest.approx(1)
    assert (pair.equal, pair.kernels) == (0, 3)


def test_a_copy_is_named_and_disturbs_nothing():
    ancestor = network(0)
    states = {"ancestor": ancestor, "copy": dict(ancestor)}
    states |= {f"child{n}": descendant(ancestor, n) for n in (1, 2, 3)}
    kin = kin_of(states)
    assert parents(kin)["child1"] == ["ancestor"]
    assert kin.descents[1].remark == "the same kernels as ancestor"


def test_frozen_layers_are_counted():
    ancestor = network(0)
    child = descendant(ancestor, 1) | {"0.weight": ancestor["0.weight"]}
    assert kin_of({"a": ancestor, "b": child}).pairs[0].equal == 1


def test_the_shipped_sources_descend_as_their_cards_say():
    names = ("counting", "faces5", "rotation", "segmentation", "tiny-imagenet50")
    kin = kin_of({name: read_file(shipped_path(name)) for name in names})
    assert parents(kin) == {
        "counting": ["tiny-imagenet50"],
        "segmentation": ["tiny-imagenet50"],
        "tiny-imagenet50": [],
    }

"""How many images or games the figures of a test stand for."""

from types import SimpleNamespace

import torch

from zoo_lightning.callbacks.sample_count import SampleCount


def counted(batches, **data):
    """Counts after a test of batches, pairs of outputs and inputs."""
    count = SampleCount()
    trainer = SimpleNamespace(datamodule=SimpleNamespace(**data))
    for _ in range(2):  # a second test begins its count at 0
        count.on_test_epoch_start(trainer, None)
        for outputs, batch in batches:
            count.on_test_batch_end(trainer, None, outputs, batch, 0)
        count.on_test_epoch_end(trainer, None)
    return count.counts


def test_images_are_counted_as_they_come():
    batches = [({}, {"image": torch.zeros(n, 3, 2, 2)}) for n in (4, 4, 1)]
    assert counted(batches) == {"test_images": 9}


def test_images_of_subsets_are_counted_and_empty_ones_left_out():
    members = [[True, False, False], [True, True, False]]
    batch = {"image": torch.zeros(2, 3, 2, 2), "subsets": torch.tensor(members)}
    found = counted([({}, batch)], subset_names=("common", "challenge", "none"))
    assert found == {"test_images": 2, "test_images/common": 2, "test_images/challenge": 1}


def test_games_are_counted_in_the_tests_result():
    assert counted([({"scores": torch.zeros(5)}, None)]) == {"test_games": 5}
    assert counted([(None, None)]) == {}

"""Order and randomness depend on seed and position alone; ranks share without a remainder."""

import multiprocessing
import os
import signal
import time
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from zoo_lightning.data.loading import (
    BalancedSampler,
    ImageDataModule,
    ResumableLoader,
    ShuffledSampler,
    SignalsToParent,
    StridedSampler,
    sample_generator,
)
from zoo_lightning.errors import ConfigError, DataError


class Numbers(Dataset):
    """Samples that say which they are, with a random number of their own."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, position):
        epoch, index = position if isinstance(position, tuple) else (0, position)
        noise = torch.rand((), generator=sample_generator(7, epoch, index))
        return {"image": torch.full((3, 2, 2), index, dtype=torch.uint8), "index": index,
                "epoch": epoch, "noise": noise}  # fmt: skip


class NumbersModule(ImageDataModule):
    """Data module of numbers; rank and world size are given."""

    def __init__(self, size=10, batch_size=4, num_workers=0, seed=0, rank=0, world_size=1) -> None:
        super().__init__(2, batch_size, num_workers, seed)
        self.train_set = self.val_set = self.test_set = Numbers(size)
        self.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)


def batches(loader, epochs=1) -> list[list[int]]:
    """Indices of each batch."""
    return [batch["index"].tolist() for _ in range(epochs) for batch in loader]


def flat(lists: list[list[int]]) -> list[int]:
    """All indices in order."""
    return [index for each in lists for index in each]


def joint(ranks: list[list[list[int]]]) -> list[set[int]]:
    """Samples of each step over all ranks."""
    return [set().union(*step) for step in zip(*ranks, strict=True)]


def test_order_and_random_numbers_do_not_depend_on_the_workers():
    def seen(workers):
        loader = NumbersModule(num_workers=workers).train_dataloader()
        return [
            (batch["epoch"].tolist(), batch["index"].tolist(), batch["noise"].tolist())
            for _ in range(3)
            for batch in loader
        ]

    assert seen(0) == seen(1) == seen(2)


def test_every_epoch_has_an_order_and_random_numbers_of_its_own():
    loader = NumbersModule(8, 4).train_dataloader()
    first, second = batches(loader), batches(loader)
    assert first != second
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(8))
    noises = {sample_generator(s, e, i).initial_seed()
              for s in range(5) for e in range(-1, 20) for i in range(-3, 50)}  # fmt: skip
    assert len(noises) == 5 * 21 * 53


def test_the_seed_decides_the_order():
    orders = [batches(NumbersModule(8, 4, seed=seed).train_dataloader()) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("done", [0, 1, 2, 3, 4, 7])
def test_a_loader_goes_on_with_the_batch_that_would_have_come_next(done, workers):
    straight = batches(NumbersModule(14).train_dataloader(), epochs=4)  # three batches an epoch
    stopped = NumbersModule(14, num_workers=workers).train_dataloader()
    taken = []
    while len(taken) < done:
        for batch in stopped:
            taken.append(batch["index"].tolist())
            if len(taken) == done:
                break
    resumed = NumbersModule(14, num_workers=workers).train_dataloader()
    resumed.load_state_dict(stopped.state_dict())
    while len(taken) < len(straight):
        taken += batches(resumed)
    assert taken == straight


def test_the_position_counts_the_batches_that_were_delivered():
    loader = NumbersModule(12, 4).train_dataloader()
    assert loader.state_dict() == {"position": 0}
    batches(loader)
    assert loader.state_dict() == {"position": 3}
    iterator = iter(loader)
    next(iterator)
    next(iterator)
    assert loader.state_dict() == {"position": 5}


def test_the_incomplete_last_batch_is_dropped_and_another_one_each_epoch():
    loader = NumbersModule(10, 4).train_dataloader()
    assert len(loader) == 2
    left_out = set()
    for _ in range(6):
        epoch = batches(loader)
        assert [len(batch) for batch in epoch] == [4, 4]
        left_out |= set(range(10)) - set(flat(epoch))
    assert len(left_out) > 4


@pytest.mark.parametrize(("size", "expected"), [(1, 1), (3, 3), (4, 4), (5, 4)])
def test_a_small_data_set_is_one_batch_an_epoch(size, expected):
    loader = NumbersModule(size, 4).train_dataloader()
    assert [len(batch) for batch in batches(loader, epochs=2)] == [expected, expected]


@pytest.mark.parametrize("world_size", [2, 3])
def test_many_processes_see_in_each_step_what_one_sees_with_the_joint_batch(world_size):
    size, share = 50, 4
    one = NumbersModule(size, share * world_size).train_dataloader()
    ranks = [
        batches(NumbersModule(size, share, 0, 0, rank, world_size).train_dataloader(), epochs=3)
        for rank in range(world_size)
    ]
    assert joint(ranks) == [set(batch) for batch in batches(one, epochs=3)]
    assert all(len(batch) == share for rank in ranks for batch in rank)


def test_ranks_of_a_small_data_set_have_equal_shares():
    ranks = [NumbersModule(7, 4, 0, 0, rank, 3).train_dataloader() for rank in range(3)]
    steps = [batches(loader, epochs=4) for loader in ranks]
    assert all(len(step) == 6 for step in joint(steps))


def test_fewer_samples_than_processes_are_refused():
    with pytest.raises(DataError, match="1 training images are fewer than the 2 processes"):
        NumbersModule(1, 4, 0, 0, 0, 2).train_dataloader()


@pytest.mark.parametrize(("size", "world_size"), [(10, 1), (10, 3), (2, 4)])
def test_in_evaluation_every_sample_is_seen_exactly_once(size, world_size):
    seen = []
    for rank in range(world_size):
        seen += NumbersModule(size, 4, 0, 0, rank, world_size).val_dataloader()
    indices = [index for batch in seen for index in batch["index"].tolist()]
    assert sorted(indices) == list(range(size))
    assert list(StridedSampler(5)) == [0, 1, 2, 3, 4]
    assert len(StridedSampler(10, 1, 3)) == len(list(StridedSampler(10, 1, 3))) == 3


def test_a_sampler_set_to_an_epoch_by_the_trainer_keeps_its_position():
    sampler = ShuffledSampler(8, 4, 0)
    sampler.position = 3
    before = list(sampler)
    sampler.set_epoch(99)
    assert list(sampler) == before
    assert {epoch for epoch, _ in before} == {1}
    assert len(before) == 4


LABELS = [0] * 50 + [1] * 13 + [2] * 3


def test_a_balanced_epoch_draws_every_class_equally_often():
    sampler = BalancedSampler(LABELS, 6, 0)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == 66
    assert Counter(LABELS[index] for _, index in drawn) == {0: 22, 1: 22, 2: 22}
    for start in range(0, 66, 3):  # also within a batch
        assert {LABELS[index] for _, index in drawn[start : start + 3]} == {0, 1, 2}


def test_a_balanced_class_is_gone_through_before_a_sample_comes_again_augmented_anew():
    sampler = BalancedSampler(LABELS, 6, 0)
    drawn = []
    for epoch in range(5):
        sampler.position = epoch * sampler.batches_per_epoch
        drawn += list(sampler)
    assert len(set(drawn)) == len(drawn)  # no sample with the same random numbers twice
    common = [index for _, index in drawn if LABELS[index] == 0]
    assert set(common[:50]) == set(range(50))
    rare = [index for _, index in drawn if LABELS[index] == 2]
    for start in range(0, 90, 3):
        assert set(rare[start : start + 3]) == {63, 64, 65}
    assert len({tuple(rare[start : start + 3]) for start in range(0, 90, 3)}) > 1


def test_balanced_samples_depend_on_seed_and_position_alone():
    first, other, resumed = (BalancedSampler(LABELS, 4, seed) for seed in (3, 4, 3))
    assert list(first) != list(other)
    resumed.position = first.batches_per_epoch + 7
    first.position = first.batches_per_epoch
    assert list(resumed) == list(first)[7 * 4 :]


def test_processes_share_the_balanced_samples_of_one():
    alone = list(BalancedSampler(LABELS, 6, 0))
    ranks = [list(BalancedSampler(LABELS, 2, 0, rank, 3)) for rank in range(3)]
    assert [each for step in zip(*ranks, strict=True) for each in step] == alone


def test_images_are_normalised_on_the_device():
    module = NumbersModule()
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    found = module.on_after_batch_transfer({"image": images, "label": 1}, 0)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (module.mean, module.std))
    torch.testing.assert_close(found["image"] * std + mean, images / 255)
    assert found["label"] == 1
    assert module.on_after_batch_transfer(found, 0)["image"] is found["image"]


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"num_workers": -1}], ids=["batch size", "workers"]
)
def test_numbers_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        NumbersModule(**options)


def test_the_loader_is_one_that_lightning_saves():
    loader = NumbersModule().train_dataloader()
    assert isinstance(loader, ResumableLoader)
    assert callable(loader.state_dict)
    assert callable(loader.load_state_dict)


def keep_a_loader_until_the_end() -> None:
    """As the traceback of an error does that refers to itself."""
    iterator = iter(DataLoader(Numbers(9), num_workers=1, worker_init_fn=SignalsToParent()))
    next(iterator)
    (loader,) = multiprocessing.active_children()
    os.kill(loader.pid, signal.SIGTERM)
    time.sleep(0.2)
    for _ in range(7):  # more than were loaded ahead: it is still there
        next(iterator)
    kept = [iterator]
    kept.append(kept)


def test_a_loader_outlives_signals_but_not_its_process():
    process = multiprocessing.get_context("fork").Process(target=keep_a_loader_until_the_end)
    process.start()
    process.join(60)
    ended, status = not process.is_alive(), process.exitcode
    process.kill()
    assert ended
    assert status == 0

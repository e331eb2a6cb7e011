"""The bundled data: what is in them, and that they can be drawn again."""

import numpy as np

from zoo_lightning.data.classification import draw_fashion_mnist
from zoo_lightning.data.classification.fashion_mnist import BUNDLED, FashionMNISTSubset


def test_the_bundled_data_are_small_stratified_and_free_of_pickles():
    assert BUNDLED.stat().st_size < 5e6
    with np.load(BUNDLED, allow_pickle=False) as file:
        assert file["train_images"].shape == (6000, 28, 28)
        assert file["test_images"].dtype == np.uint8
        assert np.bincount(file["train_labels"]).tolist() == [600] * 10
        assert np.bincount(file["test_labels"]).tolist() == [200] * 10
    notice = (BUNDLED.parent / "NOTICE.txt").read_text()
    assert "Zalando SE" in notice
    assert "seed 0" in notice


def test_the_module_splits_every_class_and_gives_images():
    module = FashionMNISTSubset(batch_size=8, num_workers=0)
    module.setup("fit")
    module.setup("test")
    sizes = [len(each) for each in (module.train_set, module.val_set, module.test_set)]
    assert sizes == [5400, 600, 2000]
    assert module.num_classes == 10
    batch = next(iter(module.train_dataloader()))
    assert batch["image"].shape == (8, 3, 32, 32)
    assert (batch["image"][:, 0] == batch["image"][:, 1]).float().mean() > 0.9  # grey


def test_the_same_seed_draws_the_same_images(tmp_path, monkeypatch, class_files):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(draw_fashion_mnist, "PER_CLASS", {"train": 2, "test": 1})
    for part in ("train", "t10k"):
        labels = np.repeat(np.arange(10, dtype=np.uint8), 5)
        class_files.write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", labels)
        images = rng.integers(0, 255, (50, 4, 4), dtype=np.uint8)
        class_files.write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", images)
    first, second, other = (draw_fashion_mnist.draw(tmp_path, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert not np.array_equal(first["train_images"], other["train_images"])
    assert np.bincount(first["train_labels"]).tolist() == [2] * 10

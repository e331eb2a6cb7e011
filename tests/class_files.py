"""Small files in the layouts of published data sets, for tests."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
from PIL import Image


def picture(path: Path, rng: np.random.Generator, side: int = 24) -> None:
    """An image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(path)


def write_idx(path: Path, array: np.ndarray) -> None:
    """A gzipped idx file of unsigned bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


def write_fashion_mnist(root: Path, rng: np.random.Generator, per_class: int = 3) -> None:
    """FashionMNIST, unzipped and zipped."""
    for part in ("train", "t10k"):
        labels = np.repeat(np.arange(10, dtype=np.uint8), per_class)
        images = rng.integers(0, 255, (len(labels), 28, 28), dtype=np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            file = root / "FashionMNIST" / "raw" / f"{part}-{kind}-ubyte"
            write_idx(file.with_name(f"{file.name}.gz"), array)
            file.write_bytes(gzip.decompress(file.with_name(f"{file.name}.gz").read_bytes()))


def write_cifar100(root: Path, rng: np.random.Generator) -> None:
    """CIFAR-100 as pickles, three images of a class; torchvision's checksums do not fit."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    labels = list(range(100)) * 3
    pixels = rng.integers(0, 255, (len(labels), 3072), dtype=np.uint8)
    for part in ("train", "test"):
        (folder / part).write_bytes(pickle.dumps({"data": pixels, "fine_labels": labels}))
    names = [f"class{i}" for i in range(100)]
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": names}))


def write_eurosat(root: Path, rng: np.random.Generator, per_class: int = 5) -> None:
    """EuroSAT, ten folders."""
    for label in range(10):
        for index in range(per_class):
            picture(root / "eurosat" / "2750" / f"Class{label}" / f"{index}.jpg", rng)


def write_aircraft(root: Path, rng: np.random.Generator) -> None:
    """FGVC-Aircraft, 100 variants, two images of each to train on and one to test."""
    folder = root / "fgvc-aircraft-2013b" / "data"
    names = [f"Variant {i}" for i in range(100)]
    (folder / "images").mkdir(parents=True)
    (folder / "variants.txt").write_text("\n".join(names) + "\n")
    number = 0
    for part, each in (("train", 2), ("val", 1), ("trainval", 2), ("test", 1)):
        lines = []
        for name in names * each:
            picture(folder / "images" / f"{number:07d}.jpg", rng, 8)
            lines.append(f"{number:07d} {name}")
            number += 1
        (folder / f"images_variant_{part}.txt").write_text("\n".join(lines) + "\n")


def write_cars(root: Path, rng: np.random.Generator) -> None:
    """Stanford Cars, 196 classes, two images of each to train on and one to test; needs scipy."""
    from scipy.io import savemat

    folder = root / "stanford_cars"
    names = np.array([f"Car {i}" for i in range(196)], dtype=object)
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    kinds = [("class", "i4"), ("fname", "O")]
    for part, each, file in (
        ("train", 2, "devkit/cars_train_annos.mat"),
        ("test", 1, "cars_test_annos_withlabels.mat"),
    ):
        rows = np.zeros(196 * each, dtype=kinds)
        for index in range(len(rows)):
            rows[index] = (index % 196 + 1, f"{index:05d}.jpg")
            picture(folder / f"cars_{part}" / f"{index:05d}.jpg", rng, 8)
        savemat(folder / file, {"annotations": rows})


def write_dtd(root: Path, rng: np.random.Generator) -> None:
    """DTD, 47 classes, one image of each in each part."""
    folder = root / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    for part in ("train", "val", "test"):
        names = [f"class{i:02d}/{part}.jpg" for i in range(47)]
        (folder / "labels" / f"{part}1.txt").write_text("\n".join(names) + "\n")
        for name in names:
            picture(folder / "images" / name, rng, 8)


def write_lists(root: Path, rng: np.random.Generator, options: dict) -> None:
    """Both lists that the options of ``ListFiles`` name, labelled or not, and their images."""
    labelled = not options.get("images")
    for part, each in (("train", 4), ("test", 2)):
        lines = []
        for label, name in enumerate(("airport", "bakery", "closet")):
            for index in range(each):
                path = f"{f'{part}/' if labelled else ''}{name}/{part}{index}.jpg"
                picture(root / options.get("images", "") / path, rng)
                lines.append(f"{path} {label}" if labelled else path)
        (root / options.get(f"{part}_list", f"{part}.txt")).write_text("\n".join(lines) + "\n")

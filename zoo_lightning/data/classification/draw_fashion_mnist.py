"""Draw the subset of Fashion-MNIST that is shipped.

``python -m zoo_lightning.data.classification.draw_fashion_mnist FOLDER``

Reads the four files as published (``train-images-idx3-ubyte.gz``, ...), which the Debian package
``dataset-fashion-mnist`` has in ``/usr/share/datasets/fashion-mnist``. The same seed gives the same
file, bit for bit where zlib is the same.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from zoo_lightning.data.classification.fashion_mnist import BUNDLED, CLASSES
from zoo_lightning.experiments.option_names import CommandParser

PER_CLASS = {"train": 600, "test": 200}


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped idx file of unsigned bytes, in the shape that its header states."""
    data = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4).astype(int)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def draw(folder: Path, seed: int) -> dict[str, np.ndarray]:
    """Draw training and test images, equally many per class, in the files' order.

    Args:
        folder: folder of the published files.
        seed: seed of the random choice of images.
    """
    rng = np.random.default_rng(seed)
    arrays = {}
    for part, files in (("train", "train"), ("test", "t10k")):
        images = read_idx(folder / f"{files}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{files}-labels-idx1-ubyte.gz")
        chosen = np.sort(
            np.concatenate(
                [
                    rng.choice(np.flatnonzero(labels == label), PER_CLASS[part], replace=False)
                    for label in range(len(CLASSES))
                ]
            )
        )
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = images[chosen], labels[chosen]
    return arrays


def main() -> None:
    """Draw the shipped subset of Fashion-MNIST and write it as an .npz file."""
    parser = CommandParser(
        "draw_fashion_mnist",
        {"--out": "--output"},
        prog="python -m zoo_lightning.data.classification.draw_fashion_mnist",
        description=main.__doc__,
    )
    parser.add_argument("folder", type=Path, help="folder of the four .gz files")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default: 0)")
    parser.add_argument(
        "--output", type=Path, default=BUNDLED, help="file to write (default: the package's)"
    )
    options = parser.parse_args()
    options.output.parent.mkdir(exist_ok=True)
    arrays = draw(options.folder, options.seed)
    # NumPy's stub takes every keyword for `allow_pickle`.
    np.savez_compressed(options.output, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()

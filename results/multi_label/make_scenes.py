"""Write scenes of several labels: 2x2 photographs of CIFAR-10, whose classes are the labels.

``python make_scenes.py PHOTOGRAPHS FOLDER`` reads ``PHOTOGRAPHS/{train,test}/CLASS/*`` and writes
``FOLDER/train.csv`` and ``test.csv`` (``image,labels``) and ``FOLDER/images``. Photographs are
drawn in random order, each again only when all have been: no two training scenes share one, so
that those split off for validation are new.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 32
SCENES = {"train": 1500, "test": 1000}


def main(photographs: Path, folder: Path) -> None:
    """Write the scenes of both parts."""
    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for part, count in SCENES.items():
        files = sorted(each for each in (photographs / part).glob("*/*") if each.is_file())
        with (folder / f"{part}.csv").open("w", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(["image", "labels"])
            order: list[int] = []
            for number in range(count):
                if len(order) < 4:
                    order = generator.permutation(len(files)).tolist()
                four = [files[order.pop()] for _ in range(4)]
                scene = Image.new("RGB", (2 * SIDE, 2 * SIDE))
                for place, file in enumerate(four):
                    with Image.open(file) as photograph:
                        piece = photograph.convert("RGB").resize((SIDE, SIDE))
                    scene.paste(piece, (SIDE * (place % 2), SIDE * (place // 2)))
                name = f"{part}_{number:04d}.png"
                scene.save(folder / "images" / name)
                table.writerow([name, ";".join(sorted({each.parent.name for each in four}))])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

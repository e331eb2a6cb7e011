"""Write scenes of several labels: 2x2 photographs of CIFAR-10, whose classes are the labels.

``python make_scenes.py PHOTOGRAPHS FOLDER`` reads ``PHOTOGRAPHS/{train,test}/CLASS/*`` and writes
``FOLDER/train.csv`` and ``test.csv`` (``image,labels``) and ``FOLDER/images``. Photographs of the
training scenes are those of the training part, each scene's four drawn at random.
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
            for number in range(count):
                four = [files[i] for i in generator.choice(len(files), 4, replace=False)]
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

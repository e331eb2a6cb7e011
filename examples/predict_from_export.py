"""Export a trained run to ONNX or timm's layout, and predict images with the exported model.

python examples/predict_from_export.py RUN_DIR photos/*.jpg --output exported
"""

from __future__ import annotations

import argparse
from pathlib import Path

from zoo_lightning import Predictor, export


def main() -> None:
    """Export, then print a line for each image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("images", nargs="+", help="image files")
    parser.add_argument("--output", type=Path, default=Path("exported"))
    parser.add_argument("--format", choices=("onnx", "timm"), default="onnx")
    options = parser.parse_args()

    folder = export(options.run, options.format, options.output)
    for found in Predictor(folder, num_workers=0)(options.images):
        if found.problem:
            print(found.item.name, "cannot be read:", found.problem)
        elif found.probabilities is not None:
            print(found.item.name, "class", found.probabilities.argmax())
        else:
            print(found.item.name, "first point", found.points[0].round(1))


if __name__ == "__main__":
    main()

"""``Predictor``: a trained model that takes image files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from zoo_lightning.data.images import transform_points
from zoo_lightning.errors import ConfigError
from zoo_lightning.predicting.inputs import Item, Prepared, batches, normalise
from zoo_lightning.predicting.models import Opened, open_model


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image, or of one face in it.

    Attributes:
        item: which image.
        probabilities: of the classes, ``(C,)`` float64 summing to 1; ``None`` for points.
        points: ``(K, 2)`` float64 x and y in pixels of the image, turned as EXIF says; ``None`` for
            classes.
        problem: why there is neither: the image cannot be used.
    """

    item: Item
    probabilities: np.ndarray | None = None
    points: np.ndarray | None = None
    problem: str = ""


class Predictor:
    """Classes or landmarks of image files.

    Args:
        model: a run's folder, a checkpoint, an exported folder or an ONNX file.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        batch_size: images at a time.
        num_workers: processes that read images; 0 reads in this one.
        whole_images: take each image without a box for one face's box.

    Attributes:
        manifest: what the model is for.

    Raises:
        ConfigError: no such model, or one for something else.
    """

    def __init__(
        self,
        model: str | Path | Opened,
        device: str = "auto",
        batch_size: int = 32,
        num_workers: int = 0,
        whole_images: bool = False,
    ) -> None:
        opened = model if isinstance(model, Opened) else open_model(model, device)
        self.manifest, self.run = opened
        self.batch_size, self.num_workers = batch_size, num_workers
        self.whole_images = whole_images
        if self.manifest.task not in ("classification", "landmarks"):
            raise ConfigError(
                f"predictions for images are of classes or landmarks; {model} is a model for "
                f"{self.manifest.task}"
            )

    def __call__(self, images: Iterable[str | Path | Item]) -> Iterator[Prediction]:
        """Predict for images, in their order, reading them as they are needed.

        Args:
            images: files, or items with the boxes of faces.

        Raises:
            ConfigError: the model looks at faces and an image has no box.
        """
        items = [i if isinstance(i, Item) else Item(Path(i), str(i)) for i in images]
        self.check_boxes(items)
        given = self.manifest.input
        for batch in batches(items, given, self.batch_size, self.num_workers):
            yield from self._predict(batch)

    def check_boxes(self, items: Sequence[Item]) -> None:
        """Refuse whole images where the model was trained on faces cut out of them.

        Raises:
            ConfigError: so it is.
        """
        faces = self.manifest.input["preprocessing"].get("around") == "face"
        if faces and not self.whole_images and any(item.box is None for item in items):
            raise ConfigError(
                "the model was trained on faces cut out by their boxes; give --boxes FILE "
                "(image,x0,y0,x1,y1), or --boxes image if every image is one face's box"
            )

    def _predict(self, batch: Sequence[Prepared]) -> Iterator[Prediction]:
        usable = [each for each in batch if each.pixels is not None]
        outputs: Iterator[torch.Tensor] = iter(())
        if usable:
            pixels = torch.cat([each.pixels for each in usable])
            found = self.run(normalise(pixels, self.manifest.input))[0].double()
            # Crops of an image are averaged, as the task's test does.
            outputs = iter(found.unflatten(0, (len(usable), -1)).mean(dim=1))
        for each in batch:
            if each.pixels is None:
                yield Prediction(each.item, problem=each.problem)
            elif self.manifest.task == "classification":
                yield Prediction(each.item, next(outputs).softmax(dim=-1).numpy())
            else:
                inside = next(outputs).numpy() * self.manifest.input["size"][-1]
                yield Prediction(each.item, points=transform_points(inside, each.to_original))

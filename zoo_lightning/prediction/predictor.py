"""``Predictor``: predictions of a trained model for image files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from zoo_lightning.data.images import transform_points
from zoo_lightning.data.segmentation.whole_images import mask_in_image
from zoo_lightning.data.values import find_value_range, parse_value_range, warn_of_clipping
from zoo_lightning.errors import ConfigError
from zoo_lightning.prediction.inputs import Item, Prepared, batches, normalise
from zoo_lightning.prediction.models import OpenedModel, open_model


@dataclass(frozen=True)
class Prediction:
    """Prediction for an image, or for one face in it.

    Attributes:
        item: image, or face in it.
        probabilities: probabilities of the classes ``(C,)`` float64, which sum to 1, or of the
            labels of a multi-label model, each in [0, 1]; ``None`` for other tasks.
        points: x and y of each landmark ``(K, 2)`` float64, in pixels of the image, turned as its
            EXIF data specify; ``None`` for other tasks.
        numbers: numbers ``(T,)`` float64 in the training data's units; ``None`` for other tasks.
        mask: class of every pixel ``(H, W)`` uint8 of the image, turned as its EXIF data specify,
            255 outside of what the model saw; ``None`` for other tasks.
        problem: reason why the image cannot be used and has no prediction; else empty.
    """

    item: Item
    probabilities: np.ndarray | None = None
    points: np.ndarray | None = None
    numbers: np.ndarray | None = None
    mask: np.ndarray | None = None
    problem: str = ""


class Predictor:
    """Predict classes, labels, landmarks, numbers or masks for image files.

    Args:
        model: folder of a run, checkpoint, exported folder, ONNX file, or opened model.
        device: device to run on: ``auto``, ``cpu``, ``cuda`` or ``mps``; an opened model keeps its
            own.
        batch_size: number of images in a batch.
        num_workers: number of processes that read images; 0 reads in this one.
        whole_images: whether to take each image without a box as the box of one face.

    Attributes:
        manifest: description of the model's inputs and outputs.

    Raises:
        ConfigError: the model does not exist, is for another task, or cannot run on the device.
    """

    def __init__(
        self,
        model: str | Path | OpenedModel,
        device: str = "auto",
        batch_size: int = 32,
        num_workers: int = 0,
        whole_images: bool = False,
    ) -> None:
        opened = model if isinstance(model, OpenedModel) else open_model(model, device)
        self.manifest, self.run = opened
        self.batch_size, self.num_workers = batch_size, num_workers
        self.whole_images = whole_images
        if self.manifest.task == "policy":
            raise ConfigError(
                "a Predictor needs a model for classification, labels, landmarks, regression or "
                f"segmentation, got {model}, a model for {self.manifest.task}"
            )

    def __call__(self, images: Iterable[str | Path | Item]) -> Iterator[Prediction]:
        """Yield predictions for images in order, reading them as they are needed.

        Args:
            images: image files, or items with boxes of faces.

        Raises:
            ConfigError: the model was trained on faces cut out by boxes, and an image has no box.
        """
        items = [i if isinstance(i, Item) else Item(Path(i), str(i)) for i in images]
        self.check_boxes(items)
        given = self.manifest.input
        files, said = [item.path for item in items], "images to predict for"
        if "bands" in given:  # which are not clipped
            pass
        elif values := parse_value_range(given.get("value_range")):
            warn_of_clipping(files, values, said)
        else:  # trained on 8 bits
            given = given | {"value_range": find_value_range(files, said)}
        for batch in batches(items, given, self.batch_size, self.num_workers):
            yield from self._predict(batch)

    def check_boxes(self, items: Sequence[Item]) -> None:
        """Check that images have boxes if the model was trained on faces cut out by boxes.

        Raises:
            ConfigError: an image has no box.
        """
        faces = self.manifest.input["preprocessing"].get("around") == "face"
        if faces and not self.whole_images and any(item.box is None for item in items):
            raise ConfigError(
                "the model was trained on faces cut out by their boxes; give --boxes FILE "
                "(image,x0,y0,x1,y1), or --boxes image if every image is one face's box"
            )

    def _predict(self, batch: Sequence[Prepared]) -> Iterator[Prediction]:
        usable = [each.pixels for each in batch if each.pixels is not None]
        outputs: Iterator[torch.Tensor] = iter(())
        if usable:
            found = self.run(normalise(torch.cat(usable), self.manifest.input))[0].double()
            # Crops of an image are averaged, as the task's test does.
            outputs = iter(found.unflatten(0, (len(usable), -1)).mean(dim=1))
        for each in batch:
            if each.pixels is None:
                yield Prediction(each.item, problem=each.problem)
            elif self.manifest.task == "regression":
                yield Prediction(each.item, numbers=next(outputs).numpy())
            elif self.manifest.task == "segmentation":
                yield Prediction(each.item, mask=self._mask(next(outputs).numpy(), each))
            elif self.manifest.task == "multi-label":
                yield Prediction(each.item, next(outputs).sigmoid().numpy())
            elif self.manifest.task == "classification":
                yield Prediction(each.item, next(outputs).softmax(dim=-1).numpy())
            else:
                assert each.to_original is not None  # squares only
                inside = next(outputs).numpy() * self.manifest.input["size"][-1]
                yield Prediction(each.item, points=transform_points(inside, each.to_original))

    def _mask(self, scores: np.ndarray, each: Prepared) -> np.ndarray:
        """Mask of an image's own size from scores ``(C, h, w)``."""
        if each.to_original is None:
            raise ConfigError("a model for segmentation must see one crop of an image, not several")
        side = self.manifest.input["size"][-1]
        corners = transform_points(np.array([[0.0, 0.0], [side, side]]), each.to_original)
        left, top, right, bottom = corners.flatten().tolist()
        return mask_in_image(scores, (left, top, right, bottom), each.size)

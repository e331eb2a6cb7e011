"""Synthetic faces with exact landmarks: a data set that needs no files.

For trying landmark training without data, and for tests. Drawn faces teach a network the layout of
a face, not what photographs look like.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from zoo_lightning.data.augmentation import Augmentation, augment
from zoo_lightning.data.landmarks.datasets import Truth, train_sample
from zoo_lightning.data.landmarks.distances import face_distances, normalizations_of
from zoo_lightning.data.landmarks.schemes import FACES5, IBUG68, LandmarkScheme
from zoo_lightning.data.landmarks.table import LandmarkTable
from zoo_lightning.data.loading import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageDataModule,
    SizedDataset,
    sample_generator,
)
from zoo_lightning.data.synthetic.face_painting import (
    Portrait,
    face_outline,
    occlude,
    paint_back_hair,
    paint_background,
    paint_beard,
    paint_body,
    paint_brows,
    paint_eyes,
    paint_front_hair,
    paint_glasses,
    paint_mouth,
    paint_nose,
    photograph,
    random_palette,
    rgb,
    shade,
)
from zoo_lightning.data.synthetic.face_shape import individual_face, random_projection
from zoo_lightning.errors import ConfigError

SPLITS = ("train", "val", "test")


def draw_face(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a synthetic face with its 68 landmarks.

    Args:
        rng: random generator of shape, pose, colours and background.
        size: side of the image, pixels.

    Returns:
        Image ``(size, size, 3)`` uint8 and the 68 iBUG points ``(68, 2)`` float32 in its pixels.
    """
    face = individual_face(rng)
    project = random_projection(face, 2 * size, rng)
    points = project(face)
    image = paint_background(2 * size, rng)
    silhouette = Image.new("L", image.size)
    portrait = Portrait(
        image,
        ImageDraw.Draw(image),
        points,
        project,
        random_palette(rng),
        rng,
        unit=project.scale,
        figure=ImageDraw.Draw(silhouette),
    )
    hairy, volume = rng.random() < 0.9, rng.uniform(1.04, 1.25)
    if hairy:
        long = rng.random() < 0.4
        paint_back_hair(portrait, volume, rng.uniform(1.2, 2.6) if long else rng.uniform(0.2, 0.6))
    paint_body(portrait)
    outline = face_outline(portrait)
    portrait.fill_figure(outline, rgb(portrait.palette.skin))
    paint_eyes(portrait)
    paint_nose(portrait)
    paint_mouth(portrait)
    if rng.random() < 0.22:
        paint_beard(portrait)
    paint_brows(portrait)
    shade(portrait, outline, silhouette)
    if hairy:
        paint_front_hair(portrait, volume)
    if rng.random() < 0.22:
        paint_glasses(portrait)
    if rng.random() < 0.12:
        occlude(portrait)
    return photograph(image, size, rng), (points / 2).astype(np.float32)


def five_points(points: np.ndarray) -> np.ndarray:
    """Reduce 68 points ``(..., 68, 2)`` to eyes, nose tip and mouth corners ``(..., 5, 2)``."""
    eyes = [points[..., 36:42, :].mean(-2), points[..., 42:48, :].mean(-2)]
    return np.stack([*eyes, points[..., 30, :], points[..., 48, :], points[..., 54, :]], axis=-2)


def drawn_sample(
    seed: int, split: str, index: int, size: int, num_points: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one face of a split; the same numbers always give the same face.

    Args:
        seed: seed of the data set.
        split: ``train``, ``val`` or ``test``.
        index: position in the split.
        size: side of the image, pixels.
        num_points: 68 or 5.

    Returns:
        Image ``(size, size, 3)`` uint8 and points ``(num_points, 2)`` float32 in its pixels.
    """
    rng = np.random.default_rng([seed % 2**64, SPLITS.index(split), index])
    pixels, points = draw_face(rng, size)
    return pixels, points if num_points == 68 else five_points(points)


class DrawnSet(SizedDataset):
    """Drawn faces of one split; the training split is indexed by ``(epoch, index)``.

    A face is drawn at its first access and cached, if all of them fit ``KEEP_BYTES``; a spawned
    loader process draws its own.

    Args:
        split: ``train``, ``val`` or ``test``.
        length: number of faces.
        size: side of the images, pixels.
        scheme: order of the points.
        seed: seed of the faces and of their augmentation.
        options: augmentation of training faces; ``None`` for none.
    """

    KEEP_BYTES = 512 * 2**20

    def __init__(
        self,
        split: str,
        length: int,
        size: int,
        scheme: LandmarkScheme,
        seed: int,
        options: Augmentation | None = None,
    ) -> None:
        self.split = split
        self.length = length
        self.size = size
        self.scheme = scheme
        self.seed = seed
        self.options = options
        self._keeps = length * size * size * 3 <= self.KEEP_BYTES
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return self.length

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}

    def _drawn(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        face = self._kept.get(index)
        if face is None:
            num_points = self.scheme.num_points
            face = drawn_sample(self.seed, self.split, index, self.size, num_points)
            if self._keeps:
                self._kept[index] = face
        return face

    def __getitem__(self, position: int | tuple[int, int]) -> dict[str, Any]:
        epoch, index = position if isinstance(position, tuple) else (0, position)
        if not 0 <= index < self.length:
            raise IndexError(index)
        pixels, points = self._drawn(index)
        visible = np.ones(len(points), bool)
        if self.split != "train":
            return self._truth(points, visible, index).sample(pixels)
        if self.options is not None:
            generator = sample_generator(self.seed, epoch, index)
            flip = self.scheme.flip
            pixels, points, _ = augment(pixels, points, self.size, self.options, flip, generator)
        return train_sample(pixels, points, visible, index)

    def _truth(self, points: np.ndarray, visible: np.ndarray, index: int) -> Truth:
        name = f"drawn-{self.split}-{index}"
        table, names = LandmarkTable([name], points[None]), normalizations_of(self.scheme)
        distances = face_distances(table, visible[None], self.scheme, names)
        sizes = {key: float(values[0]) for key, values in distances.items()}
        return Truth(points, points, visible, np.eye(2, 3), sizes, [], name, index)


class DrawnFaces(ImageDataModule):
    """Data module of synthetic faces with exact landmarks, drawn without files, by seed.

    Args:
        train_size: number of training faces.
        val_size: number of validation faces, none of which is a training face.
        test_size: number of test faces, none of which is in another split.
        image_size: side of the square images, pixels.
        num_points: 68 (iBUG order) or 5 (eyes, nose, corners of the mouth).
        batch_size: samples per step and process.
        num_workers: number of loader processes; ``None``: one less than the cores, at most 4.
        seed: seed of the faces, their order and their augmentation.
        augment: options of the augmentation of training faces; ``true`` for the defaults, ``false``
            for none.
        mean: per-channel mean, subtracted from images in [0, 1].
        std: standard deviation that each channel is then divided by.

    Raises:
        ConfigError: a size is below 1, or the number of points is neither 68 nor 5.
    """

    target_kind = "points"
    """Kind of the targets, by which tasks know whether the data are for them."""

    def __init__(
        self,
        train_size: int = 4000,
        val_size: int = 500,
        test_size: int = 500,
        image_size: int = 64,
        num_points: int = 68,
        batch_size: int = 32,
        num_workers: int | None = None,
        seed: int = 0,
        augment: bool | Augmentation = False,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__(image_size, batch_size, num_workers, seed, mean, std)
        schemes = {68: IBUG68, 5: FACES5}
        if num_points not in schemes:
            raise ConfigError(f"Faces are drawn with 68 or 5 points, not with {num_points}.")
        if min(train_size, val_size, test_size) < 1:
            raise ConfigError("`train_size`, `val_size` and `test_size` must be at least 1.")
        self.scheme = schemes[num_points]
        self.normalizations = normalizations_of(self.scheme)
        self.subset_names: tuple[str, ...] = ()
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        self.augmentation = Augmentation() if augment is True else augment or None

    @property
    def num_points(self) -> int:
        """Number of points K, 68 or 5."""
        return self.scheme.num_points

    def facts(self) -> dict[str, Any]:
        """Facts of :class:`ImageDataModule`, the scheme of the points, and preprocessing."""
        preprocessing = {"kind": "square", "around": "image", "margin": 1.0}
        return super().facts() | self.scheme.facts() | {"preprocessing": preprocessing}

    def training_options(self) -> dict[str, Any]:
        """Options of :class:`ImageDataModule`, the numbers of faces and their augmentation."""
        return super().training_options() | {
            "train_size": self.sizes["train"],
            "val_size": self.sizes["val"],
            "augment": self.augmentation.as_option() if self.augmentation else False,
        }

    def varies_training_images(self) -> bool:
        """Whether training faces differ between epochs, by augmentation."""
        return self.augmentation is not None

    def setup(self, stage: str) -> None:
        """Prepare the splits of a stage; faces are drawn at their first access.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.
        """
        needed = {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",))
        for split in needed:
            if not hasattr(self, f"{split}_set"):
                options = self.augmentation if split == "train" else None
                drawn = DrawnSet(
                    split, self.sizes[split], self.image_size, self.scheme, self.seed, options
                )
                setattr(self, f"{split}_set", drawn)

"""Paint a projected face: skin, shading, features, hair, glasses, background.

Everything is painted at twice the final resolution. Each feature's outline is a spline through its
landmarks, so the landmarks lie on what is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from zoo_lightning.data import face_shape as parts

if TYPE_CHECKING:
    from zoo_lightning.data.face_shape import Projection

Colour = tuple[int, int, int]

_SKIN = np.array(
    [(252, 222, 200), (240, 194, 165), (222, 172, 132), (190, 132, 96), (138, 90, 64), (86, 56, 42)]
)
_HAIR = np.array(
    [
        (22, 18, 18),
        (48, 32, 24),
        (92, 60, 36),
        (176, 134, 80),
        (214, 184, 130),
        (130, 54, 26),
        (128, 124, 122),
        (212, 208, 204),
    ]
)
_IRIS = np.array([(60, 38, 22), (98, 68, 36), (76, 98, 62), (74, 104, 140), (96, 104, 108)])


@dataclass(frozen=True)
class Palette:
    """Colours of one face, ``(3,)`` floats in [0, 255]."""

    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    lips: np.ndarray
    cloth: np.ndarray


def random_palette(rng: np.random.Generator) -> Palette:
    """Colours that go together: lips with the skin, brows with the hair."""
    tone = rng.uniform(0, len(_SKIN) - 1.001)
    below = int(tone)
    skin = _SKIN[below] + (tone - below) * (_SKIN[below + 1] - _SKIN[below])
    skin = skin * rng.uniform(0.96, 1.04, 3)
    # Light hair is rarer on dark skin.
    hair = _HAIR[rng.integers(0, 3 if tone > 3 else len(_HAIR))] * rng.uniform(0.8, 1.15)
    natural = skin * np.array([0.86, 0.62, 0.62]) + np.array([10, 0, 4])
    painted = np.array([rng.uniform(130, 200), rng.uniform(20, 60), rng.uniform(40, 90)])
    lips = natural if rng.random() < 0.8 else 0.5 * (natural + painted)
    return Palette(
        skin, hair, _IRIS[rng.integers(len(_IRIS))].astype(float), lips, rng.uniform(15, 235, 3)
    )


@lru_cache
def _spline_weights(count: int, closed: bool, steps: int) -> np.ndarray:
    """Catmull-Rom weights ``(M, count)`` from the points of an outline to a dense one."""
    spans = count if closed else count - 1
    weights = np.zeros((spans * steps + (not closed), count))
    for row in range(len(weights)):
        span, t = divmod(row / steps, 1)
        if span >= spans:
            span, t = spans - 1, 1.0
        basis = 0.5 * np.array(
            [-(t**3) + 2 * t**2 - t, 3 * t**3 - 5 * t**2 + 2, -3 * t**3 + 4 * t**2 + t, t**3 - t**2]
        )
        for offset, weight in zip(range(-1, 3), basis, strict=True):
            point = int(span) + offset
            point = point % count if closed else min(max(point, 0), count - 1)
            weights[row, point] += weight
    return weights


def spline(points: np.ndarray, closed: bool = True, steps: int = 5) -> np.ndarray:
    """Dense smooth outline through the points ``(N, 2)``."""
    return _spline_weights(len(points), closed, steps) @ points


def xy(points: np.ndarray) -> list[float]:
    """For Pillow, whose integer coordinates are the centres of pixels."""
    return (np.asarray(points) - 0.5).ravel().tolist()


def rgb(colour: np.ndarray, brightness: float = 1.0) -> Colour:
    """Colour for Pillow."""
    red, green, blue = np.clip(colour * brightness, 0, 255).astype(int).tolist()
    return red, green, blue


@dataclass
class Portrait:
    """A face being painted.

    Args:
        image: RGB, painted on.
        draw: on the image.
        points: ``(68, 2)`` in the image's pixels.
        project: from face coordinates to the image's pixels.
        palette: the colours.
        rng: random numbers.
        unit: pixels per half face width.
        figure: mask of the person, in front of the background; grows as parts are painted.
    """

    image: Image.Image
    draw: ImageDraw.ImageDraw
    points: np.ndarray
    project: Projection
    palette: Palette
    rng: np.random.Generator
    unit: float
    figure: ImageDraw.ImageDraw

    def fill(self, outline: np.ndarray, colour: Colour) -> None:
        """Fill an outline."""
        self.draw.polygon(xy(outline), fill=colour)

    def fill_figure(self, outline: np.ndarray, colour: Colour) -> None:
        """Fill an outline that is part of the person's silhouette."""
        self.fill(outline, colour)
        self.figure.polygon(xy(outline), fill=255)

    def line(self, points: np.ndarray, colour: Colour, width: float) -> None:
        """Draw a line of the given width, a fraction of half the face's width."""
        pixels = max(round(width * self.unit), 1)
        self.draw.line(xy(points), fill=colour, width=pixels, joint="curve")

    def disc(self, centre: np.ndarray, radii: np.ndarray | float, colour: Colour) -> None:
        """Fill an upright ellipse; radii in pixels."""
        radii = np.broadcast_to(radii, 2)
        self.draw.ellipse(xy([centre - radii, centre + radii]), fill=colour)


@lru_cache
def skull_arc(steps: int = 13) -> np.ndarray:
    """Outline of the head from the left to the right end of the jaw over the top, ``(N, 3)``."""
    angle = np.linspace(np.pi, 0, steps)
    x, y = np.cos(angle), 0.03 - 1.22 * np.sin(angle)
    return np.stack([x, y, np.full(steps, -0.05)], 1)


def face_outline(portrait: Portrait) -> np.ndarray:
    """Jaw landmarks and skull, a closed outline."""
    arc = skull_arc().copy()
    arc[0], arc[-1] = 0, 0
    top = portrait.project(arc)[1:-1]
    return spline(np.concatenate([portrait.points[parts.JAW], top[::-1]]))


def paint_background(size: int, rng: np.random.Generator) -> Image.Image:
    """Two-coloured gradient with soft blotches, and sometimes hard-edged things."""
    coarse = np.linspace(0, 1, 4)
    ramp = coarse[:, None] * rng.uniform(-1, 1) + coarse[None] * rng.uniform(-1, 1)
    ramp = (ramp - ramp.min()) / (np.ptp(ramp) + 1e-6)
    first, second = rng.uniform(0, 255, (2, 1)) + rng.normal(0, 35, (2, 3))
    pixels = first + ramp[..., None] * (second - first)
    blotches = rng.normal(0, rng.uniform(2, 40), (8, 8, 1)) + rng.normal(0, 5, (8, 8, 3))
    pixels = np.kron(pixels, np.ones((2, 2, 1))) + blotches
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    image = image.resize((size, size), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 5)) if rng.random() < 0.6 else 0):
        corners = np.sort(rng.uniform(-0.2, 1.2, (2, 2)) * size, axis=0)
        shape = draw.rectangle if rng.random() < 0.6 else draw.ellipse
        shape(xy(corners), fill=rgb(rng.uniform(0, 255) + rng.normal(0, 40, 3)))
    return image


def paint_body(portrait: Portrait) -> None:
    """Shoulders, neck and ears."""
    rng, project, palette = portrait.rng, portrait.project, portrait.palette
    wide = rng.uniform(1.7, 2.3)
    shoulders = [(-wide, 4.5), (-wide, 2.6), (-0.75, 2.05), (0.75, 2.05), (wide, 2.6), (wide, 4.5)]
    portrait.fill_figure(project(_flat(shoulders, -0.6)), rgb(palette.cloth))
    width = rng.uniform(0.55, 0.75)
    neck = [(-width, 0.5), (-width - 0.08, 2.2), (0, 2.55), (width + 0.08, 2.2), (width, 0.5)]
    portrait.fill_figure(project(_flat(neck, -0.4)), rgb(palette.skin, 0.72))
    ear = [(-0.05, -0.16), (0.07, -0.2), (0.13, -0.08), (0.11, 0.12), (0.06, 0.3), (-0.05, 0.36)]
    for side, base in ((-1, 0), (1, 16)):
        # Ears sit on the projected ends of the jaw, whatever the proportions.
        lobe = np.array(ear) * [side, 1.0] * portrait.unit @ _turned(project.roll)
        portrait.fill_figure(spline(portrait.points[base] + lobe), rgb(palette.skin, 0.88))


def _turned(angle: float) -> np.ndarray:
    """Turns row vectors as the roll turns the face."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _flat(points: list[tuple[float, float]], depth: float) -> np.ndarray:
    return np.array([(x, y, depth) for x, y in points])


def paint_eyes(portrait: Portrait) -> None:
    """Sclera, iris, pupil and glint inside the lids' outline; lids, lashes and brows over it."""
    rng, palette = portrait.rng, portrait.palette
    gaze = rng.normal(0, 0.04, 2) * portrait.unit
    mask = Image.new("L", portrait.image.size)
    mask_draw = ImageDraw.Draw(mask)
    balls = portrait.image.copy()
    inside = Portrait(**{**vars(portrait), "image": balls, "draw": ImageDraw.Draw(balls)})
    white = rgb(np.array([238, 234, 230]) * rng.uniform(0.8, 1))
    lid, lash = rgb(palette.skin, 0.55), rgb(palette.hair, 0.4)
    radius = 0.125 * portrait.unit * rng.uniform(0.9, 1.1)
    for eye in (parts.LEFT_EYE, parts.RIGHT_EYE):
        points = portrait.points[eye]
        outline = spline(points)
        mask_draw.polygon(xy(outline), fill=255)
        inside.fill(outline, white)
        centre = points.mean(0) + gaze
        inside.disc(centre, radius, rgb(palette.iris))
        inside.disc(centre, 0.5 * radius, (12, 10, 10))
        inside.disc(centre + radius * np.array([0.35, -0.4]), 0.22 * radius, (250, 250, 250))
    portrait.image.paste(balls, mask=mask)
    lash_width = rng.uniform(0.02, 0.055)
    for eye in (parts.LEFT_EYE, parts.RIGHT_EYE):
        points = portrait.points[eye]
        portrait.line(spline(points[[3, 4, 5, 0]], closed=False), lid, 0.015)
        portrait.line(spline(points[:4], closed=False), lash, lash_width)


def paint_brows(portrait: Portrait) -> None:
    """Tapering bands centred on the brow landmarks, of the hair's colour."""
    rng, palette = portrait.rng, portrait.palette
    half = portrait.unit * rng.uniform(0.025, 0.065)
    blend = rng.uniform(0.55, 1)
    colour = rgb(blend * 0.7 * palette.hair + (1 - blend) * palette.skin)
    taper = np.array([0.35, 0.9, 1.0, 1.0, 0.8])
    for brow, ends in ((parts.LEFT_BROW, taper), (parts.RIGHT_BROW, taper[::-1])):
        points = portrait.points[brow]
        along = np.gradient(points, axis=0)
        across = (
            along[:, ::-1] * np.array([-1, 1]) / (np.linalg.norm(along, axis=1) + 1e-6)[:, None]
        )
        band = across * (half * ends)[:, None]
        portrait.fill(spline(np.concatenate([points - band, (points + band)[::-1]])), colour)


def paint_nose(portrait: Portrait) -> None:
    """Ridge, wings, base and nostrils."""
    points, skin = portrait.points[parts.NOSE], portrait.palette.skin
    ridge, base = points[:4], points[4:]
    darker = rgb(skin, 0.66)
    # The wing curls from the side of the tip down to the base's end.
    for end, near in ((0, 1), (4, 3)):
        outward = base[end] - base[near]
        wing = np.stack(
            [
                base[end] + 0.25 * outward + 0.75 * (ridge[3] - base[2]),
                base[end] + 0.4 * outward + 0.3 * (ridge[3] - base[2]),
                base[end],
                base[near],
            ]
        )
        portrait.line(spline(wing, closed=False), darker, 0.028)
        nostril = 0.5 * (base[end] + base[near]) + 0.15 * (ridge[3] - base[2])
        radii = np.array([0.075, 0.038]) * portrait.unit
        portrait.disc(nostril, radii, rgb(skin, 0.36))
    portrait.line(spline(base[1:4], closed=False), darker, 0.03)
    portrait.disc(ridge[3], 0.06 * portrait.unit, rgb(skin, 1.12))
    portrait.line(spline(ridge, closed=False), rgb(skin, 1.07), 0.05)


def paint_mouth(portrait: Portrait) -> None:
    """Lips between the outer and the inner landmarks; teeth in a mouth that is open."""
    outer, inner = portrait.points[parts.LIPS], portrait.points[parts.INNER_LIPS]
    lips = portrait.palette.lips
    upper = np.concatenate([spline(outer[:7], False), spline(inner[:5], False)[::-1]])
    lower_rim = spline(outer[[6, 7, 8, 9, 10, 11, 0]], closed=False)
    lower = np.concatenate([lower_rim, spline(inner[[0, 7, 6, 5, 4]], closed=False)])
    mouth = np.concatenate(
        [spline(inner[:5], closed=False), spline(inner[[4, 5, 6, 7, 0]], closed=False)]
    )
    portrait.fill(upper, rgb(lips, 0.88))
    portrait.fill(lower, rgb(lips, 1.06))
    portrait.fill(mouth, (48, 16, 18))
    gap = np.linalg.norm(inner[6] - inner[2])
    if gap > 0.08 * portrait.unit:
        down = (inner[6] - inner[2]) * min(0.45, 0.09 * portrait.unit / gap)
        teeth = np.concatenate([inner[1:4], inner[3:0:-1] + down])
        portrait.fill(teeth, rgb(np.array([236, 230, 216]) * portrait.rng.uniform(0.8, 1)))
    portrait.line(spline(inner[:5], closed=False), rgb(lips, 0.5), 0.018)


def paint_beard(portrait: Portrait) -> None:
    """A beard between the jaw and the mouth, soft at its edges, or a moustache alone."""
    rng, points = portrait.rng, portrait.points
    mask = Image.new("L", portrait.image.size)
    draw = ImageDraw.Draw(mask)
    density = int(rng.uniform(90, 235))
    if rng.random() < 0.7:
        reach = int(rng.integers(2, 5))
        jaw = points[reach : 17 - reach]
        cheek = points[[54 if reach > 3 else 13, 54, 33, 48, 48 if reach > 3 else 3]]
        cheek = 0.7 * cheek + 0.3 * points[[12, 11, 51, 5, 4]]
        draw.polygon(xy(np.concatenate([jaw, cheek])), fill=density)
    else:
        draw.polygon(xy(np.concatenate([points[48:55], points[[35, 33, 31]]])), fill=density)
    mask = mask.filter(ImageFilter.GaussianBlur(0.05 * portrait.unit))
    draw = ImageDraw.Draw(mask)
    draw.polygon(xy(spline(points[parts.LIPS])), fill=0)
    portrait.image.paste(rgb(portrait.palette.hair, 0.85), mask=mask)

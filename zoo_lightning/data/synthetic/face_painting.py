"""Paint a projected face: background, skin, features, hair, glasses, light and camera noise.

Everything is painted at twice the final resolution. Each feature's outline is a spline through its
landmarks, so the landmarks lie on what is seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFilter

from zoo_lightning.data.synthetic import face_shape as parts

if TYPE_CHECKING:
    from zoo_lightning.data.synthetic.face_shape import Projection


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
    """Draw colours that go together: lips with the skin, brows with the hair."""
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
    """Interpolate points ``(N, 2)`` by a dense Catmull-Rom spline."""
    return _spline_weights(len(points), closed, steps) @ points


def xy(points: ArrayLike) -> list[float]:
    """Convert coordinates to Pillow's, whose integers are the centres of pixels."""
    return (np.asarray(points) - 0.5).ravel().tolist()


def rgb(colour: np.ndarray, brightness: float = 1.0) -> Colour:
    """Convert a colour ``(3,)`` to a Pillow tuple, scaled by a brightness and clipped."""
    red, green, blue = np.clip(colour * brightness, 0, 255).astype(int).tolist()
    return red, green, blue


@dataclass
class Portrait:
    """A face being painted.

    Args:
        image: RGB, painted on.
        draw: drawing context of the image.
        points: ``(68, 2)`` in the image's pixels.
        project: map of face coordinates to the image's pixels.
        palette: colours of the face.
        rng: random numbers.
        unit: pixels in half the width of the face.
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
    """Closed outline of the face from the jaw landmarks and the skull."""
    arc = skull_arc().copy()
    arc[0], arc[-1] = 0, 0
    top = portrait.project(arc)[1:-1]
    return spline(np.concatenate([portrait.points[parts.JAW], top[::-1]]))


def paint_background(size: int, rng: np.random.Generator) -> Image.Image:
    """Paint a two-coloured gradient with soft blotches, and sometimes hard-edged shapes."""
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
    """Paint shoulders, neck and ears."""
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
    """Paint sclera, iris, pupil and glint inside the lids' outline, then lids and lashes."""
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
    """Paint the brows as tapering bands centred on their landmarks, in the hair's colour."""
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
    """Paint ridge, wings, base and nostrils of the nose."""
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
    """Paint lips between the outer and inner landmarks, and teeth in an open mouth."""
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
    """Paint a soft-edged beard between jaw and mouth, or a moustache alone."""
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


def paint_back_hair(portrait: Portrait, volume: float, length: float) -> None:
    """Paint the hair behind the head.

    Args:
        portrait: face to paint on.
        volume: factor of the hair's outline to the head's, above 1.
        length: y at which the hair ends, half face widths below the eyes.
    """
    arc = skull_arc() * np.array([volume, volume, 1]) - np.array([0, 0, 0.3])
    width = volume * portrait.rng.uniform(0.84, 1.1)
    low = np.array([(width, length, -0.4), (-width, length, -0.4)])
    outline = portrait.project(np.concatenate([arc[1:-1], low]))
    portrait.fill_figure(spline(outline), rgb(portrait.palette.hair, 0.75))


def paint_front_hair(portrait: Portrait, volume: float) -> None:
    """Paint the hair from the head's outline to a wavy hairline, with a few strands."""
    rng, hair = portrait.rng, portrait.palette.hair
    arc = skull_arc() * np.array([volume, volume, 1])
    line = rng.uniform(-0.95, -0.62) if rng.random() < 0.75 else rng.uniform(-0.6, -0.48)
    x = np.linspace(0.97, -0.97, 9)
    waves = rng.normal(0, 0.05, 9) + rng.normal(0, 0.12) * x
    temples = rng.uniform(0.25, 0.8)
    y = line + waves + temples * np.abs(x) ** 4
    z = 0.55 * np.sqrt(1 - (0.95 * x) ** 2)
    hairline = np.stack([x, y, z], 1)
    outline = spline(portrait.project(np.concatenate([arc, hairline])), steps=4)
    portrait.fill(outline, rgb(hair))
    # Strands run from the parting on top of the head down to the hairline.
    parting = portrait.project(np.array([(rng.uniform(-0.4, 0.4), -1.1 * volume, 0.2)]))[0]
    tips = outline[len(arc) * 4 : -4]
    for tip in tips[rng.integers(0, len(tips), 9)]:
        middle = 0.5 * (parting + tip) + np.array([0, -0.06 * portrait.unit])
        strand = spline(np.stack([parting, middle, tip]), closed=False, steps=3)
        portrait.line(strand, rgb(hair, rng.uniform(0.75, 1.25)), 0.02)


def paint_glasses(portrait: Portrait) -> None:
    """Paint glasses: rims, a bridge and temples, sometimes with dark or reflecting lenses."""
    rng, unit = portrait.rng, portrait.unit
    tint = rng.random()
    colour = rgb(rng.uniform(0, 255, 3) * rng.uniform(0.05, 0.7))
    thickness, corner = rng.uniform(0.025, 0.07), rng.uniform(2, 5)
    half_width, half_height = rng.uniform(0.29, 0.35), rng.uniform(0.18, 0.29)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    # A superellipse: from round to nearly rectangular rims.
    round_x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** (2 / corner)
    round_y = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** (2 / corner)
    lens = np.stack([half_width * round_x, half_height * round_y + 0.03, np.zeros(24)], 1)
    rims = [portrait.project(lens + np.array([side * 0.41, 0, 0.78])) for side in (-1, 1)]
    if tint < 0.45:
        mask = Image.new("L", portrait.image.size)
        draw = ImageDraw.Draw(mask)
        for rim in rims:
            draw.polygon(xy(rim), fill=int(rng.uniform(170, 240)) if tint < 0.15 else 40)
        shade = (20, 20, 26) if tint < 0.15 or rng.random() < 0.5 else (235, 240, 250)
        portrait.image.paste(shade, mask=mask)
    for rim in rims:
        portrait.line(np.concatenate([rim, rim[:2]]), colour, thickness)
    joints = np.array([(-1.0, -0.05, 0.0), (-0.41 - half_width, 0, 0.78)])
    for side in (1, -1):
        portrait.line(portrait.project(joints * np.array([side, 1, 1])), colour, thickness)
    bridge = np.array([(-0.41 + half_width, 0, 0.8), (0, -0.04, 0.9), (0.41 - half_width, 0, 0.8)])
    portrait.line(portrait.project(bridge), colour, thickness)
    if rng.random() < 0.3:
        centre = rims[int(rng.integers(2))].mean(0)
        portrait.line(centre + unit * np.array([(-0.1, 0.05), (0.02, -0.1)]), (245, 245, 245), 0.04)


def occlude(portrait: Portrait) -> None:
    """Cover a part of the face by an ellipse or a bar."""
    rng, size = portrait.rng, portrait.image.size[0]
    centre = portrait.points[rng.integers(68)] + rng.normal(0, 0.08, 2) * size
    colour = rgb(
        rng.uniform(0, 255) + rng.normal(0, 40, 3)
        if rng.random() < 0.6
        else portrait.palette.skin * 0.9
    )
    if rng.random() < 0.4:
        portrait.disc(centre, rng.uniform(0.05, 0.14, 2) * size, colour)
    else:
        angle = rng.uniform(0, np.pi)
        along = size * rng.uniform(0.3, 0.9) * np.array([math.cos(angle), math.sin(angle)])
        across = size * rng.uniform(0.03, 0.1) * np.array([-math.sin(angle), math.cos(angle)])
        corners = [centre - across, centre + along - across, centre + along + across]
        portrait.fill(np.stack([*corners, centre + across]), colour)


@lru_cache
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    centres = np.arange(size, dtype=np.float32) + 0.5
    return centres[None, :], centres[:, None]


def shade(portrait: Portrait, outline: np.ndarray, silhouette: Image.Image) -> None:
    """Shade the head as an ellipsoid under a directed light, and darken its hollows.

    Args:
        portrait: face to paint on.
        outline: outline of the face, ``(N, 2)``.
        silhouette: mask of the whole person.
    """
    rng, unit, points = portrait.rng, portrait.unit, portrait.points
    size = portrait.image.size[0]
    x, y = _grid(size)
    centre = 0.5 * (outline.min(0) + outline.max(0))
    half = 0.5 * (outline.max(0) - outline.min(0)) + 0.1 * unit
    u, v = (x - np.float32(centre[0])) / half[0], (y - np.float32(centre[1])) / half[1]
    u, v = u.astype(np.float32), v.astype(np.float32)
    depth = np.sqrt(np.maximum(1 - u * u - v * v, np.float32(0.03)))
    light = np.array([rng.normal(0, 0.7), rng.normal(-0.4, 0.4), rng.uniform(0.6, 1.2)])
    light = (light / np.linalg.norm(light)).astype(np.float32)
    diffuse = np.maximum(u * light[0] + v * light[1] + depth * light[2], 0)
    ambient = np.float32(rng.uniform(0.45, 0.8))
    brightness = ambient + (np.float32(1.15) - ambient) * diffuse
    hollows = Image.new("L", (size // 2, size // 2), 255)
    draw = ImageDraw.Draw(hollows)
    for eye, brow in ((parts.LEFT_EYE, parts.LEFT_BROW), (parts.RIGHT_EYE, parts.RIGHT_BROW)):
        socket = 0.5 * (points[eye].mean(0) + points[brow].mean(0))
        radii = unit * np.array([0.3, 0.14])
        draw.ellipse(xy(np.array([socket - radii, socket + radii]) / 2), fill=196)
    side = points[[27, 31, 33]] if light[0] > 0 else points[[27, 35, 33]]
    draw.polygon(xy(side / 2), fill=170)
    under = points[[58, 57, 56, 8]]
    draw.polygon(xy((0.8 * under + 0.2 * points[8]) / 2), fill=205)
    hollows = hollows.filter(ImageFilter.GaussianBlur(0.045 * unit)).resize((size, size))
    mask = Image.new("L", (size, size))
    ImageDraw.Draw(mask).polygon(xy(outline), fill=255)
    within = np.asarray(mask, np.float32) / 255
    brightness *= 1 + within * (np.asarray(hollows, np.float32) / 255 - 1)
    pixels = np.asarray(portrait.image, np.float32) * brightness[..., None]
    lit = Image.fromarray(np.minimum(pixels, 255).astype(np.uint8))
    # The background has its own light.
    portrait.image.paste(lit, mask=silhouette)


def photograph(image: Image.Image, size: int, rng: np.random.Generator) -> np.ndarray:
    """Reduce to the final size, with defocus, sensor noise, exposure and white balance.

    Args:
        image: RGB of twice the size.
        size: side of the result, pixels.
        rng: random numbers.

    Returns:
        ``(size, size, 3)`` uint8.
    """
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(size / 64 * rng.uniform(0.3, 1.6)))
    pixels = np.asarray(image.reduce(2), np.float32)
    gain = rng.uniform(0.8, 1.25) * rng.uniform(0.94, 1.06, 3)
    if rng.random() < 0.08:
        pixels = np.repeat(pixels.mean(-1, keepdims=True), 3, axis=-1)
        gain = gain.mean()
    pixels = pixels * np.float32(gain) + np.float32(rng.uniform(-15, 25))
    noise = rng.standard_normal(pixels.shape, dtype=np.float32)
    return np.clip(pixels + noise * np.float32(rng.uniform(0, 9)) + 0.5, 0, 255).astype(np.uint8)

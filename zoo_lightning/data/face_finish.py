"""The rest of a drawn face's picture: light, hair, glasses, things in front, the camera."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from zoo_lightning.data import face_shape as parts
from zoo_lightning.data.face_painting import Portrait, rgb, skull_arc, spline, xy


def paint_back_hair(portrait: Portrait, volume: float, length: float) -> None:
    """Hair behind the head.

    Args:
        portrait: painted on.
        volume: factor of the head's size, above 1.
        length: y at which it ends, half face widths below the eyes.
    """
    arc = skull_arc() * np.array([volume, volume, 1]) - np.array([0, 0, 0.3])
    width = volume * portrait.rng.uniform(0.84, 1.1)
    low = np.array([(width, length, -0.4), (-width, length, -0.4)])
    outline = portrait.project(np.concatenate([arc[1:-1], low]))
    portrait.fill_figure(spline(outline), rgb(portrait.palette.hair, 0.75))


def paint_front_hair(portrait: Portrait, volume: float) -> None:
    """Hair over the forehead, from the head's outline to a wavy hairline, with a few strands."""
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
    """Two rims about the eyes, a bridge and temples; sometimes dark or reflecting lenses."""
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
    """Put a hand, a microphone or a board, that is a disc or a bar, in front of a part."""
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
    """Light the head as an egg under a directed light, and darken its hollows.

    Args:
        portrait: painted on.
        outline: of the face.
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
    """Reduce to the final size, out of focus, with sensor noise, exposure and white balance.

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

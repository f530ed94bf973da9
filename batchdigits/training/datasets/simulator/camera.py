"""Light a simulated page and take its picture: shadows, desk, lens, sensor, and what files and programs do to it."""

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.records import GreyImage
from batchdigits.training.datasets.simulator.paper import noise
from batchdigits.training.datasets.simulator.strokes import Ink

Light = NDArray[np.float32]  # [h, w], 0 dark to 1 white

_DROWNING = 0.16  # standard deviation of the noise, as a share of the ink's depth, above which few could read it


def illuminate(shape: tuple[int, int], rng: np.random.Generator) -> Light:
    """Make the light on a page: a slope, a vignette, a lamp, shadows: float32[h, w], about 0.2 to 1.1."""
    height, width = shape
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    light = np.ones((1, 1), np.float32)
    kinds = rng.random(5)
    if kinds[0] < 0.5:  # slope
        angle, deep = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.45)
        light = light * (1 - deep * (0.5 + 0.35 * (np.cos(angle) * x + np.sin(angle) * y)))
    if kinds[1] < 0.3:  # vignette
        cx, cy = rng.normal(0, 0.25, 2)
        far = np.minimum(((x - cx) ** 2 + (y - cy) ** 2) / 2, 1.3)
        light = light * (1 - rng.uniform(0.1, 0.5) * far ** rng.uniform(0.7, 2.5))
    if kinds[2] < 0.12:  # lamp
        cx, cy, wide = *rng.uniform(-1, 1, 2), rng.uniform(0.2, 0.8)
        light = light * (0.75 + 0.4 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / wide**2))
    for _ in range(int(kinds[3] < 0.28) + int(kinds[3] < 0.06)):  # edge of a shadow
        angle, at = rng.uniform(0, 2 * np.pi), rng.uniform(-0.9, 0.9)
        soft, deep = float(rng.choice([0.01, 0.04, 0.12, 0.3])), rng.uniform(0.1, 0.6)
        bent = rng.normal(0, 0.2) * (np.sin(angle) * x - np.cos(angle) * y) ** 2
        along = np.cos(angle) * x + np.sin(angle) * y + bent
        light = light * (1 - deep / (1 + np.exp(np.clip((along - at) / soft, -30, 30))))
    if kinds[4] < 0.08:  # a hand or head over a corner
        cx, cy = rng.choice([-1, 1], 2) * rng.uniform(0.7, 1.1, 2)
        wide = rng.uniform(0.2, 0.6)
        along = np.hypot(x - cx, y - cy) - wide
        light = light * (1 - rng.uniform(0.3, 0.8) / (1 + np.exp(np.clip(along / 0.05, -30, 30))))
    return np.ascontiguousarray(np.broadcast_to(light, shape), np.float32)


def lay_on_desk(page: Light, ink: Ink, rng: np.random.Generator) -> tuple[Light, Ink]:
    """Turn a sheet a little, and show the desk around it: page and the digit's ink, float32[h, w]."""
    height, width = page.shape
    least = min(height, width)
    depth = rng.uniform(0.02, 0.3) * least
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    sides = (rng.random(4) < rng.choice([0.35, 1.0], p=[0.7, 0.3])).astype(np.float32)  # top, right, bottom, left
    inset = np.array(
        [
            [sides[3] * depth, sides[0] * depth],
            [-sides[1] * depth, sides[0] * depth],
            [-sides[1] * depth, -sides[2] * depth],
            [sides[3] * depth, -sides[2] * depth],
        ],
        np.float32,
    )
    jitter = rng.normal(0, 0.018, (4, 2)).astype(np.float32) * least * (np.abs(inset) > 0)
    matrix = cv2.getPerspectiveTransform(corners, corners + inset + jitter)
    size = (width, height)
    moved = np.asarray(cv2.warpPerspective(page, matrix, size, flags=cv2.INTER_AREA))
    inked = np.asarray(cv2.warpPerspective(ink, matrix, size, flags=cv2.INTER_AREA), np.float32)
    cover = np.asarray(cv2.warpPerspective(np.ones_like(page), matrix, size, flags=cv2.INTER_LINEAR))
    desk = np.full(page.shape, rng.choice([rng.uniform(0.02, 0.2), rng.uniform(0.2, 0.7)]), np.float32)
    if rng.random() < 0.5:
        grain = noise((height, max(4, width // int(rng.integers(4, 30)))), rng, rng.uniform(1.5, 6))
        grain = np.asarray(cv2.resize(grain, size))
        desk += rng.uniform(0.01, 0.08) * (grain if rng.random() < 0.5 or height != width else grain.T)
    if rng.random() < 0.4:  # the sheet's own shadow
        shade = np.asarray(cv2.GaussianBlur(cover, (0, 0), max(1.0, least * 0.015)))
        desk = desk * (1 - 0.5 * shade)
    return np.asarray(moved * cover + desk * (1 - cover), np.float32), inked


def take(light: Light, rng: np.random.Generator, *, careful: bool, one_bit: bool, strength: float = 0.5) -> GreyImage:
    """Photograph or scan a lit page: blur, noise, tone, compression.

    Args:
        light: float32[h, w], 0 to 1.
        rng: Randomness.
        careful: With weak disturbances alone: what is on it would else be lost.
        one_bit: As a fax or a scan of black and white gives it.
        strength: How much darker ink is than its paper, 0 to 1; noise drowns none of it.

    Returns:
        uint8[h, w].
    """
    longer = max(light.shape)
    chance = rng.random(10)
    if chance[0] < 0.4:
        most = (0.6 if careful else 1.0) * (0.5 + longer / 150)
        light = np.asarray(cv2.GaussianBlur(light, (0, 0), rng.uniform(0.3, min(most, 4))))
    if chance[1] < 0.05 and not careful and longer > 40:
        size = int(rng.integers(2, 3 + longer // 40))
        kernel = np.zeros((size, size), np.float32)
        cv2.line(kernel, (0, int(rng.integers(size))), (size - 1, int(rng.integers(size))), 1.0)
        light = np.asarray(cv2.filter2D(light, -1, kernel / kernel.sum()))
    if chance[2] < 0.6:
        deep = rng.uniform(0.002, 0.012 if careful else 0.05) * (2 if chance[2] < 0.04 else 1)
        deep = min(deep, max(0.012, _DROWNING * strength))
        light = light + deep * noise(light.shape, rng, float(rng.choice([1, 1, 1.5, 2.5])))
    if chance[3] < 0.25:  # sharpened by the phone
        soft = np.asarray(cv2.GaussianBlur(light, (0, 0), rng.uniform(0.7, 1.5 + longer / 400)))
        light = light + rng.uniform(0.3, 1.5) * (light - soft)
    if chance[4] < 0.3:  # tone
        light = np.clip(light, 0, 1) ** np.float32(np.exp(rng.normal(0, 0.35)))
    if chance[5] < 0.22 and not careful:  # a scanner's white and black points
        white, black = np.quantile(light[::4, ::4], [rng.uniform(0.3, 0.95), rng.uniform(0, 0.01)])
        light = np.asarray((light - 0.7 * black) / max(float(white - 0.7 * black), 0.05), np.float32)
    if chance[9] < 0.03 and not one_bit:  # local: a program that takes shadows out
        around = np.asarray(cv2.blur(light, (max(3, longer // 5),) * 2))
        light = np.asarray(light / np.maximum(around, 0.05) * np.float32(0.9), np.float32)
    if one_bit:
        around = np.asarray(cv2.blur(light, (max(3, longer // 4),) * 2)) if chance[6] < 0.6 else light.mean()
        depth = rng.uniform(0.3, 0.9) * light.std()
        if chance[8] < 0.7:  # by who has seen how dark the ink is
            depth = rng.uniform(0.2, 0.6) * strength * light.mean()
        light = (light > around - np.float32(depth)).astype(np.float32)
    page = np.asarray(np.clip(255 * light, 0, 255), np.uint8)
    if chance[7] < 0.35:
        quality = int(rng.integers(45 if careful else 8, 96))
        packed = cv2.imencode(".jpg", page, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        page = np.asarray(cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE), np.uint8)
    return page


def lose_pixels(grey: GreyImage, ink: Ink, extent: int, rng: np.random.Generator) -> tuple[GreyImage, Ink]:
    """Lose pixels now and then: a low resolution and back, or a fax's oblong ones; page and the digit's ink.

    Args:
        grey: uint8[h, w].
        ink: float32[h, w].
        extent: Pixels of the digit's height; a small one is left alone.
        rng: Randomness.
    """
    chance = rng.random(2)
    height, width = grey.shape
    if chance[0] < 0.06 and extent > 30:  # down and up again: soft
        part = max(rng.uniform(0.3, 0.9), 14 / extent)
        size = max(1, int(width * part)), max(1, int(height * part))
        small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        how = int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST]))
        grey = np.asarray(cv2.resize(small, (width, height), interpolation=how), np.uint8)
    if chance[1] < 0.05 and extent > 24:
        squeeze = rng.uniform(0.45, 0.9)
        flat = rng.random() < 0.5
        size = (width, max(1, int(height * squeeze))) if flat else (max(1, int(width * squeeze)), height)
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
        ink = np.asarray(cv2.resize(ink, size, interpolation=cv2.INTER_AREA), np.float32)
    return grey, ink

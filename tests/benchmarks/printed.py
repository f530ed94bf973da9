"""Digits on printed paper, on photos of paper, and as old scanners gave them, seeded: digits in, pages out.

What later work adds: another kind of page is one more function and one more line of `printed`.
"""

from collections.abc import Iterator

import cv2
import numpy as np
from no_digit import SEED
from numpy.typing import NDArray

from batchdigits.records import SIDE, GreyImage, InkImages

BORDER_SIDES = (2, 3, 4)  # of a page, along which a printed border runs
PAGE_SIDES = (24, 64)  # pixels of a page with a printed border
RULED_SIDE = 56  # pixels of a page of ruled paper
FEW = 16  # pixels of a page of one bit
PHOTO_SIZES = ((450, 600), (600, 450), (450, 450))  # pixels, height and width
PHOTOS = 600  # a page of this size takes as long as hundreds of small ones


def printed(digits: InkImages) -> Iterator[tuple[str, list[GreyImage]]]:
    """Write digits, uint8[N, 28, 28], on each kind of page: its name, and up to N pages in the order of the digits."""
    for sides in BORDER_SIDES:
        yield f"borders on {sides} sides", bordered(digits, sides)
    yield "ruled or squared", ruled(digits)
    yield "beside a neighbour's stroke", beside_strokes(digits)
    yield f"{FEW}×{FEW}, one bit", of_one_bit(digits)
    yield "phone photos", photographed(digits[:PHOTOS])


def bordered(digits: InkImages, sides: int) -> list[GreyImage]:
    """Write each digit in a printed cell of which so many sides, picked at random, are on the page.

    Half of the pages are light on dark. A side runs from edge to edge, 1 to 3 px thick, 0 to 2 px from the edge, and
    differs from its paper by 40 grey levels or more, the ink by 90 or more.

    Args:
        digits: uint8[N, 28, 28], bright ink on 0.
        sides: How many sides of the cell are on the page, 0 to 4.

    Returns:
        N square pages of 24 to 64 px.
    """
    rng = np.random.default_rng(SEED)
    made: list[GreyImage] = []
    for digit in digits:
        side = int(rng.integers(PAGE_SIDES[0], PAGE_SIDES[1] + 1))
        ink = resized(digit, side)
        paper, written, printed = rng.uniform(180, 256), rng.uniform(0, 90), rng.uniform(0, 140)
        page = paper - (paper - written) * ink / 255
        thick, inset = rng.integers(1, 2 + side // 32), rng.integers(0, 3)
        for turn in rng.permutation(4)[:sides]:
            np.rot90(page, turn)[inset : inset + thick] = printed  # a view: the page itself changes
        page = np.clip(page + rng.normal(0, rng.uniform(0, 3), page.shape), 0, 255)
        made.append((page if rng.random() < 0.5 else 255 - page).astype(np.uint8))
    return made


def ruled(digits: InkImages) -> list[GreyImage]:
    """Write each digit somewhere on ruled paper, or, half the time, on squared paper; the lines are grey to black."""
    rng = np.random.default_rng(SEED)
    made: list[GreyImage] = []
    for digit in digits:
        page = np.full((RULED_SIDE, RULED_SIDE), rng.uniform(190, 256))
        top, left = rng.integers(2, RULED_SIDE - len(digit) - 1, 2)
        page[top : top + len(digit), left : left + len(digit)] *= 1 - rng.uniform(0.7, 0.95) * digit / 255
        pitch, ink = int(rng.integers(9, 24)), rng.uniform(50, 180)
        for paper in (page, page.T)[: rng.integers(1, 3)]:
            lines = slice(int(rng.integers(pitch)), None, pitch)
            paper[lines] = np.minimum(paper[lines], ink)
        made.append(np.clip(page + rng.normal(0, rng.uniform(0, 4), page.shape), 0, 255).astype(np.uint8))
    return made


def beside_strokes(digits: InkImages) -> list[GreyImage]:
    """Write each digit on even paper, and let a bold stroke of its neighbour reach into the page."""
    rng = np.random.default_rng(SEED)
    made: list[GreyImage] = []
    for digit in digits:
        page = np.zeros((SIDE + 16, SIDE + 20), np.uint8)
        top, left = rng.integers(0, 17), rng.integers(12, 21)
        page[top : top + SIDE, left : left + SIDE] = digit
        start, end = np.sort(rng.integers(4, SIDE + 12, 2))
        page[start : end + 4, : rng.integers(2, 7)] = rng.integers(128, 256)
        made.append(page if rng.random() < 0.5 else 255 - page)
    return made


def of_one_bit(digits: InkImages) -> list[GreyImage]:
    """Stretch each digit to a frame of 16×16 and threshold it; half of them are dark on light."""
    rng = np.random.default_rng(SEED)
    made: list[GreyImage] = []
    for digit in digits:
        cut = digit[np.ix_(digit.any(1), digit.any(0))]
        page = np.where(resized(cut, FEW) > rng.uniform(60, 140), np.uint8(255), np.uint8(0))
        made.append(page if rng.random() < 0.5 else 255 - page)
    return made


def photographed(digits: InkImages) -> list[GreyImage]:
    """Photograph each digit with a phone: small and off centre to a close-up, under shadows with soft and sharp edges.

    The digit's frame takes 0.15 to 1 of the photo's shorter side; a third are bold. The light falls off towards the
    corners, the paper is cloudy, the picture is out of focus and noisy, so that a few of the smallest and palest
    cannot be read.
    """
    rng = np.random.default_rng(SEED)
    made: list[GreyImage] = []
    for digit in digits:
        height, width = PHOTO_SIZES[rng.integers(len(PHOTO_SIZES))]
        y, x = np.mgrid[0:height, 0:width] / height
        side = int(rng.uniform(0.15, 1) * min(height, width))
        if rng.random() < 1 / 3:
            digit = cv2.dilate(digit, np.ones((3, 3), np.uint8))
        top, left = int(rng.uniform(0, height - side)), int(rng.uniform(0, width - side))
        ink = np.asarray(cv2.resize(digit, (side, side), interpolation=cv2.INTER_CUBIC), np.float32) / 255
        strokes = ((ink - 0.35) / 0.3).clip(0, 1)  # they have edges, though they were enlarged
        page = np.full((height, width), rng.uniform(150, 240))
        page[top : top + side, left : left + side] *= 1 - rng.uniform(0.35, 0.85) * strokes
        for _ in range(rng.integers(0, 3)):
            angle, soft = rng.uniform(0, 2 * np.pi), rng.choice([0.005, 0.03, 0.15, 0.5])
            into = (np.cos(angle) * (x - rng.uniform(0, 1.3)) + np.sin(angle) * (y - rng.uniform(0, 1))) / soft
            page *= 1 - rng.uniform(0.1, 0.6) / (1 + np.exp(-into.clip(-30, 30)))
        page *= 1 - rng.uniform(0, 0.5) * ((x - x[0, -1] / 2) ** 2 + (y - 0.5) ** 2)
        clouds = rng.normal(0, rng.uniform(0, 4), (height // 10, width // 10))
        page += cv2.resize(clouds, (width, height), interpolation=cv2.INTER_LINEAR)
        page = cv2.GaussianBlur(page, (0, 0), rng.uniform(0.1, 4)) + rng.normal(0, rng.uniform(1, 6), page.shape)
        made.append(np.clip(page, 0, 255).astype(np.uint8))
    return made


def resized(image: GreyImage, side: int) -> NDArray[np.uint8]:
    """Stretch an image to a square of so many pixels."""
    interpolation = cv2.INTER_AREA if side < max(image.shape) else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side, side), interpolation=interpolation), np.uint8)

"""Digits that people wrote, and pages to put them on; all are of MNIST's training half."""

import functools
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.training.datasets.shipped import mnist

Grey = NDArray[np.uint8]  # [H, W]

PAPER, INK = 235, 40
"""Grey levels of the pages made here."""


@functools.cache
def digits(count: int = 300) -> NDArray[np.uint8]:
    """Pick digits as MNIST has them, bright on 0: uint8[count, 28, 28], always the same ones."""
    images, _ = mnist("train")
    return images[np.random.default_rng(1).permutation(len(images))[:count]]


@functools.cache
def one_of_each() -> NDArray[np.uint8]:
    """The first of each digit: uint8[10, 28, 28]; `one_of_each()[7]` is a 7."""
    images, labels = mnist("train")
    return images[[int(np.argmax(labels == digit)) for digit in range(10)]]


def on_page(digit: Grey, height: int = 56, width: int = 56, *, top: int | None = None, left: int | None = None) -> Grey:
    """Write a digit in dark ink on a light page, in the middle unless its place is given."""
    rows, columns = digit.shape
    top = (height - rows) // 2 if top is None else top
    left = (width - columns) // 2 if left is None else left
    page = np.full((height, width), float(PAPER))
    page[top : top + rows, left : left + columns] -= digit / 255 * (PAPER - INK)
    return np.rint(page).astype(np.uint8)


def shaded(page: Grey, *, darkest: float, angle: float) -> Grey:
    """Let the light fall off evenly across a page, down to `darkest`, in the direction of an angle."""
    height, width = page.shape
    y, x = np.mgrid[0:height, 0:width]
    slope = np.cos(angle) * x / width + np.sin(angle) * y / height
    light = darkest + (1 - darkest) * (slope - slope.min()) / (slope.max() - slope.min())
    return np.rint(page * light).astype(np.uint8)


def enlarged(page: Grey, factor: int) -> Grey:
    """Scan the page again at a higher resolution."""
    return np.asarray(cv2.resize(page, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), np.uint8)


def write_differing(folder: Path, count: int) -> None:
    """Write files that all differ, so that each is predicted: `000.png` and so on, as many digits as they need."""
    for number in range(count):
        page = np.pad(255 - digits(300)[number % 300], 2 + number // 300, constant_values=255)
        write_png(folder / f"{number:0{len(str(count - 1))}}.png", page)


def png(page: NDArray[np.uint8]) -> bytes:
    """Encode a page as PNG."""
    _, data = cv2.imencode(".png", page)
    return data.tobytes()


def write_png(path: Path, page: NDArray[np.uint8]) -> Path:
    """Write a page, and the folders on the way to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(page))
    return path


def write_tiff(path: Path, pages: list[NDArray[np.uint8]]) -> Path:
    """Write pages into one TIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwritemulti(str(path), pages)
    return path

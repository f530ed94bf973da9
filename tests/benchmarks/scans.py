"""Nothing in; folders of images to be read out: small PNGs, scans as JPEG, large photos, TIFFs of many pages.

All are made here, always the same ones, of MNIST's digits. Each folder is made once and can be kept between runs.
"""

import io
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from batchdigits.records import InkImages
from batchdigits.training.datasets.shipped import mnist

LONG_AGO = 1_600_000_000
"""Seconds since 1970 of each file's last change: none counts as still being written."""
SEED = 1998
NEW = 20
"""Images that come into a folder of known ones."""
NEW_FILES = "new-*.png"
"""Their names."""
IN_A_FOLDER = 1000
"""Distinct images side by side; ten such folders stand in one, ten of these in one, and so on."""
BYTES_A_FILE = 5000
"""What a distinct image takes of the disk: a block of 4096 bytes, its names, and its part of a ledger."""
A_THIRD = (0.4, 0.6)
"""Share of a digit's frame in its photo's height, the least and the most: the digit itself takes about a third."""
SHIFTS = [(down, right) for down in range(5) for right in range(5)]
"""How far a digit is moved, so that 60,000 give 1.5 million images."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A folder of files of one kind."""

    name: str
    """How the table calls them, and the part of the benchmark that reads them."""
    folder: str
    """Where they stand."""
    files: int
    """How many there are."""
    pages: int
    """How many pages each has."""
    write: Callable[[Path], None]
    """Fills an empty folder."""
    known_to_keras: bool = True
    """Keras's own loader can read them."""
    loop_files: int = 1
    """How many of them the slowest peer reads in a pass."""

    @property
    def images(self) -> int:
        """Count the pages."""
        return self.files * self.pages

    def made_in(self, place: Path) -> Path:
        """Give the folder, which is made unless it stands there."""
        return made(place / self.folder, self.write)

    def paths(self, place: Path) -> list[str]:
        """List its files."""
        return sorted(str(path) for path in self.made_in(place).iterdir())


def made(folder: Path, write: Callable[[Path], None]) -> Path:
    """Make a folder of images whole, or find it whole."""
    if not folder.exists():
        draft = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        write(draft)
        for file in draft.iterdir():
            os.utime(file, (LONG_AGO, LONG_AGO))
        draft.rename(folder)
    return folder


# ---- files of one kind ---------------------------------------------------------------------------------------------


def write_small_pngs(folder: Path, *, files: int) -> None:
    """Write the first images of MNIST's test half as grey 28×28 PNG files."""
    for number, image in enumerate(mnist("test")[0][:files]):
        cv2.imwrite(str(folder / f"{number:05}.png"), image)


def write_photos(folder: Path, *, files: int, height: int, width: int, shares: tuple[float, float] = A_THIRD) -> None:
    """Write colour JPEGs of digits of MNIST's test half."""
    made = photos(files, height, width, shares)
    for number, data in enumerate(tqdm(made, total=files, desc="photos", unit="file")):
        (folder / f"{number:05}.jpg").write_bytes(data)


def photos(count: int, height: int, width: int, shares: tuple[float, float] = A_THIRD) -> Iterator[bytes]:
    """Make colour JPEGs of the first digits of MNIST's test half, each time the same ones, one a digit."""
    rng = np.random.default_rng(SEED)
    for digit in mnist("test")[0][:count]:
        _, data = cv2.imencode(".jpg", photo(digit, height, width, rng, shares), [cv2.IMWRITE_JPEG_QUALITY, 88])
        yield data.tobytes()


def photo(
    digit: InkImages, height: int, width: int, rng: np.random.Generator, shares: tuple[float, float] = A_THIRD
) -> NDArray[np.uint8]:
    """Photograph a digit, [28, 28], on cloudy, shadowed, noisy, tinted paper.

    Args:
        digit: uint8[28, 28].
        height: Pixels of the photo.
        width: Pixels of the photo.
        rng: Randomness.
        shares: Of the digit's frame, 0.3 of which is its margin, in the paper's height: the least and the most.

    Returns:
        uint8[height, width, 3].
    """
    side = round(rng.uniform(*shares) * height)
    top, left = (round(rng.uniform(0.3, 0.7) * (extent - side)) for extent in (height, width))
    ink = np.asarray(cv2.resize(digit, (side, side), interpolation=cv2.INTER_CUBIC), np.float32) / 255
    strokes = ((ink - 0.35) / 0.3).clip(0, 1)  # they have edges, though they were enlarged
    beyond = max(0, side - height)  # of the frame's margin
    strokes, top = strokes[beyond // 2 :][:height], max(0, top)
    clouds = rng.normal(225, 2, (6, 8)).astype(np.float32)
    light = rng.uniform(0.8, 1, (2, 2)).astype(np.float32)  # at the corners
    page = np.asarray(cv2.resize(clouds, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    page[top : top + len(strokes), left : left + side] *= 1 - 0.75 * strokes
    page *= np.asarray(cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    page += 3 * rng.standard_normal((height, width), np.float32)
    return np.asarray(cv2.merge([cv2.convertScaleAbs(page, alpha=share) for share in (0.92, 0.97, 1)]), np.uint8)


def write_tiffs(folder: Path, *, files: int, pages: int, height: int, width: int) -> None:
    """Write TIFFs of many pages: in turn of one bit a pixel (G4), as fax and scanners do, and grey (LZW)."""
    digits = iter(mnist("test")[0])
    rng = np.random.default_rng(SEED)
    for number in tqdm(range(files), desc="TIFFs", unit="file"):
        greys = [photo(next(digits), height, width, rng)[..., 0] for _ in range(pages)]
        bilevel = number % 2 == 0
        images = [Image.fromarray(255 * (grey > 128).astype(np.uint8) if bilevel else grey) for grey in greys]
        first, *others = [image.convert("1") for image in images] if bilevel else images
        data = io.BytesIO()
        compression = "group4" if bilevel else "tiff_lzw"
        first.save(data, "TIFF", save_all=True, append_images=others, compression=compression)
        (folder / f"{number:05}.tif").write_bytes(data.getvalue())


SMALL = Kind("28×28 PNG", "small", 10_000, 1, partial(write_small_pngs, files=10_000), loop_files=200)
JPEGS = Kind("600×500 JPEG", "jpeg", 1000, 1, partial(write_photos, files=1000, height=500, width=600), loop_files=100)
FILLED = Kind(
    "600×500 JPEG, filled by its digit",
    "filled",
    128,
    1,
    partial(write_photos, files=128, height=500, width=600, shares=(1.1, 1.19)),
)
PHOTOS = Kind("4000×3000 JPEG", "photos", 40, 1, partial(write_photos, files=40, height=3000, width=4000), loop_files=5)
TIFFS = Kind(
    "TIFF of 20 pages 600×500",
    "tiff",
    50,
    20,
    partial(write_tiffs, files=50, pages=20, height=500, width=600),
    known_to_keras=False,
    loop_files=3,
)
KINDS = (SMALL, JPEGS, PHOTOS, TIFFS)


# ---- known images, and a few new ones ------------------------------------------------------------------------------


def known_and_new(place: Path) -> Path:
    """Give a folder of the small PNGs and of `NEW` others beside them, called `NEW_FILES`."""
    small = SMALL.made_in(place)

    def write(folder: Path) -> None:
        for file in small.iterdir():
            (folder / file.name).hardlink_to(file)
        for number, image in enumerate(mnist("train")[0][:NEW]):
            cv2.imwrite(str(folder / NEW_FILES.replace("*", f"{number:02}")), image)

    return made(place / "known", write)


# ---- distinct images -----------------------------------------------------------------------------------------------


def distinct(place: Path, count: int) -> Path:
    """Give a folder of so many small PNGs, all of other pixels: a power of ten from `IN_A_FOLDER` to a million.

    The smaller folders stand in the larger ones, `IN_A_FOLDER` files in each of the innermost.

    Raises:
        OSError: The disk has no room for them.
    """
    whole = place / "distinct"
    missing = [at for at in range(count // IN_A_FOLDER) if not inner(whole, at).exists()]
    if missing:
        place.mkdir(parents=True, exist_ok=True)
        check_room(place, len(missing) * IN_A_FOLDER)
    for at in tqdm(missing, desc=f"{count:,} distinct images", unit="thousand", disable=len(missing) < 10):
        made(inner(whole, at), partial(write_distinct, first=at * IN_A_FOLDER))
    folder = whole
    while count < 1_000_000:
        folder, count = folder / "0", count * 10
    return folder


def inner(whole: Path, at: int) -> Path:
    """Name the folder of a thousand files, 0 to 999, by the digits of its number."""
    return whole.joinpath(*f"{at:03}")


def check_room(place: Path, files: int) -> None:
    """Find out whether so many small files have room on the disk of a folder.

    Raises:
        OSError: They have none.
    """
    disk = os.statvfs(place)
    free_bytes, needed_bytes = disk.f_bavail * disk.f_frsize, files * BYTES_A_FILE
    if free_bytes < needed_bytes or disk.f_files > 0 and disk.f_favail < files:
        message = (
            f"{place}: {files:,} files need {needed_bytes / 1e9:.1f} GB, and {free_bytes / 1e9:.1f} GB and "
            f"{disk.f_favail:,} inodes are free; name another folder with --folder, or fewer files with --largest."
        )
        raise OSError(message)


def write_distinct(folder: Path, *, first: int) -> None:
    """Write the images of a thousand numbers, from the first one on."""
    for number in range(first, first + IN_A_FOLDER):
        _, data = cv2.imencode(".png", distinct_image(number))
        with open(f"{folder}/{number:06}.png", "wb") as file:  # noqa: PTH123  a Path takes as long again
            file.write(data)


def distinct_image(number: int) -> InkImages:
    """Move a digit of MNIST's training half: uint8[28, 28]; each number gives other pixels."""
    digits = training_digits()
    down, right = SHIFTS[number // len(digits)]
    return np.pad(digits[number % len(digits)], 2)[down : down + 28, right : right + 28]


@cache
def training_digits() -> InkImages:
    """Unpack MNIST's training half, once in this process."""
    return mnist("train")[0]

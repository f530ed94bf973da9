"""Pages that show no digit, seeded: letters, several digits, scribbles, textures, photographs, and empty paper.

`accuracy.py` asks the program about each kind. What later work adds: another kind stands beside these.
"""

import math
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from batchdigits.decoding.codecs import Page, decode
from batchdigits.records import GreyImage, InkImages
from batchdigits.settings import DecodingSettings

SEED = 1998
HANDED_OUT = Path(__file__).resolve().parents[3] / "shared" / "data"  # beside the checkout, where there is one
FONTS = Path("/usr/share/fonts")
LETTERS = "CEFHKMNPRTUWXaehkmnruwx"
LETTER_SIDE, LETTER_HEIGHT = 64, 44  # pixels of a letter's page, and of its font
PAGES = 300  # of each kind
SIDES = (20, 160)  # pixels
INK_DEPTH = 25  # grey levels below the paper around it from which a spot of a photo counts as ink

Floats = NDArray[np.float64]


def letters() -> Iterator[tuple[str, list[GreyImage]]]:
    """Draw `LETTERS` in the fonts of this machine, without those that come with matplotlib, which training sees."""
    seen = {path.name for path in Path(mpl.get_data_path()).rglob("*.ttf")}
    fonts = sorted(path for path in FONTS.rglob("*.[to]tf") if path.name not in seen)
    if not fonts:
        print(f"No fonts in {FONTS} but those of matplotlib: the letters are left out.")
        return
    drawn = [letter(sign, ImageFont.truetype(path, LETTER_HEIGHT)) for path in fonts for sign in LETTERS]
    yield f"letters, {len(fonts)} fonts, black", [255 - page for page in drawn]
    yield f"letters, {len(fonts)} fonts, white", drawn


def letter(sign: str, font: ImageFont.FreeTypeFont) -> GreyImage:
    """Draw one letter in white on black: uint8[64, 64]."""
    page = Image.new("L", (LETTER_SIDE, LETTER_SIDE))
    ImageDraw.Draw(page).text((LETTER_SIDE // 2, LETTER_SIDE // 2), sign, 255, font, anchor="mm")
    return np.asarray(page, np.uint8)


def others(digits: InkImages) -> Iterator[tuple[str, list[GreyImage]]]:
    """Make pages with ink that is no single digit.

    Args:
        digits: uint8[N, 28, 28], which stand on a page by twos and threes.
    """
    rng = np.random.default_rng(SEED)
    yield "several digits, side by side", [several(digits, rng) for _ in range(PAGES)]
    yield "scribbles", [scribble(rng) for _ in range(PAGES)]
    yield "textures", [texture(*page_size(rng), rng) for _ in range(PAGES)]
    if HANDED_OUT.is_dir():
        sheets = list(photographed_sheets())
        yield (
            "photographs of whole sheets",
            [piece(sheet, rng) for sheet in sheets for _ in range(PAGES // len(sheets))],
        )


def several(digits: InkImages, rng: np.random.Generator) -> GreyImage:
    """Write two or three digits beside each other on white paper, from touching to far apart."""
    page = np.zeros((40, 12), np.uint8)
    for digit in digits[rng.integers(0, len(digits), rng.integers(2, 4))]:
        gap = np.zeros((40, rng.integers(0, 25)), np.uint8)
        page = np.concatenate([page, np.pad(digit[:, digit.any(0)], ((6, 6), (0, 0))), gap], axis=1)
    return 255 - page


def scribble(rng: np.random.Generator) -> GreyImage:
    """Go to and fro with a pen: straight strokes between places that lie far apart."""
    height, width = page_size(rng)
    page = np.full((height, width), 255, np.uint8)
    places = rng.uniform(0.05, 0.95, (rng.integers(6, 20), 2)) * (width, height)
    cv2.polylines(page, [places.astype(np.int32)], False, 0, max(1, min(height, width) // 24), cv2.LINE_AA)
    return page


def texture(height: int, width: int, rng: np.random.Generator) -> GreyImage:
    """Make clouds, or wood where they are longer than wide."""
    field = cv2.GaussianBlur(rng.normal(0, 1, (height, width)), (0, 0), rng.uniform(1, 8), sigmaY=rng.uniform(1, 8))
    return np.asarray(cv2.normalize(field, None, 0, 255, cv2.NORM_MINMAX), np.uint8)


def piece(sheet: GreyImage, rng: np.random.Generator) -> GreyImage:
    """Cut out the greater part of a sheet, on which there are many digits."""
    height, width = (int(extent * rng.uniform(0.5, 1)) for extent in sheet.shape)
    top, left = rng.integers(0, np.array(sheet.shape) - (height, width) + 1)
    return sheet[top : top + height, left : left + width]


def photographed_sheets() -> Iterator[GreyImage]:
    """Decode the handed-out photos of whole sheets."""
    with tarfile.open(HANDED_OUT / "photos.tar.gz") as archive:
        for name in sorted(archive.getnames()):
            if "/sheets/" not in name or Path(name).suffix not in {".png", ".jpg"}:
                continue
            file = archive.extractfile(name)
            assert file is not None
            page = decode(file.read(), DecodingSettings())[0]
            assert isinstance(page, Page), name
            yield page.grey


def blanks() -> Iterator[tuple[str, list[GreyImage]]]:
    """Make paper of several kinds that nobody wrote on, and cut some out of photos."""
    for name, make in BLANK_KINDS.items():
        rng = np.random.default_rng(SEED)
        made = [make(*page_size(rng), rng) for _ in range(PAGES)]
        yield f"blank: {name}", [np.clip(page, 0, 255).astype(np.uint8) for page in made]
    if HANDED_OUT.is_dir():
        yield "blank: real paper", real_paper(np.random.default_rng(SEED))


def page_size(rng: np.random.Generator) -> tuple[int, int]:
    """Draw a page's height and width, as likely small as large."""
    height, width = np.exp(rng.uniform(math.log(SIDES[0]), math.log(SIDES[1]), 2)).astype(int).tolist()
    return height, width


def white(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Light paper, even."""
    return np.full((height, width), rng.uniform(200, 256))


def dark(height: int, width: int, rng: np.random.Generator) -> Floats:
    """A dark board, even."""
    return np.full((height, width), rng.uniform(0, 60))


def shadowed(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Light paper with a shadow over a part of it, whose edge is soft or sharp, and the camera's noise."""
    across = slope(height, width, rng) - rng.uniform(0.2, 0.8)
    shade = rng.uniform(0.1, 0.6) / (1 + np.exp(-across / rng.choice([0.01, 0.05, 0.2])))
    return np.asarray(white(height, width, rng) * (1 - shade) + rng.normal(0, 1.5, (height, width)))


def noisy(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Grey of any level under strong noise."""
    return rng.normal(rng.uniform(40, 230), rng.uniform(3, 25), (height, width))


def ruled(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Light paper with one to four printed lines across it, and half the time lines down it: squared paper."""
    page = white(height, width, rng)
    pitch, thick = max(6, height / rng.uniform(1, 5)), rng.integers(1, 3)
    for paper in (page, page.T)[: rng.integers(1, 3)]:
        for start in np.arange(rng.uniform(0, pitch), len(paper), pitch).astype(int):
            paper[start : start + thick] *= rng.uniform(0.3, 0.9)
    return page


def gradient(height: int, width: int, rng: np.random.Generator) -> Floats:
    """An even slope between any two grey levels, in any direction."""
    low, high = rng.uniform(0, 255, 2)
    return np.asarray(low + (high - low) * slope(height, width, rng))


def slope(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Climb evenly in any direction: float64[height, width], 0 to 1."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:height, 0:width]
    climbed = np.cos(angle) * x + np.sin(angle) * y
    return np.asarray((climbed - climbed.min()) / np.ptp(climbed))


BLANK_KINDS: dict[str, Callable[[int, int, np.random.Generator], Floats]] = {
    "white": white,
    "dark": dark,
    "shadowed": shadowed,
    "noisy": noisy,
    "ruled": ruled,
    "gradient": gradient,
}


def real_paper(rng: np.random.Generator) -> list[GreyImage]:
    """Cut squares without ink out of the handed-out photos of sheets, as many of each; faint ruling may remain."""
    cut: list[GreyImage] = []
    sheets = list(photographed_sheets())
    for sheet in sheets:
        found: list[GreyImage] = []
        inked = ink_of(sheet)
        while len(found) < PAGES // len(sheets):
            side = min(page_size(rng))
            top, left = rng.integers(0, np.array(inked.shape) - side)
            if not inked[top : top + side, left : left + side].any():
                found.append(sheet[top : top + side, left : left + side])
        cut += found
    return cut


def ink_of(sheet: GreyImage) -> NDArray[np.bool_]:
    """Mark what is darker than the paper around it, with a margin: bool[H, W]."""
    smooth = cv2.GaussianBlur(sheet, (0, 0), 1)
    depth = cv2.morphologyEx(smooth, cv2.MORPH_BLACKHAT, np.ones((41, 41), np.uint8))
    margin = np.ones((7, 7), np.uint8)
    return np.asarray(cv2.dilate((depth > INK_DEPTH).astype(np.uint8), margin), np.bool_)

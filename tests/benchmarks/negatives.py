"""Make pages that show no single digit, kind by kind: marks, numbers, letters, print, pictures, empty paper.

Where there is print or writing, `blank` is wrong, too.
"""

import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.records import GreyImage
from batchdigits.training.datasets import shipped
from batchdigits.training.datasets.simulator import hands, paper
from batchdigits.training.datasets.simulator.hands import Hand, Sources, sources
from batchdigits.training.datasets.simulator.layouts import lay_out
from batchdigits.training.datasets.simulator.pages import SCENES, Kind, simulate
from batchdigits.training.datasets.simulator.strokes import Ink, Movements, Stroke
from tests.benchmarks.composing import bare, dice, framed, hand, photographed, place, scanned, whole
from tests.benchmarks.reading import SHARED, PageSet, decoded

Draw = Callable[[Hand, float], Ink]
"""Draws something of a size in pixels."""
Print = Callable[[Ink, np.random.Generator], object]
"""Prints something on a page."""

_PHOTOS = SHARED / "data" / "photos.tar.gz"
_INK_DEPTH = 25  # grey levels below the paper around it from which a spot of a photo counts as ink
_PAPER_SIDES = (28, 160)  # pixels of a piece of empty paper
_BLANK = "all empty paper"


def negatives(count: int) -> Iterator[PageSet | str]:
    """Give so many pages of each kind."""
    written = sources("test")
    for name, draw in _DRAWN.items():
        pages = [_on_some_paper(draw, written, dice(name, number)) for number in range(count)]
        yield PageSet(name, pages, group="all that is drawn")
    pages = [_on_some_paper(_ring, written, dice("ring", number)) for number in range(count)]
    yield PageSet("rings alone (a 0 to most readers)", pages)
    yield PageSet("numbers 10 to 15, scanned (cc0_scans)", shipped.numbers("test")[0], group="all that is drawn")
    yield from (replace(some, group="all letters") for some in _letters())
    yield from (replace(some, group="all that is printed") for some in _of_kinds(_PRINTED, count))
    yield from (replace(some, group="all pictures", has_writing=False) for some in _of_kinds(_PICTURES, count))
    sheets = _photographed_sheets()
    if sheets:
        pieces = [_piece(sheets[number % len(sheets)], dice("sheets", number)) for number in range(count)]
        yield PageSet("photographs of whole sheets", pieces, group="all that is printed")
        yield PageSet("real paper", _real_paper(sheets, count), has_writing=False, group=_BLANK)
    else:
        yield "../shared/data/photos.tar.gz is missing: photographs of whole sheets, and real paper."
    for scene in SCENES:
        pages = [simulate(written, dice(scene, number), scene=scene, kind=Kind.BLANK).grey for number in range(count)]
        yield PageSet(f"empty scene: {scene}", pages, has_writing=False, group=_BLANK)
    yield from (replace(some, has_writing=False, group=_BLANK) for some in _of_kinds(_EMPTY, count))


# ---- what is drawn with a pen --------------------------------------------------------------------------------------


def _on_some_paper(draw: Draw, written: Sources, rng: np.random.Generator) -> GreyImage:
    """Draw on a cut-out, on a photo, or in a printed cell."""
    surface = rng.choice(3, p=[0.4, 0.35, 0.25])
    ink = bare(rng, *((40, 200), (150, 600), (60, 300))[surface], narrow=0.7)
    field = framed(ink, rng, rng.uniform(0, 0.12)) if surface == 2 else whole(ink)
    share = rng.uniform(0.3, 0.8) if surface == 1 else rng.uniform(0.6, 0.95)
    place(ink, draw(hand(written, rng), share * field.least), field, rng, rng.uniform(0.6, 1))
    return (photographed if surface == 1 else scanned)(ink, rng)


def _path(*points: tuple[float, float]) -> Stroke:
    return np.array(points, np.float32)


def _tick(by: Hand, size: float) -> Ink:
    low, high = by.rng.uniform((0.25, -0.1), (0.45, 0.2))
    return by.write([_path((0, by.rng.uniform(0.5, 0.8)), (low, 1), (1, high))], size, 0.6)


def _cross(by: Hand, size: float) -> Ink:
    a, b, c = by.rng.uniform(-0.1, 0.15, 3)
    return by.write([_path((a, b), (1, 1)), _path((1, c), (0, 1 - a))], size, 0.6)


def _mark(by: Hand, size: float) -> Ink:
    """Draw a dash, an arrow, a star, a box, a zigzag, a wave, a spiral, dots, a plus, a hash or braces."""
    rng = by.rng
    turns = np.linspace(0, 2 * np.pi, 60)
    along = np.linspace(0, 1, 60)
    star = 0.5 + 0.5 * np.resize([1, 0.4], 11)[:, None] * np.stack(
        [np.sin(np.arange(11) * np.pi / 5), -np.cos(np.arange(11) * np.pi / 5)], 1
    )
    spiral = 0.5 + 0.5 * along[:, None] * np.stack([np.cos(3 * turns), np.sin(3 * turns)], 1)
    zigzag = np.stack([np.linspace(0, 1, 9), 0.3 * (np.arange(9) % 2)], 1)
    shapes: list[list[NDArray[np.floating]]] = [
        [_path((0, 0.5), (1, rng.uniform(0.4, 0.6)))],
        [_path((0, 0.5), (1, 0.5)), _path((0.65, 0.2), (1, 0.5), (0.65, 0.8))],
        [star],
        [_path((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))],
        [zigzag],
        [np.stack([along, 0.2 * np.sin(2.5 * turns)], 1)],
        [spiral],
        [_path((0.5, 0), (0.5, 1)), _path((0, 0.5), (1, 0.5))],
        [_path((x, 0), (x - 0.1, 1)) for x in (0.35, 0.7)] + [_path((0, y), (1, y)) for y in (0.35, 0.7)],
        [_path((0, 0), (1, 0), (0.5, 0.9), (0, 0))],
        [_path((0, y), (1, y + rng.normal(0, 0.03))) for y in (0.0, 0.4, 0.8)],
    ]
    return by.write([stroke.astype(np.float32) for stroke in shapes[rng.integers(len(shapes))]], size, 0.6)


def _ring(by: Hand, size: float) -> Ink:
    return by.write([hands.ring(by.rng)], size, 0.6)


def _ring_around_a_mark(by: Hand, size: float) -> Ink:
    """Draw a ring around a tick or a cross."""
    inside = [_path((0.35, 0.55), (0.48, 0.7), (0.7, 0.3))]
    if by.rng.random() < 0.5:
        inside = [_path((0.35, 0.35), (0.65, 0.65)), _path((0.65, 0.35), (0.35, 0.65))]
    return by.write([hands.ring(by.rng), *inside], size, 0.6)


def _struck_out(by: Hand, size: float) -> Ink:
    """Strike a digit out with three to six strokes."""
    tile, _ = by.digit(size)
    height, width = tile.shape
    for _ in range(int(by.rng.integers(3, 7))):
        ends = (by.rng.uniform(0.05, 0.95, 2) * height).tolist()
        paper.line(tile, (0, ends[0]), (width, ends[1]), max(1.0, by.pen_share * size), 1.0)
    return tile


def _number_of_two(by: Hand, size: float) -> Ink:
    return by.number(0.7 * size, 2)


def _longer_number(by: Hand, size: float) -> Ink:
    return by.number(0.5 * size, int(by.rng.integers(3, 6)))


def _word(by: Hand, size: float) -> Ink:
    """Write some letters or marks beside each other."""
    tiles = [by.other(0.45 * size * by.rng.uniform(0.8, 1.1)) for _ in range(int(by.rng.integers(2, 5)))]
    ink = np.zeros((max(tile.shape[0] for tile in tiles), sum(tile.shape[1] for tile in tiles) + 1), np.float32)
    x = 0
    for tile in tiles:
        paper.put(ink, tile, x, ink.shape[0] - tile.shape[0])
        x += tile.shape[1]
    return ink


_DRAWN: dict[str, Draw] = {
    "ticks": _tick,
    "crosses": _cross,
    "other marks": _mark,
    "rings around a tick or a cross": _ring_around_a_mark,
    "digits struck out, nothing beside": _struck_out,
    "numbers of two digits": _number_of_two,
    "numbers of three to five digits": _longer_number,
    "several letters or marks": _word,
}


# ---- letters -------------------------------------------------------------------------------------------------------


def _letters() -> Iterator[PageSet]:
    """Give the letters that nobody takes for digits, by writers left out of training, and those of other scripts."""
    moves = shipped.letters("test")
    of_uji = np.array([writer.startswith("uji/") for writer in moves.writer])
    for name, rows in (("letters and symbols (unipen)", ~of_uji), ("letters (uji)", of_uji)):
        if rows.any():
            yield PageSet(name, _drawn(name, moves.take(np.flatnonzero(rows))))
    yield PageSet("letters of other scripts (omniglot)", [255 - page for page in shipped.foreign("test")])


def _drawn(name: str, moves: Movements) -> list[GreyImage]:
    """Draw each sample once, on some paper; nothing is drawn from other sources."""
    written = sources("test")

    def page(row: int) -> GreyImage:
        return _on_some_paper(lambda by, size: by.write(moves.strokes(row), size, 0.5), written, dice(name, row))

    return [page(row) for row in range(len(moves))]


# ---- print, pictures, empty paper ----------------------------------------------------------------------------------


def _of_kinds(kinds: Mapping[str, Print], count: int) -> Iterator[PageSet]:
    """Print so many pages of each kind, of any size, and scan or photograph them."""
    for name, print_on in kinds.items():
        yield PageSet(name, [_printed(print_on, dice(name, number)) for number in range(count)])


def _printed(print_on: Print, rng: np.random.Generator) -> GreyImage:
    ink = bare(rng, 90, 900)
    print_on(ink, rng)
    return (scanned if rng.random() < 0.5 else photographed)(ink, rng)


def _text(ink: Ink, rng: np.random.Generator) -> None:
    paper.column_of_text(ink, rng, rng.uniform(0.5, 1))


def _table(ink: Ink, rng: np.random.Generator) -> None:
    """Draw a table of two to six rows and columns, empty or with words in some cells."""
    height, width = ink.shape
    rows, columns = rng.integers(2, 7, 2).tolist()
    box = whole(ink).without(rng.uniform(0.03, 0.15) * min(ink.shape))
    thick, strength = rng.uniform(0.8, max(1.2, 0.01 * min(ink.shape))), rng.uniform(0.5, 1)
    ys, xs = np.linspace(box.top, box.bottom, rows + 1).tolist(), np.linspace(box.left, box.right, columns + 1).tolist()
    for y in ys:
        paper.line(ink, (box.left, y), (box.right, y), thick, strength)
    for x in xs:
        paper.line(ink, (x, box.top), (x, box.bottom), thick, strength)
    size = 0.35 * (ys[1] - ys[0])
    if size > 6 and rng.random() < 0.6:
        for y in ys[:-1]:
            for x in xs[:-1]:
                if rng.random() < 0.5:
                    word = paper.text(rng, size)
                    paper.put(ink, word[:, : int(0.9 * (xs[1] - xs[0]))], int(x + 2 * thick), int(y + size / 2))


def _cell(ink: Ink, rng: np.random.Generator) -> None:
    framed(ink, rng, rng.uniform(-0.01, 0.2))


def _ruled(ink: Ink, rng: np.random.Generator) -> None:
    lay_out(ink, "ruled", rng)


_PRINTED = {"pages of text": _text, "forms": paper.form, "tables": _table}
_PICTURES = {"objects, portraits": paper.shapes, "textures": paper.texture}
_EMPTY = {"empty printed cell": _cell, "empty ruled, squared, dotted paper": _ruled}


# ---- real sheets ---------------------------------------------------------------------------------------------------


def _photographed_sheets() -> list[GreyImage]:
    """Decode the photos of whole sheets; none where they are missing."""
    if not _PHOTOS.is_file():
        return []
    with tarfile.open(_PHOTOS) as archive:
        names = [name for name in sorted(archive.getnames()) if "/sheets/" in name and name.endswith((".png", ".jpg"))]
        files = [(name, archive.extractfile(name)) for name in names]
        return [decoded(file.read(), name).grey for name, file in files if file]


def _piece(sheet: GreyImage, rng: np.random.Generator) -> GreyImage:
    """Cut out the greater part of a sheet, on which there are many digits."""
    height, width = (int(extent * rng.uniform(0.5, 1)) for extent in sheet.shape)
    top, left = (
        int(rng.integers(extent - kept + 1)) for extent, kept in zip(sheet.shape, (height, width), strict=True)
    )
    return sheet[top : top + height, left : left + width]


def _real_paper(sheets: Sequence[GreyImage], count: int) -> list[GreyImage]:
    """Cut squares without ink, as many of each sheet; faint ruling may remain."""
    inked = [_ink_of(sheet) for sheet in sheets]
    cut: list[GreyImage] = []
    for number in range(count):
        rng, at = dice("real paper", number), number % len(sheets)
        while True:
            side = int(np.exp(rng.uniform(*np.log(_PAPER_SIDES))))
            top, left = rng.integers(0, np.array(inked[at].shape, np.intp) - side)
            if not inked[at][top : top + side, left : left + side].any():
                break
        cut.append(sheets[at][top : top + side, left : left + side])
    return cut


def _ink_of(sheet: GreyImage) -> NDArray[np.bool_]:
    """Mark what is darker than the paper around it, with a margin: bool[H, W]."""
    smooth = cv2.GaussianBlur(sheet, (0, 0), 1)
    depth = cv2.morphologyEx(smooth, cv2.MORPH_BLACKHAT, np.ones((41, 41), np.uint8))
    margin = np.ones((7, 7), np.uint8)
    return np.asarray(cv2.dilate((depth > _INK_DEPTH).astype(np.uint8), margin), np.bool_)

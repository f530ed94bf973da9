"""Make pages with a digit, kind by kind, by writers who are left out of training.

First come the scenes of the simulator, then kinds that each show one difficulty: frames, bars, thin pens, faint pencil,
chalk, fax, and so on.
"""

from collections.abc import Callable, Iterator

import cv2
import numpy as np

from batchdigits.records import GreyImage
from batchdigits.training.datasets.simulator import camera, hands, paper
from batchdigits.training.datasets.simulator.hands import Sources, sources
from batchdigits.training.datasets.simulator.layouts import lay_out
from batchdigits.training.datasets.simulator.pages import SCENES, Kind, simulate
from batchdigits.training.datasets.simulator.strokes import Ink
from tests.benchmarks.composing import Box, bare, dice, framed, hand, photographed, place, scanned, whole, write
from tests.benchmarks.reading import PageSet

Make = Callable[[Sources, np.random.Generator], tuple[GreyImage, int]]
"""A page and its digit."""

_PAPERS = ((1, 0.93, 0.45), (1, 0.7, 0.8), (0.6, 0.95, 0.6), (0.6, 0.8, 1), (1, 0.75, 0.4), (0.85, 0.85, 0.85))
_INKS = ((0.1, 0.15, 0.6), (0.75, 0.1, 0.15), (0.05, 0.4, 0.2), (0.1, 0.1, 0.1), (0.35, 0.35, 0.4))  # red, green, blue


def simulated_kinds(count: int) -> Iterator[PageSet]:
    """Give so many pages of each kind."""
    written = sources("test")
    for scene in SCENES:
        pages = [simulate(written, dice(scene, number), scene=scene, kind=Kind.DIGIT) for number in range(count)]
        labels = np.array([page.label for page in pages], np.int8)
        yield PageSet(f"scene: {scene}", [page.grey for page in pages], labels, group="all scenes")
    for name, make in KINDS.items():
        made = [make(written, dice(name, number)) for number in range(count)]
        labels = np.array([label for _, label in made], np.int8)
        yield PageSet(name, [page for page, _ in made], labels, group="all other kinds")


# ---- lines ---------------------------------------------------------------------------------------------------------


def frame_at_the_edge(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Cut a cell out by its lines."""
    return _in_cell(sources, rng, rng.uniform(-0.01, 0.03))


def frame_inside(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Cut a cell out with paper around its lines."""
    return _in_cell(sources, rng, rng.uniform(0.06, 0.25))


def _in_cell(sources: Sources, rng: np.random.Generator, inset: float) -> tuple[GreyImage, int]:
    ink = bare(rng, 44, 320)
    field = framed(ink, rng, inset)
    label, _ = write(ink, hand(sources, rng), field, rng.uniform(0.5, 0.95) * field.least, rng.uniform(0.5, 1))
    return (scanned if rng.random() < 0.6 else photographed)(ink, rng), label


def _barred(ink: Ink, rng: np.random.Generator, sides: int) -> Box:
    """Lay thick dark bars along some sides, as a table on a board or a neighbouring field has."""
    deep = [max(2, round(rng.uniform(0.03, 0.12) * min(ink.shape))) * (side < sides) for side in rng.permutation(4)]
    height, width = ink.shape
    box = Box(deep[0], deep[1], width - deep[2], height - deep[3])
    mask = np.full(ink.shape, rng.uniform(0.5, 1), np.float32)
    mask[int(box.top) : int(box.bottom), int(box.left) : int(box.right)] = 0
    np.maximum(ink, mask, out=ink)
    return box


def bar_at_one_side(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Let a bar run along one side."""
    return _beside_bars(sources, rng, 1)


def bars_at_two_sides(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Let bars run along two sides."""
    return _beside_bars(sources, rng, 2)


def _beside_bars(sources: Sources, rng: np.random.Generator, sides: int) -> tuple[GreyImage, int]:
    ink = bare(rng, 44, 300)
    field = _barred(ink, rng, sides)
    field = field.without(0.05 * field.least)
    label, _ = write(ink, hand(sources, rng), field, rng.uniform(0.5, 0.9) * field.least, rng.uniform(0.6, 1))
    return (scanned if rng.random() < 0.5 else photographed)(ink, rng), label


def ruled_or_squared(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Write on ruled, squared or dotted paper."""
    ink = bare(rng, 120, 500)
    lay_out(ink, "ruled", rng)
    label, _ = write(ink, hand(sources, rng), whole(ink), rng.uniform(0.3, 0.8) * min(ink.shape), rng.uniform(0.7, 1))
    return (scanned if rng.random() < 0.4 else photographed)(ink, rng), label


# ---- pens, paper, light --------------------------------------------------------------------------------------------


def thin_pen_on_photo(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Photograph a fineliner from some way off: strokes of 1 to 2.5% of the digit's height."""
    ink = bare(rng, 300, 900)
    by = hand(sources, rng, 0.01, 0.025)
    label, _ = write(ink, by, whole(ink), rng.uniform(0.25, 0.8) * min(ink.shape), rng.uniform(0.6, 1))
    return photographed(ink, rng), label


def photo_in_shadow(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Photograph a page with the edge of a shadow across it."""
    ink = bare(rng, 200, 700)
    label, _ = write(ink, hand(sources, rng), whole(ink), rng.uniform(0.2, 0.8) * min(ink.shape), rng.uniform(0.6, 1))
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in ink.shape)
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y[:, None] - rng.uniform(-0.6, 0.6)
    shade = rng.uniform(0.3, 0.65) / (1 + np.exp(-along / rng.choice([0.01, 0.05, 0.2])))
    light = rng.uniform(0.7, 0.95) * (1 - ink) * (1 - shade)
    return camera.take(light.astype(np.float32), rng, careful=True, one_bit=False), label


def faint_pencil(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Write with a hard pencil, which takes 8 to 22% of the paper's light."""
    ink = bare(rng, 80, 500)
    by = hand(sources, rng, 0.025, 0.06, grain=rng.uniform(0.1, 0.4))
    label, _ = write(ink, by, whole(ink), rng.uniform(0.3, 0.9) * min(ink.shape), rng.uniform(0.08, 0.22))
    return (scanned if rng.random() < 0.5 else photographed)(ink, rng), label


def chalk(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Write with chalk on a board, in half of them within a table drawn there."""
    ink = bare(rng, 60, 300)
    field = framed(ink, rng, rng.uniform(-0.02, 0.15)) if rng.random() < 0.5 else whole(ink)
    by = hand(sources, rng, 0.05, 0.11, grain=rng.uniform(0.3, 0.6))
    label, _ = write(ink, by, field, rng.uniform(0.5, 0.9) * field.least, rng.uniform(0.7, 1))
    board = rng.uniform(0.1, 0.35) + rng.uniform(0.01, 0.04) * paper.noise(
        ink.shape, rng, max(2.0, 0.1 * min(ink.shape))
    )
    light = board + (rng.uniform(0.6, 1) - board) * ink
    return camera.take(np.clip(light, 0, 1).astype(np.float32), rng, careful=True, one_bit=False), label


def one_bit(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Scan in black and white."""
    ink = bare(rng, 24, 200)
    label, _ = write(ink, hand(sources, rng, 0.05, 0.12), whole(ink), rng.uniform(0.5, 0.95) * min(ink.shape))
    return scanned(ink, rng, one_bit=True), label


def fax(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Fax: black and white, with pixels twice as high as wide."""
    ink = bare(rng, 80, 400)
    label, _ = write(ink, hand(sources, rng, 0.04, 0.1), whole(ink), rng.uniform(0.4, 0.9) * min(ink.shape))
    size = ink.shape[1], round(ink.shape[0] / 2)
    return scanned(np.asarray(cv2.resize(ink, size, interpolation=cv2.INTER_AREA)), rng, one_bit=True), label


def sticky_note(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Write in colour on coloured paper, and photograph it."""
    ink = bare(rng, 120, 500, narrow=0.85)
    label, _ = write(ink, hand(sources, rng), whole(ink), rng.uniform(0.3, 0.8) * min(ink.shape))
    note, pen = (np.array(colours[rng.integers(len(colours))], np.float32) for colours in (_PAPERS, _INKS))
    picture = note + (note * pen - note) * ink[:, :, None]  # ink takes light away, as a filter does
    light = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)) * camera.illuminate(ink.shape, rng)
    return camera.take(light.astype(np.float32), rng, careful=True, one_bit=False), label


# ---- things beside the digit ---------------------------------------------------------------------------------------


def _beside(
    sources: Sources, rng: np.random.Generator, add: Callable[[Ink, hands.Hand, Box], None]
) -> tuple[GreyImage, int]:
    """Write a digit with room around it, and add something to it."""
    ink = bare(rng, 90, 420, narrow=0.75)
    by = hand(sources, rng)
    field = whole(ink).without(0.22 * min(ink.shape))
    label, box = write(ink, by, field, rng.uniform(0.6, 0.95) * field.least, rng.uniform(0.7, 1))
    add(ink, by, box)
    return (scanned if rng.random() < 0.5 else photographed)(ink, rng), label


def underlined(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Underline a digit, now and then twice."""

    def add(ink: Ink, by: hands.Hand, box: Box) -> None:
        size = box.bottom - box.top
        reach, y = rng.uniform(0, 0.4) * size, box.bottom + rng.uniform(0.06, 0.2) * size
        for at in (y, y + 0.1 * size)[: 1 + (rng.random() < 0.2)]:
            ends = (box.left - reach, at + rng.normal(0, 0.03) * size), (box.right + reach, at)
            paper.line(ink, *ends, max(1.0, by.pen_share * size), 0.9)

    return _beside(sources, rng, add)


def ringed(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Draw a ring around a digit."""

    def add(ink: Ink, by: hands.Hand, box: Box) -> None:
        around = rng.uniform(1.15, 1.45) * float(np.hypot(box.right - box.left, box.bottom - box.top))
        tile = by.write([hands.ring(rng)], around, 0.4)
        middle = (box.left + box.right - tile.shape[1]) / 2, (box.top + box.bottom - tile.shape[0]) / 2
        paper.put(ink, tile * np.float32(0.9), int(middle[0]), int(middle[1]))

    return _beside(sources, rng, add)


def struck_out_and_new_beside(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Strike a digit out, and write the right one at its right."""
    height = float(np.exp(rng.uniform(np.log(60), np.log(260))))
    ink = np.zeros((round(height), round(rng.uniform(1.5, 2.1) * height)), np.float32)
    by, width = hand(sources, rng), ink.shape[1]
    size = rng.uniform(0.5, 0.75) * height
    _, old = write(ink, by, Box(0.06 * width, 0.1 * height, 0.48 * width, 0.9 * height), size)
    for _ in range(int(rng.integers(2, 5))):
        start, end = (old.top + rng.uniform(0.1, 0.9, 2) * (old.bottom - old.top)).tolist()
        reach = 0.1 * size
        paper.line(ink, (old.left - reach, start), (old.right + reach, end), max(1.0, by.pen_share * size), 0.95)
    label, _ = write(ink, by, Box(0.55 * width, 0.1 * height, 0.95 * width, 0.9 * height), size)
    return (scanned if rng.random() < 0.5 else photographed)(ink, rng), label


def neighbour_at_the_edge(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Let a piece of another digit reach into the page from the left or the right."""
    ink = bare(rng, 48, 260, narrow=0.8)
    height, width = ink.shape
    by = hand(sources, rng)
    label, box = write(ink, by, whole(ink).without(0.2 * min(ink.shape)), 0.6 * min(ink.shape), 0.9)
    tile, _ = by.digit(0.7 * height)
    shown = int(min(rng.uniform(0.1, 0.5) * tile.shape[1], 0.8 * box.left, 0.8 * (width - box.right)))
    x = shown - tile.shape[1] if rng.random() < 0.5 else width - shown
    paper.put(ink, tile * np.float32(0.9), x, int(rng.uniform(0, 0.3) * height))
    return (scanned if rng.random() < 0.7 else photographed)(ink, rng), label


def punch_holes(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Scan a sheet with two holes."""
    ink = bare(rng, 200, 900)
    left = 0.18 * ink.shape[1]
    size = rng.uniform(0.15, 0.5) * min(ink.shape)
    label, _ = write(ink, hand(sources, rng), whole(ink)._replace(left=left), size, rng.uniform(0.7, 1))
    paper.punch(ink, rng)
    return scanned(ink, rng), label


def black_scan_edge(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Scan with the lid open: black along one to three edges."""
    ink = bare(rng, 100, 800)
    field = _barred(ink, rng, int(rng.integers(1, 4)))
    label, _ = write(ink, hand(sources, rng), field, rng.uniform(0.15, 0.7) * field.least, rng.uniform(0.7, 1))
    return scanned(ink, rng), label


def dark_desk(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Photograph a card that lies askew on a dark desk."""
    ink = bare(rng, 160, 700)
    height, width = ink.shape
    label, _ = write(ink, hand(sources, rng), whole(ink).without(0.1 * min(ink.shape)), 0.55 * min(ink.shape), 0.9)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.normal(0, 6), rng.uniform(0.5, 0.85))
    card = rng.uniform(0.7, 0.95) * (1 - ink)
    desk = rng.uniform(0.02, 0.2) + 0.02 * paper.noise(ink.shape, rng, rng.uniform(1, 6))
    cover = np.asarray(cv2.warpAffine(np.ones_like(ink), turn, (width, height), flags=cv2.INTER_AREA))
    moved = np.asarray(cv2.warpAffine(card.astype(np.float32), turn, (width, height), flags=cv2.INTER_AREA))
    light = (moved + (1 - cover) * desk) * camera.illuminate(ink.shape, rng)
    return camera.take(np.clip(light, 0, 1).astype(np.float32), rng, careful=True, one_bit=False), label


# ---- few pixels ----------------------------------------------------------------------------------------------------


def tiny(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Cut a digit out to 14 to 20 px, of one bit or grey, of either polarity."""
    side = int(rng.integers(14, 21))
    ink = np.zeros((side, round(side * rng.uniform(0.7, 1))), np.float32)
    label, _ = write(ink, hand(sources, rng, 0.08, 0.16), whole(ink), side)
    grey = scanned(ink, rng, one_bit=bool(rng.random() < 0.4))
    return grey if rng.random() < 0.5 else 255 - grey, label


def stretched_to_the_frame(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Cut a digit out by its ink, and stretch it to a frame of another shape."""
    by = hand(sources, rng, 0.06, 0.13)
    tile, label = by.digit(rng.uniform(40, 90))
    inked = tile > 0.2
    tile = tile[np.ix_(inked.any(1), inked.any(0))]
    height = int(rng.integers(20, 65))
    width = max(6, round(height * tile.shape[1] / tile.shape[0] * rng.uniform(1, 1.5)))
    ink = np.asarray(cv2.resize(tile, (width, height), interpolation=cv2.INTER_AREA), np.float32)
    grey = scanned(ink, rng)
    return grey if rng.random() < 0.5 else 255 - grey, label


def small_on_a_large_page(sources: Sources, rng: np.random.Generator) -> tuple[GreyImage, int]:
    """Write a digit of 4 to 10% of a sheet's shorter side."""
    ink = bare(rng, 500, 1024)
    size = rng.uniform(0.04, 0.1) * min(ink.shape)
    tile, label = hand(sources, rng, 0.06, 0.12).digit(size)
    place(ink, tile, whole(ink).without(0.1 * min(ink.shape)), rng, rng.uniform(0.7, 1))
    return (scanned if rng.random() < 0.5 else photographed)(ink, rng), label


KINDS: dict[str, Make] = {
    "frame at the edge": frame_at_the_edge,
    "frame inside": frame_inside,
    "bar at one side": bar_at_one_side,
    "bars at two sides": bars_at_two_sides,
    "ruled, squared, dotted": ruled_or_squared,
    "thin pen on a photo": thin_pen_on_photo,
    "photo, edge of a shadow": photo_in_shadow,
    "faint pencil": faint_pencil,
    "chalk": chalk,
    "one bit": one_bit,
    "fax": fax,
    "sticky note, coloured": sticky_note,
    "underlined": underlined,
    "ringed": ringed,
    "struck out, new beside": struck_out_and_new_beside,
    "neighbour at the edge": neighbour_at_the_edge,
    "punch holes": punch_holes,
    "black scan edge": black_scan_edge,
    "dark desk": dark_desk,
    "tiny, 14 to 20 px": tiny,
    "stretched to the frame": stretched_to_the_frame,
    "small on a large page": small_on_a_large_page,
}

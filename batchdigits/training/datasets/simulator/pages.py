"""Simulate pages as they come out of `decoding`: a digit, or none, on paper, in light, before a camera or scanner.

A pen has a width in shares of its digit, a page has pixels, and both are drawn at the page's own scale, so that thin
strokes are as thin as on real pages. Each page comes with its labels: what it shows, where its ink is.
"""

from enum import IntEnum
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.records import NO_DIGIT, GreyImage
from batchdigits.training.datasets.simulator import camera, hands, paper
from batchdigits.training.datasets.simulator.hands import Hand, Sources
from batchdigits.training.datasets.simulator.layouts import Field, lay_out
from batchdigits.training.datasets.simulator.strokes import Ink, Pen


class Kind(IntEnum):
    """What a page shows."""

    BLANK = 0
    """Paper, perhaps ruled, framed or stained."""
    DIGIT = 1
    """One digit."""
    SEVERAL = 2
    """A number of two digits or more."""
    OTHER = 3
    """Something that is no digit."""


class SimulatedPage(NamedTuple):
    """A page and its labels."""

    grey: GreyImage
    """uint8[h, w]."""
    ink: NDArray[np.uint8]
    """uint8[h, w], how much of each pixel the ink to be found covers, 0 to 255."""
    kind: Kind
    label: int
    """The digit; -1 where there is not exactly one."""
    scene: str
    """What kind of page it is, for tables."""


SCENES = ("plain", "cutout", "cell", "exam", "ruled", "photo", "small", "old", "tiny", "board")
_SHARES = np.array([0.12, 0.13, 0.15, 0.09, 0.10, 0.16, 0.08, 0.08, 0.06, 0.03])
_KINDS = np.array([0.07, 0.74, 0.07, 0.12])

_LONGER_SIDE = {  # pixels, least and most
    "tiny": (14, 34), "small": (28, 72), "exam": (36, 130), "cutout": (30, 300), "cell": (48, 520),
    "old": (40, 200), "board": (40, 260), "plain": (48, 640), "ruled": (90, 700), "photo": (110, 760),
}  # fmt: skip
_DIGIT_SHARE = {  # of the field's shorter side, least and most
    "tiny": (0.7, 1.02), "small": (0.55, 1.0), "cutout": (0.7, 1.02), "cell": (0.3, 0.98), "exam": (0.3, 0.8),
    "old": (0.45, 1.05), "board": (0.35, 0.95), "plain": (0.06, 0.95), "ruled": (0.12, 0.9), "photo": (0.1, 0.98),
}  # fmt: skip
_LANDSCAPE = {"cell": 0.6, "exam": 0.5, "plain": 0.4, "photo": 0.3, "tiny": 0.15, "cutout": 0.12}  # else 0.35
_ONE_BIT = {"tiny": 0.35, "photo": 0.02, "exam": 0.02, "board": 0.0, "old": 0.0}  # else 0.09
_FAINT = {"photo": 0.22, "exam": 0.3, "cell": 0.35, "ruled": 0.25}  # else 0.15
_LIT = {"photo": 0.9, "ruled": 0.5, "exam": 0.4, "old": 0.4, "board": 0.5}  # else 0.2
_LIGHT_ON_DARK = {"board": 0.95, "tiny": 0.4, "small": 0.35}  # else 0.08
_CLOSE = ("cell", "exam", "tiny", "small", "cutout")  # scenes whose digit is near the middle of its field


def simulate(
    sources: Sources, rng: np.random.Generator, *, scene: str | None = None, kind: Kind | None = None
) -> SimulatedPage:
    """Make one page.

    Args:
        sources: What is written on it.
        rng: Randomness: the same one makes the same page.
        scene: One of `SCENES`; None draws one.
        kind: What it shows; None draws it.
    """
    drawn = SCENES[int(rng.choice(len(SCENES), p=_SHARES))]
    return _Page(sources, rng, scene or drawn, kind).make()


class _Page:
    """One page while it is made."""

    def __init__(self, sources: Sources, rng: np.random.Generator, scene: str, kind: Kind | None) -> None:
        self.rng = rng
        self.scene = scene
        drawn = Kind(int(rng.choice(4, p=_KINDS)))
        self.kind = drawn if kind is None else kind
        self.label = NO_DIGIT
        self.shape = self._shape()
        self.height, self.width = self.shape
        self.least = min(self.shape)
        self.field: Field = (0.0, 0.0, float(self.width), float(self.height))
        self.ink = np.zeros(self.shape, np.float32)  # of the digit
        self.rest = np.zeros(self.shape, np.float32)  # dark, beside it
        self.one_bit = rng.random() < _ONE_BIT.get(scene, 0.09)
        self.hand = Hand(*self._pen(), sources, rng)
        self.strength = float(rng.uniform(0.55, 1.0))
        if rng.random() < _FAINT.get(scene, 0.15):
            self.strength = float(rng.uniform(0.10, 0.55))
        if rng.random() < 0.02:
            self.strength = float(rng.uniform(0.04, 0.1))
        if self.one_bit or scene == "tiny":
            self.strength = max(self.strength, 0.5)

    def _shape(self) -> tuple[int, int]:
        rng = self.rng
        low, high = _LONGER_SIDE[self.scene]
        longer = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        if self.scene in ("plain", "photo") and rng.random() < 0.05:
            longer = rng.uniform(700, 1024)
        shorter = longer * (1 if rng.random() < 0.25 else rng.uniform(0.55, 1.0))
        if self.scene == "cutout":
            shorter = longer * rng.uniform(0.45, 1.0)
        height, width = max(8, round(longer)), max(8, round(shorter))
        return (width, height) if rng.random() < _LANDSCAPE.get(self.scene, 0.35) else (height, width)

    def _pen(self) -> tuple[float, Pen]:
        rng, scene = self.rng, self.scene
        thick = float(np.exp(rng.uniform(np.log(0.014), np.log(0.16))))
        if scene in ("photo", "plain", "ruled") and rng.random() < 0.45:
            thick = rng.uniform(0.010, 0.045)
        if scene in ("tiny", "small"):
            thick = max(thick, rng.uniform(0.05, 0.14))
        chance = rng.random(4)
        grain = rng.uniform(0.1, 0.65) if chance[0] < {"board": 0.9, "cell": 0.35}.get(scene, 0.2) else 0.0
        gaps = rng.uniform(0.01, 0.08) if chance[2] < 0.08 else 0.0
        feather = rng.uniform(0.2, 0.8) if chance[3] < 0.25 else 0.0
        pressure = rng.uniform(0.1, 0.55) if chance[1] < 0.4 else 0.0
        flat = float(np.exp(rng.normal(0, 0.3))) if rng.random() < 0.2 else 1.0
        return thick, Pen(1.0, flat, pressure, gaps, grain, feather)

    def make(self) -> SimulatedPage:
        """Print, write, stain, light and photograph."""
        self.field = lay_out(self.rest, self.scene, self.rng)
        if self.kind is Kind.DIGIT:
            self._write_digit()
        elif self.kind is Kind.SEVERAL:
            self._write_number()
        elif self.kind is Kind.OTHER:
            self._write_other()
        self._litter()
        return self._picture()

    # ---- what is written ---------------------------------------------------------------------------------------------

    def _size(self) -> float:
        """Draw how high a digit is: pixels."""
        left, top, right, bottom = self.field
        room = max(6.0, min(right - left, (bottom - top)))
        shares = {scene: self.rng.uniform(*ends) for scene, ends in _DIGIT_SHARE.items()}
        return max(11.0, shares[self.scene] * room)

    def _place(self, tile: Ink, overlap: float = 0.0) -> tuple[int, int]:
        """Choose where a tile's top left corner lies: x, y.

        Args:
            tile: What is to be written.
            overlap: How much of it may lie beyond the field, at most, as a share of its width and height.
        """
        left, top, right, bottom = self.field
        size = np.array(tile.shape[::-1])
        room = np.array([right - left, bottom - top]) - size
        at = room * self.rng.normal(0.5, 0.25 if self.scene in _CLOSE else 0.3, 2)
        beyond = overlap * size
        x, y = np.clip(at, np.minimum(room, 0) - beyond, np.maximum(room, 0) + beyond).tolist()
        return int(left + x), int(top + y)

    def _fit(self, tile: Ink) -> Ink:
        """Reduce a tile that is larger than the field."""
        left, top, right, bottom = self.field
        scale = min((right - left) / tile.shape[1], (bottom - top) / tile.shape[0], 1.0)
        scale *= 1.0 if self.rng.random() < 0.85 else 1.06
        if scale >= 1:
            return tile
        size = (max(1, int(tile.shape[1] * scale)), max(1, int(tile.shape[0] * scale)))
        return np.asarray(cv2.resize(tile, size, interpolation=cv2.INTER_AREA), np.float32)

    def _write_digit(self) -> None:
        tile, self.label = self.hand.digit(self._size())
        if self.scene in ("tiny", "cutout", "small") and self.rng.random() < 0.45:
            tile = self._filling(tile)
        else:
            tile = self._fit(tile)
        x, y = self._place(tile, overlap=0.06)
        paper.put(self.ink, tile, x, y)
        self._accompany(x, y, tile)

    def _filling(self, tile: Ink) -> Ink:
        """Let a digit fill its page: cut out by its box, perhaps stretched to its frame, some of its ink cut off."""
        rng = self.rng
        left, top, right, bottom = self.field
        grown = rng.uniform(0.97, 1.06)
        stretch = rng.uniform(1, 3) if rng.random() < 0.5 else 1.0
        high, wide = tile.shape
        scale = min(grown * (bottom - top) / high, grown * (right - left) / (wide * stretch))
        size = (max(2, int(wide * stretch * scale)), max(4, int(high * scale)))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        tile = np.asarray(cv2.resize(tile, size, interpolation=how), np.float32)
        if rng.random() < 0.6:  # the page is no larger than its digit
            self._cut_to(tile)
        return tile

    def _cut_to(self, tile: Ink) -> None:
        """Cut the page down to its digit."""
        pad = self.rng.uniform(-0.02, 0.1, 2) * max(tile.shape)
        self.height = max(8, min(self.height, int(tile.shape[0] + pad[0])))
        self.width = max(6, min(self.width, int(tile.shape[1] + pad[1])))
        self.shape = (self.height, self.width)
        self.least = min(self.shape)
        self.ink, self.rest = self.ink[: self.height, : self.width], self.rest[: self.height, : self.width]
        self.field = (0.0, 0.0, float(self.width), float(self.height))

    def _accompany(self, x0: int, y0: int, digit: Ink) -> None:
        """Add what stands beside a digit at (x0, y0), and is none of it."""
        rng = self.rng
        x1, y1 = x0 + digit.shape[1], y0 + digit.shape[0]
        size = max(digit.shape)
        chance = rng.random(9)
        thick = max(0.8, self.hand.pen_share * size)
        if chance[0] < 0.05:  # underline
            y = y1 + rng.uniform(0.06, 0.25) * size
            reach = rng.uniform(0.1, 0.6) * size
            start, end = (x0 - reach, y + rng.normal(0, 0.03) * size), (x1 + reach, y)
            paper.line(self.rest, start, end, thick, rng.uniform(0.5, 1))
            if rng.random() < 0.2:
                paper.line(self.rest, (x0 - reach, y + 0.1 * size), (x1 + reach, y + 0.1 * size), thick, 0.8)
        if chance[1] < 0.035:  # ring
            circle = hands.ring(rng)
            tile = self.hand.write([circle], (1.25 + 0.5 * rng.random()) * float(np.hypot(*digit.shape)), 0.4)
            paper.put(self.rest, tile, int((x0 + x1 - tile.shape[1]) / 2), int((y0 + y1 - tile.shape[0]) / 2))
        if chance[2] < 0.035:  # struck out beside
            self._strike_out(x0, y0, x1, size, thick)
        if chance[3] < 0.06:  # a dot or comma
            radius = max(0.8, rng.uniform(0.4, 0.9) * thick)
            at = (x1 + rng.uniform(0.05, 0.4) * size, y1 - rng.uniform(-0.1, 0.3) * size)
            paper.disk(self.rest, at, radius, 0.9)
        if chance[4] < 0.16:  # a neighbour reaches in
            self._neighbour(size)
        if chance[5] < 0.02:  # printed unit or label near
            tile = paper.text(rng, max(6, rng.uniform(0.12, 0.35) * size))
            tile = tile * np.float32(rng.uniform(0.3, 1))
            paper.put(self.rest, tile, int(x1 + 0.2 * size), int(y1 - tile.shape[0]))

    def _strike_out(self, x0: int, y0: int, x1: int, size: float, thick: float) -> None:
        """Write another digit at the left or right of one, and strike it out."""
        rng = self.rng
        old, _ = self.hand.digit(size * rng.uniform(0.7, 1.1))
        is_left = rng.choice([-1, 1]) < 0
        apart = rng.uniform(0.1, 0.5) * size
        left = x0 - old.shape[1] - apart if is_left else x1 + apart
        top = y0 + rng.normal(0, 0.1) * size
        struck = np.zeros_like(self.rest)
        paper.put(struck, old, int(left), int(top))
        for _ in range(int(rng.integers(1, 6))):
            start = (left + rng.uniform(-0.15, 0.2) * old.shape[1], top + rng.uniform(0, 1) * old.shape[0])
            end = (left + rng.uniform(0.8, 1.15) * old.shape[1], top + rng.uniform(0, 1) * old.shape[0])
            paper.line(struck, start, end, thick, 1.0)
        np.maximum(self.rest, struck, out=self.rest)

    def _neighbour(self, size: float) -> None:
        """Let a piece of another digit or letter show at an edge of the page."""
        rng = self.rng
        tile = self.hand.digit(size * rng.uniform(0.7, 1.2))[0] if rng.random() < 0.7 else self.hand.other(size)
        reach = rng.uniform(0.03, 0.4)
        height, width = tile.shape
        side = int(rng.choice(4, p=[0.35, 0.35, 0.15, 0.15]))
        if side < 2:
            x = -int(width * (1 - reach)) if side == 0 else self.width - int(width * reach)
            y = int(rng.uniform(-0.1, 0.8) * self.height)
        else:
            x = int(rng.uniform(-0.2, 0.9) * self.width)
            y = -int(height * (1 - reach)) if side == 2 else self.height - int(height * reach)
        apart = np.zeros_like(self.rest)
        paper.put(apart, tile, x, y)
        if not ((apart > 0.3) & (cv2.dilate(self.ink, np.ones((3, 3))) > 0.3)).any():
            np.maximum(self.rest, apart, out=self.rest)

    def _write_number(self) -> None:
        count = int(self.rng.choice([2, 2, 2, 3, 4]))
        left, top, right, bottom = self.field
        size = min(self._size(), 1.6 * (right - left) / count, bottom - top)
        tile = self._fit(self.hand.number(size, count))
        paper.put(self.ink, tile, *self._place(tile))

    def _write_other(self) -> None:
        rng = self.rng
        kind = rng.random()
        if kind < 0.56:
            tile = self._fit(self.hand.other(self._size()))
            paper.put(self.ink, tile, *self._place(tile))
        elif kind < 0.64:
            tile = self._fit(self.hand.struck_out(self._size()))
            paper.put(self.ink, tile, *self._place(tile))
        elif kind < 0.72:  # a word
            size = max(8.0, 0.5 * self._size())
            tiles = [self.hand.other(size * rng.uniform(0.7, 1.1)) for _ in range(int(rng.integers(2, 6)))]
            x, y = self.field[0] + rng.uniform(0, 0.2) * self.width, self.field[1] + rng.uniform(0, 0.7) * self.height
            for tile in tiles:
                paper.put(self.ink, tile, int(x), int(y))
                x += tile.shape[1] * rng.uniform(0.95, 1.3)
        elif kind < 0.84:
            paper.column_of_text(self.rest, rng, float(rng.uniform(0.3, 1)))
        elif kind < 0.9:
            paper.form(self.rest, rng)
        elif kind < 0.95:
            paper.shapes(self.rest, rng)
        else:
            paper.texture(self.rest, rng)

    # ---- what befalls the paper --------------------------------------------------------------------------------------

    def _litter(self) -> None:
        """Leave dust, holes, edges, what bleeds through, stamps, and print at the top or bottom."""
        rng, least = self.rng, self.least
        chance = rng.random(8)
        if chance[0] < 0.12:  # dust
            for _ in range(int(rng.integers(1, 12))):
                paper.blot(self.rest, rng, rng.uniform(0.5, max(1.0, 0.012 * least)), rng.uniform(0.2, 1))
        if self.scene == "tiny":
            return
        if chance[1] < 0.03 and least > 90:
            paper.punch(self.rest, rng)
        if chance[2] < 0.05:
            paper.scanner_edge(self.rest, rng)
        if chance[3] < 0.04:
            self._bleed_through()
        if chance[4] < 0.03:  # stamp, coffee
            radius, strength = rng.uniform(0.15, 0.5) * least, rng.uniform(0.08, 0.45)
            paper.blot(self.rest, rng, radius, strength, ring=bool(rng.random() < 0.6))
        if chance[5] < 0.02:
            tile = paper.text(rng, max(6.0, rng.uniform(0.03, 0.1) * least))
            x, y = rng.uniform(0, 0.8) * self.width, rng.choice([0.01, 0.9]) * self.height
            paper.put(self.rest, tile * np.float32(rng.uniform(0.3, 0.9)), int(x), int(y))

    def _bleed_through(self) -> None:
        """Let the back of the page be seen, mirrored and faint."""
        ghost = np.zeros_like(self.rest)
        if self.rng.random() < 0.5:
            paper.column_of_text(ghost, self.rng, 1.0)
        else:
            tile = self.hand.digit(self._size())[0]
            paper.put(ghost, tile, *self._place(tile))
        np.maximum(self.rest, ghost[:, ::-1] * np.float32(self.rng.uniform(0.04, 0.2)), out=self.rest)

    def _picture(self) -> SimulatedPage:
        """Put ink on paper into light, before a camera or scanner, and into a file."""
        rng, scene = self.rng, self.scene
        careful = self.kind is Kind.DIGIT and (self.strength < 0.3 or self.hand.pen_share < 0.03)
        sheet = self._sheet()
        strength = np.float32(self.strength)
        beside = np.float32(1.0 if rng.random() < 0.5 else np.clip(self.strength * rng.uniform(0.6, 1.6), 0, 1))
        light = sheet * (1 - np.maximum(self.ink * strength, self.rest * beside))
        target = self.ink
        on_desk = 0.22 if scene == "photo" else 0.08
        if scene in ("photo", "ruled", "plain") and rng.random() < on_desk and self.least > 60:
            light, target = camera.lay_on_desk(light, target, rng)
        if scene != "tiny" and rng.random() < _LIT.get(scene, 0.2):
            light = light * camera.illuminate(self.shape, rng)
        if rng.random() < _LIGHT_ON_DARK.get(scene, 0.08):
            brightest = 1.0 if rng.random() < 0.6 else rng.uniform(0.5, 1)
            light = np.clip(brightest - light * np.float32(rng.uniform(0.6, 1)), 0, 1)
        grey = camera.take(light, rng, careful=careful, one_bit=self.one_bit, strength=self.strength)
        grey, target = camera.lose_pixels(grey, target, self._extent(), rng)
        if rng.random() < 0.03:  # inverted by a program, or without pure white
            grey = 255 - grey if rng.random() < 0.5 else np.minimum(grey, 252)
        inked = np.asarray(np.clip(255 * target, 0, 255), np.uint8)
        return SimulatedPage(grey, inked, self.kind, self.label, scene)

    def _sheet(self) -> Ink:
        """Make bare paper: how much light it gives back, float32[h, w]."""
        rng, scene = self.rng, self.scene
        ground = float(rng.uniform(0.75, 1.0)) if rng.random() < 0.6 else float(rng.uniform(0.35, 1.0))
        sheet = np.full(self.shape, ground, np.float32)
        rough = rng.random()
        if scene != "tiny" and rough < 0.5:
            sheet += rng.uniform(0.002, 0.03) * paper.noise(self.shape, rng, rng.uniform(1, 4))
            if rough < 0.15:
                sheet += rng.uniform(0.01, 0.06) * paper.noise(self.shape, rng, max(3.0, 0.1 * self.least))
        if scene == "old":  # stains, and the weave of a security print
            if rng.random() < 0.5:
                deep = rng.uniform(0.05, 0.35)
                sheet *= 1 - deep * np.clip(paper.noise(self.shape, rng, max(3.0, self.least / 4)), 0, 2) / 2
            if rng.random() < 0.5:
                sheet *= 1 - paper.weave(self.shape, rng)
        if scene in ("photo", "ruled") and rng.random() < 0.12:
            sheet += paper.crease(self.shape, rng)
        return sheet

    def _extent(self) -> int:
        """Give the height of what is written: pixels."""
        rows = np.flatnonzero(self.ink.max(1) > 0.3)
        return int(rows[-1] - rows[0]) + 1 if len(rows) else 0

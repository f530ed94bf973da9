"""Files in memory in; the processor seconds of plain decoding, and of this program's own first stages, out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np

from batchdigits.decoding.codecs import decode
from batchdigits.decoding.pages import Page
from batchdigits.inference import bundle
from batchdigits.inference.runtimes import InkFinder, quickest
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.settings import DecodingSettings
from tests.benchmarks.forward import BATCH
from tests.benchmarks.rounds import Contestant, Pass, timed
from tests.benchmarks.scans import FILLED, JPEGS, PHOTOS, SMALL, Kind

DECODE = "cv2.imdecode alone, grey and at full size"
OWN_DECODE = "the program's decode"
NORMALISE = "the program's decode + normalise"


@dataclass(frozen=True, slots=True)
class Share:
    """Some files of a kind, and what they may cost."""

    kind: Kind
    """Where they stand."""
    files: int
    """How many of them."""
    stack: int
    """Pages that are normalised together: of JPEGs about as many as a worker's chunk of 2 MiB holds."""
    target: float
    """What decode + normalise may cost, in costs of `cv2.imdecode`."""


SHARES = (
    Share(SMALL, SMALL.files, BATCH, 4),
    Share(FILLED, FILLED.files, 64, 2),  # one look is enough
    Share(JPEGS, 128, 64, 3),  # the finder looks twice
    Share(PHOTOS, 4, 1, 1.5),
)


def contestants(place: Path) -> dict[str, Contestant]:
    """Set plain decoding and the program's own stages to the same files, on one core."""
    works = {DECODE: decode_plainly, OWN_DECODE: decode_as_program, NORMALISE: normalise_as_program}
    found = {}
    for share in SHARES:
        datas = [Path(path).read_bytes() for path in share.kind.paths(place)[: share.files]]
        for name, work in works.items():
            run = on_one_core(partial(work, datas, share.stack))
            found[line_of(share.kind, name)] = Contestant(share.files, run)
    return found


def line_of(kind: Kind, name: str) -> str:
    """Name a contestant that goes through files of a kind."""
    return f"{kind.name}: {name}"


def on_one_core(work: Callable[[], object]) -> Callable[[], Pass]:
    """Make a pass of work tell its processor seconds."""

    def run() -> Pass:
        cv2.setNumThreads(1)
        return timed(work, time.process_time)()

    return run


def decode_plainly(datas: Sequence[bytes], _: int) -> None:
    for data in datas:
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)


def decode_as_program(datas: Sequence[bytes], _: int) -> None:
    for data in datas:
        decode(data, DecodingSettings())


@cache
def ink_finder() -> InkFinder:
    """Load the packaged ink finder for the quickest runtime, once in this process."""
    return InkFinder(bundle.PACKAGED, runtime=quickest(bundle.PACKAGED)).__enter__()


def normalise_as_program(datas: Sequence[bytes], stack: int) -> None:
    for start in range(0, len(datas), stack):
        pages = [page for data in datas[start : start + stack] for page in decode(data, DecodingSettings())]
        read = [page for page in pages if isinstance(page, Page)]
        normalise([page.grey for page in read], ink_finder(), full_resolution=[page.full_resolution for page in read])

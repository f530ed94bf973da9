"""Read what is asked for until nobody asks any more: what a worker process does, and what it says."""

import pickle
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count, islice
from multiprocessing.connection import Connection
from typing import NamedTuple

from batchdigits.engine.children import portable
from batchdigits.engine.networks import AskedNetworks, OwnNetworks
from batchdigits.engine.run_context import StageTimer
from batchdigits.engine.worker import Drawing, Known, Networks, Reader, Told, Unpredicted, prepare_process, told
from batchdigits.inference.bundle import Bundle
from batchdigits.records import Batch, ImageFile, KnownBytes
from batchdigits.settings import PredictSettings

_PAGES_AHEAD = 16_384  # beyond which it takes no more: cut-outs of 2 kB each, for larger pages ask the ink finder


class Job(NamedTuple):
    """What a worker has to know of a run."""

    model: Bundle
    """What reads the digits."""
    settings: PredictSettings
    """Of the run."""
    drawing: Drawing
    """Of which pages pictures are kept."""
    known: KnownBytes
    """Bytes that are not decoded."""
    sources: tuple[str, ...]
    """Under which files were found."""


class TakesMore(NamedTuple):
    """What a worker says that waits for its networks, and meanwhile takes more than it is usually given."""

    received: int
    """How many chunks it has taken out of its pipe so far."""


class Part(NamedTuple):
    """What a worker says: how many files of its chunk it has read, what it found, its seconds by stage, and sums."""

    files: int
    batch: Batch
    seconds: dict[str, float]
    told: Told


def serve(questions: Connection, answers: Connection, networks: OwnNetworks | Connection | None, job: Job) -> None:
    """Read what is asked for until nobody asks any more: a worker process.

    Args:
        questions: Gives chunks, pickled.
        answers: Gets a `Part` at a time, or the error that ends the run; before what may take its time without being
            a file's fault it gets False or `TakesMore`, and True after that. The first True says that the worker is
            there.
        networks: Those that it was forked with, or a pipe to those of another process; None has it load its own.
        job: What it has to know.
    """
    prepare_process()
    timer = StageTimer()

    @contextmanager
    def patience() -> Iterator[None]:
        answers.send(False)
        yield
        answers.send(True)

    with suppress(EOFError, OSError), ExitStack() as entered:
        answers.send(True)
        try:
            ours: Networks
            asked = None
            if isinstance(networks, Connection):
                ours = asked = AskedNetworks(networks, timer, patience)
            elif networks:
                ours = networks
            else:
                with patience(), timer.stage("load model"):
                    ours = entered.enter_context(OwnNetworks(job.model, job.settings))
            limits, known = job.settings.decoding, Known(job.known)
            reader = Reader(ours, job.model, limits, job.drawing, timer, patience, known, job.sources)
            _work(questions, answers, reader, known, timer, asked)
        except EOFError:
            pass
        except Exception as error:  # noqa: BLE001  (it ends the run)
            answers.send(portable(error))


def _work(
    questions: Connection,
    answers: Connection,
    reader: Reader,
    known: Known,
    timer: StageTimer,
    asked: AskedNetworks | None,
) -> None:
    """Read chunk after chunk; as long as another process loads its networks, keep what only these can finish."""
    ahead: deque[tuple[Unpredicted, list[str]]] = deque()  # and their files' endings

    def tell() -> None:
        part, endings = ahead.popleft()
        batch = reader.predicted(part)
        sums = told(batch, endings)
        answers.send(Part(len(part.places), batch, timer.taken(), sums))
        known.add(sums)

    for received in count(1):
        columns, one_by_one, news = pickle.loads(questions.recv_bytes())
        for sums in news:
            known.add(sums)
        files = list(map(ImageFile._make, zip(*columns, strict=True)))
        endings = (file.ending for file in files)
        for part in reader.unpredicted(files, one_by_one=one_by_one):
            ahead.append((part, list(islice(endings, len(part.places)))))
            while ahead and (one_by_one or not asked or asked.are_there()):
                tell()
            if ahead:  # the next part may take as long as this one
                answers.send(True)
        while ahead and asked and not questions.poll():
            if not asked.are_there():
                is_full = sum(len(part.found.pages) for part, _ in ahead) >= _PAGES_AHEAD
                answers.send(False if is_full else TakesMore(received))
                asked.wait_or(questions)
                answers.send(True)
            if asked.are_there():
                tell()

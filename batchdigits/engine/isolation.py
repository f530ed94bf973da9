"""Read files that may crash their decoder one by one, in a process of their own.

A crash, or a decoder that does not come back, costs that process and becomes the file's fault.
"""

import hashlib
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from multiprocessing.connection import Connection

from batchdigits.engine import children
from batchdigits.engine.children import AskedBack, asking_back, reply_to
from batchdigits.engine.ink import SharedFinder
from batchdigits.engine.pool import assembled
from batchdigits.engine.run_context import StageTimer
from batchdigits.engine.worker import Asked, Observed, asked, observe, prepare_process
from batchdigits.errors import BatchDigitsError, DecoderDied, Fault, FaultKind, StorageError
from batchdigits.records import Batch, ImageFile, SeenPage
from batchdigits.settings import DecodingSettings, NormalisationSettings
from batchdigits.storage.reading import read_all

SECONDS = 120.0
"""How long a file's decoder may take, and the start of a process; a photo of 100 million pixels takes some two."""

_READY = "ready"
"""What a process says when it has started, and when it has read a file: that its server is slow is no fault of it."""
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE})
"""Signals by which a process ends for a fault of its own; others, such as SIGKILL, come from outside."""


class _ProcessDiedError(Exception):
    """What happened to the process that read a file."""

    def __init__(self, what: str, *, may_pass: bool) -> None:
        super().__init__(what)
        self.may_pass = may_pass


def one_by_one(
    files: Iterable[ImageFile],
    *,
    decoding: DecodingSettings,
    normalisation: NormalisationSettings,
    finder: SharedFinder,
    timer: StageTimer,
) -> Iterator[Batch]:
    """Read, decode and normalise each file where a crash does no harm.

    Args:
        files: Consumed as they are needed.
        decoding: Limits of decoding.
        normalisation: What the model was trained behind.
        finder: What ink is found by.
        timer: Gets the seconds of `decode` and `normalise`.

    Yields:
        A batch a file, with a fault where the file ended the process.

    Raises:
        DecoderDied: No process could start; the files stay doubtful.
        StorageError: What a URL names cannot be reached any more.
    """
    left = iter(files)
    for next_one in left:
        with _child(decoding, normalisation, finder) as ask:
            for file in chain([next_one], left):
                try:
                    found = ask(asked(file))
                except _ProcessDiedError as error:
                    yield _fault(file, error, decoding)
                    break  # the rest goes to a new process
                yield assembled([file], found, timer)


@contextmanager
def _child(
    decoding: DecodingSettings, normalisation: NormalisationSettings, finder: SharedFinder
) -> Iterator[Callable[[Asked], Observed]]:
    """Start a process that reads what it is asked for; yield the question."""
    message = (
        "The process that reads doubtful files by themselves cannot start: memory is short, or a script calls "
        "batchdigits outside of `if __name__ == '__main__':`."
    )
    try:
        ours, process = children.start(_answer, decoding, normalisation, finder)
    except OSError as error:
        raise DecoderDied(message) from error

    def ask(file: Asked) -> Observed:
        with suppress(OSError, EOFError):  # the process ended
            ours.send(file)
            word: str | StorageError = ours.recv()
            if isinstance(word, StorageError):
                raise word
            while ours.poll(SECONDS):
                found: Observed | AskedBack | BatchDigitsError = ours.recv()
                if isinstance(found, BatchDigitsError):
                    raise found
                if not isinstance(found, AskedBack):
                    return found
                ours.send(reply_to(found, finder))
            message = f"takes its decoder longer than {SECONDS:.0f} seconds"
            raise _ProcessDiedError(message, may_pass=False)
        process.join()
        code = -(process.exitcode or 0)
        if code in _CRASHES:
            message = f"crashes its decoder ({signal.Signals(code).name})"
            raise _ProcessDiedError(message, may_pass=False)
        name = signal.Signals(code).name if code > 0 else f"exit code {-code}"
        message = f"its decoder was ended ({name}), perhaps for want of memory"
        raise _ProcessDiedError(message, may_pass=True)

    try:
        if not _is_ready(ours):
            raise DecoderDied(message)
        yield ask
    finally:
        ours.close()
        process.kill()
        process.join()


def _is_ready(connection: Connection) -> bool:
    """Wait for the first word of a process; tell whether it came."""
    with suppress(OSError, EOFError):
        return connection.poll(SECONDS) and connection.recv() == _READY
    return False


def _answer(
    connection: Connection, decoding: DecodingSettings, normalisation: NormalisationSettings, finder: SharedFinder
) -> None:
    """Observe what is asked for until nobody asks any more."""
    prepare_process()
    network = finder.of_process(asking_back(connection, connection))
    connection.send(_READY)
    with suppress(EOFError):
        while True:
            asked_for = connection.recv()
            try:
                whole = list(read_all([asked_for[:2]], decoding.max_bytes))
            except StorageError as error:  # of a file behind a URL: the run ends, and not this file's turn alone
                connection.send(error)
                continue
            connection.send(_READY)
            try:
                connection.send(observe([asked_for], decoding, normalisation, network, whole))
            except BatchDigitsError as error:  # of the ink finder: the run ends
                connection.send(error)


def _fault(file: ImageFile, error: _ProcessDiedError, decoding: DecodingSettings) -> Batch:
    """Make the row of a file that ended its process; its bytes are read here, for their sum, and not decoded.

    Where it may pass, the row has no sum, like that of a file that cannot be opened: the next run tries it again.
    """
    data = b"" if error.may_pass else next(read_all([(file.path, file.size_bytes)], decoding.max_bytes))
    sha256 = hashlib.sha256(data).hexdigest() if isinstance(data, bytes) and data else ""
    remedy = "the next run tries again" if error.may_pass else "move it away, or export it anew as PNG"
    fault = Fault(FaultKind.UNREADABLE, f"{error}; {remedy}", is_deadly=True)
    return replace(Batch.empty(), faults=[(SeenPage(file, 1, None, None, sha256, of=1), fault)])

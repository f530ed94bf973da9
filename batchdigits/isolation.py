"""Files that may crash their decoder in; what was observed of each out, read one by one in a process of its own.

A crash, or a decoder that does not come back, costs that process and becomes the file's fault.
"""

import hashlib
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from multiprocessing.connection import Connection

from batchdigits.batches import Asked, Batch, Observed, SeenPage, asked, assembled, observe, prepare_process
from batchdigits.decoding import read
from batchdigits.errors import DECODER_DEATH, Fault, FaultKind
from batchdigits.images import ImageFile
from batchdigits.normalisation import normalise
from batchdigits.settings import DecodingSettings, NormalisationSettings

SECONDS = 120.0
"""How long a file may take, the start of its process included; a photo of 100 million pixels takes some two."""


class _DecoderDiedError(Exception):
    """What happened to the process that read a file."""


def one_by_one(
    files: Iterable[ImageFile], *, decoding: DecodingSettings, normalisation: NormalisationSettings
) -> Iterator[Batch]:
    """Read, decode and normalise each file where a crash does no harm.

    Args:
        files: Consumed as they are needed.
        decoding: Limits of decoding.
        normalisation: What the model was trained behind.

    Yields:
        A batch a file, with a fault where the file ended the process.
    """
    left = iter(files)
    for next_one in left:
        with _child(decoding, normalisation) as ask:
            for file in chain([next_one], left):
                try:
                    found = ask(asked(file))
                except _DecoderDiedError as death:
                    yield _fault(file, str(death), decoding)
                    break  # the rest goes to a new process
                yield assembled([file], found)


@contextmanager
def _child(decoding: DecodingSettings, normalisation: NormalisationSettings) -> Iterator[Callable[[Asked], Observed]]:
    """Start a process that reads what it is asked for; yield the question."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, decoding, normalisation), daemon=True)

    def ask(file: Asked) -> Observed:
        with suppress(OSError, EOFError):  # the process ended
            ours.send(file)
            if not ours.poll(SECONDS):
                message = f"takes {DECODER_DEATH} longer than {SECONDS:.0f} seconds"
                raise _DecoderDiedError(message)
            found: Observed = ours.recv()
            return found
        process.join()
        code = process.exitcode or 0
        message = f"crashes {DECODER_DEATH} ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"
        raise _DecoderDiedError(message)

    process.start()
    theirs.close()  # the child has its own; so its end is noticed
    try:
        yield ask
    finally:
        ours.close()
        process.kill()
        process.join()


def _answer(connection: Connection, decoding: DecodingSettings, normalisation: NormalisationSettings) -> None:
    """Observe what is asked for until nobody asks any more."""
    prepare_process()
    with suppress(EOFError):
        while True:
            connection.send(observe([connection.recv()], decoding, normalisation))


def _fault(file: ImageFile, death: str, decoding: DecodingSettings) -> Batch:
    """Make the row of a file that ended its process; its bytes are read here, for their sum, and not decoded."""
    data = read(file.path, file.size_bytes, decoding)
    sha256 = "" if isinstance(data, Fault) else hashlib.sha256(data).hexdigest()
    fault = Fault(FaultKind.UNREADABLE, f"{death}; move it away, or export it anew as PNG")
    none = normalise([])
    return Batch([], none.pixels, none.ink, [(SeenPage(file, 1, None, None, sha256, of=1), fault)], [])

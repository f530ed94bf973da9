"""Give a worker the two networks of a run: its own, or by a pipe those of the one process that has TensorFlow.

LiteRT is opened before the workers are forked, so that they share what it loaded. TensorFlow can be neither forked nor
had twice: it takes seconds to start and half a gigabyte.
"""

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from batchdigits.engine.children import Child, portable
from batchdigits.engine.run_context import StageTimer
from batchdigits.engine.shared_finder import SharedFinder
from batchdigits.engine.worker import Patience, prepare_process
from batchdigits.errors import BatchDigitsError
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.runtimes import Predictor
from batchdigits.preprocessing.finder import InkMaps, Kinds
from batchdigits.records import NEVER, OUTPUTS, InkImages, Logits
from batchdigits.settings import PredictSettings, Runtime

_INK, _DIGITS = "ink", "digits"  # questions

_Answer = Callable[[str, NDArray[np.uint8]], object]


class OwnNetworks:
    """The networks, in this process: a context manager."""

    def __init__(self, model: Bundle, settings: PredictSettings) -> None:
        """Name them; nothing is loaded yet."""
        runtime, threads = settings.runtime, settings.threads
        self._finder = SharedFinder(model.directory, runtime)
        self._starts_at_once = runtime is Runtime.LITERT
        self._predictor = Predictor(model, batch_size=settings.batch_size, runtime=runtime, threads=threads)
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        """Load them.

        Raises:
            BundleError: They cannot be loaded.
            UsageError: The runtime is not installed.
        """
        with ExitStack() as entered:
            entered.enter_context(self._predictor)
            entered.enter_context(self._finder)
            if self._starts_at_once:
                self.load()
            self._entered = entered.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Let them go."""
        self._entered.close()

    def load(self) -> None:
        """Load the ink finder, too, which else waits until a page asks for it."""
        self._finder.load()

    def ink(self, looks: NDArray[np.uint8]) -> tuple[InkMaps, Kinds]:
        """Find ink, as `InkFinder` does."""
        return self._finder(looks)

    def digits(self, pixels: InkImages) -> Logits:
        """Predict, as `Predictor` does: float32[N, OUTPUTS]."""
        found = self._predictor(pixels)
        if found.shape[1] == OUTPUTS:
            return found
        logits = np.full((len(found), OUTPUTS), NEVER, np.float32)
        logits[:, : found.shape[1]] = found
        return logits


class NetworkProcess:
    """The process that has TensorFlow: a context manager."""

    def __init__(self, model: Bundle, settings: PredictSettings, *, fork: bool) -> None:
        """Say what it loads; nothing is started yet.

        Args:
            model: The checked bundle.
            settings: Of the run.
            fork: Fork it off this process.
        """
        self._model, self._settings, self._fork = model, settings, fork

    def __enter__(self) -> Self:
        """Start it; it loads while others go on.

        Raises:
            BatchDigitsError: There is no room for it.
        """
        self._control, theirs = socket.socketpair()
        try:
            with theirs:
                self._child = Child(_serve, theirs, self._model, self._settings, fork=self._fork)
        except OSError as error:
            self._control.close()
            message = f"The process that runs TensorFlow cannot be started ({error}); free some memory."
            raise BatchDigitsError(message) from error
        return self

    def __exit__(self, *_: object) -> None:
        """End it, even while it loads."""
        self._control.close()
        self._child.end(kill=True)

    def connection(self) -> Connection:
        """Give a worker's end of a pipe to it; for `AskedNetworks`.

        Raises:
            BatchDigitsError: It has died.
        """
        ours, theirs = Pipe()
        try:
            with ours:
                socket.send_fds(self._control, [b"."], [ours.fileno()])
        except OSError as error:
            theirs.close()
            raise _died() from error
        return theirs


class AskedNetworks:
    """The networks of a `NetworkProcess`, asked from a worker."""

    def __init__(self, connection: Connection, timer: StageTimer, patience: Patience = nullcontext) -> None:
        """Take the worker's end of a pipe.

        Args:
            connection: As `NetworkProcess.connection` gives it.
            timer: Gets the seconds that the process needed to load, of the first worker that asks.
            patience: Entered while the process still loads.
        """
        self._connection, self._timer, self._patience = connection, timer, patience
        self._is_ready = False

    def are_there(self) -> bool:
        """Tell whether the process has loaded them."""
        return self._is_ready or self._connection.poll()

    def wait_or(self, questions: Connection) -> None:
        """Wait until the process has loaded them, or somebody asks the worker for something."""
        wait([self._connection, questions])

    def ink(self, looks: NDArray[np.uint8]) -> tuple[InkMaps, Kinds]:
        """Find ink, as `InkFinder` does."""
        found: tuple[InkMaps, Kinds] = self._ask(_INK, looks)
        return found

    def digits(self, pixels: InkImages) -> Logits:
        """Predict, as `Predictor` does: float32[N, OUTPUTS]."""
        logits: Logits = self._ask(_DIGITS, pixels)
        return logits

    def _ask(self, what: str, images: NDArray[np.uint8]) -> Any:  # noqa: ANN401  either answer
        try:
            if not self._is_ready:
                with self._patience():
                    seconds = self._connection.recv()
                if seconds is not None:
                    self._timer.add("load model", seconds)
                self._is_ready = True
            self._connection.send((what, images))
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise _died() from error
        if isinstance(answer, Exception):
            raise answer
        return answer


def _died() -> BatchDigitsError:
    message = (
        "The process that runs TensorFlow died: memory ran out, or somebody ended it; what was finished is kept, the "
        "next run goes on from there."
    )
    return BatchDigitsError(message)


def _serve(
    questions: Connection, _: Connection, control: socket.socket, model: Bundle, settings: PredictSettings
) -> None:
    """Load the networks, and answer whoever asks until the parent lets go: what a `NetworkProcess` runs."""
    prepare_process()
    started = time.perf_counter()
    with ExitStack() as entered:
        try:
            answer = _answering(entered.enter_context(OwnNetworks(model, settings)))
        except Exception as error:  # noqa: BLE001  (whoever asks gets it)
            answer = _raising(portable(error))
        seconds: float | None = time.perf_counter() - started
        asking: list[Connection] = []
        while True:
            ready = wait([questions, control, *asking])
            if questions in ready:
                return
            for one in asking.copy():
                if one in ready and not _answer(one, answer):
                    asking.remove(one)
            if control in ready:
                descriptors = socket.recv_fds(control, 1, 1)[1]
                if not descriptors:
                    return
                asking.append(Connection(descriptors[0]))
                with suppress(OSError):  # it has died already
                    asking[-1].send(seconds)
                seconds = None


def _answering(networks: OwnNetworks) -> _Answer:
    def answer(what: str, images: NDArray[np.uint8]) -> object:
        try:
            return networks.ink(images) if what == _INK else networks.digits(images)
        except Exception as error:  # noqa: BLE001  (who asked decides)
            return portable(error)

    return answer


def _raising(error: Exception) -> _Answer:
    return lambda what, images: error


def _answer(connection: Connection, answer: _Answer) -> bool:
    """Answer a question; tell whether the worker is still there."""
    with suppress(EOFError, OSError):
        connection.send(answer(*connection.recv()))
        return True
    connection.close()
    return False

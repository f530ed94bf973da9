"""Hold what goes with a run: signals that end it after the current batches, and the seconds of its stages."""

import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from batchdigits.errors import Interrupted, Terminated, escaped

_ERRORS: dict[int, Interrupted | Terminated] = {
    signal.SIGINT: Interrupted("Interrupted: what was finished is kept, the next run goes on from there."),
    signal.SIGTERM: Terminated("Terminated: what was finished is kept, the next run goes on from there."),
}


@contextmanager
def resumable(arguments: list[str]) -> Iterator[None]:
    """Let Ctrl-C end a training, and say which command goes on.

    Args:
        arguments: Of the command that began it.

    Raises:
        Interrupted: There was a SIGINT.
    """
    try:
        yield
    except (KeyboardInterrupt, RuntimeError) as error:
        # A lock of a progress bar that Ctrl-C falls into raises an error of its own on the way out.
        if not isinstance(error, KeyboardInterrupt) and not isinstance(error.__context__, KeyboardInterrupt):
            raise
        options = [word for word in arguments[arguments[:1] == ["train"] :] if word not in ("--resume", "--overwrite")]
        command = shlex.join(["batchdigits", "train", *options, "--resume"])
        message = f"Interrupted: the epochs that were finished are kept; go on with: {escaped(command)}"
        raise Interrupted(message) from error


class Stop:
    """What keeps a run's work in progress from signals; as a context manager it takes those of the process.

    A first signal waits, or ends the run; one more while the run waits ends it, and while it ends, the process.
    """

    def __init__(self, on_wait: Callable[[], None] | None = None) -> None:
        """Nobody has asked yet.

        Args:
            on_wait: Called in the signal's handler where a SIGINT has to wait, so that whoever sent it hears of it.
        """
        self._on_wait = on_wait
        self._asked: Interrupted | Terminated | None = None
        self._patient = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take the signals; what is ignored, as in the background of a shell's script, stays so."""
        self._before = {
            number: signal.signal(number, self._take)
            for number in _ERRORS
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """Let a first signal wait until the block is done; elsewhere it ends the run where it is.

        Raises:
            Interrupted: There was a SIGINT.
            Terminated: There was a SIGTERM.
        """
        self._patient = True
        try:
            yield
        finally:
            self._patient = False
        self._raise()

    @contextmanager
    def readily(self) -> Iterator[None]:
        """Within `patiently`, let a signal interrupt this block at once; one that waits already, before it starts.

        Raises:
            Interrupted: There was a SIGINT.
            Terminated: There was a SIGTERM.
        """
        self._patient, patient = False, self._patient
        try:
            self._raise()
            yield
        finally:
            self._patient = patient

    def _raise(self) -> None:
        if self._asked:
            raise self._asked

    def _take(self, number: int, frame: FrameType | None) -> None:
        again, self._asked = self._asked is not None, _ERRORS[number]
        if again and not self._patient:  # it is ending: one more error within that would leave no exit code
            os._exit(self._asked.exit_code)
        if again or not self._patient:
            raise self._asked
        if self._on_wait and number == signal.SIGINT:
            self._on_wait()


STAGES = ("list", "decode", "normalise", "load model", "predict", "decide", "record", "settle", "report")
"""All that a run does, in the order in which an image passes through; `decode` reads files, too."""


class StageTimer:
    """Seconds of a run, and of each stage of it."""

    def __init__(self) -> None:
        """Start."""
        self._started = time.perf_counter()
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._seen: set[str] = set()

    @property
    def seconds(self) -> dict[str, float]:
        """For how long each stage was at work, in the order of `STAGES`, without those that were not.

        Of decoding workers it is the sum, so that it may be more than the run took.
        """
        return {name: seconds for name, seconds in self._seconds.items() if name in self._seen}

    @property
    def elapsed(self) -> float:
        """Wall-clock seconds since the start."""
        return time.perf_counter() - self._started

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the block's time to a stage; each stage is counted by one thread."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Count time to a stage that was measured elsewhere."""
        self._seconds[name] += seconds
        self._seen.add(name)

    def taken(self) -> dict[str, float]:
        """Give the seconds of each stage since this was asked last."""
        seconds = self.seconds
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._seen.clear()
        return seconds

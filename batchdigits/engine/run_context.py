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

_TERMINATED = Terminated("Terminated: what was finished is kept, the next run goes on from there.")
_ERRORS: dict[int, Interrupted | Terminated] = {
    signal.SIGINT: Interrupted("Interrupted: what was finished is kept, the next run goes on from there."),
    signal.SIGTERM: _TERMINATED,
    signal.SIGHUP: _TERMINATED,  # its terminal was closed
}
SIGNALS = frozenset(_ERRORS)
"""What asks a run to end."""


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


_ECHO_SECONDS = 0.2
"""Within which a signal that comes again is the same one: `timeout` sends each to its command and to its group."""


class _Signals:
    """Tells how often somebody has asked for an end."""

    def __init__(self) -> None:
        """Nobody has."""
        self.number = 0
        """Of the last signal; 0 for none."""
        self._came = 0.0

    def take(self, number: int) -> bool:
        """Take a signal; tell whether it is another one than that before."""
        if number == self.number and time.monotonic() - self._came < _ECHO_SECONDS:
            return False
        self.number, self._came = number, time.monotonic()
        return True


class Held:
    """A handler of signals where no run takes them: the first waits for the run that is to come, if one is.

    One more ends the process.
    """

    def __init__(self) -> None:
        """None has come yet."""
        self.signals = _Signals()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        was_asked = self.signals.number
        if self.signals.take(number) and was_asked:
            os._exit(_ERRORS[number].exit_code)


def hold_signals() -> None:
    """Let a signal before the work of a run wait for that, and let one that comes after it change nothing.

    So a run always ends by an exit code, which is what its files for monitoring say. What is ignored, as in the
    background of a shell's script, stays so.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, nobody can tell how a worker ended
    held = Held()
    for number in _ERRORS:
        if signal.getsignal(number) is not signal.SIG_IGN and not isinstance(signal.getsignal(number), Held):
            signal.signal(number, held)


def release_signals() -> None:
    """Let signals end the process again, as one does now that was held."""
    for number in _ERRORS:
        held = signal.getsignal(number)
        if isinstance(held, Held):
            signal.signal(number, signal.SIG_DFL)
            if held.signals.number == number:
                signal.raise_signal(number)


def ignore_signals() -> None:
    """Let no signal change the exit code any more: as it ends, Python gives back those that it handles, too early."""
    for number in _ERRORS:
        signal.signal(number, signal.SIG_IGN)


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
        self._signals = _Signals()
        self._asked: Interrupted | Terminated | None = None
        self._patient = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take the signals, and one that was held; what is ignored, as in the background of a script, stays so."""
        self._before = {
            number: signal.signal(number, self._take)
            for number in _ERRORS
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        for handler in self._before.values():
            if isinstance(handler, Held) and handler.signals.number:
                self._signals = handler.signals
                self._asked = _ERRORS[handler.signals.number]
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
        if not self._signals.take(number):
            return
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

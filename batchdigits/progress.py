"""Show on a terminal what a run is doing: one line with a clock that ticks, whatever the run waits for.

Done is what is recorded: that is what a killed run keeps. tqdm, which shows the epochs of a training, draws when
something is counted, so that its clock would stand still while the model loads; it starts a thread before workers are
forked; and its rate counts the loading.
"""

import logging
import shutil
import sys
import threading
import time
from contextlib import suppress
from typing import Self

_TICK = 0.5  # seconds; what is over sooner shows nothing
_CLEAR = "\r\x1b[K"
_LOG = logging.getLogger("batchdigits")


class Progress:
    """The line: a context manager, which takes it away in the end."""

    def __init__(self, *, is_shown: bool) -> None:
        """Show nothing yet.

        Args:
            is_shown: Whether standard error is a terminal, and nobody minds.
        """
        self._is_shown = is_shown
        self._started = self._counting_since = time.monotonic()
        self._task = ""
        self._total = self._done = self._counted_from = 0
        self._ended = threading.Event()
        self._clock = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Self:
        """Show nothing yet; messages take the line away before they are written."""
        if self._is_shown:
            for handler in _LOG.handlers:
                handler.addFilter(_make_room)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, and take the line away."""
        for handler in _LOG.handlers:
            handler.removeFilter(_make_room)
        self._ended.set()
        if self._clock.is_alive():
            self._clock.join()
        if self._is_shown:
            _write(_CLEAR)

    def tick(self) -> None:
        """Start the clock, which is a thread of its own."""
        if self._is_shown:
            self._clock.start()

    def say(self, task: str, total: int = 0) -> None:
        """Begin a task.

        Args:
            task: What is done now, in a few words.
            total: How many images it has; 0 counts none.
        """
        if task == self._task:
            return
        self._task, self._total = task, total
        self._show()

    def rest(self) -> None:
        """Take the line away until the next task begins: a report goes to what may be the same terminal."""
        self._task = ""
        if self._is_shown:
            _write(_CLEAR)

    def record(self, images: int) -> None:
        """Note that so many more images are recorded."""
        if not self._done:  # the first come after the model was loaded: their time says nothing of the rate
            self._counting_since, self._counted_from = time.monotonic(), images
        self._done += images

    def line(self) -> str:
        """Say what is being done, and for how long the run has been at work."""
        now = time.monotonic()
        clock = _clocked(now - self._started)
        if not self._total:
            return f"{self._task} … {clock}"
        counts = f"{self._done:,}/{self._total:,} images"
        if not self._done:
            return f"{self._task}: {counts} … {clock}"
        rate = (self._done - self._counted_from) / max(now - self._counting_since, _TICK)
        speed = f", {rate:,.0f}/s, {_clocked((self._total - self._done) / rate)} left" if rate else ""
        return f"{self._task}: {counts} ({self._done / self._total:.0%}){speed} … {clock}"

    def _run(self) -> None:
        while not self._ended.wait(_TICK):
            self._show()

    def _show(self) -> None:
        if self._is_shown and self._task:
            columns = shutil.get_terminal_size().columns
            _write(f"{_CLEAR}{self.line()[: columns - 1]}")


def _make_room(_: logging.LogRecord) -> bool:
    _write(_CLEAR)
    return True


def _write(text: str) -> None:
    with suppress(OSError):  # the terminal was closed, which a signal tells
        sys.stderr.write(text)
        sys.stderr.flush()


def _clocked(seconds: float) -> str:
    """Spell a time as 0:07, 12:30 or 1:05:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

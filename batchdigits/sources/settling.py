"""Wait for files that may still be being written, and leave to the next run those that change.

A file is recent while its age, by the clock and the time of its last change, is 0 ≤ age < `settle_seconds`. One whose
time lies in the future counts as stable: a clock that was set back must not hide files.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from batchdigits.records import ImageFile
from batchdigits.sources.discovery import signed_64_bits
from batchdigits.storage.remote import remote_version

if TYPE_CHECKING:
    from batchdigits.records import Batch

_NS = 1_000_000_000  # in a second


def has_changed(file: ImageFile, *, ask_remote: bool = True, exactly: bool = False) -> bool:
    """Tell whether a file is gone, or has another size or time than it was found with.

    Args:
        file: As it was found.
        ask_remote: Ask about a file behind a URL, too, which is a request.
        exactly: Look at the time that nobody can put back, too, which a new name or other rights change as well.
    """
    if file.is_remote:
        return ask_remote and remote_version(file.path) != (file.size_bytes, file.mtime_ns)
    try:
        status = os.stat(file.path)  # noqa: PTH116  (a Path takes as long again)
    except FileNotFoundError:
        return file.inode != 0  # a link that led nowhere still does
    except OSError:  # out of reach: what reads it says so
        return False
    if exactly and signed_64_bits(status.st_ctime_ns) != file.ctime_ns:
        return True
    return (status.st_size, signed_64_bits(status.st_mtime_ns)) != (file.size_bytes, file.mtime_ns)


class Settling:
    """What is recent as a run begins, and until when the run waits for it."""

    def __init__(self, settle_seconds: float) -> None:
        """Look at the clocks.

        Args:
            settle_seconds: Age from which a file counts as stable; 0 takes every file for that.
        """
        self.seconds = settle_seconds
        self._began_ns = time.time_ns()
        self._began = time.monotonic()  # to wait by, for the clock may be set meanwhile
        self.waited = 0.0
        """Seconds that were spent in waiting so far."""

    def recent_ns(self) -> range:
        """Give the times of last change that make a file recent; those until now, since files come while others go."""
        oldest_ns = self._began_ns - round(self.seconds * _NS) + 1
        return range(oldest_ns, time.time_ns() + 1) if self.seconds else range(0)

    def stable(self, files: Iterable[ImageFile], defer: Callable[[list[ImageFile]], None]) -> Iterator[ImageFile]:
        """Wait until each file is no longer recent; others pass at once.

        Args:
            files: Some of them recent as the run began.
            defer: Gets those of the recent ones that have changed since they were found.

        Yields:
            Those that have not.
        """
        changed = []
        for file in files:
            if file.mtime_ns not in self.recent_ns():
                yield file
                continue
            age = (self._began_ns - file.mtime_ns) / _NS + time.monotonic() - self._began
            wait = max(0.0, self.seconds - age)
            time.sleep(wait)
            self.waited += wait
            if has_changed(file):
                changed.append(file)
            else:
                yield file
        if changed:
            defer(changed)

    @staticmethod
    def drop_unread(batch: "Batch", defer: Callable[[list[ImageFile]], None]) -> "Batch":
        """Leave out of a batch what could not be read again for its picture: what is known of it stays.

        Args:
            batch: What was read of files that had been read before, and are the same.
            defer: Gets those that could not be read.

        Returns:
            The batch without them; its confidences, which are not new, count no more.
        """
        unread = {at for at, sha256 in zip(batch.pages["file"].tolist(), batch.sha256, strict=True) if not sha256}
        return replace(_without(batch, unread, defer), confidences=())

    def drop_changed(self, batch: "Batch", defer: Callable[[list[ImageFile]], None]) -> "Batch":
        """Leave out of a batch what changed while it was read; one replaced behind a URL the next run reads again.

        Whoever read a file has said whether it was another right after that. One with a fault is looked at now: it may
        have been half written when it was read.

        Args:
            batch: What was read of files.
            defer: Gets the files that have changed since they were found.

        Returns:
            The batch without them.
        """
        if not self.seconds:
            return batch
        suspects = batch.changed.union(batch.pages["file"][list(batch.faults)].tolist())
        changed = {at for at in suspects if has_changed(batch.files[at], ask_remote=False, exactly=at in batch.changed)}
        return _without(batch, changed, defer)


def _without(batch: "Batch", places: set[int], defer: Callable[[list[ImageFile]], None]) -> "Batch":
    """Leave files at some places to the next run, and out of a batch."""
    if not places:
        return batch
    defer([batch.files[at] for at in sorted(places)])
    return batch.of([at for at in range(len(batch.files)) if at not in places])

"""Reach into ZIP archives: list and read their members, and replace one by writing the archive anew.

An archive on this machine needs nothing but Python. Of a remote one its directory is read, and the members that are
asked for.
"""

import copy as copying
import hashlib
import io
import os
import shutil
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, NamedTuple, cast

from batchdigits.errors import Fault, FaultKind, StorageError, UsageError, escape_name, escaped
from batchdigits.storage.atomic import TargetFile, atomic_write_all
from batchdigits.storage.backends.base import Enters, Entry, entered, version
from batchdigits.storage.guards import locked, opened, resolved
from batchdigits.storage.local import LocalFile, reason_of
from batchdigits.storage.retries import Missing
from batchdigits.storage.urls import Parts, is_remote

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BROKEN = (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error, UnicodeDecodeError)
"""What Python raises where an archive or a member is damaged, or of a kind that it does not know."""
_ENCRYPTED = 1  # a flag
_PACKINGS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})  # of the others Python unpacks more than is asked for
_NO_TIME = (1980, 1, 1, 0, 0, 0)  # the same report in the same archive has the same bytes
_MOST_OPEN = 8  # archives
_WAIT_SECONDS = 600.0  # until another run has written an archive

_BLOCK_BYTES = 2**16  # of a remote archive that are read at once where nothing was read ahead
_HEADER_BYTES = 2**9  # of a member; what a longer one has more is read when it is needed
_GAP_BYTES = 2**12  # between two members that are read at once
_SPAN_BYTES = 2**23  # of several members that are read at once


class RemoteArchive(io.RawIOBase):
    """A remote archive, of which a span is in memory."""

    def __init__(self, size_bytes: int, part: Callable[[int, int], bytes]) -> None:
        """Read nothing yet.

        Args:
            size_bytes: Of all of it.
            part: Reads it from one place to another.
        """
        self.lock = threading.Lock()  # for as long as a span is needed
        self._size_bytes, self._part, self._at = size_bytes, part, 0
        self._start, self._span = 0, b""

    def hold(self, start: int, stop: int) -> None:
        """Read a span at once, in place of the one before."""
        self._start, self._span = start, self._read(start, stop)

    def _read(self, start: int, stop: int) -> bytes:
        stop = min(stop, self._size_bytes)
        return self._part(start, stop) if start < stop else b""

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go elsewhere."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        return self._at

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Read on, of the span where it has this place."""
        view = memoryview(buffer)
        at = self._at - self._start
        is_held = 0 <= at < len(self._span)
        data = self._span[at : at + len(view)] if is_held else self._read(self._at, self._at + len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


class _Open(NamedTuple):
    """An archive that is open."""

    archive: zipfile.ZipFile
    remote: RemoteArchive | None
    """What reads it, where it is remote."""


class Archives:
    """Archives that are open, for all threads of this process."""

    def __init__(self, archive_of: Callable[[Parts], str | RemoteArchive]) -> None:
        """Open none yet.

        Args:
            archive_of: Gives the path of a member's archive, or what reads it where it is remote.
        """
        self._archive_of = archive_of
        self.forget()

    def forget(self) -> None:
        """Let go of all, as a fork of this process has to: it would share their places in the files with its parent."""
        self._open: dict[str, _Open] = {}
        self._lock = threading.Lock()

    def listed(self, place: Parts, enters: Enters) -> Iterator[Entry]:
        """List a folder of an archive, as it is now.

        Raises:
            StorageError: It does not exist, or is no archive.
        """
        with self._lock:
            self._open.pop(place.tail, None)
        archive = self._archive(place).archive
        prefix = f"{place.path}/" if place.path else ""
        members = {name: member for name, member in archive.NameToInfo.items() if name.startswith(prefix)}
        if place.path and not members:
            if place.path not in archive.NameToInfo:
                message = f"{escaped(place.url)} does not exist: no member of the archive is named so."
                raise StorageError(message)
            members, prefix = {place.path: archive.NameToInfo[place.path]}, place.path
        files = (
            Entry(name.removeprefix(prefix), member.file_size, version(f"{member.CRC} {member.date_time}"))
            for name, member in sorted(members.items())
            if not member.is_dir()
        )
        yield from entered(files, enters)

    def get(self, places: Sequence[Parts], most_bytes: int) -> dict[str, bytes | Fault | None]:
        """Read members in the order in which their archives hold them; of a remote one neighbours are read at once.

        Returns:
            By the URL, the bytes, a fault where they cannot be read, and None where they are more than that.

        Raises:
            StorageError: An archive itself cannot be read.
        """
        found: dict[str, bytes | Fault | None] = {}
        for tail in dict.fromkeys(place.tail for place in places):
            those = [place for place in places if place.tail == tail]
            archive, remote = self._archive(those[0])
            wanted: dict[str, zipfile.ZipInfo] = {}
            for place in those:
                member = archive.NameToInfo.get(place.path)
                if not member:
                    found[place.url] = Fault(FaultKind.UNREADABLE, "cannot be opened: it is gone from its archive")
                elif max(member.file_size, member.compress_size // 2) > most_bytes:  # packing makes no image that large
                    found[place.url] = None
                elif trouble := _trouble(archive, member):
                    detail = f"cannot be read: {trouble}; unpack the archive, and read that"
                    found[place.url] = Fault(FaultKind.UNREADABLE, detail)
                else:
                    wanted[place.url] = member
            with remote.lock if remote else nullcontext():
                for start, stop, urls in _spans(wanted):
                    if remote:
                        remote.hold(start, stop)
                    found |= {url: _unpacked(archive, wanted[url]) for url in urls}
                if remote:
                    remote.hold(0, 0)
        return found

    def size(self, place: Parts) -> int | None:
        """Give the size of a member; None where there is none, nor an archive."""
        if not os.path.lexists(place.archive):
            return None
        with _opened_anew(place) as archive:
            return archive.NameToInfo[place.path].file_size if place.path in archive.NameToInfo else None

    def stands(self, place: Parts) -> bool:
        """Tell whether a local archive is there."""
        return os.path.exists(place.archive)  # noqa: PTH110

    def sha256(self, place: Parts) -> str:
        """Compute the SHA-256 of a member.

        Raises:
            Missing: There is none, or no archive.
        """
        if self.size(place) is None:
            message = f"{escaped(place.url)} does not exist; check its spelling."
            raise Missing(message)
        with _opened_anew(place) as archive, archive.open(place.path) as member:
            return hashlib.file_digest(member, "sha256").hexdigest()  # type: ignore[arg-type]

    def put(self, place: Parts, draft: Path) -> None:
        """Write a local archive anew with one member replaced; it takes its name when all of it is on the disk."""
        with draft.open("rb") as file:
            _write(place, file)

    def copy(self, place: Parts, old: Parts) -> None:
        """Give a member a second name."""
        with _opened_anew(old) as archive, archive.open(old.path) as member:
            _write(place, member)

    def check_folder(self, place: Parts) -> None:
        """Find trouble with a report before there is one to write: what is there is an archive, and can be replaced.

        Raises:
            UsageError: The archive is remote.
            StorageError: It is none, or its folder cannot be written.
        """
        if is_remote(place.archive):
            message = (
                f"The report {escaped(place.url)} would stand in an archive that is not on this machine, which cannot "
                "be replaced whole; name an archive here, or a report beside it."
            )
            raise UsageError(message)
        if os.path.lexists(place.archive):
            with _opened_anew(place):
                pass
        LocalFile(Path(place.archive)).check("the archive ")  # which is replaced whole

    def _archive(self, place: Parts) -> _Open:
        with self._lock:
            if place.tail not in self._open:
                with _errors(place):
                    archive = self._archive_of(place)
                    if isinstance(archive, str):
                        opened(Path(archive)).close()  # a pipe would be waited for
                        self._open[place.tail] = _Open(zipfile.ZipFile(archive), None)
                    else:
                        buffered = cast("BinaryIO", io.BufferedReader(archive, _BLOCK_BYTES))
                        self._open[place.tail] = _Open(zipfile.ZipFile(buffered), archive)
            found = self._open[place.tail]
            while len(self._open) > _MOST_OPEN:
                del self._open[next(iter(self._open))]  # it is closed when no thread reads it any more
            return found


def _trouble(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> str:
    """Say why a member cannot be unpacked; empty where nothing is against it."""
    if member.flag_bits & _ENCRYPTED:
        return "it is encrypted"
    if member.compress_type not in _PACKINGS:
        return "it is packed by another method than Deflate"
    return "" if 0 <= member.header_offset < archive.start_dir else "it is not where its archive says"


def _spans(members: dict[str, zipfile.ZipInfo]) -> Iterator[tuple[int, int, list[str]]]:
    """Say from where to where members are read at once, by what they are called, in the order of their archive."""
    start, stop = 0, 0
    urls: list[str] = []
    for url, member in sorted(members.items(), key=lambda item: item[1].header_offset):
        end = member.header_offset + _HEADER_BYTES + member.compress_size
        if urls and (member.header_offset > stop + _GAP_BYTES or end - start > _SPAN_BYTES):
            yield start, stop, urls
            urls = []
        start, stop = (start, max(stop, end)) if urls else (member.header_offset, end)
        urls.append(url)
    if urls:
        yield start, stop, urls


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes | Fault:
    """Read a member, and no more than its header says; that it holds more is told by its CRC."""
    try:
        with archive.open(member) as file:
            return file.read(member.file_size + 1)  # without a limit Python unpacks up to 1 GiB before it looks
    except _BROKEN as error:
        reason = escape_name(str(error) or type(error).__name__)[:120]
        return Fault(FaultKind.UNREADABLE, f"cannot be read from its archive: {reason}; pack it anew")
    except OSError as error:
        return Fault(FaultKind.UNREADABLE, f"cannot be read: {(error.strerror or 'unknown error').lower()}")


def _write(place: Parts, content: IO[bytes]) -> None:
    """Write an archive anew, with the owner, the mode and the comment that it had."""
    with _errors(place), ExitStack() as stack:
        archive = resolved(Path(place.archive))
        stack.enter_context(_write_lock(archive))
        old = stack.enter_context(_opened_anew(place)) if archive.exists() else None
        read = os.fstat(old.fp.fileno()) if old and old.fp else None
        files = [LocalFile(Path(place.archive))]
        [file] = stack.enter_context(atomic_write_all(files, keeper=_Unchanged(read)))
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
            new.comment = old.comment if old else b""
            for member in old.infolist() if old else []:
                if member.filename != place.path and old:
                    new.NameToInfo.pop(member.filename, None)  # else Python warns of a second one
                    with old.open(member) as kept, new.open(copying.copy(member), "w") as copied:
                        shutil.copyfileobj(kept, copied)
            report = zipfile.ZipInfo(place.path, _NO_TIME)
            report.compress_type = zipfile.ZIP_DEFLATED
            with new.open(report, "w", force_zip64=True) as written:
                shutil.copyfileobj(content, written)


class _Unchanged:
    """What notices that another program wrote an archive while it was written anew: a keeper of `atomic`."""

    def __init__(self, read: os.stat_result | None) -> None:
        """Say what was read; None where there was no archive."""
        self._read = read

    def before(self, draft: Path, target: TargetFile) -> bool:
        """Tell whether there is anything new."""
        return target.differs_from(draft)

    def after(self, old: Path, target: TargetFile) -> None:
        """Put what stood there back, unless it is as it was read.

        Raises:
            StorageError: It is another.
        """
        stood = old.stat()
        if self._read and os.path.samestat(stood, self._read) and stood.st_mtime_ns == self._read.st_mtime_ns:
            return
        target.replace_with(old)
        message = (
            f"The archive {escaped(str(target))} was changed by another program while a report was written into it; "
            "the changes are kept, and the report is not in it: run again."
        )
        raise StorageError(message)


@contextmanager
def _write_lock(archive: Path) -> Iterator[None]:
    """Keep others from writing an archive, by an flock on a hidden file beside it, which stays there."""
    path = archive.with_name(f".{archive.name[-60:]}.lock")  # at most 4 bytes a character, and 255 of a name
    with locked(path, wait_seconds=_WAIT_SECONDS):
        yield


@contextmanager
def _opened_anew(place: Parts) -> Iterator[zipfile.ZipFile]:
    """Open a local archive as it is now, of which each member can be copied."""
    with _errors(place), opened(Path(place.archive)) as file, zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if trouble := _trouble(archive, member):
                message = (
                    f"The archive {escaped(place.archive)} cannot be written anew, for its member "
                    f"{escaped(member.filename)} cannot be copied: {trouble}; choose another archive."
                )
                raise StorageError(message)
        yield archive


@contextmanager
def _errors(place: Parts) -> Iterator[None]:
    """Say in one sentence what is wrong with an archive."""
    name = escaped(place.archive)
    try:
        yield
    except FileNotFoundError as error:
        message = f"The archive {name} does not exist; check its spelling and that its disk is mounted."
        raise StorageError(message) from error
    except BlockingIOError as error:
        message = f"Another run has been writing the archive {name} for long; try again when it has ended."
        raise StorageError(message) from error
    except OSError as error:
        message = f"The archive {name} cannot be used: {reason_of(error)}."
        raise StorageError(message) from error
    except _BROKEN as error:
        message = f"The archive {name} is no ZIP file, or is damaged; pack it anew."
        raise StorageError(message) from error

"""Members of ZIP archives in; their listing and bytes out, and archives with one member replaced, whole.

An archive on this machine needs nothing but Python. Of one that is far its directory is read, and the members that are
asked for.
"""

import copy as copying
import hashlib
import os
import shutil
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from batchdigits.errors import Fault, FaultKind, StorageError, printable, shown
from batchdigits.remote.entries import Enters, Entry, entered, version
from batchdigits.remote.urls import Parts

_BROKEN = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, ValueError)
"""What Python raises where an archive or a member is damaged, encrypted, or packed in a way that it does not know."""
_ENCRYPTED = 1  # a flag
_NO_TIME = (1980, 1, 1, 0, 0, 0)  # the same report in the same archive has the same bytes


class Archives:
    """Archives that are open, for all threads of this process."""

    def __init__(self, opened: Callable[[Parts], str | BinaryIO]) -> None:
        """Open none yet.

        Args:
            opened: Gives the path of a member's archive, or an open file.
        """
        self._opened = opened
        self._open: dict[str, zipfile.ZipFile] = {}
        self._lock = threading.Lock()

    def listed(self, place: Parts, enters: Enters) -> Iterator[Entry]:
        """List a folder of an archive, as it is now.

        Raises:
            StorageError: It does not exist, or is no archive.
        """
        with self._lock:
            self._open.pop(place.tail, None)
        archive = self._archive(place)
        prefix = f"{place.path}/" if place.path else ""
        members = {name: member for name, member in archive.NameToInfo.items() if name.startswith(prefix)}
        if place.path and not members:
            if place.path not in archive.NameToInfo:
                message = f"{shown(place.url)} does not exist: no member of the archive is named so."
                raise StorageError(message)
            members, prefix = {place.path: archive.NameToInfo[place.path]}, place.path
        files = (
            Entry(name.removeprefix(prefix), member.file_size, version(f"{member.CRC} {member.date_time}"))
            for name, member in sorted(members.items())
            if not member.is_dir()
        )
        yield from entered(files, enters)

    def get(self, place: Parts, most_bytes: int) -> bytes | Fault | None:
        """Read a member; None where it is larger than that, and a fault where it cannot be read.

        Raises:
            StorageError: The archive itself cannot be read.
        """
        archive = self._archive(place)
        try:
            member = archive.getinfo(place.path)
            if member.file_size > most_bytes:
                return None
            return archive.read(member)
        except KeyError:
            return Fault(FaultKind.UNREADABLE, "cannot be opened: it is gone from its archive")
        except _BROKEN as error:
            if member.flag_bits & _ENCRYPTED:
                return Fault(FaultKind.UNREADABLE, "cannot be read: it is encrypted; unpack the archive, and read that")
            reason = printable(str(error) or type(error).__name__)[:120]
            return Fault(FaultKind.UNREADABLE, f"cannot be read from its archive: {reason}; pack it anew")
        except OSError as error:
            return Fault(FaultKind.UNREADABLE, f"cannot be read: {(error.strerror or 'unknown error').lower()}")

    def size(self, place: Parts) -> int | None:
        """Give the size of a member; None where there is none, nor an archive."""
        if not os.path.lexists(place.archive):
            return None
        with _opened_anew(place) as archive:
            return archive.NameToInfo[place.path].file_size if place.path in archive.NameToInfo else None

    def sha256(self, place: Parts) -> str:
        """Compute the SHA-256 of a member."""
        with _opened_anew(place) as archive, archive.open(place.path) as member:
            return hashlib.file_digest(member, "sha256").hexdigest()  # type: ignore[arg-type]

    def put(self, draft: Path, place: Parts) -> None:
        """Write a local archive anew with one member replaced; it takes its name when all of it is on the disk."""
        with draft.open("rb") as file:
            self._write(place, file)

    def copy(self, old: Parts, new: Parts) -> None:
        """Give a member a second name."""
        with _opened_anew(old) as archive, archive.open(old.path) as member:
            self._write(new, member)

    def check_folder(self, place: Parts) -> None:
        """Find trouble with a report before there is one to write: what is there is an archive."""
        if os.path.lexists(place.archive):
            with _opened_anew(place):
                pass
        elif not Path(place.archive).parent.is_dir():
            message = f"The folder of the archive {shown(place.archive)} does not exist; create it first."
            raise StorageError(message)

    def _archive(self, place: Parts) -> zipfile.ZipFile:
        with self._lock:
            if place.tail not in self._open:
                with _errors(place):
                    self._open[place.tail] = zipfile.ZipFile(self._opened(place))
            return self._open[place.tail]

    def _write(self, place: Parts, content: IO[bytes]) -> None:
        archive = Path(os.path.realpath(place.archive))
        temporary = archive.with_name(f".batchdigits-{hashlib.sha256(os.fsencode(archive)).hexdigest()[:8]}.tmp")
        try:
            with _errors(place), ExitStack() as stack:
                file = stack.enter_context(temporary.open("wb"))
                with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
                    old = stack.enter_context(zipfile.ZipFile(archive)) if archive.exists() else None
                    for member in old.infolist() if old else []:
                        if member.filename != place.path and old:
                            with old.open(member) as kept, new.open(copying.copy(member), "w") as copied:
                                shutil.copyfileobj(kept, copied)
                    report = zipfile.ZipInfo(place.path, _NO_TIME)
                    report.compress_type = zipfile.ZIP_DEFLATED
                    with new.open(report, "w", force_zip64=True) as written:
                        shutil.copyfileobj(content, written)
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(archive)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _opened_anew(place: Parts) -> Iterator[zipfile.ZipFile]:
    """Open a local archive as it is now."""
    with _errors(place), zipfile.ZipFile(place.archive) as archive:
        yield archive


@contextmanager
def _errors(place: Parts) -> Iterator[None]:
    """Say in one sentence what is wrong with an archive."""
    name = shown(place.archive)
    try:
        yield
    except FileNotFoundError as error:
        message = f"The archive {name} does not exist; check its spelling and that its disk is mounted."
        raise StorageError(message) from error
    except OSError as error:
        message = f"The archive {name} cannot be used: {error.strerror or 'unknown error'}; check its permissions."
        raise StorageError(message) from error
    except _BROKEN as error:
        message = f"The archive {name} is no ZIP file, is damaged, or holds encrypted members; pack it anew."
        raise StorageError(message) from error

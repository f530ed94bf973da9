"""Define what can go wrong: exceptions that end a run and carry its exit code, and faults that become a row.

The hierarchy::

    BatchDigitsError            1
    ├── UsageError              2   unknown ending, bad labels, an output that would overwrite an input
    ├── NoImages                4   SOURCE exists but holds no image
    ├── StorageError            5   SOURCE, ledger or report cannot be listed, read or written
    ├── BundleError             6   the model bundle is missing, damaged, or made for another version
    ├── DecoderDied             1   one worker after the other died
    ├── Locked                 75   another run holds the ledger
    ├── Interrupted           130   SIGINT asks the run to end
    └── Terminated            143   SIGTERM does

Each message is one sentence that names the thing, says what was expected, and gives the remedy. Names are spelled in
messages and reports by `escaped` and `escape_name`.
"""

import traceback
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final


class ExitCode(IntEnum):
    """Exit codes of every command; scripts rely on them, and the documents show these texts."""

    OK = 0
    """Done, also where nothing was new."""
    UNEXPECTED = 1
    """An unexpected error; `-v` shows its traceback."""
    USAGE = 2
    """The command asks for something that cannot be done, such as an unknown option or bad labels."""
    FAULTS = 3
    """Done and reported, but files that no report showed before could not be read; `detail` says why."""
    NO_IMAGES = 4
    """SOURCE holds no image; reports stay as they are."""
    STORAGE = 5
    """A source, ledger, report, server or cluster cannot be reached, read or written; reports stay."""
    BUNDLE = 6
    """The model bundle is missing, damaged, or made for another version."""
    LOCKED = 75
    """Another run holds the ledger; `--if-locked skip` makes it 0."""
    INTERRUPTED = 130
    """Interrupted by Ctrl-C (SIGINT); what was finished is kept, and the next run goes on from there."""
    TERMINATED = 143
    """Ended by the system or a scheduler (SIGTERM); likewise."""


class BatchDigitsError(Exception):
    """The base of all exceptions that this package raises on purpose."""

    exit_code = ExitCode.UNEXPECTED


class UsageError(BatchDigitsError):
    """The command or its configuration asks for something that cannot be done."""

    exit_code = ExitCode.USAGE


class NoImages(BatchDigitsError):
    """SOURCE exists but holds no image."""

    exit_code = ExitCode.NO_IMAGES


class StorageError(BatchDigitsError):
    """A source, ledger or report cannot be listed, read or written."""

    exit_code = ExitCode.STORAGE


class BundleError(BatchDigitsError):
    """The model bundle is missing, damaged, or made for another version."""

    exit_code = ExitCode.BUNDLE


class DecoderDied(BatchDigitsError):
    """One worker after the other died: memory ran out, or somebody ends them."""


class Locked(BatchDigitsError):
    """Another run holds the ledger."""

    exit_code = ExitCode.LOCKED


class Interrupted(BatchDigitsError):
    """A person wants the run to end."""

    exit_code = ExitCode.INTERRUPTED


class Terminated(BatchDigitsError):
    """The system, or a scheduler, wants it."""

    exit_code = ExitCode.TERMINATED


OF_THE_MACHINE: Final = (BatchDigitsError, MemoryError, OSError)
"""What no page is at fault for: where a stage of the run's own process raises it, the run ends."""

MOST_SIDE: Final = 2**31 - 1
"""Pixels of a page's side that reports hold; more are none that a page has, but what a damaged header says."""


class FaultKind(StrEnum):
    """Why a page has no digit: the fault's name is the row's status."""

    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class Fault:
    """Trouble with one page; it becomes that page's row and never an exception."""

    kind: FaultKind
    """The status of the row."""
    detail: str
    """One sentence for the row's `detail`: what was found, and the remedy where there is one."""
    width: int | None = None
    """Pixels by the header, after EXIF rotation, where the header told."""
    height: int | None = None
    """Pixels by the header, after EXIF rotation, where the header told."""
    trace: str = ""
    """The traceback of an error that nobody foresaw, for `--verbose`; else empty."""


def unforeseen(error: Exception) -> Fault:
    """Make the fault of a page, or a file, on which the program met an error that nobody foresaw."""
    said = escape_name(f"{type(error).__name__}: {error}".strip(" :"))[:_MOST_SAID]
    detail = f"the program met an unexpected error at it ({said}); export it anew as PNG, and report the error"
    trace = "\n".join(map(escaped, "".join(traceback.format_exception(error)).splitlines()))
    return Fault(FaultKind.UNREADABLE, detail, trace=trace)


_MOST_SAID = 120  # characters of an error in a row


def escape_name(name: str) -> str:
    r"""Make a file's name safe to show: a name as `os.fsdecode` gives it, in; plain text, out.

    Bytes that are not UTF-8 and control characters become `\xNN`, and a backslash becomes two, so that no two
    names look alike. Reports write names in this form; messages pass them through `escaped`, which also escapes
    bidirectional controls.
    """
    if name.isascii() and name.isprintable() and "\\" not in name:
        return name  # the usual name, quickly
    return "".join(_escape(character) for character in name)


def escaped(name: str) -> str:
    """Make a file's name safe for a terminal: `escape_name`, and bidirectional controls escaped too."""
    return "".join(f"\\u{ord(c):04x}" if c in _BIDIRECTIONAL else c for c in escape_name(name))


_BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _escape(character: str) -> str:
    code = ord(character)
    if character == "\\":
        return "\\\\"
    if 0xDC80 <= code <= 0xDCFF:  # a byte that os.fsdecode could not decode
        return f"\\x{code - 0xDC00:02x}"
    if 0xD800 <= code <= 0xDFFF:  # half a character, which no file can hold
        return f"\\u{code:04x}"
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    if 0x80 <= code < 0xA0:  # C1 controls, as the bytes of their UTF-8
        return "".join(f"\\x{byte:02x}" for byte in character.encode())
    return character

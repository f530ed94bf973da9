"""A ledger with a flipped bit, or the disk after a loss of power, in; whether the next run is right, or refuses, out.

A loss of power is replayed from the system calls of a command: what was synced is there after it. Of the rest there are
the names up to some moment, in whose order file systems keep them, and any of the writes, in whatever order.
"""

import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.benchmarks.trials import COMMANDS, STAND_IN, Outcome, Place, difference, finished, place_with, start, unmet

FILES = 40
"""Files of the folder: a transaction for each two."""
FORMATS = ("report.csv", "report.parquet", "report.xlsx", "report.html")
"""The reports of a run with flipped bits."""
SEED = 1998

# ---- flipped bits ----------------------------------------------------------------------------------------------------


def all_formats(place: Place) -> list[str | Path]:
    """Name the reports beside the first one."""
    return [word for name in FORMATS[1:] for word in ("-o", place.report.with_name(name))]


@cache
def with_all_reports(place: Place) -> dict[str, bytes]:
    """Make a ledger and reports of all formats, once: every trial has the same folder."""
    assert place.run(*all_formats(place)).code == 0
    found = {path.name: path.read_bytes() for path in place.report.parent.iterdir()}
    shutil.rmtree(place.report.parent)
    return found


def flipped(folder: Path, *, number: int) -> Outcome:
    """Flip one bit of a ledger: whatever it stands for, the reports are the right ones, or the ledger is refused."""
    rng = random.Random(f"{SEED} bit {number}")
    place = place_with(folder, FILES)
    expected = with_all_reports(place)
    place.report.parent.mkdir()
    ledger = bytearray(expected[place.ledger.name])
    ledger[rng.randrange(len(ledger))] ^= 1 << rng.randrange(8)
    place.ledger.write_bytes(ledger)
    stand = [] if number % 2 else list(FORMATS)
    for name in stand:
        place.report.with_name(name).write_bytes(expected[name])
    result = place.run(*all_formats(place))
    reports = {name: place.report.with_name(name) for name in FORMATS}
    others = [name for name, path in reports.items() if path.exists() and path.read_bytes() != expected[name]]
    missing = [name for name, path in reports.items() if not path.exists()]
    wrong = [f"another {name}" for name in others]
    if result.code == 5:
        is_told = "move it away" in result.stderr
        wrong += unmet({"the remedy is named": is_told, "reports stay": missing == [] if stand else len(missing) == 4})
        return Outcome(["refused"], wrong + [result.stderr[-300:]] * bool(wrong))
    wrong += unmet({f"exit code 0 or 5, and not {result.code}": result.code == 0, "all reports": not missing})
    return Outcome(["right reports"], wrong + [result.stderr[-300:]] * bool(wrong))


# ---- losses of power -------------------------------------------------------------------------------------------------

CALLS = "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat"
_CALL = re.compile(r"(\w+)\((.*)\)\s+= (\d+)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"\d+<([^>]*)>")
_LAST_NUMBERS = re.compile(r"(?:, (\d+))?, (\d+)$")


@dataclass(slots=True, eq=False)
class Inode:
    """The bytes of a file."""

    data: bytearray = field(default_factory=bytearray)
    """As programs see them."""
    synced: bytes = b""
    """As they are on the disk for certain."""
    writes: list[tuple[int, bytes | None]] = field(default_factory=list)
    """What was written since, and where; None cuts the file there."""

    def write(self, at: int, written: bytes | None) -> None:
        """Write, or cut."""
        _write(self.data, at, written)
        self.writes.append((at, written))

    def after_loss(self, kept: Callable[[], bool]) -> bytes:
        """Give what is there of it, with those of the writes that are kept."""
        data = bytearray(self.synced)
        for at, written in self.writes:
            if kept():
                _write(data, at, written)
        return bytes(data)


def _write(data: bytearray, at: int, written: bytes | None) -> None:
    if written is None:
        data[:] = data[:at].ljust(at, b"\0")
    else:
        data[:] = data.ljust(at, b"\0")
        data[at : at + len(written)] = written


class Disk:
    """What a folder holds, and what of that is there after a loss of power."""

    def __init__(self, folder: Path) -> None:
        """Begin with what stands there, all of it synced."""
        self.folder = str(folder)
        self.names = {str(path): _inode(path.read_bytes()) for path in folder.iterdir()}
        self.names_since = [dict(self.names)]
        """The names when they were synced, and after each change since."""

    def apply(self, call: str, arguments: str) -> None:
        """Carry out a system call that succeeded."""
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(arguments)]
        found = _DESCRIPTOR.search(arguments)
        path = _unescaped(found[1]) if found else ""
        paths = [text.decode(errors="surrogateescape") for text in texts[:2]]
        if call in ("fsync", "fdatasync"):
            self._sync(path)
        elif call in ("write", "pwrite64", "ftruncate"):
            if path in self.names:
                self._write(call, self.names[path], texts, arguments)
        elif not any(one.startswith(self.folder) for one in paths):
            return
        elif call == "openat" and "O_CREAT" in arguments:
            self.names.setdefault(paths[0], Inode())
        elif call.startswith("rename"):
            self._rename(*paths, exchange="RENAME_EXCHANGE" in arguments)
        elif call.startswith("link"):
            self.names[paths[1]] = self.names[paths[0]]
        elif call.startswith("unlink"):
            self.names.pop(paths[0], None)
        if self.names != self.names_since[-1]:
            self.names_since.append(dict(self.names))

    def _sync(self, path: str) -> None:
        if path == self.folder:
            self.names_since = [dict(self.names)]
        elif path in self.names:
            self.names[path].synced = bytes(self.names[path].data)
            self.names[path].writes.clear()

    def _write(self, call: str, inode: Inode, texts: list[bytes], arguments: str) -> None:
        numbers = _LAST_NUMBERS.search(arguments)
        last = int(numbers[2]) if numbers else 0
        if call == "ftruncate":
            inode.write(last, None)
        else:  # of what is written without a place, all is new
            inode.write(last if call == "pwrite64" else len(inode.data), texts[0])

    def _rename(self, old: str, new: str, *, exchange: bool) -> None:
        if exchange:
            self.names[old], self.names[new] = self.names[new], self.names[old]
        else:
            self.names[new] = self.names.pop(old)

    def after_loss(self, rng: random.Random, share: float) -> dict[str, bytes]:
        """Give the files by name, with the names of some moment since they were synced, and a share of the writes."""
        inodes = rng.choice(self.names_since)
        return {Path(path).name: inode.after_loss(lambda: rng.random() < share) for path, inode in inodes.items()}


def _inode(data: bytes) -> Inode:
    return Inode(bytearray(data), data)


def _unescaped(text: str) -> str:
    return re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), text).removesuffix(" (deleted)")


def calls_in(trace: Path) -> Iterator[tuple[str, str]]:
    """Give the calls of a trace that succeeded and their arguments, in the order in which they ended."""
    begun: dict[str, str] = {}
    for line in trace.read_text().splitlines():
        process, _, text = line.partition(" ")
        text = text.lstrip()
        if text.endswith("<unfinished ...>"):
            begun[process] = text.removesuffix("<unfinished ...>").rstrip()
            continue
        if text.startswith("<... "):
            text = begun.pop(process, "") + text.partition("resumed>")[2]
        if match := _CALL.match(text):
            yield match[1], match[2]


def _traced(trace: Path) -> list[str | Path]:
    return ["strace", "-f", "-y", "-xx", "-qq", "-s", "4000000", "-e", f"trace={CALLS}", "-o", trace]


def power_lost(folder: Path, *, number: int) -> Outcome:
    """Lose power while a run is at work, or right after answers were taken; then run on."""
    if shutil.which("strace") is None:
        return Outcome(["there is no strace"], [])
    rng = random.Random(f"{SEED} power {number}")
    place = place_with(folder, FILES)
    trace = folder / "trace"
    place.report.parent.mkdir()
    if number % 2:
        return _after_answers(place, trace, rng)
    disk = Disk(place.report.parent)
    assert place.run("--workers", "1", before=_traced(trace)).code == 0
    expected, calls = place.read(), list(calls_in(trace))
    for call, arguments in calls[: rng.randint(0, len(calls))]:
        disk.apply(call, arguments)
    what = _lose_power(disk, place, rng)
    result = place.run()
    wrong = unmet({f"exit code 0, and not {result.code}": result.code == 0})
    wrong += [difference(place.read(), expected)] * (place.read() != expected)
    return Outcome([f"in a run: {what}"], wrong + [result.stderr[-300:]] * bool(wrong))


def _after_answers(place: Place, trace: Path, rng: random.Random) -> Outcome:
    assert place.run().code == 0
    lines = place.read().decode().splitlines()
    header = lines[0].split(",")
    answers = place.folder / "answers.csv"
    answered = [line.split(",") for line in lines[1:6]]
    for cells in answered:
        cells[header.index("corrected")] = "x"
    answers.write_text("\n".join([lines[0], *map(",".join, answered)]))
    disk = Disk(place.report.parent)
    taken = finished(start([*_traced(trace), *COMMANDS[STAND_IN], "correct", place.report, answers]))
    for call, arguments in calls_in(trace):
        disk.apply(call, arguments)
    what = _lose_power(disk, place, rng)
    result = place.run()
    kept = sum(line.split(",")[header.index("corrected")] == "x" for line in place.read().decode().splitlines())
    wrong = unmet(
        {
            "5 answers were taken": "5 answers taken" in taken.stderr,
            f"exit code 0, and not {result.code}": result.code == 0,
            f"5 answers are kept, and not {kept}": kept == 5,
        }
    )
    return Outcome([f"after answers: {what}"], wrong + [result.stderr[-300:]] * bool(wrong))


def _lose_power(disk: Disk, place: Place, rng: random.Random) -> str:
    """Let the folder hold what a loss of power leaves; say what that is."""
    share = rng.choice((0.0, 0.5, 1.0))
    shutil.rmtree(place.report.parent)
    place.report.parent.mkdir()
    for name, content in disk.after_loss(rng, share).items():
        (place.report.parent / name).write_bytes(content)
    return f"{share:.0%} of the writes since they were synced"

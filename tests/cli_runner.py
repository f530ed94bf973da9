"""The installed command, run as a person runs it: in a process of its own."""

import errno
import os
import pty
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BATCHDIGITS = str(Path(sys.executable).with_name("batchdigits"))
"""The command as pip installed it, beside the interpreter."""
CHECKOUT = Path(__file__).parents[1]
"""The root of the repository."""
PATIENCE = 120
"""Seconds after which a command counts as stuck; no test measures time."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    code: int
    """Its exit code; negative for the signal that ended it."""
    stdout: str
    """What it wrote to standard output, as UTF-8; line ends as written."""
    stderr: str
    """What it wrote to standard error."""

    @property
    def message(self) -> str:
        """The one sentence that the command had to say, without the word in front that says what it is."""
        assert self.stderr.endswith("\n"), self.stderr
        assert self.stderr.count("\n") == 1, self.stderr
        return self.stderr.removeprefix("Error: ").removeprefix("Warning: ").rstrip()


def environment(changes: Mapping[str, str | Path] | None = None) -> dict[str, str]:
    """Take this process's environment without what would change the command, and with `changes`.

    The files of tests are always young; unless a test is about that, the command does not wait for them.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BATCHDIGITS", "TF_", "PYTEST"))}
    kept["BATCHDIGITS_PREDICT_SETTLE"] = "0"
    return kept | {name: str(value) for name, value in (changes or {}).items()}


def batchdigits(
    *arguments: str | bytes | Path,
    cwd: Path | None = None,
    env: Mapping[str, str | Path] | None = None,
) -> Result:
    """Run `batchdigits` with its streams on pipes, and nothing to read."""
    return run([BATCHDIGITS, *arguments], cwd=cwd, env=env)


def run(
    command: Sequence[str | bytes | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str | Path] | None = None,
) -> Result:
    """Run any command the same way."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def on_a_terminal(
    *arguments: str | Path,
    typed: str = "",
    signal_after: tuple[bytes, int] | None = None,
    program: Sequence[str] = (BATCHDIGITS,),
    columns: int = 120,
    data: bool = False,
    cwd: Path = CHECKOUT,
) -> Result:
    """Run `batchdigits` with input and messages on a terminal, and data on a file.

    Args:
        arguments: Of the command.
        typed: What is typed, at once.
        signal_after: A signal that the command gets when the terminal has shown these bytes.
        program: What is run.
        columns: Of the terminal.
        data: Whether data go to the terminal, too.
        cwd: The working folder.

    Returns:
        Its `stderr` is all that the terminal shows: what was typed stands in it too.
    """
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    with tempfile.TemporaryFile() as stdout:
        with subprocess.Popen(
            [*program, *map(str, arguments)],
            cwd=cwd,
            env=environment(),
            stdin=theirs,
            stdout=theirs if data else stdout,
            stderr=theirs,
        ) as process:
            os.close(theirs)
            os.write(ours, typed.encode())
            shown = b""
            for data in _until_hung_up(ours):
                shown += data
                if signal_after and signal_after[0] in shown:
                    process.send_signal(signal_after[1])
                    signal_after = None
        os.close(ours)
        stdout.seek(0)
        return Result(process.returncode, stdout.read().decode(), shown.decode())


def _until_hung_up(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError as error:
            if error.errno == errno.EIO:  # Linux: the other side was closed
                return
            raise
        if not data:
            return
        yield data


_LIKE_AN_ORDINARY_USER = """
import ctypes, os, sys
for overrides_permissions in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH; 24 is PR_CAPBSET_DROP
    ctypes.CDLL(None).prctl(24, overrides_permissions, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def under_permissions(*arguments: str | bytes | Path) -> Result:
    """Run `batchdigits` so that permissions hold for it, even where this process is root's."""
    return run([sys.executable, "-c", _LIKE_AN_ORDINARY_USER, BATCHDIGITS, *arguments])


def permissions_hold(closed: Path) -> bool:
    """Tell whether `under_permissions` works here, by a file that nobody may read."""
    reading = [sys.executable, "-c", "open(__import__('sys').argv[1])", closed]
    return run([sys.executable, "-c", _LIKE_AN_ORDINARY_USER, *reading]).code != 0

"""Seconds from a Ctrl-C until the terminal says something, and until the command has ended; and by which code.

`python -m tests.benchmarks.interrupts predict FOLDER -o /tmp/r.csv -o /tmp/r.html` presses it at moment after moment
of a run that begins anew each time, until a run is over sooner. What the terminal showed last tells the moment.
"""

import os
import pty
import re
import select
import sys
import time

from tests.cli_runner import BATCHDIGITS, environment

_STEP = 0.25  # seconds between two moments, at first; they grow with the time
_NOISE = re.compile(rb"\x1b\[[0-9;]*[Km]|\^C")


def pressed(arguments: list[str], after: float) -> tuple[float, float, int, str] | None:
    """Start the command, and press Ctrl-C.

    Args:
        arguments: Of the command; --force lets a run read all anew.
        after: Seconds from its start.

    Returns:
        Seconds until it answers and until it ends, its exit code, and what the terminal showed before; None where it
        was over before.
    """
    child, terminal = pty.fork()
    if not child:
        os.execve(BATCHDIGITS, [BATCHDIGITS, *arguments], environment({"TERM": "xterm"}))
    started, shown, at, answered = time.monotonic(), b"", 0.0, 0.0
    before = b""
    while True:
        if not at and time.monotonic() - started >= after:
            os.write(terminal, b"\x03")
            at, before, shown = time.monotonic(), shown, b""
        if select.select([terminal], [], [], 0.01)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:  # it has ended
                break
            if at and not answered and re.search(rb"Finishing|[Ii]nterrupted|Traceback", shown):
                answered = time.monotonic()
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    if not at:
        return None
    end = time.monotonic()
    lines = re.split(rb"[\r\n]+", _NOISE.sub(b"", before).strip())
    return (answered or end) - at, end - at, os.waitstatus_to_exitcode(status), lines[-1].decode()[:60]


def main() -> None:
    """Press it at every moment."""
    after, slowest = _STEP, 0.0
    while found := pressed(sys.argv[1:], after):
        answered, ended, code, at = found
        slowest = max(slowest, answered)
        print(
            f"after {after:5.2f} s: answered in {answered:.2f} s, ended in {ended:.2f} s by {code} · {at}", flush=True
        )
        after += max(_STEP, after / 8)
    print(f"load {os.getloadavg()[0]:.1f}; slowest answer {slowest:.2f} s")


if __name__ == "__main__":
    main()

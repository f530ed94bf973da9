"""A command in; its seconds from shell to shell, and the memory that it and its processes took, out."""

import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.benchmarks.rounds import Pass
from tests.benchmarks.trials import in_session
from tests.cli_runner import CHECKOUT, environment

SHARE = 0.03
"""Of one processor, that is how much the sampling of memory may take."""
SHORTEST = 0.02
"""Seconds between two samples, at least."""
DEFAULT_SETTLE = {"BATCHDIGITS_PREDICT_SETTLE": "2"}
"""What tests change for their young files is the default again; the files of these benchmarks are old."""


def from_shell(*command: str | Path, memory: bool = False) -> Pass:
    """Run a command to its end.

    Args:
        command: The command.
        memory: Sample its memory, too.

    Raises:
        AssertionError: It failed.
    """
    return printed(*command, memory=memory)[0]


def printed(*command: str | Path, memory: bool = False) -> tuple[Pass, str]:
    """Run a command to its end, and give what it printed as well."""
    settings = environment(DEFAULT_SETTLE | {"TF_CPP_MIN_LOG_LEVEL": "3"})
    settings.pop("PYTHONDONTWRITEBYTECODE", None)  # the first round compiles modules, as an installation does
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env=settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if memory:
        with Sampler(process.pid) as sampler:
            out, errors = process.communicate()
        peaks = sampler.tree_mb, sampler.main_mb
    else:
        out, errors = process.communicate()
        peaks = None, None
    seconds = time.perf_counter() - started
    if process.returncode:
        raise AssertionError(f"{' '.join(map(str, command))} ended with {process.returncode}: {errors.strip()}")
    return Pass(seconds, *peaks), out


class Sampler:
    """Looks again and again, in a thread, at the memory of a process and all that it started: a context manager."""

    def __init__(self, process: int) -> None:
        """Name the process; nothing is looked at yet.

        Args:
            process: Its id; it and what it started are a session of their own.
        """
        self._process = process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.tree_mb = 0.0
        """Peak of all processes together, in 10^6 bytes. Memory of their own counts once where several share it (PSS).

        Of mapped files only those of the process that maps the most count, the others map the same: their PSS would be
        smaller wherever somebody else on the machine uses TensorFlow, too."""
        self.main_mb = 0.0
        """Peak of the process itself, in 10^6 bytes, with all that it shares."""

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            started = time.thread_time()
            processes = in_session(self._process)
            own = sum(kilobytes(one, "smaps_rollup", "Pss_Anon:", "Pss_Shmem:") for one in processes)
            files = max((kilobytes(one, "status", "RssFile:") for one in processes), default=0)
            self.main_mb = max(self.main_mb, 1024e-6 * kilobytes(self._process, "status", "VmHWM:"))
            self.tree_mb = max(self.tree_mb, 1024e-6 * (own + files), self.main_mb)  # that one the system keeps
            pause = max(SHORTEST, (time.thread_time() - started) / SHARE)


def kilobytes(process: int, file: str, *names: str) -> int:
    """Add up numbers of KiB from a file of `/proc`; 0 where the process has ended meanwhile."""
    try:
        lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(names))

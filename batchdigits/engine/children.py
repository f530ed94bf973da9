"""Start processes that run one function each and are asked by a pipe.

The process alone holds the other end of its pipe, so that its death ends the pipe, whatever it was about to say. It
imports nothing from the folder that the run was started in: that one may hold the scans, and among them a `numpy.py`.
"""

import errno
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize

from batchdigits.engine.run_context import SIGNALS
from batchdigits.errors import BatchDigitsError

_END_SECONDS = 5.0  # that a process which has nothing to do may take to end; it may be stopped, or swapped out
_OPEN = "/dev/fd"  # lists what this process has open
_PRELOADED = ["batchdigits.engine.pool"]  # by the server off which workers are forked that this process cannot fork
_SAFE_PATH = "PYTHONSAFEPATH"  # with it, Python does not put the current folder in front of what it searches


def start(target: Callable[..., None], *arguments: object) -> tuple[Connection, BaseProcess]:
    """Start a process.

    Args:
        target: What it runs, a function of a module; its first argument is the process's end of the pipe.
        arguments: The others.

    Returns:
        Our end of the pipe, and the process.

    Raises:
        OSError: There is no room for it.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy TensorFlow's threads half alive
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    try:
        with _safe_path():
            process.start()
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return ours, process


@contextmanager
def one_for_each_core(prepare: Callable[..., object], *arguments: object) -> Iterator[ProcessPoolExecutor]:
    """Give processes that share what is submitted; they are started when something is, and end with the context.

    Args:
        prepare: What each runs first.
        arguments: Of that.
    """
    context = multiprocessing.get_context("spawn")
    with _safe_path(), ProcessPoolExecutor(cores(), context, prepare, arguments) as processes:
        yield processes


def cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _safe_path() -> Iterator[None]:
    """Keep the current folder from what is started meanwhile, and from what that starts."""
    path, is_safe = sys.path, bool(os.environ.get(_SAFE_PATH))
    if not is_safe:  # else nothing is touched, for other threads may look
        os.environ[_SAFE_PATH] = "1"
    if "" in path:  # as in a prompt: the process would get the folder's name instead
        sys.path = [entry for entry in path if entry]
    try:
        yield
    finally:
        sys.path = path
        if not is_safe:
            del os.environ[_SAFE_PATH]


def can_fork() -> bool:
    """Tell whether a fork of this process is sound: before it has threads, or TensorFlow, which has its own."""
    is_single = threading.active_count() == 1 and "tensorflow" not in sys.modules
    return is_single and sys.platform.startswith("linux") and os.path.isdir(_OPEN)  # noqa: PTH112


class Child:
    """A process that takes questions and gives answers by a pipe each."""

    def __init__(self, serve: Callable[..., None], *arguments: object, fork: bool) -> None:
        """Start it.

        Args:
            serve: What it runs, a function of a module; its first arguments are its ends of the two pipes.
            arguments: The others. Of what has a file descriptor, a fork keeps these, and nothing else that is open.
            fork: Fork it off this process, which takes a hundredth of a second; else it is forked off a server that
                has neither threads nor TensorFlow, or is a new one where the system's own libraries forbid a fork.

        Raises:
            OSError: There is no room for it.
        """
        start = _starter(fork=fork)
        theirs, self.questions = multiprocessing.Pipe(duplex=False)  # one way: both take longer
        self.answers, to_us = multiprocessing.Pipe(duplex=False)
        run = _forked if fork else partial(_served, dict(os.environ))
        self.process: BaseProcess = start(target=run, args=(serve, theirs, to_us, *arguments), daemon=True)
        try:
            with theirs, to_us, _safe_path(), _undisturbed(fork=fork), _server_errors():
                self.process.start()
        except BaseException:
            self.questions.close()
            self.answers.close()
            raise
        Finalize(self, self.process.kill, exitpriority=0)  # else Python would wait for it as it ends

    def end(self, *, kill: bool) -> None:
        """End it: at once, or when it has nothing to answer."""
        self.questions.close()
        if not kill:
            with suppress(OSError):
                self.answers.poll(_END_SECONDS)  # which its end ends
        self.process.kill()
        self.process.join()
        self.answers.close()


def _starter(*, fork: bool) -> Callable[..., BaseProcess]:
    if fork:
        return multiprocessing.get_context("fork").Process
    if not sys.platform.startswith("linux"):  # macOS: https://docs.python.org/3/library/multiprocessing.html
        return multiprocessing.get_context("spawn").Process
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(_PRELOADED)  # and not the main module, which each worker imports itself
    return server.Process


@contextmanager
def _server_errors() -> Iterator[None]:
    """Raise an OSError where the server has ended, as it does where there is no room for what it should fork."""
    try:
        yield
    except EOFError as error:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error


def _served(environment: dict[str, str], serve: Callable[..., None], *arguments: object) -> None:
    """Take over the parent's environment, which may have changed since the server began; then serve."""
    _leave_signals_to_the_parent()
    os.environ.clear()
    os.environ.update(environment)
    serve(*arguments)


def _forked(serve: Callable[..., None], *arguments: object) -> None:
    """Let go of what the parent has open, such as the ends of other pipes and the lock of the ledger; then serve."""
    kept = {argument.fileno() for argument in arguments if isinstance(argument, Connection | socket.socket)}
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a child process is forked"
    kept |= {0, 1, 2, parent.sentinel}
    for stream in (sys.stdout, sys.stderr):  # which need not be 1 and 2
        with suppress(OSError, AttributeError):
            kept.add(stream.fileno())
    for descriptor in map(int, os.listdir(_OPEN)):  # noqa: PTH208  (a Path would be made of each)
        if descriptor not in kept:
            with suppress(OSError):  # the list's own
                os.close(descriptor)
    _leave_signals_to_the_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    serve(*arguments)


def _leave_signals_to_the_parent() -> None:
    """Ignore what asks a run to end, as where it is sent to the whole group: the parent says when this process ends."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _undisturbed(*, fork: bool) -> Iterator[None]:
    """Let no signal run a handler of the parent's in a fork, and no warning tell of the threads of numpy's library."""
    if not fork:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def portable(error: Exception) -> Exception:
    """Make an error one that another process can raise, with its traceback for `--verbose`."""
    if not isinstance(error, BatchDigitsError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  (its class says how, and may be wrong)
        return BatchDigitsError(f"{type(error).__name__}: {error}")
    return error

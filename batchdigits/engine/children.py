"""A function in; a process of its own that runs it, and the pipe to ask it by, out: how all processes start here.

The process alone holds the other end of its pipe, so that its death ends the pipe, whatever it was about to say. It
imports nothing from the folder that the run was started in: that one may hold the scans, and among them a `numpy.py`.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Condition, Lock
from typing import Any, NamedTuple

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


class AskedBack(NamedTuple):
    """What a process asks before it can answer."""

    question: Any


class DiedError(Exception):
    """A process ended before it answered."""


class Child:
    """A process that answers one question after the other, whichever threads ask."""

    def __init__(self, answer: Callable[..., None], *arguments: object, told: Callable[[Any], object]) -> None:
        """Start it; it takes some tenths of a second until it answers.

        Args:
            answer: What it runs: `answering` with what makes its answers.
            arguments: What that takes beside its three connections.
            told: Answers what the process asks back.

        Raises:
            OSError: There is no room for it.
        """
        self._answers, theirs = multiprocessing.Pipe(duplex=False)  # what goes both ways takes longer for large answers
        replies, self._replies = multiprocessing.Pipe(duplex=False)
        with theirs, replies:
            self._questions, self._process = start(answer, theirs, replies, *arguments)
        self._told = told
        self._asking, self._answering = Lock(), Condition()
        self._asked = self._answered = 0
        self.has_started = False

    def ask(self, *question: object) -> Any:  # noqa: ANN401  its answer may be anything
        """Give its answer, or raise what it met.

        Raises:
            DiedError: It ended before.
        """
        try:
            with self._asking:
                self._questions.send(question)
                turn = self._asked
                self._asked += 1
            with self._answering:
                self._answering.wait_for(lambda: self._answered == turn)
                answer = self._next_answer()
        except (OSError, EOFError) as error:
            raise DiedError from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _next_answer(self) -> Any:  # noqa: ANN401
        try:
            if not self.has_started:
                self._answers.recv()
                self.has_started = True
            while isinstance(answer := self._answers.recv(), AskedBack):
                self._replies.send(reply_to(answer, self._told))
            return answer
        finally:
            self._answered += 1
            self._answering.notify_all()

    def end(self) -> None:
        """End it, when all is answered."""
        self._questions.close()
        self._replies.close()
        self._process.join()
        self._answers.close()


def reply_to(asked: AskedBack, told: Callable[[Any], object]) -> object:
    """Answer what a process asked back, or give what that met."""
    try:
        return told(asked.question)
    except Exception as error:  # noqa: BLE001  (the process meets it, and answers with it)
        return error


def asking_back(ask: Connection, replies: Connection) -> Callable[[Any], Any]:
    """Make what asks the process that started this one, and raises what that met."""

    def ask_back(question: Any) -> Any:  # noqa: ANN401  its answer may be anything
        ask.send(AskedBack(question))
        reply = replies.recv()
        if isinstance(reply, Exception):
            raise reply
        return reply

    return ask_back


def answering(questions: Connection, answers: Connection, answer: Callable[..., object]) -> None:
    """Say that the process is there, and answer until nobody asks any more: what a `Child` runs."""
    answers.send(None)
    with suppress(EOFError, OSError):
        while True:
            question = questions.recv()
            try:
                found = answer(*question)
            except Exception as error:  # noqa: BLE001  (who asked decides)
                found = error
            answers.send(found)

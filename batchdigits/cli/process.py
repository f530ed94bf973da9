"""Run a command as a process: its messages on standard error, and an exit code for what it returns or raises."""

import functools
import json
import logging
import os
import re
import signal
import sys
import textwrap
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, ParamSpec, TextIO

import typer
from typer.exceptions import TyperException

from batchdigits import monitoring
from batchdigits.cli.closing import closing
from batchdigits.errors import BatchDigitsError, ExitCode, Locked, StorageError, UsageError
from batchdigits.monitoring import Ending, Summary
from batchdigits.settings import IfLocked, PredictSettings
from batchdigits.storage.urls import refuse_secrets

P = ParamSpec("P")

_UTF_8_MODE = "PYTHONUTF8"

LOG = logging.getLogger("batchdigits")
"""The one way of messages to standard error: for people, or with `--log-json` for programs."""


def open_standard_streams() -> None:
    """Lead standard streams that are closed, as some schedulers leave them, nowhere: else a report takes their number.

    A stream that was closed has the name `os.devnull`.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: PTH123, SIM115  it stays until the process ends
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def speak_utf_8() -> None:
    """Start the program once more where Python, for its locale, could not spell the names of all files.

    Source: https://docs.python.org/3/library/os.html#python-utf-8-mode
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get(_UTF_8_MODE) != "1" and sys.executable:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, _UTF_8_MODE: "1"})


def are_flushed(*streams: TextIO) -> bool:
    """Write out what streams still hold; lead those that cannot be written nowhere, else Python fails as it ends.

    Returns:
        Whether all could be written, or their readers have left.
    """
    done = True
    for stream in streams:
        try:
            stream.flush()
        except OSError as error:
            done = done and isinstance(error, BrokenPipeError)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    return done


def silence_native_code() -> None:
    """Leave standard error to Python: what TensorFlow and codecs write to it by themselves would be cron's mail."""
    sys.stderr.flush()
    kept = os.dup(2)
    sys.stderr = os.fdopen(kept, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def exits(command: Callable[P, ExitCode]) -> Callable[P, None]:
    """Turn what a command returns or raises into the exit code of the process."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        verbose = bool(kwargs.get("verbose"))
        _log_to_stderr(verbose=verbose, quiet=bool(kwargs.get("quiet")), as_json=bool(kwargs.get("log_json")))
        try:
            if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as `batchdigits.cli` leaves it
                signal.signal(signal.SIGINT, signal.default_int_handler)
            code = command(*args, **kwargs)
        except BrokenPipeError:  # whoever read standard output has left, as `head` does
            code = ExitCode.OK
        except (Exception, KeyboardInterrupt) as error:
            code, message = _code_and_message(error)
            planned = isinstance(error, BatchDigitsError) or code is not ExitCode.UNEXPECTED
            hint = "" if planned or verbose else "; run again with -v for its traceback"
            if isinstance(error, Locked) and kwargs.get("if_locked") is IfLocked.SKIP:
                code = ExitCode.OK
                LOG.info(message)
            else:
                LOG.error(message + hint, exc_info=verbose and not planned, extra={"exit_code": code})
        _leave_at_once_if_busy(code)
        raise typer.Exit(code)

    return wrapped


def leave_on_interrupt() -> None:
    """Let Ctrl-C end the process at once, of a command that has nothing to keep.

    What a handler raises while TensorFlow loads is swallowed there, with a traceback.
    """

    def leave(*_: object) -> None:
        os.write(sys.stderr.fileno(), b"\r\x1b[Kinterrupted\n" if sys.stderr.isatty() else b"interrupted\n")
        os._exit(ExitCode.INTERRUPTED)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)


def _leave_at_once_if_busy(code: ExitCode) -> None:
    """End the process where a thread still loads a runtime, for which nobody waits any more.

    Python would wait, for seconds; and an import cannot be stopped.
    """
    if any(not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate()):
        are_flushed(sys.stdout, sys.stderr)
        os._exit(code)


def _code_and_message(error: BaseException) -> tuple[ExitCode, str]:
    """Say what ended a command: the exit code, and the message."""
    if isinstance(error, BatchDigitsError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED, "interrupted"
    if isinstance(error, FileNotFoundError) and not _is_in_a_folder():
        message = (
            "The folder that this was started in was removed; start it in one that exists, or name absolute paths."
        )
        return ExitCode.STORAGE, message
    return ExitCode.UNEXPECTED, f"unexpected error: {type(error).__name__}: {error}"


def _is_in_a_folder() -> bool:
    """Tell whether the working folder still exists."""
    try:
        return bool(os.getcwd())  # noqa: PTH109
    except FileNotFoundError:
        return False


def monitored(run: Callable[[], Summary], settings: PredictSettings) -> ExitCode:
    """Run the main job, leave how it ended in the files that the settings name for monitoring, and say it.

    A run that fails leaves its exit code and why. One that another run kept from the ledger leaves nothing: the
    files are the other one's.

    Args:
        run: The job.
        settings: What names the files.

    Raises:
        UsageError: A file's name is not what it has to be.
        StorageError: A file cannot be written; where the run failed too, this is a warning and the run's error goes on.
    """
    monitoring.check_files(settings)
    started = datetime.now(UTC)

    def ending(code: ExitCode, *, error: str | None = None, summary: Summary | None = None) -> Ending:
        return Ending(started, datetime.now(UTC), code, error, summary, monitoring.peak_memory_bytes())

    try:
        summary = run()
    except Locked:
        raise
    except BaseException as error:
        code, message = _code_and_message(error)
        try:
            monitoring.write(ending(code, error=message), settings)
        except StorageError as second:
            LOG.warning(str(second))
        raise
    end = ending(summary.exit_code, summary=summary)
    monitoring.write(end, settings)
    level = logging.WARNING if summary.exit_code else logging.INFO  # with -q, cron mails the first
    text = closing(summary, settings.outputs, verbose=LOG.isEnabledFor(logging.DEBUG))
    LOG.log(level, text, extra={"summary": monitoring.document(end, settings)})
    return summary.exit_code


class _Lines(logging.Formatter):
    """Messages for people: what went wrong begins with `Error:` or `Warning:`."""

    def __init__(self, *, in_colour: bool) -> None:
        super().__init__()
        self._in_colour = in_colour

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        is_plain = hasattr(record, "summary") or getattr(record, "exit_code", None) in _ASKED_FOR
        label = "" if is_plain else {logging.ERROR: "Error: ", logging.WARNING: "Warning: "}.get(record.levelno, "")
        return _LABELS.sub(_coloured, label + text) if self._in_colour else label + text


_ASKED_FOR = (ExitCode.INTERRUPTED, ExitCode.TERMINATED)
_COLOURS = {"Error": 31, "Failed": 31, "Warning": 33, "Next": 36}  # red, yellow, cyan
_LABELS = re.compile(rf"^({'|'.join(_COLOURS)}):", re.MULTILINE)


def _coloured(label: re.Match[str]) -> str:
    """Make the word at the beginning of a line bold and coloured, for a terminal.

    Source: https://man7.org/linux/man-pages/man4/console_codes.4.html, ECMA-48 Select Graphic Rendition
    """
    return f"\x1b[1;{_COLOURS[label[1]]}m{label[0]}\x1b[0m"


def _takes_colours() -> bool:
    """Tell whether standard error is a terminal that may be coloured; see https://no-color.org."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class _JsonLines(logging.Formatter):
    """One JSON object a message."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        event = {"time": time, "level": record.levelname.lower(), "message": record.getMessage()}
        event |= {key: value for key, value in vars(record).items() if key in ("exit_code", "summary")}
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event)


def _log_to_stderr(*, verbose: bool = False, quiet: bool = False, as_json: bool = False) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines() if as_json else _Lines(in_colour=_takes_colours()))
    LOG.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)
    LOG.handlers = [handler]
    LOG.propagate = False
    if not verbose or as_json:  # what libraries log is none of ours: Python would write it to standard error
        logging.basicConfig(handlers=[logging.NullHandler()])
    if as_json:  # what libraries have to warn about is a line too
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").handlers = [handler]


_KIND = re.compile(r"a valid (int|float)\w*( range)?")  # as Typer calls what an option takes


def _plain_kind(found: re.Match[str]) -> str:
    return "a whole number" if found[1] == "int" else "a number"


def _known(error: TyperException) -> str:
    """Name the commands, or the options, there are, where an unknown one resembles none of them."""
    context: Any = getattr(error, "ctx", None)
    message = error.format_message()
    if message.startswith("No such command") and "Did you mean" not in message:
        names = ", ".join(context.command.commands)
        return f"\nNor is there a file or folder of that name. Commands:\n{names}."
    if message.startswith("No such option") and not getattr(error, "possibilities", None):
        names = ", ".join(name for parameter in context.command.params for name in parameter.opts if name[:2] == "--")
        return "\n" + textwrap.fill(f"Options are {names}.", 79, break_on_hyphens=False)
    return ""


def run_program(app: typer.Typer, arguments: list[str], *, as_json: bool) -> None:
    """Run the program where no argument, or variable in its place, holds a secret. Ends in `SystemExit`.

    Args:
        app: The program, which shows what it is given in many messages, as does Typer.
        arguments: Of the command line.
        as_json: Whether what Typer finds wrong in the arguments is a JSON line too, and not text.
    """
    variables = [value for name, value in os.environ.items() if name.startswith("BATCHDIGITS_")]
    try:
        refuse_secrets(*arguments, *variables)
    except UsageError as error:
        _log_to_stderr(as_json=as_json)
        LOG.error(str(error), extra={"exit_code": error.exit_code})
        sys.exit(error.exit_code)
    _log_to_stderr(as_json=as_json)
    try:
        code = app(arguments, standalone_mode=False)
    except TyperException as error:
        code = error.exit_code
        context = getattr(error, "ctx", None)
        if message := error.format_message():  # of a command line without anything, Typer has shown the help
            LOG.error(_KIND.sub(_plain_kind, message) + _known(error), extra={"exit_code": code})
            if context and not as_json:
                with suppress(OSError):  # the code says it, if nobody reads why
                    typer.echo(f"{context.get_usage()}\nTry: {context.command_path} --help", err=True)
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        code = ExitCode.OK  # whoever read standard output has left; Typer would say 1
    sys.exit(code)

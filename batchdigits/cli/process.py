"""What every command shares: a job file in, defaults out; what a command raises in, a message and an exit code out."""

import difflib
import functools
import json
import logging
import math
import os
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec

import typer
from typer.exceptions import TyperException

from batchdigits import monitoring
from batchdigits.cli.schedule import Parameter
from batchdigits.errors import BatchDigitsError, ExitCode, Locked, StorageError, UsageError, shown
from batchdigits.inference.calibration import LOOSEST, STRICTEST
from batchdigits.monitoring import Ending, Summary
from batchdigits.settings import EngineName, IfLocked, PredictSettings
from batchdigits.storage.remote import check, refuse_secrets

P = ParamSpec("P")

LOG = logging.getLogger("batchdigits")
"""The one way of messages to standard error: for people, or with `--log-json` for programs."""

_NOT_IN_JOB_FILES = {"config", "show_config"}


def silence_native_code() -> None:
    """Leave standard error to Python: what TensorFlow and codecs write to it by themselves would be cron's mail."""
    sys.stderr.flush()
    kept = os.dup(2)
    sys.stderr = os.fdopen(kept, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def asked_for_image() -> str:
    """Ask the terminal for the path of an image.

    Raises:
        UsageError: There is no terminal, or nothing was given.
    """
    if not sys.stdin.isatty():
        message = "No image was named; expected one, as in: batchdigits explain scan.png"
        raise UsageError(message)
    typer.echo("Path of the image: ", err=True, nl=False)
    if path := sys.stdin.readline().strip():
        return path
    message = "No path was given; expected that of an image."
    raise UsageError(message)


def exits(command: Callable[P, ExitCode]) -> Callable[P, None]:
    """Turn what a command returns or raises into the exit code of the process."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        verbose = bool(kwargs.get("verbose"))
        _log_to_stderr(verbose=verbose, quiet=bool(kwargs.get("quiet")), as_json=bool(kwargs.get("log_json")))
        try:
            code = command(*args, **kwargs)
        except (Exception, KeyboardInterrupt) as error:
            code, message = _told(error)
            planned = isinstance(error, BatchDigitsError | KeyboardInterrupt)
            hint = "" if planned or verbose else "; run again with -v for its traceback"
            if isinstance(error, Locked) and kwargs.get("if_locked") is IfLocked.SKIP:
                code = ExitCode.OK
                LOG.info(message)
            else:
                LOG.error(message + hint, exc_info=verbose and not planned, extra={"exit_code": code})
        _leave_at_once_if_busy(code)
        raise typer.Exit(code)

    return wrapped


def _leave_at_once_if_busy(code: ExitCode) -> None:
    """End the process where a thread still loads a runtime, for which nobody waits any more.

    Python would wait, for seconds; and an import cannot be stopped.
    """
    if any(not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _told(error: BaseException) -> tuple[ExitCode, str]:
    """Say what ended a command: the exit code, and the message."""
    if isinstance(error, BatchDigitsError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED, "interrupted"
    return ExitCode.UNEXPECTED, f"unexpected error: {type(error).__name__}: {error}"


def monitored(run: Callable[[], Summary], settings: PredictSettings) -> ExitCode:
    """Run the main job, leave how it ended in the files that the settings name for monitoring, and say it in one line.

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
        code, message = _told(error)
        try:
            monitoring.write(ending(code, error=message), settings)
        except StorageError as second:
            LOG.warning(str(second))
        raise
    end = ending(summary.exit_code, summary=summary)
    monitoring.write(end, settings)
    level = logging.WARNING if summary.exit_code else logging.INFO  # with -q, cron mails the first
    LOG.log(level, summary.line(), extra={"summary": monitoring.document(end, settings)})
    return summary.exit_code


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
    handler.setFormatter(_JsonLines() if as_json else logging.Formatter("batchdigits: %(message)s"))
    LOG.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)
    LOG.handlers = [handler]
    LOG.propagate = False
    if as_json:  # what libraries have to warn about is a line too
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").handlers = [handler]


def run_program(app: typer.Typer, arguments: list[str], *, as_json: bool) -> None:
    """Run the program where no argument, or variable in its place, holds a secret. Ends in `SystemExit`.

    Args:
        app: The program, which shows what it is given in many messages, as does Typer.
        arguments: Of the command line.
        as_json: Whether even what Typer finds wrong in the arguments is a JSON line.
    """
    variables = [value for name, value in os.environ.items() if name.startswith("BATCHDIGITS_")]
    try:
        refuse_secrets(*arguments, *variables)
    except UsageError as error:
        _log_to_stderr(as_json=as_json)
        LOG.error(str(error), extra={"exit_code": error.exit_code})
        sys.exit(error.exit_code)
    if as_json:
        _run_with_json_lines(app, arguments)
    app(arguments)


def _run_with_json_lines(app: typer.Typer, arguments: list[str]) -> None:
    _log_to_stderr(as_json=True)
    try:
        code = app(arguments, standalone_mode=False)
    except TyperException as error:
        code = error.exit_code
        LOG.error(error.format_message(), extra={"exit_code": code})
    sys.exit(code)


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the keys of a job file the defaults of the command's options."""
    if path is None:
        return None
    try:
        job: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"The job file {shown(str(path))} cannot be read: {error.strerror}."
        raise typer.BadParameter(message) from error
    except ValueError as error:
        message = f"The job file {shown(str(path))} is not TOML: {error}."
        raise typer.BadParameter(message) from error
    known = {
        parameter.name: parameter
        for parameter in context.command.params
        if parameter.name and parameter.name not in _NOT_IN_JOB_FILES
    }
    for key, value in job.items():
        name = key.replace("-", "_")
        if name in known and isinstance(value, str) and (known[name].multiple or known[name].nargs != 1):
            message = f'The job file {shown(str(path))} gives {key} as one text; expected a list: {key} = ["…"].'
            raise typer.BadParameter(message)
        try:
            refuse_secrets(key, *_texts(value))
        except UsageError as error:
            raise typer.BadParameter(str(error)) from error
        if name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {nearest[0]}?" if nearest else f"; known are {', '.join(sorted(known))}."
            message = f"The job file {shown(str(path))} has the unknown key {key}{hint}"
            raise typer.BadParameter(message)
    context.default_map = {key.replace("-", "_"): value for key, value in job.items()}
    return path


def _texts(value: object) -> Iterator[str]:
    """Give all keys and values of a job file's value."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    else:
        yield str(value)


def read_share(text: str | float) -> float:
    """Read a share of the surest digits that may be wrong: `0.5%` or `0.005`."""
    word = str(text).strip()
    try:
        share = float(word.removesuffix("%")) / (100 if word.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not STRICTEST <= share <= LOOSEST:
        message = f"{shown(word)} is no share of errors; expected {STRICTEST:.1%} to {LOOSEST:.0%}, as in 0.5%."
        raise typer.BadParameter(message)
    return round(share, 6)


def check_number(number: float | None) -> float | None:
    """Refuse what is no number: it is neither below nor above any limit."""
    if number is not None and math.isnan(number):
        message = "nan is no number."
        raise typer.BadParameter(message)
    return number


def without_source(context: typer.Context, wanted: bool) -> bool:
    """Let `--show-config` do without a SOURCE."""
    if wanted:
        for parameter in context.command.params:
            parameter.required = False
    return wanted


def stronger(context: typer.Context, first: str, second: str) -> str:
    """Say which of two options that exclude each other was given closer to the command line."""
    order = ("COMMANDLINE", "ENVIRONMENT", "DEFAULT_MAP", "DEFAULT")
    ranks = [order.index(source.name) for name in (first, second) if (source := context.get_parameter_source(name))]
    return second if ranks[1] < ranks[0] else first


def parameters_of(context: Any) -> list[Parameter]:
    """Give what a command's parser read, for `schedule`."""
    parameters = []
    for parameter in context.command.params:
        value, origin = context.params[parameter.name], context.get_parameter_source(parameter.name)
        if value is not None and parameter.type.name == "path":
            value = Path(value)
        spellings = parameter.secondary_opts if value is False else parameter.opts
        flag = spellings[0] if spellings and parameter.param_type_name == "option" else ""
        parameters.append(Parameter(parameter.name, flag, value, origin.name if origin else ""))
    return parameters


def threshold(context: typer.Context) -> float | None:
    """Give `--threshold`, unless `--target-error` was given closer to the command line."""
    if stronger(context, "threshold", "target_error") == "target_error":
        return None
    found: float | None = context.params["threshold"]
    return found


def ledger(context: typer.Context) -> Path | None:
    """Give `--ledger`, unless `--no-ledger` was given closer to the command line."""
    found = context.params["ledger"]
    if found is not None and context.params["no_ledger"] and stronger(context, "ledger", "no_ledger") == "no_ledger":
        return None
    return None if found is None else Path(found)


def ray_address(context: typer.Context) -> str | None:
    """Give `--ray-address`, unless an engine that has none was given closer to the command line.

    Raises:
        UsageError: It was given for such an engine.
    """
    found: str | None = context.params["ray_address"]
    if found is None or context.params["engine"] == EngineName.RAY:
        return found
    if stronger(context, "ray_address", "engine") == "engine":
        return None
    message = "--ray-address is for --engine ray, and would do nothing here; give both, or neither."
    raise UsageError(message)


def config_text(context: typer.Context) -> str:
    """Give the value of every option, and where it came from, as a job file: TOML."""
    check(*context.params["sources"] or [], *context.params["output"])  # of passwords, nothing has come this far
    job_file = context.params["config"]
    lines = []
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        origin = {
            "COMMANDLINE": "from the command line",
            "ENVIRONMENT": f"environment {context.auto_envvar_prefix}_{name.upper()}",
            "DEFAULT_MAP": f"job file {shown(str(job_file))}",
        }.get(source.name if source else "", "default")
        value = context.params[name]
        text = "(not set)" if value is None else _toml(value)
        if name not in _NOT_IN_JOB_FILES:
            lines.append(f"{'# ' if value is None else ''}{name} = {text}  # {origin}")
        elif job_file is not None and name == "config":
            lines.append(f"# config = {text}  # {origin}")
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")

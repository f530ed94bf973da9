"""What every command shares: a job file in, defaults out; what a command raises in, a message and an exit code out."""

import difflib
import functools
import logging
import os
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

import typer

from batchdigits.errors import BatchDigitsError, ExitCode, shown

P = ParamSpec("P")


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
        _log_to_stderr(verbose=verbose, quiet=bool(kwargs.get("quiet")))
        try:
            code = command(*args, **kwargs)
        except BatchDigitsError as error:
            say(str(error))
            code = error.exit_code
        except KeyboardInterrupt:
            say("interrupted")
            code = ExitCode.INTERRUPTED
        except Exception as error:
            if verbose:
                raise
            say(f"unexpected error: {type(error).__name__}: {error}; run again with -v for its traceback")
            code = ExitCode.UNEXPECTED
        raise typer.Exit(code)

    return wrapped


def say(message: str) -> None:
    """Say something to a person, on standard error."""
    typer.echo(f"batchdigits: {message}", err=True)


def _log_to_stderr(*, verbose: bool, quiet: bool) -> None:
    log = logging.getLogger("batchdigits")
    log.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("batchdigits: %(message)s"))
    log.handlers = [handler]
    log.propagate = False


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the keys of a job file the defaults of the command's options."""
    if path is None:
        return None
    try:
        job: dict[str, Any] = tomllib.loads(path.read_text())
    except OSError as error:
        message = f"The job file {shown(str(path))} cannot be read: {error.strerror}."
        raise typer.BadParameter(message) from error
    except ValueError as error:
        message = f"The job file {shown(str(path))} is not TOML: {error}."
        raise typer.BadParameter(message) from error
    known = [parameter.name or "" for parameter in context.command.params if parameter.name != "config"]
    for key in job:
        name = key.replace("-", "_")
        if name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {nearest[0]}?" if nearest else f"; known are {', '.join(sorted(known))}."
            message = f"The job file {shown(str(path))} has the unknown key {key}{hint}"
            raise typer.BadParameter(message)
    context.default_map = {key.replace("-", "_"): value for key, value in job.items()}
    return path

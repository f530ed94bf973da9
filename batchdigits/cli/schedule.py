r"""Write a crontab line, or systemd's service and timer, that runs a `batchdigits predict` by itself.

Nothing is installed. Names survive whatever they hold: each form has its own quoting, and both were held against the
program that reads them. cron turns `%` into a line break and `\%` into `%`, and some of its versions also `\\` into
`\`; what is left goes to `/bin/sh`. systemd knows double quotes, escapes, `%` for specifiers and `$` for variables.
"""

import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from batchdigits.errors import UsageError, escape_name, escaped
from batchdigits.settings import ScheduleSettings
from batchdigits.storage.urls import check, is_url, refuse_secrets

MOST_BYTES = 998
"""The longest command that the cron of Debian takes; older ones drop what is over it, without a word."""
MOST_DAYS = 30
"""The longest limit: a run that takes longer hangs."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of `batchdigits predict`, as its own parser read it."""

    name: str
    """Its name in Python: `sources`, `if_locked`."""
    flag: str
    """How it is spelled on a command line: `--if-locked`; empty for SOURCE, which stands alone."""
    value: object
    """What it was given: a path, text, number or choice, a list of these; a truth value for a switch."""
    origin: str
    """What gave it, by the name of Typer: `COMMANDLINE`, `DEFAULT_MAP` for a job file, `DEFAULT`."""

    @property
    def is_given(self) -> bool:
        """Whether it stood on the command line."""
        return self.origin == "COMMANDLINE"


@dataclass(frozen=True, slots=True)
class Times:
    """When a run starts, in the words of both schedulers."""

    cron: str
    """The five time fields of a crontab line."""
    calendar: str
    """The same for `OnCalendar=`."""


_MINUTES = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30)
_HOURS = (1, 2, 3, 4, 6, 8, 12)
_NIGHTLY = Times("15 2 * * *", "*-*-* 02:15")
_HOURLY = Times("0 * * * *", "*-*-* *:00")
_DAILY = Times("0 0 * * *", "*-*-* 00:00")
_EVERY = {
    **{f"{minutes}m": Times(f"*/{minutes} * * * *", f"*-*-* *:0/{minutes}") for minutes in _MINUTES},
    **{f"{hours}h": Times(f"0 */{hours} * * *", f"*-*-* 0/{hours}:00") for hours in _HOURS},
    "1h": _HOURLY,
    "60m": _HOURLY,
    "1d": _DAILY,
    "24h": _DAILY,
}


def schedule(
    parameters: Sequence[Parameter],
    settings: ScheduleSettings,
    *,
    folder: str,
    python: str,
    timeout: str,
    is_there: Callable[[str], bool],
) -> str:
    """Write the crontab line or, if the settings say so, the two units of systemd.

    Args:
        parameters: All parameters of `predict`.
        settings: When, how long, and for which scheduler.
        folder: The working folder, where relative paths begin.
        python: The interpreter's absolute path.
        timeout: The path of coreutils' `timeout`, which limits a run under cron.
        is_there: Whether something has this path; a source that is there is no pattern, whatever its name looks like.

    Raises:
        UsageError: The schedule cannot be expressed, there is no report, or a name cannot stand in a line.
    """
    times, limit = _times(settings), _limit(settings.limit)
    for parameter in parameters:
        refuse_secrets(*map(str, _values(parameter)))
    command = [python, "-P", "-m", "batchdigits", "predict", *_arguments(parameters, folder, is_there)]
    # The paths in a job file begin where the job starts.
    start = folder if any(parameter.name == "config" and parameter.is_given for parameter in parameters) else ""
    for word in (start, *command):
        if not {"\n", "\r", "\0"}.isdisjoint(word):
            message = (
                f"{escaped(word)} holds a line break, which neither a crontab nor a unit can; give it another name."
            )
            raise UsageError(message)
    if settings.systemd:
        return _units(command, start, times, limit, "every night" if settings.nightly else f"every {settings.every}")
    return _crontab([timeout, *_TIMEOUT, limit, *command], start, times)


def cron_word(word: str) -> str:
    r"""Quote a word of a command for cron and the shell behind it.

    No backslash stands before another or before a `%` that it is not meant for, so that all versions of cron agree.
    """
    return word if _PLAIN.fullmatch(word) else f"'{word.translate(_CRON)}'"


def systemd_word(word: str) -> str:
    r"""Quote a word of `ExecStart=`; units are UTF-8, so that other bytes and control characters become `\xNN`."""
    return word if _PLAIN.fullmatch(word) else f'"{escape_name(word).translate(_SYSTEMD)}"'


_PLAIN = re.compile(r"[A-Za-z0-9@_+=:,./-]+")
_SYSTEMD = str.maketrans({'"': '\\"', "%": "%%", "$": "$$"})
_CRON = str.maketrans({"'": r"'\''", "%": r"'\%'", "\\": r"\''"})
# Without --foreground, it would also signal the workers, which the run itself ends after the batch in progress.
_TIMEOUT = ("--foreground", "--signal=TERM", "--kill-after=60s")


def _times(settings: ScheduleSettings) -> Times:
    if (settings.every is not None) == settings.nightly:
        found = "both were" if settings.nightly else "neither was"
        message = f"Of --every and --nightly {found} given; expected one of them, as in --every 15m."
        raise UsageError(message)
    if settings.every is None:
        return _NIGHTLY
    if settings.every not in _EVERY:
        message = (
            f"--every {escaped(settings.every)} is nothing that cron can repeat evenly; possible are "
            f"{_listed(_MINUTES)} minutes (15m), {_listed(_HOURS)} hours (2h), and 1d."
        )
        raise UsageError(message)
    return _EVERY[settings.every]


def _listed(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} or {numbers[-1]}"


def _limit(text: str) -> str:
    """Check the limit of a run; `timeout` and systemd read it alike."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", text)
    if not match or int(match[1]) * {"m": 1, "h": 60, "d": 24 * 60}[match[2]] > MOST_DAYS * 24 * 60:
        message = f"--limit {escaped(text)} is no time for a run; expected 90m, 6h or 1d, from 1m to {MOST_DAYS}d."
        raise UsageError(message)
    return text


def _arguments(parameters: Sequence[Parameter], folder: str, is_there: Callable[[str], bool]) -> Iterator[str]:
    """Spell what stood on the command line anew, its paths absolute; a job file's and default values stay out."""
    for parameter in parameters:
        values = _values(parameter)
        if parameter.name == "output" and "-" in values:
            message = (
                "The report would go to standard output, which a scheduler has no use for; give a file: -o REPORT."
            )
            raise UsageError(message)
        if parameter.is_given and parameter.name in {"dry_run", "show_config"}:
            message = f"With {parameter.flag} nothing is read, so that there is nothing to schedule; leave it out."
            raise UsageError(message)
        if parameter.is_given and parameter.name != "quiet":
            for value in values:
                yield from [parameter.flag] if parameter.flag else []
                yield from [] if isinstance(value, bool) else [_argument(parameter.name, value, folder, is_there)]
    if any(parameter.name == "if_locked" and parameter.origin == "DEFAULT" for parameter in parameters):
        yield from ("--if-locked", "skip")  # the run before is not done yet: no trouble
    yield "-q"  # cron mails what is said


def _values(parameter: Parameter) -> Sequence[object]:
    return parameter.value if isinstance(parameter.value, list | tuple) else [parameter.value]


def _argument(name: str, value: object, folder: str, is_there: Callable[[str], bool]) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    text = str(value)
    if not isinstance(value, Path) and name not in {"sources", "output"}:
        return text
    if not text:
        message = "An empty name stands among the sources or reports; expected a path."
        raise UsageError(message)
    if name in {"sources", "output"} and is_url(text):
        check(text)
        return text
    path = os.path.normpath(Path(folder, text))
    if name == "sources" and glob.has_magic(text) and not is_there(path):
        return os.path.normpath(Path(glob.escape(folder), text))  # only what was given is a pattern
    return path


def _crontab(words: Sequence[str], start: str, times: Times) -> str:
    command = " ".join(map(cron_word, words))
    if start:
        command = f"cd {cron_word(start)} && {command}"
    size_bytes = len(os.fsencode(command))
    if size_bytes > MOST_BYTES:
        message = (
            f"The command has {size_bytes} bytes, and cron takes {MOST_BYTES}; put its options into a job file for "
            "--config, or use --systemd."
        )
        raise UsageError(message)
    return f"{times.cron} {command}\n"


def _units(command: Sequence[str], start: str, times: Times, limit: str, often: str) -> str:
    # systemd itself refuses to start a program whose path holds quotes, and a folder that is not UTF-8.
    words = ["/usr/bin/env", *([f"--chdir={start}"] if start else []), *command]
    return f"""\
# Save this part as ~/.config/systemd/user/batchdigits.service
[Unit]
Description=Read the handwritten digits of scans into a report

[Service]
Type=oneshot
ExecStart={" ".join(map(systemd_word, words))}
# 3: done and reported, but some files cannot be read; the report says which.
# 143: stopped by SIGTERM, as by a shutdown; what was finished is kept, and the next run goes on from there.
SuccessExitStatus=3 143
TimeoutStartSec={limit}
# SIGTERM goes to the run alone, which ends its worker processes after the batch in progress.
KillMode=mixed
Nice=10

# Save this part as ~/.config/systemd/user/batchdigits.timer, then:
#   systemctl --user daemon-reload && systemctl --user enable --now batchdigits.timer
# It runs while you are logged out too after: loginctl enable-linger
[Unit]
Description=Run batchdigits {often}

[Timer]
OnCalendar={times.calendar}
Persistent=true

[Install]
WantedBy=timers.target
"""

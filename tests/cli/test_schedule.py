"""Crontab lines and systemd units, read the way cron, the shell and systemd read them. One test loads TensorFlow."""

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchdigits.cli import app
from batchdigits.cli.schedule import MOST_BYTES, Parameter, cron_word, schedule, systemd_word
from batchdigits.errors import UsageError
from batchdigits.settings import ScheduleSettings
from tests.cli_runner import BATCHDIGITS, CHECKOUT, PATIENCE, Result, batchdigits, environment, run

HOSTILE = os.fsdecode(b"it's \"50%\" of $HOME \\ \\\\%, \\'%n caf\xe9 & `x` [1]*")
IS_THERE = {"/here [1]/a [2]"}.__contains__
PYTHON = '/opt/it\'s 100% "py"/bin/python'

letters = st.sampled_from("%\\'\"$ab `!*~#;&|<>()[]{}\t\r\x1b\x7fé☃\udcff\udc80\u2028")
words = st.lists(
    st.text(letters) | st.binary().map(lambda data: os.fsdecode(data.replace(b"\0", b"").replace(b"\n", b"")))
)
awkward = ["", "%", "\\", "\\\\", "\\%", "\\\\%", "'%'", "'\\'", "$HOME", "${HOME}", ";", "\udcff", HOSTILE]


# cron


def vixie(command: bytes, *, collapses: bool) -> bytes:
    r"""Do what cron's `do_command.c` does to `%` and backslashes; some versions make `\` of `\\`, others leave it."""
    read = bytearray()
    escaped = False
    for character in command:
        if escaped and (character == ord("%") or (collapses and character == ord("\\"))):
            read[-1] = character
            escaped = False
            continue
        assert escaped or character != ord("%"), "the rest would be standard input"
        read.append(character)
        escaped = not escaped and character == ord("\\")
    return bytes(read)


CRONS: list[Callable[[bytes], bytes]] = [
    lambda command: vixie(command, collapses=True),
    lambda command: vixie(command, collapses=False),
    lambda command: command.replace(rb"\%", b"%"),
    lambda command: command,  # one to which % is nothing special
]


def shell(command: bytes) -> list[bytes]:
    """Let a shell tell its arguments, of a command that ends them with NUL."""
    done = subprocess.run(
        [b"/bin/sh", b"-c", command], env={"HOME": "/home"}, capture_output=True, check=True, timeout=PATIENCE
    )
    assert done.stderr == b""
    return done.stdout.split(b"\0")[:-1]


@given(words)
@example(awkward)
def test_any_words_come_through_any_cron_and_the_shell_as_the_same_bytes(words: list[str]) -> None:
    command = os.fsencode(" ".join(map(cron_word, ["printf", "%s\\0", "first", *words])))
    expected = [b"first", *map(os.fsencode, words)]
    assert b"\n" not in command
    for seen in {cron(command) for cron in CRONS}:
        assert shell(seen) == expected


def test_a_usual_word_is_not_quoted() -> None:
    for word in ("/home/me/scans_2024", "--threshold", "0.9", "a=b,c:d@e+f"):
        assert cron_word(word) == systemd_word(word) == word


# systemd


def systemd(line: str) -> list[bytes]:
    r"""Do what systemd does to `ExecStart=`: words out of quotes and escapes, then `%%`, then `$$`."""
    unit = line.encode()  # a unit is UTF-8
    parts = re.findall(rb'(?:"((?:[^"\\]|\\.)*)"|([^ "\'\\]+))(?: |$)', unit, re.DOTALL)
    assert b" ".join(bare if bare else b'"%b"' % quoted for quoted, bare in parts) == unit
    return [systemd_expanded(re.sub(rb"\\(x..|.)", systemd_escape, quoted or bare)) for quoted, bare in parts]


def systemd_escape(match: re.Match[bytes]) -> bytes:
    """Read one escape; those of letters are not in use here."""
    if match[1].startswith(b"x"):
        return bytes([int(match[1][1:], 16)])
    assert match[1] in b'"\\'
    return match[1]


def systemd_expanded(word: bytes) -> bytes:
    for special in (b"%", b"$"):
        assert word.replace(special * 2, b"").count(special) == 0, "a specifier or variable"
        word = word.replace(special * 2, special)
    return word


@given(words)
@example(awkward)
def test_any_words_come_through_systemd_as_the_same_bytes(words: list[str]) -> None:
    line = " ".join(map(systemd_word, words))
    assert systemd(line) == list(map(os.fsencode, words))
    assert all(character >= " " and character != "\x7f" for character in line)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
def test_systemd_itself_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    text = written(parameters(sources=[HOSTILE]), every="15m", systemd=True, folder=f"/{HOSTILE}")
    service, timer = text.split("\n\n# Save this part as", 1)
    (tmp_path / "batchdigits.service").write_text(service, encoding="utf-8")
    (tmp_path / "batchdigits.timer").write_text(f"#{timer}", encoding="utf-8")
    result = run(["systemd-analyze", "verify", *sorted(tmp_path.iterdir())])
    assert (result.code, result.stderr) == (0, "")


# the text, from what was read already


def parameters(*, sources: list[str] | None = None, config: Path | None = None, **others: object) -> list[Parameter]:
    """Take SOURCE and a report, and what else is wanted, as if they stood on the command line."""
    given = {"output": ["report.csv"], **others}
    return [
        Parameter("sources", "", sources or ["scans"], "COMMANDLINE"),
        Parameter("if_locked", "--if-locked", "fail", "DEFAULT"),
        Parameter("config", "--config", config, "COMMANDLINE" if config else "DEFAULT"),
        *(Parameter(name, f"--{name}", value, "COMMANDLINE") for name, value in given.items()),
    ]


def written(given: list[Parameter], *, folder: str = "/here", python: str = PYTHON, **settings: object) -> str:
    wanted = ScheduleSettings(**({"nightly": "every" not in settings} | settings))  # type: ignore[arg-type]
    return schedule(given, wanted, folder=folder, python=python, timeout="/usr/bin/timeout", is_there=IS_THERE)


def executed(text: str) -> list[bytes]:
    [line] = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    return systemd(line)


@pytest.mark.parametrize(
    ("every", "fields", "calendar"),
    [
        (None, "15 2 * * *", "*-*-* 02:15"),
        ("1m", "*/1 * * * *", "*-*-* *:0/1"),
        ("15m", "*/15 * * * *", "*-*-* *:0/15"),
        ("60m", "0 * * * *", "*-*-* *:00"),
        ("1h", "0 * * * *", "*-*-* *:00"),
        ("2h", "0 */2 * * *", "*-*-* 0/2:00"),
        ("24h", "0 0 * * *", "*-*-* 00:00"),
        ("1d", "0 0 * * *", "*-*-* 00:00"),
    ],
)
def test_the_times_are_the_same_in_both_forms(every: str | None, fields: str, calendar: str) -> None:
    when = {"every": every} if every else {}
    assert written(parameters(), **when).startswith(f"{fields} /usr/bin/timeout ")
    assert f"\nOnCalendar={calendar}\nPersistent=true\n" in written(parameters(), **when, systemd=True)


@pytest.mark.parametrize("every", ["7m", "45m", "90m", "120m", "0m", "5h", "48h", "2d", "15", "m", "15 m", "", "15m\n"])
def test_what_cron_cannot_repeat_evenly_is_refused_with_what_it_can(every: str) -> None:
    with pytest.raises(UsageError, match=r"possible are 1, 2, .* 20 or 30 minutes .* 8 or 12 hours .* 1d"):
        written(parameters(), every=every)


@pytest.mark.parametrize("limit", ["1m", "90m", "6h", "30d", "720h"])
def test_a_run_has_a_limit_in_both_forms(limit: str) -> None:
    line = written(parameters(), limit=limit)
    assert f"15 2 * * * /usr/bin/timeout --foreground --signal=TERM --kill-after=60s {limit} '/opt" in line
    assert f"\nTimeoutStartSec={limit}\n" in written(parameters(), limit=limit, systemd=True)


@pytest.mark.parametrize("limit", ["0h", "-1h", "6", "h", "6h30m", "1.5h", "31d", "721h", "1s", "", "infinity", "6h\n"])
def test_a_limit_that_makes_no_sense_is_refused(limit: str) -> None:
    with pytest.raises(UsageError, match="expected 90m, 6h or 1d, from 1m to 30d"):
        written(parameters(), limit=limit)


def test_both_forms_run_the_same_command_whatever_names_hold() -> None:
    given = parameters(sources=[HOSTILE, "a b"], output=["%.csv"], config=Path("job.toml"))
    line = os.fsencode(written(given, folder=f"/{HOSTILE}/x").removeprefix("15 2 * * * ").removesuffix("\n"))
    change, _, command = CRONS[0](line).rpartition(b" && ")
    assert shell(change.replace(b"cd ", b"printf '%s\\0' ", 1)) == [os.fsencode(f"/{HOSTILE}/x")]
    told = shell(b"printf '%s\\0' " + command)
    env, chdir, *same = executed(written(given, folder=f"/{HOSTILE}/x", systemd=True))
    assert (env, chdir) == (b"/usr/bin/env", os.fsencode(f"--chdir=/{HOSTILE}/x"))
    assert told[:5] == [b"/usr/bin/timeout", b"--foreground", b"--signal=TERM", b"--kill-after=60s", b"6h"]
    assert told[5:] == same
    assert same[:5] == [PYTHON.encode(), b"-P", b"-m", b"batchdigits", b"predict"]
    assert os.fsencode(f"/{HOSTILE}/x/%.csv") in same


def test_the_service_takes_faults_and_a_stop_for_success_as_the_shipped_one_does() -> None:
    text = written(parameters(), systemd=True)
    shipped = (CHECKOUT / "jobs" / "batchdigits.service").read_text(encoding="utf-8")
    for line in ("Type=oneshot", "SuccessExitStatus=3 143", "TimeoutStartSec=6h", "KillMode=mixed", "Nice=10"):
        assert f"\n{line}\n" in text
        assert f"\n{line}\n" in shipped


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\0b"])
@pytest.mark.parametrize("systemd", [False, True])
def test_a_name_with_a_line_break_is_refused_and_named(name: str, systemd: bool) -> None:
    with pytest.raises(UsageError, match=r"/here/a\\x0[ad0]b holds a line break, .* give it another name"):
        written(parameters(sources=[name]), systemd=systemd)
    alone = parameters(sources=["/scans"], output=["/report.csv"])
    with_job_file = parameters(sources=["/scans"], output=["/report.csv"], config=Path("/job.toml"))
    assert name not in written(alone, folder=f"/{name}", systemd=systemd)
    with pytest.raises(UsageError, match="line break"):
        written(with_job_file, folder=f"/{name}", systemd=systemd)


def test_a_line_that_cron_would_cut_off_is_refused_and_systemd_takes_it() -> None:
    short = written(parameters(sources=["é"]))
    longest = MOST_BYTES - len(os.fsencode(short.removeprefix("15 2 * * * ").rstrip("\n")))
    fits = parameters(sources=["é" + longest * "a"])
    over = parameters(sources=["é" + (longest + 1) * "a"])
    assert len(os.fsencode(written(fits))) == len("15 2 * * * ") + MOST_BYTES + 1
    with pytest.raises(UsageError, match=rf"has {MOST_BYTES + 1} bytes, and cron takes {MOST_BYTES}; .* --systemd"):
        written(over)
    assert executed(written(over, systemd=True))


@pytest.mark.parametrize(
    ("source", "folder", "absolute"),
    [
        ("scans", "/here", "/here/scans"),
        (".", "/here", "/here"),
        ("../a/./b/", "/here/x", "/here/a/b"),
        ("/there", "/here", "/there"),
        ("*.png", "/here", "/here/*.png"),
        ("*.png", "/here [1]", "/here [[]1]/*.png"),
        ("/there/[a]/*.png", "/here [1]", "/there/[a]/*.png"),
        ("scans", "/here [1]", "/here [1]/scans"),
        ("a [2]", "/here [1]", "/here [1]/a [2]"),
        ("-", "/here", "/here/-"),
    ],
)
def test_a_source_is_absolute_and_only_what_was_given_is_a_pattern(source: str, folder: str, absolute: str) -> None:
    words = executed(written(parameters(sources=[source]), folder=folder, systemd=True))
    assert words[words.index(b"predict") + 1] == absolute.encode()


@pytest.mark.parametrize("given", [parameters(sources=[""]), parameters(output=[""])])
def test_an_empty_name_is_not_taken_for_the_working_folder(given: list[Parameter]) -> None:
    with pytest.raises(UsageError, match="empty name"):
        written(given)


# the command


def scheduled(*arguments: str | Path, cwd: Path, **env: str) -> list[str]:
    """Take the words of predict from the printed line, which needs no quoting here."""
    (cwd / "scans").mkdir(exist_ok=True)
    result = batchdigits("schedule", *arguments, cwd=cwd, env=env)
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    assert result.stdout.endswith("\n")
    return result.stdout.split("-m batchdigits predict ")[1].split()


def test_only_what_stands_on_the_command_line_is_printed_with_its_paths_absolute(tmp_path: Path) -> None:
    environment = {"BATCHDIGITS_PREDICT_THRESHOLD": "0.5", "BATCHDIGITS_PREDICT_WORKERS": "many"}
    options = [
        "-o",
        "a.csv",
        "-o/b.csv",
        "--threshold=.95",
        "--csv-dialect",
        "excel",
        "--force",
        "--exclude",
        "x/*.png",
    ]
    found = scheduled("--nightly", "scans", *options, cwd=tmp_path, **environment)
    reports = ["--output", f"{tmp_path}/a.csv", "--output", "/b.csv"]
    assert found[:5] == [f"{tmp_path}/scans", *reports]
    assert sorted(found[5:]) == sorted(
        ["--threshold", "0.95", "--csv-dialect", "excel", "--force", "--exclude", "'x/*.png'"]
        + ["--if-locked", "skip", "-q"]
    )


def test_schedules_own_options_may_stand_anywhere_and_those_of_predict_win_over_the_additions(tmp_path: Path) -> None:
    mixed = ["scans", "--if-locked", "fail", "--every", "1d", "-q", "--limit", "1h", "-o", "a.csv"]
    found = scheduled(*mixed, cwd=tmp_path)
    assert found == [f"{tmp_path}/scans", "--output", f"{tmp_path}/a.csv", "--if-locked", "fail", "-q"]


def test_every_option_of_predict_that_is_a_path_becomes_absolute(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    paths = [name for name, hint in get_type_hints(app.predict).items() if Path in get_args(hint)]
    assert {"model", "ledger", "config"} <= set(paths)
    options = [word for name in paths for word in (f"--{name.replace('_', '-')}", "file")]
    found = scheduled("--nightly", "scans", "-o", "a.csv", *options, cwd=tmp_path)
    assert found.count(f"{tmp_path}/file") == len(paths)


def test_a_job_file_stays_one_and_its_paths_begin_in_the_same_folder(tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text('sources = ["scans"]\noutput = ["a.csv"]\nthreshold = 0.5\nif-locked = "fail"\n')
    result = batchdigits("schedule", "--nightly", "--config", "job.toml", cwd=tmp_path)
    assert result.stdout.startswith(f"15 2 * * * cd {tmp_path} && {shutil.which('timeout') or 'timeout'} --foreground ")
    assert result.stdout.endswith(f"-m batchdigits predict --config {job} -q\n")
    units = batchdigits("schedule", "--nightly", "--systemd", "--config", "job.toml", cwd=tmp_path).stdout
    assert executed(units)[:2] == [b"/usr/bin/env", f"--chdir={tmp_path}".encode()]


def refused(*arguments: str | bytes | Path, cwd: Path) -> Result:
    result = batchdigits("schedule", *arguments, cwd=cwd, env={"COLUMNS": "300", "BATCHDIGITS_PREDICT_OUTPUT": "e.csv"})
    assert (result.code, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    return result


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("scans -o a.csv", "Of --every and --nightly neither was given; expected one of them"),
        ("--nightly --every 1d scans -o a.csv", "Of --every and --nightly both were given"),
        ("--every 7m scans -o a.csv", "--every 7m is nothing that cron can repeat evenly"),
        ("--nightly --limit 0h scans -o a.csv", "--limit 0h is no time for a run"),
        ("--nightly scans", "give a file: -o REPORT"),
        ("--nightly scans -o a.csv -o -", "give a file: -o REPORT"),
        ("--nightly scans -o a.csv --dry-run", "With --dry-run nothing is read"),
        ("--nightly -o a.csv --show-config", "With --show-config nothing is read"),
        ("--nightly scans -o a\nb.csv", "a\\x0ab.csv holds a line break"),
        ("--nightly scans -o a.xls", "The ending of the report a.xls is unknown; use one of .csv, .parquet"),
    ],
)
def test_what_cannot_be_scheduled_is_one_sentence_and_exit_2(arguments: str, message: str, tmp_path: Path) -> None:
    assert message in refused(*arguments.split(" "), cwd=tmp_path).message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--nightly", "Missing argument 'SOURCE -o REPORT'"),
        ("--nightly -o a.csv", "Missing argument 'SOURCE'"),
        ("--nightly scans -o a.csv --treshold 0.9", "No such option: --treshold"),
        ("--nightly scans -o a.csv --threshold 7", "Invalid value for '--threshold'"),
        ("--nightly scans -o a.csv --config nowhere.toml", "The job file nowhere.toml cannot be read"),
    ],
)
def test_what_predict_would_not_take_is_told_before_the_scheduler_finds_out(
    arguments: str, message: str, tmp_path: Path
) -> None:
    assert message in refused(*arguments.split(), cwd=tmp_path).stderr


def test_a_source_that_is_not_there_is_told_beside_the_line(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    sources = ["scans", "nope", "later/*.png", "s3://bucket/scans"]
    result = batchdigits("schedule", "--nightly", *sources, "-o", "a.csv", cwd=tmp_path)
    assert (result.code, result.stdout.count("\n")) == (0, 1)
    assert result.stderr == "Warning: nope is not there now; runs fail until it is, as once its disk is mounted.\n"


def test_a_report_that_could_not_be_written_is_told_too(tmp_path: Path) -> None:
    result = batchdigits("schedule", "--nightly", "scans", "-o", "nowhere/a.csv", cwd=tmp_path)
    assert (result.code, result.stdout) == (5, "")
    assert "The folder of the report nowhere/a.csv does not exist" in result.message


def test_a_line_is_printed_without_a_library_of_the_trade() -> None:
    arguments = ["schedule", "--nightly", "scans", "-o", "a.csv", "-v"]  # without -v nothing native is said
    result = batchdigits(*arguments, env={"PYTHONPROFILEIMPORTTIME": "1"})
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.splitlines()}
    assert {"typer", "numpy"} <= loaded  # the second by what checks the reports
    assert loaded & {"tensorflow", "keras", "pandas", "pyarrow", "cv2", "PIL"} == set()


def test_the_printed_line_makes_the_report_in_an_empty_environment(tmp_path: Path) -> None:
    home = tmp_path / HOSTILE
    scans = home / HOSTILE
    scans.mkdir(parents=True)
    shutil.copy(CHECKOUT / "sample_images" / "mnist" / "mnist-01.png", scans / "50%.png")
    os.utime(scans / "50%.png", (0, 0))  # long there, so that nobody waits for it to be complete
    arguments = ["schedule", "--every", "15m", HOSTILE, "-o", f"{HOSTILE}.csv"]
    printed = subprocess.run(
        [BATCHDIGITS, *arguments], cwd=home, env=environment(), capture_output=True, check=True, timeout=PATIENCE
    )
    fields, command = printed.stdout.removesuffix(b"\n").split(b" /", 1)
    assert fields == b"*/15 * * * *"
    assert sys.executable.encode() in command
    done = subprocess.run(
        [b"env", b"-i", b"/bin/sh", b"-c", vixie(b"/" + command, collapses=True)],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    with (home / f"{HOSTILE}.csv").open(encoding="utf-8", newline="") as file:
        [row] = csv.DictReader(file)
    assert (row["path"], row["status"]) == ("50%.png", "ok")

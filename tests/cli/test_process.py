"""What commands share: how a run ends, messages as text and as JSON, and where each option's value came from.

One test loads TensorFlow.
"""

import csv
import json
import logging
import os
import shutil
import sys
import tomllib
import warnings
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from prometheus_client.parser import text_string_to_metric_families

from batchdigits.cli import process
from batchdigits.cli.app import app
from batchdigits.cli.process import exits, monitored
from batchdigits.errors import (
    BundleError,
    DecoderDied,
    ExitCode,
    Locked,
    NoImages,
    StorageError,
    Terminated,
    UsageError,
)
from batchdigits.inference.audit import Audit
from batchdigits.inference.trust import Basis, Trust
from batchdigits.ledger.location import held
from batchdigits.monitoring import Summary
from batchdigits.settings import PredictSettings
from tests.cli_runner import (
    BATCHDIGITS,
    CHECKOUT,
    Result,
    batchdigits,
    on_a_terminal,
    run,
)
from tests.file_states import disk_of, names
from tests.sample_pages import one_of_each, write_png

DATA = Path(__file__).parents[1] / "data"
SUMMARY = Summary(
    files=3,
    pending=2,
    deferred=1,
    rows=Counter(ok=2),
    verdicts=Counter(ok=2),
    left=0,
    failed=[],
    digits=Counter({7: 2}),
    audit=Audit(),
    skipped=Counter(),
    faulty=0,
    model="a" * 64,
    trust=Trust(
        0.86, Basis.VALIDATION, 0.005, "photo", None, None, answers=0, wrong=0, passed=0, drifted=False, missing=()
    ),
    drift=None,
    seconds={"list": 0.5},
    elapsed=0.8,
)


@pytest.fixture(autouse=True)
def _the_log_as_it_was() -> Iterator[None]:
    logs = [process.LOG, logging.getLogger("py.warnings")]
    before = [(log, log.handlers, log.level, log.propagate) for log in logs]
    yield
    logging.captureWarnings(False)
    for log, handlers, level, propagate in before:
        log.handlers, log.level, log.propagate = handlers, level, propagate


@pytest.fixture
def settings(tmp_path: Path) -> PredictSettings:
    """Settings that name both files for monitoring."""
    return PredictSettings(sources=("scans",), summary=tmp_path / "run.json", metrics=tmp_path / "nightly.prom")


def failing(error: BaseException) -> Any:
    def run() -> Summary:
        raise error

    return run


def written(folder: Path) -> dict[str, Any]:
    """Read the summary, after checking that the metrics have the same exit code."""
    said: dict[str, Any] = json.loads((folder / "run.json").read_text())
    families = text_string_to_metric_families((folder / "nightly.prom").read_text())
    [code] = [sample.value for family in families for sample in family.samples if sample.name.endswith("_exit_code")]
    assert code == said["exit_code"]
    return said


# how a run ends, for monitoring


def test_a_run_leaves_its_numbers_and_when_it_was(settings: PredictSettings, tmp_path: Path) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    assert monitored(lambda: SUMMARY, settings) is ExitCode.OK
    said = written(tmp_path)
    assert (said["exit_code"], said["error"], said["pages"]["ok"]) == (0, None, 2)
    started, ended = (datetime.fromisoformat(said[name]) for name in ("started", "ended"))
    assert before <= started <= ended <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageError("No."), 2, "No."),
        (NoImages("None."), 4, "None."),
        (StorageError("Full."), 5, "Full."),
        (BundleError("Damaged."), 6, "Damaged."),
        (DecoderDied("Gone."), 1, "Gone."),
        (Terminated("Terminated."), 143, "Terminated."),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("by zero"), 1, "unexpected error: ZeroDivisionError: by zero"),
    ],
)
def test_a_run_that_fails_leaves_its_exit_code_and_why_and_fails_all_the_same(
    error: BaseException, code: int, message: str, settings: PredictSettings, tmp_path: Path
) -> None:
    monitored(lambda: SUMMARY, settings)
    with pytest.raises(type(error)) as raised:
        monitored(failing(error), settings)
    assert raised.value is error
    said = written(tmp_path)
    assert (said["exit_code"], said["error"]) == (code, message)
    assert "pages" not in said


def test_a_run_that_was_kept_from_the_ledger_leaves_the_other_runs_numbers(
    settings: PredictSettings, tmp_path: Path
) -> None:
    monitored(lambda: SUMMARY, settings)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(Locked):
        monitored(failing(Locked("Another run holds it.")), settings)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_summary_that_cannot_be_written_is_a_storage_error_and_the_old_one_stays_whole(
    settings: PredictSettings, tmp_path: Path
) -> None:
    monitored(lambda: SUMMARY, settings)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with disk_of(100), pytest.raises(StorageError, match=r"run\.json cannot be written: the disk is full"):
        monitored(lambda: SUMMARY, settings)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_that_a_summary_cannot_be_written_does_not_hide_why_the_run_failed(
    settings: PredictSettings, caplog: pytest.LogCaptureFixture
) -> None:
    process.LOG.propagate = True
    with disk_of(100), pytest.raises(NoImages, match=r"^None\.$"):
        monitored(failing(NoImages("None.")), settings)
    [warning] = caplog.records
    assert "run.json cannot be written" in warning.getMessage()
    assert warning.levelno == logging.WARNING


def test_a_place_that_cannot_be_written_is_found_before_the_run(tmp_path: Path) -> None:
    settings = PredictSettings(sources=(), summary=tmp_path / "nowhere" / "run.json")
    with pytest.raises(StorageError, match="create"):
        monitored(failing(AssertionError("The run began.")), settings)


# how a run ends, through the command


def predict(folder: Path, *arguments: str | Path) -> Result:
    """Run the main job in a folder, with both files for monitoring."""
    return batchdigits("predict", *arguments, "--summary", "run.json", "--metrics", "nightly.prom", cwd=folder)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A folder with an empty folder in it."""
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_the_counts_are_those_of_the_report(tmp_path: Path) -> None:
    for name in ("paper", "formats"):
        shutil.copytree(CHECKOUT / "sample_images" / name, tmp_path / "scans" / name)
    shutil.copy(DATA / "truncated.png", tmp_path / "scans")
    shutil.copy(DATA / "photo.heic", tmp_path / "scans")
    job = ("scans", "-o", "report.csv", "--threshold", "0.9999", "--log-json", "--runtime", "keras")
    first = predict(tmp_path, *job)
    said = written(tmp_path)
    rows = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    assert first.code == said["exit_code"] == 3
    assert {status: count for status, count in said["pages"].items() if count} == Counter(row["status"] for row in rows)
    assert said["pages"]["review"] > 0
    assert said["review_share"] == said["pages"]["review"] / (said["pages"]["ok"] + said["pages"]["review"])
    assert {digit: n for digit, n in said["digits"].items() if n} == Counter(
        row["digit"] for row in rows if row["digit"]
    )
    assert said["images"] == dict.fromkeys(("found", "new_or_changed"), len({row["path"] for row in rows})) | {
        "deferred": 0
    }
    assert said["new_faults"] == 2
    assert all(row["model"] == said["model"][:12] for row in rows)
    assert {"list", "decode", "normalise", "load model", "predict", "report"} <= set(said["stages"])
    assert said["peak_memory_bytes"] > 30_000_000  # TensorFlow has a process of its own
    event = json.loads(first.stderr)
    assert event["level"] == "warning"  # there are faults that nobody knows yet
    assert event["message"].startswith(f"{said['images']['found']} images, ")
    assert event["summary"] == said

    again = predict(tmp_path, *job)
    after = written(tmp_path)
    assert again.code == after["exit_code"] == 0
    assert (after["pages"], after["digits"]) == (said["pages"], said["digits"])
    assert (after["images"]["new_or_changed"], after["new_faults"]) == (0, 0)
    assert after["peak_memory_bytes"] < said["peak_memory_bytes"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["empty", "-o", "report.doc"], 2),
        (["empty"], 4),
        (["missing"], 5),
        (["empty", "--model", "nowhere"], 6),
    ],
)
def test_a_command_that_fails_leaves_the_code_and_the_message(arguments: list[str], code: int, empty: Path) -> None:
    result = predict(empty, *arguments)
    said = written(empty)
    assert result.code == said["exit_code"] == code
    assert said["error"] == result.message


ASKED_TO_END = """
import os, runpy, signal, sys

class AtImport:
    def find_spec(self, name, path, target=None):
        if name == MODULE:
            sys.meta_path.remove(self)
            for _ in range(2):  # as of `timeout`
                os.kill(os.getpid(), signal.SIGTERM)

MODULE = sys.argv.pop(1)
sys.meta_path.insert(0, AtImport())
runpy.run_module("batchdigits", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["typer", "batchdigits.cli.train", "batchdigits.pipeline", "cv2"])
def test_a_signal_at_any_moment_of_a_run_is_what_its_summary_says(module: str, tmp_path: Path) -> None:
    write_png(tmp_path / "scans" / "7.png", one_of_each()[7])
    monitored_by = ["--summary", tmp_path / "run.json", "--metrics", tmp_path / "nightly.prom"]
    job = ["predict", tmp_path / "scans", "-o", tmp_path / "r.csv", "--runtime", "litert", *monitored_by]
    result = run([sys.executable, "-c", ASKED_TO_END, module, *job], cwd=CHECKOUT)
    assert result.message == "Terminated: what was finished is kept, the next run goes on from there."
    assert (result.code, written(tmp_path)["exit_code"]) == (143, 143)


def test_a_signal_after_the_summary_is_written_changes_no_exit_code(tmp_path: Path) -> None:
    write_png(tmp_path / "scans" / "7.png", one_of_each()[7])
    late = (
        "import os, signal; from batchdigits.cli import process; closing = process.closing; "
        "process.closing = lambda *a, **k: [os.kill(os.getpid(), signal.SIGTERM), closing(*a, **k)][1]; "
        "import runpy; runpy.run_module('tests.fake_model_cli', run_name='__main__')"
    )
    job = ["predict", tmp_path / "scans", "-o", tmp_path / "r.csv", "--summary", tmp_path / "run.json"]
    result = run([sys.executable, "-c", late, *job], cwd=CHECKOUT)
    assert (result.code, json.loads((tmp_path / "run.json").read_text())["exit_code"]) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--summary", "nowhere/run.json"], 5),
        (["--metrics", "nowhere/nightly.prom"], 5),
        (["--metrics", "nightly.txt"], 2),
        (["--summary", "report.csv"], 2),
        (["--summary", "run.json", "--ledger", "run.json"], 2),
    ],
)
def test_a_file_for_monitoring_that_cannot_be_ends_the_run_before_any_work(
    arguments: list[str], code: int, empty: Path
) -> None:
    result = batchdigits("predict", "empty", "-o", "report.csv", "--allow-empty", *arguments, cwd=empty)
    assert result.code == code
    assert arguments[1] in result.message
    assert names(empty) == ["empty"]  # and neither a report nor a ledger


@pytest.mark.parametrize(("if_locked", "code"), [("fail", 75), ("skip", 0)])
def test_where_another_run_holds_the_ledger_its_numbers_stay(if_locked: str, code: int, empty: Path) -> None:
    job = ("empty", "-o", "report.csv", "--allow-empty", "--if-locked", if_locked)
    assert predict(empty, *job).code == 0
    before = (empty / "run.json").read_bytes(), (empty / "nightly.prom").read_bytes()
    with held(empty / "report.csv.ledger", wait_seconds=0):
        result = predict(empty, *job)
    assert result.code == code
    assert "Another run holds the ledger" in result.message
    assert ((empty / "run.json").read_bytes(), (empty / "nightly.prom").read_bytes()) == before


def test_a_dry_run_leaves_nothing_for_monitoring(tmp_path: Path) -> None:
    write_png(tmp_path / "scans" / "7.png", one_of_each()[7])
    result = predict(tmp_path, "scans", "-o", "report.csv", "--dry-run")
    assert result.code == 0
    assert "7.png" in result.stdout
    assert result.message
    assert predict(tmp_path, "scans", "-o", "report.csv", "--dry-run", "-q").stderr == ""
    assert names(tmp_path) == ["scans"]


def test_the_client_of_prometheus_is_loaded_for_metrics_alone(empty: Path) -> None:
    for asked in ([], ["--summary", "run.json"], ["--metrics", "nightly.prom"]):
        # without -v, where Python writes what it imports is closed
        result = batchdigits("predict", "empty", "-v", *asked, cwd=empty, env={"PYTHONPROFILEIMPORTTIME": "1"})
        assert result.code == 4
        assert "pipeline" in result.stderr
        assert ("prometheus_client" in result.stderr) == ("--metrics" in asked)


# messages as JSON


def events(result: Result) -> list[dict[str, Any]]:
    """Read what a command had to say to a program."""
    return [json.loads(line) for line in result.stderr.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["empty"], 4, "No image was found in empty"),
        (["missing"], 5, "missing does not exist"),
        (["empty", "--nope"], 2, "--nope"),
        (["empty", "--threshold", "7"], 2, "--threshold"),
        (["empty", "--config", "nowhere.toml"], 2, "nowhere.toml"),
        ([], 2, "SOURCE"),
    ],
)
def test_an_error_is_one_json_line_with_its_exit_code(arguments: list[str], code: int, words: str, empty: Path) -> None:
    result = batchdigits("predict", *arguments, "--log-json", cwd=empty)
    [event] = events(result)
    assert (result.code, result.stdout) == (code, "")
    assert (event["level"], event["exit_code"]) == ("error", code)
    assert words in event["message"]
    assert datetime.fromisoformat(event["time"]).utcoffset() == timedelta()


def test_json_can_be_asked_for_in_a_job_file_and_the_environment(empty: Path) -> None:
    (empty / "job.toml").write_text("log-json = true\n")
    assert events(batchdigits("predict", "empty", "--config", "job.toml", cwd=empty))[0]["exit_code"] == 4
    variable = {"BATCHDIGITS_PREDICT_LOG_JSON": "1"}
    assert events(batchdigits("predict", "empty", cwd=empty, env=variable))[0]["exit_code"] == 4


def test_a_quiet_run_is_silent_in_json_too(empty: Path) -> None:
    job = ("predict", "empty", "--allow-empty", "--log-json")
    assert len(events(batchdigits(*job, cwd=empty))) == 1
    assert batchdigits(*job, "-q", cwd=empty).stderr == ""


@pytest.mark.parametrize("options", ["quiet=True", "as_json=True, verbose=True"])
def test_what_a_library_logs_does_not_reach_standard_error(options: str) -> None:
    program = f"import logging; from batchdigits.cli import process; process._log_to_stderr({options})"
    logged = 'logging.getLogger("PIL.TiffImagePlugin").error("More samples per pixel than can be decoded: 9")'
    assert run([sys.executable, "-c", f"{program}; {logged}"]).stderr == ""


def test_json_has_no_progress_bar_on_a_terminal() -> None:
    broken = ("predict", DATA / "truncated.png", "--runtime", "litert")
    assert "1 image: 0 read, 1 failed" in on_a_terminal(*broken).stderr
    alone = on_a_terminal(*broken, "--log-json").stderr
    assert json.loads(alone)["summary"]["pages"]["unreadable"] == 1


def test_help_is_the_same_with_json() -> None:
    assert batchdigits("predict", "--log-json", "--help") == batchdigits("predict", "--help")


def test_a_traceback_and_a_warning_of_a_library_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    @exits
    def command(*, log_json: bool, verbose: bool) -> ExitCode:
        with warnings.catch_warnings(action="always"):
            warnings.warn("old\nand slow", stacklevel=1)
        message = 'line 1\nline "2"'
        raise ArithmeticError(message)

    with pytest.raises(typer.Exit) as left:
        command(log_json=True, verbose=True)
    assert left.value.exit_code == 1
    warning, error = map(json.loads, capsys.readouterr().err.splitlines())
    assert warning["level"] == "warning"
    assert "old\nand slow" in warning["message"]
    assert error["message"] == 'unexpected error: ArithmeticError: line 1\nline "2"'
    assert error["traceback"].startswith("Traceback (most recent call last)")


def test_without_json_a_message_is_a_line_of_text_that_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    @exits
    def command(*, quiet: bool) -> ExitCode:
        process.LOG.info("100% done")
        process.LOG.warning("7.png is old")
        return ExitCode.OK

    for quiet, expected in ((False, "100% done\nWarning: 7.png is old\n"), (True, None)):
        with pytest.raises(typer.Exit):
            command(quiet=quiet)
        assert capsys.readouterr().err == (expected or "Warning: 7.png is old\n")


# --show-config


def escaped(
    *arguments: str | Path, cwd: Path, env: dict[str, str] | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Ask for the configuration: the values as TOML has them, and by name where each came from."""
    result = batchdigits("predict", *arguments, "--show-config", cwd=cwd, env=env)
    assert (result.code, result.stderr) == (0, "")
    lines = [line.removeprefix("# ") for line in result.stdout.rstrip().split("\n")]
    return tomllib.loads(result.stdout), {line.partition(" = ")[0]: line.rpartition("  # ")[2] for line in lines}


def test_each_of_the_four_sources_of_a_value_is_named(tmp_path: Path) -> None:
    (tmp_path / "night.toml").write_text('sources = ["scans"]\nthreshold = 0.5\nworkers = 4\nbatch-size = 64\n')
    variables = {"BATCHDIGITS_PREDICT_WORKERS": "3", "BATCHDIGITS_PREDICT_BATCH_SIZE": "32"}
    values, origins = escaped("--config", "night.toml", "--batch-size", "16", "-q", cwd=tmp_path, env=variables)
    assert (values["threshold"], origins["threshold"]) == (0.5, "job file night.toml")
    assert (values["sources"], origins["sources"]) == (["scans"], "job file night.toml")
    assert (values["workers"], origins["workers"]) == (3, "environment BATCHDIGITS_PREDICT_WORKERS")
    assert (values["batch_size"], origins["batch_size"]) == (16, "from the command line")
    assert (values["quiet"], origins["quiet"]) == (True, "from the command line")
    assert (values["csv_dialect"], origins["csv_dialect"]) == ("rfc4180", "default")
    assert "model" not in values
    assert origins["model"] == "default"
    assert origins["config"] == "from the command line"


def test_every_option_of_predict_is_shown(tmp_path: Path) -> None:
    program = typer.main.get_command(app)
    options = {parameter.name for parameter in program.commands["predict"].params}  # type: ignore[attr-defined]
    _, origins = escaped(cwd=tmp_path)
    assert set(origins) == options - {"config", "show_config"}


def test_what_is_shown_is_a_job_file_that_gives_the_same_values(tmp_path: Path) -> None:
    awkward = ['a "b" \\ c', "tab\there", "é\u2028\x7f#😀", "new\nline", "=1+1"]
    arguments = [f"--exclude={pattern}" for pattern in awkward]
    arguments += ["scans", "more scans", "-o", "a.csv", "-o", "b.parquet", "--summary", "run.json", "--no-ledger"]
    arguments += ["--csv-dialect", "excel-eu", "--wait", "0.00001", "--threshold", "1", "--max-pixels", "10", "-v"]
    values, origins = escaped(*arguments, cwd=tmp_path)
    from_outside = {name for name, origin in origins.items() if origin.startswith("environment")}  # what all tests set
    assert values["exclude"] == awkward
    assert (values["sources"], values["threshold"], values["wait"]) == (["scans", "more scans"], 1.0, 0.00001)
    printed = batchdigits("predict", *arguments, "--show-config", cwd=tmp_path).stdout
    (tmp_path / "saved.toml").write_text(printed, encoding="utf-8")
    again, origins = escaped("--config", "saved.toml", cwd=tmp_path)
    assert again == values
    assert {origins[name] for name in set(values) - from_outside} == {"job file saved.toml"}


def test_showing_the_configuration_runs_nothing_and_needs_no_source_but_checks_the_rest(tmp_path: Path) -> None:
    assert escaped("missing", "-o", "report.csv", cwd=tmp_path)[0]["sources"] == ["missing"]
    assert escaped(cwd=tmp_path)[0]["sources"] == []
    assert batchdigits("predict", "--show-config", "--threshold", "7").code == 2
    assert batchdigits("predict").code == 2
    assert names(tmp_path) == []


@pytest.mark.parametrize("key", ["config", "show-config", "show_config"])
def test_a_job_file_cannot_name_another_or_ask_to_be_shown(key: str, empty: Path) -> None:
    (empty / "job.toml").write_text(f"{key} = true\n")
    result = batchdigits("predict", "empty", "--config", "job.toml", cwd=empty, env={"COLUMNS": "500"})
    assert result.code == 2
    assert f"unknown key {key}" in result.stderr


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_job_file_may_begin_with_the_byte_order_mark_of_an_editor(empty: Path, encoding: str) -> None:
    (empty / "job.toml").write_text('sources = ["Prüfung"]\r\n', encoding=encoding)
    assert "Prüfung does not exist" in batchdigits("predict", "--config", "job.toml", cwd=empty).message


def test_a_job_file_is_utf_8_in_every_locale(empty: Path) -> None:
    (empty / "job.toml").write_bytes('sources = ["Prüfung"]\n'.encode())
    result = batchdigits("predict", "--config", "job.toml", cwd=empty, env={"LC_ALL": "C", "PYTHONUTF8": "0"})
    assert result.code == 5
    assert "Pr" in result.message
    assert "Ã" not in result.message


# ---- around the process ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_end_nothing_and_no_report_takes_their_place(tmp_path: Path, closed: str) -> None:
    (tmp_path / "scans").mkdir()
    write_png(tmp_path / "scans" / "7.png", one_of_each()[7])
    command = f'exec "{sys.executable}" -m tests.fake_model_cli predict "$1/scans" -o "$1/r.csv" -v {closed}'
    result = run(["sh", "-c", command, "sh", tmp_path], cwd=CHECKOUT)
    assert (result.code, result.stdout) == (0, "")
    assert ("1 image: " in result.stderr) == ("2>" not in closed)
    [_, row] = (tmp_path / "r.csv").read_text().splitlines()
    assert row.startswith("7.png,1,")


def test_a_report_for_a_closed_standard_output_is_a_storage_error(empty: Path) -> None:
    result = run(["sh", "-c", f'exec "{BATCHDIGITS}" predict "$0" --allow-empty >&-', empty])
    assert result.code == 5
    assert "Standard output is closed" in result.message


def test_a_working_folder_that_is_gone_matters_only_where_names_are_relative(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    gone = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    job = (BATCHDIGITS, "predict", "--allow-empty", "-o", tmp_path / "r.csv")
    assert run(["sh", "-c", gone, "sh", *job, tmp_path / "scans"], cwd=tmp_path).code == 0
    for relative in ([*job, "scans"], [*job, tmp_path / "scans", "-o", "r.html"]):
        result = run(["sh", "-c", gone, "sh", *relative], cwd=tmp_path)
        assert result.code == 5
        assert result.message.endswith("name absolute paths.")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ('"$0" predict "$1" --allow-empty --no-ledger -o "$1/r.csv" 2>/dev/full', 0),
        ('"$0" predict "$1/missing" -o "$1/r.csv" 2>/dev/full', 5),
        ('"$0" predict "$1" --allow-empty --no-ledger -o "$1/r.csv" 2>&1 >/dev/null | :; exit "${PIPESTATUS[0]}"', 0),
        ('"$0" --version >/dev/full', 5),
        ('"$0" predict --help | :; exit "${PIPESTATUS[0]}"', 0),
        ('"$0" --version | :; exit "${PIPESTATUS[0]}"', 0),
        ('"$0" predict 2>&1 | :; exit "${PIPESTATUS[0]}"', 2),
        ('"$0" predict "$1" --threshold 7 2>/dev/full', 2),
    ],
)
def test_streams_that_cannot_be_written_leave_the_exit_code_alone(empty: Path, command: str, code: int) -> None:
    assert run(["bash", "-c", command, BATCHDIGITS, empty]).code == code


def test_names_beyond_ascii_are_read_whatever_the_locale(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for name in (b"caf\xc3\xa9.png", b"caf\xe9.png"):
        write_png(tmp_path / "scans" / os.fsdecode(name), one_of_each()[7])
    program = [sys.executable, "-m", "tests.fake_model_cli", "predict", tmp_path / "scans", "-o"]
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    reports = []
    for number, locale in enumerate(({"LC_ALL": "C.UTF-8"}, plain)):
        result = run([*program, tmp_path / f"{number}.csv"], cwd=CHECKOUT, env=locale)
        assert result.code == 0
        reports.append((tmp_path / f"{number}.csv").read_bytes())
    assert reports[0] == reports[1]
    assert "café.png" in reports[0].decode()

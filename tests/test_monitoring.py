"""How a run ended, as JSON and as metrics of Prometheus."""

import importlib.metadata
import json
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from batchdigits import monitoring
from batchdigits.errors import ExitCode, StorageError, UsageError
from batchdigits.inference.audit import Audit
from batchdigits.inference.trust import Basis, Trust
from batchdigits.monitoring import Ending, Summary
from batchdigits.records import Status
from batchdigits.settings import DecodingSettings, PredictSettings
from tests.cli_runner import run
from tests.file_states import disk_of, names


def summary(**changes: Any) -> Summary:
    fields = {
        "files": 3,
        "pending": changes.get("files", 3),
        "deferred": 0,
        "left": 1,
        "failed": [],
        "skipped": Counter(),
        "faulty": 0,
        "model": "a" * 64,
        "trust": TRUST,
        "drift": None,
        "seconds": {"list": 0.5, "decode": 1.0},
        "elapsed": 1.25,
    }
    rows = changes.pop("rows", Counter(ok=2, review=1))
    audited = changes.pop("audited", 0)
    audit = Audit(changes.pop("sample", audited), audited, changes.pop("wrong", 0))
    return Summary(rows=rows, verdicts=rows, digits=Counter({7: 2, 0: 1}), audit=audit, **{**fields, **changes})


TRUST = Trust(
    0.94, Basis.FOLDER, 0.005, "photo", 0.0021, 0.0034, answers=40, wrong=1, passed=38, drifted=False, missing=(1, 2, 3)
)


def test_the_document_says_how_far_the_folder_can_be_trusted() -> None:
    started = datetime(2026, 11, 30, 12, tzinfo=UTC)
    ending = Ending(started, started, ExitCode.OK, None, summary(), 1)
    assert monitoring.document(ending, PredictSettings(sources=()))["trust"] == {
        "basis": "folder",
        "drifted": False,
        "decided_by": "photo",
        "expected_error": 0.0021,
        "expected_error_at_most": 0.0034,
        "answers": 40,
        "answers_ok": 38,
        "answers_wrong": 1,
    }
    assert b'batchdigits_expected_error_ratio{task="t"} 0.0021' in monitoring.metrics(ending, task="t")
    without = Ending(started, started, ExitCode.OK, None, summary(trust=replace(TRUST, expected=None)), 1)
    assert b"expected_error" not in monitoring.metrics(without, task="t")


# the JSON document

SETTINGS = PredictSettings(sources=("scans",), threshold=0.8, decoding=DecodingSettings(max_pixels=1000))


def ending(of: Summary | None = None, **changes: Any) -> Ending:
    fields = {
        "started": datetime(2026, 3, 1, 2, 15, 0, tzinfo=UTC),
        "ended": datetime(2026, 3, 1, 2, 16, 30, 700_000, tzinfo=UTC),
        "exit_code": of.exit_code if of else ExitCode.STORAGE,
        "error": None if of else "The source scans does not exist.",
        "summary": of,
        "peak_memory_bytes": 2**30,
    }
    return Ending(**{**fields, **changes})


def document(of: Summary | None = None, **changes: Any) -> dict[str, Any]:
    """Give the document as a program reads it."""
    read: dict[str, Any] = json.loads(json.dumps(monitoring.document(ending(of, **changes), SETTINGS)))
    return read


def test_the_document_names_every_status_of_a_row_in_their_order() -> None:
    assert list(document(summary())["pages"]) == [status.value for status in Status]


def test_the_document_says_what_was_counted_and_names_every_status_and_digit() -> None:
    said = document(
        summary(files=9, pending=6, deferred=1, rows=Counter(ok=3, review=1, unsupported=4), faulty=2)  # five pages
    )
    assert said["images"] == {"found": 9, "new_or_changed": 6, "deferred": 1}
    assert said["pages"] == dict.fromkeys(Status, 0) | {"ok": 3, "review": 1, "unsupported": 4}
    assert said["digits"] == {str(digit): {7: 2, 0: 1}.get(digit, 0) for digit in range(10)}
    assert (said["new_faults"], said["exit_code"], said["error"]) == (2, 3, None)
    assert said["review_share"] == 0.25
    assert said["model"] == "a" * 64


def test_the_document_says_when_under_which_settings_and_with_what() -> None:
    said = document(summary())
    assert said["schema"] == 2
    assert (said["started"], said["ended"]) == ("2026-03-01T02:15:00+00:00", "2026-03-01T02:16:30+00:00")
    assert said["settings"] == {"threshold": 0.8, "max_pixels": 1000, "runtime": "keras"}
    assert (said["threshold"], said["target_error"], said["drift"]) == (0.94, 0.005, None)
    assert said["audit"] == {"sample": 0, "answered": 0, "wrong": 0}
    assert said["peak_memory_bytes"] == 2**30
    assert said["tool_version"] == said["versions"]["batchdigits"] == importlib.metadata.version("batchdigits")
    assert said["versions"]["python"] == sys.version.split()[0]
    assert said["versions"]["opencv"] == importlib.metadata.version("opencv-python-headless")
    assert all(said["versions"][name] for name in ("numpy", "pillow", "tensorflow", "keras"))


def test_a_library_that_is_installed_under_another_name_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(monitoring._LIBRARIES, "tensorflow", "tensorflow-of-another-name")
    assert document(summary())["versions"]["tensorflow"] is None


def test_a_rate_counts_the_images_that_passed_through_its_stage() -> None:
    seconds = {"list": 0.5, "decode": 2.0, "load model": 0.0, "report": 1.5}
    said = document(summary(files=100, pending=10, seconds=seconds, elapsed=2.5))
    assert {name: stage["images_per_second"] for name, stage in said["stages"].items()} == {
        "list": 200.0,
        "decode": 5.0,
        "load model": None,
        "report": 66.667,
    }
    assert {name: stage["seconds"] for name, stage in said["stages"].items()} == seconds
    assert {name: stage["share"] for name, stage in said["stages"].items()} == {
        "list": 0.2,
        "decode": 0.8,
        "load model": 0.0,
        "report": 0.6,
    }
    assert (said["seconds"], said["images_per_second"]) == (2.5, 4.0)


def test_without_a_page_that_has_a_digit_there_is_no_share_to_review() -> None:
    assert document(summary(rows=Counter(blank=3)))["review_share"] is None
    assert document(summary(rows=Counter(ok=3)))["review_share"] == 0.0


def test_what_was_skipped_is_counted_by_reason() -> None:
    reasons = {"hidden": 2, "not an image": 3}
    assert document(summary(skipped=Counter(reasons)))["skipped"] == reasons


def test_of_a_run_that_failed_the_document_says_why_and_counts_nothing() -> None:
    said = document()
    assert (said["exit_code"], said["error"]) == (5, "The source scans does not exist.")
    assert said["versions"]["python"]
    assert not {"images", "pages", "digits", "new_faults", "review_share", "stages", "model"} & set(said)
    assert set(said) < set(document(summary()))


# metrics


def samples(of: Summary | None = None, *, task: str = "nightly") -> dict[tuple[str, str], float]:
    """Read metrics as Prometheus does: values by name and by label but for the task, which all have."""
    text = monitoring.metrics(ending(of), task=task).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge"
        assert family.documentation
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("task") == task
            found[sample.name.removeprefix("batchdigits_"), ",".join(labels.values())] = sample.value
    return found


def test_metrics_are_the_numbers_of_the_run() -> None:
    read = samples(summary(files=9, pending=6, deferred=1, rows=Counter(ok=3, review=1, blank=4), faulty=2))
    assert read["exit_code", ""] == 3
    assert read["run_end_timestamp_seconds", ""] == datetime(2026, 3, 1, 2, 16, 30, 700_000, tzinfo=UTC).timestamp()
    assert [read["images", state] for state in ("found", "pending", "deferred")] == [9, 6, 1]
    assert {status: read["pages", status] for status in Status} == dict.fromkeys(Status, 0) | {
        "ok": 3,
        "review": 1,
        "blank": 4,
    }
    assert [read["digits", str(digit)] for digit in range(10)] == [1, 0, 0, 0, 0, 0, 0, 2, 0, 0]
    assert read["new_faults", ""] == 2
    assert read["review_ratio", ""] == 0.25
    assert read["stage_seconds", "decode"] == 1.0
    assert read["peak_memory_bytes", ""] == 2**30
    [info] = [labels for name, labels in read if name == "info"]
    assert set(info.split(",")) == {"a" * 64, importlib.metadata.version("batchdigits")}


def test_of_a_run_that_failed_metrics_have_the_exit_code_and_the_time_and_no_counts() -> None:
    assert {name for name, _ in samples()} == {"exit_code", "run_end_timestamp_seconds", "peak_memory_bytes", "info"}
    assert samples()["exit_code", ""] == 5


def test_a_share_that_there_is_not_is_no_metric() -> None:
    assert ("review_ratio", "") not in samples(summary(rows=Counter(blank=3)))


def test_any_name_of_a_task_can_be_read_back() -> None:
    assert samples(summary(), task='night "1"\\2\n')["exit_code", ""] == 0


# the files


def test_both_files_are_written_and_say_the_same(tmp_path: Path) -> None:
    settings = PredictSettings(sources=(), summary=tmp_path / "run.json", metrics=tmp_path / "nightly.prom")
    monitoring.write(ending(summary()), settings)
    assert names(tmp_path) == ["nightly.prom", "run.json"]
    text = (tmp_path / "run.json").read_text()
    assert text.endswith("}\n")
    assert json.loads(text) == monitoring.document(ending(summary()), settings)
    assert (tmp_path / "nightly.prom").read_bytes() == monitoring.metrics(ending(summary()), task="nightly")


def test_nothing_is_written_where_nothing_is_asked_for(tmp_path: Path) -> None:
    monitoring.write(ending(summary()), PredictSettings(sources=()))
    assert names(tmp_path) == []


def test_a_full_disk_leaves_both_old_files_whole(tmp_path: Path) -> None:
    settings = PredictSettings(sources=(), summary=tmp_path / "run.json", metrics=tmp_path / "nightly.prom")
    monitoring.write(ending(summary(files=1)), settings)
    old = {path: path.read_bytes() for path in tmp_path.iterdir()}
    size = (tmp_path / "run.json").stat().st_size
    assert size < (tmp_path / "nightly.prom").stat().st_size  # so that the summary has room, and the metrics have none
    with disk_of(size + 100), pytest.raises(StorageError, match=r"nightly\.prom cannot be written: the disk is full"):
        monitoring.write(ending(summary(files=2)), settings)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == old


@pytest.mark.parametrize(
    ("option", "name", "error", "words"),
    [
        ("summary", "run.txt", UsageError, "run.txt does not end in .json, as --summary"),
        ("summary", "scan.png", UsageError, "scan.png does not end in .json"),
        ("metrics", "run.txt", UsageError, "run.txt does not end in .prom, as --metrics"),
        ("metrics", "run.PROM", UsageError, "node exporter"),
        ("summary", "nowhere/run.json", StorageError, "create"),
        ("summary", "to_a_scan.json", UsageError, "does not end in .json"),
        ("summary", "folder.json", UsageError, "folder.json is a folder"),
        ("summary", "scan.json", UsageError, "scan.json is a source"),
        ("summary", "report.json", UsageError, "report.json is a source, a report or the ledger"),
        ("metrics", "ledger.prom", UsageError, "ledger.prom is a source, a report or the ledger"),
    ],
)
def test_a_file_that_cannot_be_or_would_replace_something_else_is_refused(
    option: str, name: str, error: type[Exception], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "to_a_scan.json").symlink_to("scan.png")
    monkeypatch.chdir(tmp_path)
    places: dict[str, Any] = {option: tmp_path / name}
    settings = PredictSettings(sources=("scan.json",), outputs=("report.json",), ledger=Path("ledger.prom"), **places)
    with pytest.raises(error) as raised:
        monitoring.check_files(settings)
    assert words in str(raised.value)
    assert str(tmp_path / name) in str(raised.value)


def test_files_that_can_be_written_pass(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("yesterday's")
    (tmp_path / "current.json").symlink_to("run.json")
    monitoring.check_files(PredictSettings(sources=("scans",)))
    monitoring.check_files(PredictSettings(sources=("scans",), summary=tmp_path / "current.json"))
    monitoring.check_files(
        PredictSettings(sources=("scans",), summary=tmp_path / "run.json", metrics=tmp_path / "new.prom")
    )
    assert (tmp_path / "run.json").read_text() == "yesterday's"


# memory

_PEAK = "from batchdigits.monitoring import peak_memory_bytes; b = bytearray({}); del b; print(peak_memory_bytes())"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process its own peak")
def test_the_peak_is_that_of_the_process_and_not_of_the_one_that_started_it() -> None:
    ballast = b"x" * 300_000_000
    small, large = (int(run([sys.executable, "-c", _PEAK.format(size)]).stdout) for size in (0, 200_000_000))
    assert 1_000_000 < small < 150_000_000 < len(ballast)
    assert 195_000_000 < large - small < 205_000_000

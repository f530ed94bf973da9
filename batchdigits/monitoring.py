"""Say how a run ended to programs: as a JSON document, and as metrics of Prometheus."""

import json
import os
import platform
import resource
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchdigits import __version__
from batchdigits.errors import ExitCode, UsageError, escape_name, escaped
from batchdigits.settings import PredictSettings
from batchdigits.storage.atomic import atomic_write_all
from batchdigits.storage.local import LocalFile, storage_errors
from batchdigits.storage.urls import refuse

if TYPE_CHECKING:
    from batchdigits.inference.audit import Audit
    from batchdigits.inference.trust import Trust

SCHEMA_VERSION = 2
"""Rises when a key of the JSON document goes or changes its meaning; a new key does not raise it."""
_STAGES_OF_ALL = {"list", "report"}
"""The stages that every image passes through; the others see those that are new or changed."""
_LIBRARIES = {
    "batchdigits": "batchdigits",
    "numpy": "numpy",
    "opencv": "opencv-python-headless",
    "pillow": "pillow",
    "tensorflow": "tensorflow",
    "keras": "keras",
    "litert": "ai-edge-litert",
}
"""The distributions that answers can depend on, by the names that the document gives them."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did."""

    files: int
    """Image files found."""
    pending: int
    """How many of them had to be read."""
    deferred: int
    """How many were left to the next run, since they were still being written."""
    rows: Counter[str]
    """Rows of the report, by status."""
    verdicts: Counter[str]
    """The same by what the model says alone, whether or not somebody has answered."""
    left: int
    """Rows that people should look at and have not answered: to review, without a digit, or of the audit sample."""
    failed: list[tuple[str, str]]
    """The first pages that have a fault: the name, safe for a terminal, and the status."""
    digits: Counter[int]
    """Rows that name a digit, `ok` or `review`, by digit."""
    audit: "Audit"
    """What people found in the sample of those that are `ok`."""
    skipped: Counter[str]
    """What was found and is no image, by reason."""
    faulty: int
    """Pages new to this report that are unreadable, too large or unsupported."""
    model: str
    """The bundle's id."""
    trust: "Trust"
    """By which threshold digits went to review, and how far those that are `ok` can be trusted."""
    drift: float | None
    """How far the confidences of the new rows are from those of the validation data; None where that cannot be told."""
    seconds: dict[str, float]
    """For how long each stage was at work; several are at the same time."""
    elapsed: float
    """Wall-clock seconds of the run."""
    is_kept: bool = False
    """Whether the reports stay as an earlier run wrote them, since nothing has changed."""

    @property
    def exit_code(self) -> ExitCode:
        """The code that a run with these numbers ends with."""
        return ExitCode.FAULTS if self.faulty else ExitCode.OK

    @property
    def review_share(self) -> float | None:
        """The share of pages with a digit that the model is not sure of; None where no page has one."""
        digits = self.verdicts["ok"] + self.verdicts["review"]
        return self.verdicts["review"] / digits if digits else None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, well or not."""

    started: datetime
    """When it began, in UTC."""
    ended: datetime
    """When it ended, in UTC."""
    exit_code: ExitCode
    """What its process says about it."""
    error: str | None
    """Why it failed; None where it did not."""
    summary: Summary | None
    """What it did; None where it failed."""
    peak_memory_bytes: int
    """The most memory that its main process held."""


def check_files(settings: PredictSettings) -> None:
    """Check that the files for monitoring can be written, before any work is done.

    Their endings are fixed, so that none of them ever takes the place of a scan or a report.

    Raises:
        UsageError: A name has another ending, or is that of something else.
        StorageError: A folder does not exist or cannot be written.
    """
    for option, path, ending, reason in (
        ("--summary", settings.summary, ".json", "it is a JSON document"),
        ("--metrics", settings.metrics, ".prom", "the node exporter of Prometheus reads no other file"),
    ):
        if path:
            refuse(path, f"The file of {option}")
            with storage_errors(path):
                target = Path(os.path.realpath(path))
                if {path.suffix, target.suffix} != {ending}:
                    message = f"{escaped(str(path))} does not end in {ending}, as {option} has to: {reason}; rename it."
                    raise UsageError(message)
                _check_place(path, target, settings)


def _check_place(path: Path, target: Path, settings: PredictSettings) -> None:
    """Check that a file may and can stand at `target`, which the user calls `path`."""
    others = {*settings.sources, *settings.outputs, str(settings.ledger or "")}
    if str(target) in {os.path.realpath(other) for other in others}:
        message = f"{escaped(str(path))} is a source, a report or the ledger of this run too; give each its own name."
        raise UsageError(message)
    file = LocalFile(path)
    if file.is_special():
        message = f"{escaped(str(path))} is a folder or a special file; give the name of a file in a folder."
        raise UsageError(message)
    file.check()


def write(ending: Ending, settings: PredictSettings) -> None:
    """Write the files for monitoring that the settings name: whole, and all or none.

    Raises:
        StorageError: A file could not be written.
    """
    contents: dict[Path, bytes] = {}
    if settings.summary:
        contents[settings.summary] = json.dumps(document(ending, settings), indent=2).encode() + b"\n"
    if settings.metrics:
        contents[settings.metrics] = metrics(ending, task=escape_name(settings.metrics.stem))
    with atomic_write_all([LocalFile(path) for path in contents]) as handles:
        for handle, data in zip(handles, contents.values(), strict=True):
            handle.write(data)


def document(ending: Ending, settings: PredictSettings) -> dict[str, Any]:
    """Say how a run ended, as what becomes a JSON object; the counts are missing where it failed."""
    return {
        "schema": SCHEMA_VERSION,
        "tool_version": __version__,
        "exit_code": int(ending.exit_code),
        "error": ending.error,
        "started": ending.started.isoformat(timespec="seconds"),
        "ended": ending.ended.isoformat(timespec="seconds"),
        **(_numbers(ending.summary) if ending.summary else {}),
        "peak_memory_bytes": ending.peak_memory_bytes,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _LIBRARIES},
        "settings": {
            "threshold": settings.threshold,
            "max_pixels": settings.decoding.max_pixels,
            "runtime": settings.runtime,
        },
    }


def _pages(summary: Summary) -> dict[str, int]:
    """Give the rows of the report by every status, those that no row has too."""
    from batchdigits.records import Status  # here, for it imports numpy, and no message needs that

    return {status.value: summary.rows[status] for status in Status}


def _numbers(summary: Summary) -> dict[str, Any]:
    seconds = summary.elapsed
    stages = {
        name: {
            "seconds": round(spent, 3),
            "share": round(spent / seconds, 4),
            "images_per_second": _rate(summary.files if name in _STAGES_OF_ALL else summary.pending, spent),
        }
        for name, spent in summary.seconds.items()
    }
    return {
        "model": summary.model,
        "images": {"found": summary.files, "new_or_changed": summary.pending, "deferred": summary.deferred},
        "pages": _pages(summary),
        "threshold": summary.trust.threshold,
        "target_error": summary.trust.promised,
        "trust": _trust(summary.trust),
        "audit": _audit(summary),
        "drift": summary.drift,
        "new_faults": summary.faulty,
        "digits": {str(digit): summary.digits[digit] for digit in range(10)},
        "review_share": summary.review_share,
        "left": summary.left,
        "skipped": dict(summary.skipped.most_common()),
        "stages": stages,
        "seconds": round(seconds, 3),
        "images_per_second": _rate(summary.pending, seconds),
    }


def metrics(ending: Ending, *, task: str) -> bytes:
    """Say how a run ended, in the text format of Prometheus; the counts are missing where it failed.

    Args:
        ending: How it ended.
        task: A label of every metric. The node exporter refuses a metric that two files give with the same labels,
            so that two jobs on one machine need two names.

    Source: https://prometheus.io/docs/practices/naming/
    """
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()

    def gauge(name: str, meaning: str, values: Mapping[str, float], label: str) -> None:
        family = Gauge(f"batchdigits_{name}", meaning, ["task", label], registry=registry)
        for value, number in values.items():
            family.labels(task, value).set(number)

    def single(name: str, meaning: str, number: float, **labels: str) -> None:
        family = Gauge(f"batchdigits_{name}", meaning, ["task", *labels], registry=registry)
        family.labels(task=task, **labels).set(number)

    summary = ending.summary
    single("exit_code", "Exit code of the last run.", ending.exit_code)
    single("run_end_timestamp_seconds", "When the last run ended.", ending.ended.timestamp())
    single("peak_memory_bytes", "The most memory that the main process of the last run held.", ending.peak_memory_bytes)
    model = summary.model if summary else ""
    single("info", "What the last run was made by; always 1.", 1, version=__version__, model=model)
    if summary:
        images = {"found": summary.files, "pending": summary.pending, "deferred": summary.deferred}
        gauge("images", "Image files: found, new or changed, and left to the next run.", images, "state")
        gauge("pages", "Rows of the report.", _pages(summary), "status")
        single("new_faults", "Pages with a fault that are new to the report.", summary.faulty)
        digits = {str(digit): summary.digits[digit] for digit in range(10)}
        gauge("digits", "Rows of the report that name a digit.", digits, "digit")
        if summary.review_share is not None:
            single("review_ratio", "Share of the pages with a digit that is to be reviewed.", summary.review_share)
        if summary.drift is not None:
            single("drift_index", "Population stability index of the new confidences.", summary.drift)
        if summary.trust.expected is not None:
            meaning = "Share of wrong digits among those that are ok, as it is estimated."
            single("expected_error_ratio", meaning, summary.trust.expected)
        audit = _audit(summary)
        gauge(
            "audit", "Pages of the audit sample, those that people answered, and those that were wrong.", audit, "state"
        )
        gauge(
            "stage_seconds",
            "For how long each stage was at work in the last run; several are at the same time.",
            summary.seconds,
            "stage",
        )
    return generate_latest(registry)


def peak_memory_bytes() -> int:
    """Tell how much memory this process held at most; what its workers held is not in it.

    On Linux the kernel's own mark is read: `getrusage` takes over the mark of the process that started this one, and
    counts as the children's what this one held when it started them.

    Source: https://man7.org/linux/man-pages/man5/proc_pid_status.5.html, VmHWM, in kilobytes; and
        https://man7.org/linux/man-pages/man2/getrusage.2.html, in kilobytes too, but in bytes on macOS.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _version(library: str) -> str | None:
    """Tell which version is installed, without importing it; None where it is not, or under another name."""
    from importlib.metadata import PackageNotFoundError, version  # here, for it brings in all of email

    try:
        return version(_LIBRARIES[library])
    except PackageNotFoundError:
        return None


def _audit(summary: Summary) -> dict[str, int]:
    audit = summary.audit
    return {"sample": audit.sample, "answered": audit.answered, "wrong": audit.wrong}


def _trust(trust: "Trust") -> dict[str, Any]:
    """Say why the threshold is what it is, and how many of the rows that are `ok` are probably wrong."""
    return {
        "basis": trust.basis,
        "drifted": trust.drifted,
        "decided_by": trust.domain,
        "expected_error": trust.expected,
        "expected_error_at_most": trust.at_most,
        "answers": trust.answers,
        "answers_ok": trust.passed,
        "answers_wrong": trust.wrong,
    }


def _rate(count: int, seconds: float) -> float | None:
    return round(count / seconds, 3) if seconds else None

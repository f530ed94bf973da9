import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import parquet

from batchdigits.errors import StorageError, UsageError
from batchdigits.reports import publish as reports
from batchdigits.reports.publish import Rows, check_outputs, parse_outputs
from batchdigits.settings import ReportSettings
from tests.file_states import disk_of, names
from tests.reports.report_rows import ABOUT, seven, sevens, unreadable


def publish(chunks: Iterator[Rows] | list[Rows], *outputs: Path | str, stdout: io.IOBase | None = None) -> None:
    texts = [str(output) for output in outputs]
    outputs = parse_outputs(texts)
    check_outputs(outputs)
    reports.publish(chunks, outputs, about=ABOUT, settings=ReportSettings(), stdout=stdout or io.BytesIO())  # type: ignore[arg-type]


def test_one_pass_through_the_rows_writes_every_report(tmp_path: Path) -> None:
    csv, other, table, stdout = tmp_path / "r.csv", tmp_path / "S.CSV", tmp_path / "r.Parquet", io.BytesIO()
    publish(iter([seven(), unreadable()]), csv, "-", table, other, stdout=stdout)
    assert csv.read_bytes() == other.read_bytes() == stdout.getvalue()
    assert csv.read_bytes().count(b"\r\n") == 3
    assert parquet.read_table(table)["path"].to_pylist() == ["7.png", "broken.png"]
    assert names(tmp_path) == ["S.CSV", "r.Parquet", "r.csv"]


def old_reports(folder: Path) -> list[Path]:
    """One of each format."""
    paths = [folder / f"r{ending}" for ending in reports.ENDINGS]
    for path in paths:
        path.write_bytes(b"old")
    return paths


def test_rows_that_break_off_leave_every_old_report(tmp_path: Path) -> None:
    def broken() -> Iterator[Rows]:
        yield seven()
        raise ConnectionResetError

    paths = old_reports(tmp_path)
    with pytest.raises(ConnectionResetError):
        publish(broken(), *paths)
    assert {path.read_bytes() for path in paths} == {b"old"}
    assert names(tmp_path) == sorted(path.name for path in paths)


@pytest.mark.parametrize("ending", reports.ENDINGS)
def test_a_full_disk_leaves_every_old_report_and_names_the_new_one(ending: str, tmp_path: Path) -> None:
    paths = old_reports(tmp_path)
    many = [f"{number:099}" for number in range(20_000)]
    expected = rf"r\{ending}( in .*)? cannot be written: the disk is full"  # some have a draft elsewhere
    with disk_of(2000), pytest.raises(StorageError, match=expected):
        publish([sevens(many)], tmp_path / f"r{ending}")
    with disk_of(2000), pytest.raises(StorageError, match=r"r\.parquet cannot be written: the disk is full"):
        publish([seven()], *paths[:2])
    with disk_of(2000), pytest.raises(StorageError, match=r"r\.csv cannot be written: the disk is full"):
        publish([sevens(many)], *paths)
    assert {path.read_bytes() for path in paths} == {b"old"}
    assert names(tmp_path) == sorted(path.name for path in paths)


def test_a_parquet_file_that_does_not_read_back_leaves_every_old_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = old_reports(tmp_path)
    publish([], tmp_path / "empty.parquet")
    empty = parquet.read_metadata(tmp_path / "empty.parquet")
    monkeypatch.setattr(parquet, "read_metadata", lambda handle: empty)
    with pytest.raises(StorageError, match=r"r\.parquet holds 0 rows of 1"):
        publish([seven()], *paths)
    assert {path.read_bytes() for path in paths} == {b"old"}


READER_LEAVES = """
import sys
from batchdigits.reports.publish import parse_outputs, publish
from batchdigits.settings import ReportSettings
from tests.reports.report_rows import ABOUT, sevens

def chunks():
    for number in range(int(sys.argv[1])):
        yield sevens(["7.png"] * 500)
        if number >= 60 and len(sys.argv) == 3:
            sys.exit("nobody reads this, and it goes on")

publish(chunks(), parse_outputs(sys.argv[2:]), about=ABOUT, settings=ReportSettings(), stdout=sys.stdout.buffer)
"""


def reader_leaves(chunks: int, *outputs: str) -> tuple[int, bytes]:
    """Run a publication in a process of its own whose reader takes one byte and leaves: exit code and stderr."""
    command = [sys.executable, "-c", READER_LEAVES, str(chunks), *outputs]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        errors = process.stderr.read()
    return process.returncode, errors


def test_a_reader_that_leaves_early_ends_the_work_without_a_word() -> None:
    assert reader_leaves(1000, "-") == (0, b"")


def test_a_reader_that_leaves_early_takes_no_file_with_it(tmp_path: Path) -> None:
    assert reader_leaves(10, "-", str(tmp_path / "r.csv")) == (0, b"")
    assert (tmp_path / "r.csv").read_bytes().count(b"\r\n") == 5001


def test_a_full_disk_behind_standard_output_is_named() -> None:
    with (
        Path("/dev/full").open("wb") as full,
        pytest.raises(StorageError, match="^Standard output cannot be written: the"),
    ):
        publish([seven()], "-", stdout=full)


def test_standard_output_stays_open() -> None:
    stdout = io.BytesIO()
    publish([seven()], "-", stdout=stdout)
    assert not stdout.closed


def test_an_unknown_ending_is_refused_and_the_known_ones_are_named(tmp_path: Path) -> None:
    for name in ("r.docx", "r", ".csv"):
        with pytest.raises(UsageError, match=rf"{name} is unknown; use one of \.csv, \.parquet, \.xlsx, \.html, or -"):
            check_outputs(parse_outputs([str(tmp_path / name)]))


def test_a_report_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.csv").touch()
    (tmp_path / "link.csv").symlink_to("r.csv")
    for again in ("r.csv", "./r.csv", "../" + tmp_path.name + "/r.csv", "link.csv"):
        with pytest.raises(UsageError, match="is given twice"):
            check_outputs(parse_outputs([f"{tmp_path}/r.csv", f"{tmp_path}/{again}"]))
    with pytest.raises(UsageError, match="- is given twice"):
        check_outputs(parse_outputs(["-", "-"]))


def test_a_folder_or_a_special_file_as_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "fifo.csv")
    for name in ("folder.csv", "fifo.csv", ""):
        with pytest.raises(UsageError, match="is a folder or a special file"):
            check_outputs(parse_outputs([str(tmp_path / name)]))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=rf"r\.csv does not exist; create {tmp_path}/no first"):
        check_outputs(parse_outputs([str(tmp_path / "no" / "r.csv")]))


def test_a_name_that_is_too_long_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="its name is too long"):
        check_outputs(parse_outputs([str(tmp_path / ("x" * 300 + ".csv"))]))


def test_a_folder_without_permission_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # for root, every folder can be written
    with pytest.raises(StorageError, match="There is no permission to write into"):
        check_outputs(parse_outputs([str(tmp_path / "r.csv")]))


def test_an_output_that_can_be_written_passes_and_is_not_touched(tmp_path: Path) -> None:
    check_outputs(parse_outputs(["-", str(tmp_path / "r.csv"), str(tmp_path / "R.PARQUET")]))
    assert names(tmp_path) == []

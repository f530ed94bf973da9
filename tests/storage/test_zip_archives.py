"""Archives as they are read and written, where others write them too, or made them to do harm."""

import io
import os
import random
import resource
import stat
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from batchdigits.errors import Fault, FaultKind, StorageError
from batchdigits.storage import local
from batchdigits.storage.backends import zip_archives
from batchdigits.storage.backends.zip_archives import Archives, RemoteArchive
from batchdigits.storage.reading import read_remote
from batchdigits.storage.remote import RemoteFile
from batchdigits.storage.urls import absolute, parts
from tests.cli_runner import CHECKOUT, batchdigits
from tests.sample_pages import digits, write_png


def report(archive: Path, name: str = "r.csv") -> RemoteFile:
    return RemoteFile(absolute(f"zip://{name}::{archive}"))


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    path = tmp_path / "draft"
    path.write_bytes(b"a report")
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "out" / "x.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as new:
        new.writestr("mine.txt", "mine")
    return path


def names(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        return opened.namelist()


def test_reports_that_are_written_at_once_are_all_in_the_archive(archive: Path, draft: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from batchdigits.storage.remote import RemoteFile;"
        "[RemoteFile(url).replace_with(Path(sys.argv[1])) for url in sys.argv[2:]]"
    )
    urls = [[report(archive, f"{run}-{number}.csv").url for number in range(5)] for run in range(3)]
    runs = [subprocess.Popen([sys.executable, "-c", code, draft, *those], cwd=CHECKOUT) for those in urls]
    with ThreadPoolExecutor(5) as threads:
        list(threads.map(lambda number: report(archive, f"{number}.csv").replace_with(draft), range(5)))
    assert [run.wait() for run in runs] == [0, 0, 0]
    expected = [f"{run}-{number}.csv" for run in range(3) for number in range(5)]
    assert sorted(names(archive)) == sorted([*expected, *(f"{number}.csv" for number in range(5)), "mine.txt"])
    with zipfile.ZipFile(archive) as opened:
        assert opened.read("mine.txt") == b"mine"
    assert sorted(path.name for path in archive.parent.iterdir()) == [".x.zip.lock", "x.zip"]


def test_an_archive_and_its_name_are_brought_to_the_disk(
    archive: Path, draft: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[bool, bool]] = []

    def fsync(descriptor: int) -> None:
        is_new = "r.csv" in names(archive)
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), is_new))

    monkeypatch.setattr(os, "fsync", fsync)
    report(archive).replace_with(draft)
    assert synced == [(False, False), (True, True)]


def test_another_run_that_does_not_end_is_told(archive: Path, draft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_archives, "_WAIT_SECONDS", 0.05)
    with zip_archives._write_lock(archive), pytest.raises(StorageError, match="Another run has been writing"):
        report(archive).replace_with(draft)


def test_what_a_killed_run_left_goes(archive: Path, draft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", lambda *_, **__: None)
        killed.setattr(Path, "replace", lambda *_: None)
        report(archive).replace_with(draft)
    assert len(list(archive.parent.glob(".*.tmp"))) == 1
    report(archive).replace_with(draft)
    assert list(archive.parent.glob(".*.tmp")) == []


def bomb(path: Path, packing: int, *, told_bytes: int, real_bytes: int) -> None:
    """Pack zeros, and have the archive's directory say that they are fewer."""
    with zipfile.ZipFile(path, "w", packing) as new:
        new.writestr("a.png", bytes(real_bytes))
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2") + 24
    data[at : at + 4] = told_bytes.to_bytes(4, "little")
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("packing", "words"), [(zipfile.ZIP_DEFLATED, "Bad CRC-32"), (zipfile.ZIP_BZIP2, "another method than Deflate")]
)
def test_a_member_that_is_larger_than_it_says_does_not_fill_the_memory(
    packing: int, words: str, tmp_path: Path
) -> None:
    bomb(tmp_path / "x.zip", packing, told_bytes=100, real_bytes=2**25)
    url = absolute(f"zip://a.png::{tmp_path}/x.zip")
    tracemalloc.start()
    try:
        found = read_remote([(url, 100)], 2**20)[url]
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(found, Fault)
    assert words in found.detail
    assert most < 2**21


def test_a_member_is_too_large_by_its_size_or_by_what_it_takes_in_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    bomb(path, zipfile.ZIP_STORED, told_bytes=100, real_bytes=5000)
    url = absolute(f"zip://a.png::{path}")
    found = read_remote([(url, 100)], 2000)[url]
    assert isinstance(found, Fault)
    assert found.kind == FaultKind.TOO_LARGE


def test_a_member_of_just_the_most_bytes_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as new:
        for name in ("a", "b"):
            new.writestr(name, os.urandom(1000))
        expected = new.read("a")
    urls = [absolute(f"zip://{name}::{tmp_path}/x.zip") for name in ("a", "none")]
    found = read_remote([(url, 1000) for url in urls], 1000)
    assert found[urls[0]] == expected
    assert found[urls[1]] == Fault(FaultKind.UNREADABLE, "cannot be opened: it is gone from its archive")


@pytest.mark.parametrize("offset", [2**40, 2**63, 2**64 - 1])
def test_a_member_outside_its_archive_is_a_fault(offset: int, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as new:
        new.writestr("a", b"a")
        new.getinfo("a").header_offset = offset
    [found] = read_remote([(absolute(f"zip://a::{path}"), 1)], 1000).values()
    assert isinstance(found, Fault)


def remote_archive(data: bytes, requests: list[int]) -> RemoteArchive:
    """An archive somewhere else; what is asked of it is counted, in bytes."""

    def part(start: int, stop: int) -> bytes:
        requests.append(stop - start)
        return data[start:stop]

    return RemoteArchive(len(data), part)


@pytest.mark.parametrize(("member_bytes", "members"), [(3000, 1000), (30_000, 100)])
def test_of_a_remote_archive_little_more_is_read_than_its_members(member_bytes: int, members: int) -> None:
    rng = random.Random(20260101)
    packed = io.BytesIO()
    contents = {f"{number:04}.png": rng.randbytes(member_bytes) for number in range(members)}
    with zipfile.ZipFile(packed, "w") as new:
        for name in rng.sample(sorted(contents), members):
            new.writestr(name, contents[name])
    requests: list[int] = []
    archives = Archives(lambda _: remote_archive(packed.getvalue(), requests))
    places = [parts(f"zip://{name}::s3://bucket/x.zip") for name in sorted(contents)]
    found = archives.get(places[:1], 10**6)
    requests.clear()
    for at in range(0, members, 50):
        found |= archives.get(places[at : at + 50], 10**6)
    assert {parts(url).path: data for url, data in found.items()} == contents
    assert len(requests) <= members
    assert sum(requests) < 1.4 * len(packed.getvalue())
    requests.clear()
    archives.get(places, 10**6)
    assert sum(requests) < 1.02 * len(packed.getvalue())
    assert len(requests) == 1


def test_a_remote_member_with_a_long_header_is_read(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as new:
        for name in ("a" * 5000, "b" * 5000):
            new.writestr(name, name)
    archives = Archives(lambda _: remote_archive(packed.getvalue(), []))
    places = [parts(f"zip://{name}::s3://bucket/x.zip") for name in ("b" * 5000, "a" * 5000)]
    assert archives.get(places, 10**6) == {place.url: place.path.encode() for place in places}


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o400])
def test_an_archive_that_is_replaced_keeps_its_mode_its_comment_and_its_members_of_one_name(
    mode: int, archive: Path, draft: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(archive, "a") as more:
        more.comment = b"of the user"
        more.writestr("mine.txt", "mine too")
    archive.chmod(mode)
    modes: list[int] = []

    def watched(call: Callable[..., None], *files: Any) -> None:
        modes.extend(stat.S_IMODE(path.stat().st_mode) for path in archive.parent.glob(".*.tmp"))
        call(*files)

    for module, name in ((os, "fchmod"), (zip_archives.shutil, "copyfileobj")):
        monkeypatch.setattr(module, name, partial(watched, getattr(module, name)))
    report(archive).replace_with(draft)
    assert names(archive) == ["mine.txt", "mine.txt", "r.csv"]
    assert modes == [0o600] * 4  # nobody else reads it before it has its name
    assert stat.S_IMODE(archive.stat().st_mode) == mode
    with zipfile.ZipFile(archive) as opened:
        assert opened.comment == b"of the user"
        assert [opened.read(member) for member in opened.infolist()] == [b"mine", b"mine too", b"a report"]


def test_a_new_archive_has_the_mode_that_the_umask_says(tmp_path: Path, draft: Path) -> None:
    report(tmp_path / "new.zip").replace_with(draft)
    assert (tmp_path / "new.zip").stat().st_mode == draft.stat().st_mode


def mark(archive: Path, at: int, value: int) -> None:
    """Change a byte of the first member's entry in the archive's directory."""
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\1\2") + at] = value
    archive.write_bytes(data)


@pytest.mark.parametrize(
    ("at", "value", "words"), [(8, 1, "it is encrypted"), (10, 9, "it is packed by another method than Deflate")]
)
def test_an_archive_that_cannot_be_written_anew_is_told_before_the_work(
    at: int, value: int, words: str, archive: Path, tmp_path: Path
) -> None:
    mark(archive, at, value)
    write_png(tmp_path / "scans" / "a.png", digits(1)[0])
    done = batchdigits("predict", tmp_path / "scans", "-o", f"zip://r.csv::{archive}")
    assert done.code == 5
    assert done.message.endswith(f"its member mine.txt cannot be copied: {words}; choose another archive.")
    with pytest.raises(StorageError, match=words):
        report(archive).check()


def test_a_folder_that_nothing_can_be_written_into_is_told_before_the_work(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    for path in (archive, archive.with_name("new.zip")):
        with pytest.raises(StorageError, match="There is no permission to write into"):
            report(path).check()


def test_a_full_disk_is_told_as_one(archive: Path, tmp_path: Path) -> None:
    before = archive.read_bytes()
    draft = tmp_path / "large"
    draft.write_bytes(os.urandom(200_000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StorageError, match="the disk is full or a size limit is reached"):
            report(archive).replace_with(draft)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert archive.read_bytes() == before
    assert sorted(path.name for path in archive.parent.iterdir()) == [".x.zip.lock", "x.zip"]


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_a_fault_of_this_program_is_not_told_as_one_of_the_archive(
    error: type[Exception], archive: Path, draft: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(zip_archives.shutil, "copyfileobj", broken)
    with pytest.raises(error):
        report(archive).replace_with(draft)


def test_few_archives_stay_open(tmp_path: Path) -> None:
    for number in range(40):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as new:
            new.writestr("a", b"a")
    archives = Archives(lambda member: member.archive)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(40):
        place = parts(absolute(f"zip://::{tmp_path}/{number}.zip"))
        assert len(list(archives.listed(place, lambda _: True))) == 1
        assert archives.get([place._replace(path="a")], 10) == {place._replace(path="a").url: b"a"}
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= zip_archives._MOST_OPEN


def test_what_another_program_writes_into_an_archive_meanwhile_is_kept(
    archive: Path, draft: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_place = local.put_in_place
    saved: list[bytes] = []

    def save_first(new: Path, path: Path) -> Path | None:
        if not saved:
            with zipfile.ZipFile(archive, "a") as more:
                more.writestr("saved.txt", "just now")
            saved.append(archive.read_bytes())
        return put_in_place(new, path)

    monkeypatch.setattr(local, "put_in_place", save_first)
    with pytest.raises(StorageError, match="was changed by another program"):
        report(archive).replace_with(draft)
    assert archive.read_bytes() == saved[0]
    report(archive).replace_with(draft)
    assert {"saved.txt", "r.csv"} <= set(names(archive))


def test_an_archive_in_no_folder_is_found_before_there_is_a_report_to_write(tmp_path: Path) -> None:
    report = RemoteFile(absolute(f"zip://report.csv::file://{tmp_path}/none/out.zip"))
    with pytest.raises(StorageError, match=r"archive .*/out\.zip does not exist; create .*/none first"):
        report.check()
    (tmp_path / "none").mkdir()
    report.check()

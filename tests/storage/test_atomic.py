import errno
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batchdigits.errors import StorageError
from batchdigits.storage import local
from batchdigits.storage.atomic import atomic_write, atomic_write_all
from batchdigits.storage.local import LocalFile, file_sha256, storage_errors
from tests.file_states import disk_of, names


def test_the_new_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    report = tmp_path / "report.csv"
    report.write_bytes(b"old")
    with atomic_write(report) as handle:
        handle.write(b"new")
        handle.flush()
        assert report.read_bytes() == b"old"
    assert report.read_bytes() == b"new"
    assert names(tmp_path) == ["report.csv"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    report = tmp_path / "report.csv"
    report.write_bytes(b"old")

    def interrupted() -> None:
        with atomic_write(report) as handle:
            handle.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert report.read_bytes() == b"old"
    assert names(tmp_path) == ["report.csv"]


def test_the_temporary_file_is_hidden_and_stands_in_the_same_folder(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "report.csv"):
        [name] = names(tmp_path)
        assert name.startswith(".batchdigits-")
        assert name.endswith(".tmp")


def test_the_bytes_reach_the_disk_before_the_rename_and_the_rename_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    fsync, put_in_place = os.fsync, local.put_in_place

    def seen_fsync(descriptor: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else os.fstat(descriptor).st_size)
        fsync(descriptor)

    def seen_rename(draft: Path, path: Path) -> Path | None:
        events.append("rename")
        return put_in_place(draft, path)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(local, "put_in_place", seen_rename)
    with atomic_write(tmp_path / "a") as handle:
        handle.write(b"12345")
    assert events == [5, "rename", "folder"]


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def refuse_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    with atomic_write(tmp_path / "a"):
        pass
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_permissions_are_as_the_umask_says(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "a"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_a_name_as_long_as_allowed_works(tmp_path: Path) -> None:
    report = tmp_path / ("é" * 125 + "x.csv")
    assert len(os.fsencode(report.name)) == 255
    with atomic_write(report) as handle:
        handle.write(b"new")
    assert report.read_bytes() == b"new"


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "report.csv"
    target.write_bytes(b"old")
    link = tmp_path / "report.csv"
    link.symlink_to("elsewhere/report.csv")
    with atomic_write(link) as handle:
        handle.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_of_several_files_none_is_renamed_before_all_are_whole(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(b"old")

    def write_more_into_the_second_than_fits() -> None:
        with atomic_write_all([LocalFile(path) for path in paths]) as [first, second]:
            first.write(b"new")
            with disk_of(10):
                second.write(b"x" * 100_000)

    with pytest.raises(StorageError, match="/b cannot be written: the disk is full"):
        write_more_into_the_second_than_fits()
    assert [path.read_bytes() for path in paths] == [b"old", b"old"]
    assert names(tmp_path) == ["a", "b"]


def test_a_full_disk_found_by_the_last_flush_leaves_every_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    synced: list[int] = []

    def full_at_the_second(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full_at_the_second)
    with (
        pytest.raises(StorageError, match="/b cannot be written: the disk is full"),
        atomic_write_all([LocalFile(path) for path in paths]),
    ):
        pass
    assert names(tmp_path) == []


def test_a_full_disk_is_named_with_the_file_and_the_remedy(tmp_path: Path) -> None:
    report = tmp_path / "report.csv"
    with pytest.raises(StorageError) as caught, disk_of(10), atomic_write(report) as handle:
        handle.write(b"x" * 100)
    assert str(caught.value) == (
        f"{report} cannot be written: the disk is full or a size limit is reached; "
        "free some space or choose another folder."
    )
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("missing/a.csv", "its folder does not exist"),
        ("file/a.csv", "a part of its path is no folder"),
        ("x" * 300, "its name is too long"),
        ("folder", "it is a folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_named_with_the_reason(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match=f"{place} cannot be written: .*{reason}"), atomic_write(tmp_path / place):
        pass
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full or a size limit is reached; free some space"),
        (errno.EACCES, "there is no permission to; change the permissions"),
        (errno.EROFS, "its disk is mounted read-only; choose another folder"),
        (errno.EIO, "Input/output error; check the disk"),
    ],
)
def test_every_message_names_the_file_the_reason_and_a_remedy(number: int, reason: str) -> None:
    with pytest.raises(StorageError, match=f"^a.csv cannot be written: {reason}"), storage_errors("a.csv"):
        raise OSError(number, os.strerror(number))


def test_names_in_messages_are_escaped(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"\\x1b\\u202e"), atomic_write(tmp_path / "no" / "\x1b\u202e"):
        pass


def test_the_sha256_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(data)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_a_missing_file_has_no_sha256(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="a cannot be read: .* does not exist"):
        file_sha256(tmp_path / "a")


DIE_WHILE_WRITING = """
import os, pathlib, signal, sys
from batchdigits.storage.atomic import atomic_write

with atomic_write(pathlib.Path(sys.argv[1])) as handle:
    handle.write(b"half")
    handle.flush()
    print("half", flush=True)
    sys.stdin.read()
"""


def test_the_draft_of_a_killed_run_goes_with_the_next_one_and_that_of_a_living_run_stays(tmp_path: Path) -> None:
    report = tmp_path / "report.csv"
    with atomic_write(report) as other:  # a living run
        with atomic_write(report) as handle:
            handle.write(b"whole")
        assert len(names(tmp_path)) == 2
        other.write(b"whole, too")
    writer = subprocess.Popen(
        [sys.executable, "-c", DIE_WHILE_WRITING, report], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"half\n"
    with atomic_write(report) as handle:
        assert len(names(tmp_path)) == 3
        handle.write(b"whole again")
    writer.kill()
    writer.communicate()
    assert len(names(tmp_path)) == 2  # what it left
    with atomic_write(report) as handle:
        handle.write(b"and again")
    assert names(tmp_path) == ["report.csv"]
    assert report.read_bytes() == b"and again"


def test_files_take_their_names_together_in_what_the_caller_gives(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    seen = []

    @contextmanager
    def together() -> Iterator[None]:
        seen.append(sorted(path.name for path in paths if path.exists()))
        yield
        seen.append(sorted(path.name for path in paths if path.exists()))

    with atomic_write_all([LocalFile(path) for path in paths], together=together) as handles:
        for handle in handles:
            handle.write(b"new")
    assert seen == [[], ["a", "b"]]

"""Folders that others may write: no planted link is followed, no pipe waited for, and no edit lost."""

import errno
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from batchdigits.errors import StorageError
from batchdigits.storage import guards
from batchdigits.storage.atomic import TargetFile, atomic_write, atomic_write_all
from batchdigits.storage.guards import Sources, locked, opened, put_in_place, resolved
from batchdigits.storage.local import LocalFile
from tests.file_states import names

STRANGER = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives links away")


def planted(link: Path, target: str) -> Path:
    link.symlink_to(target)
    os.lchown(link, STRANGER, STRANGER)
    return link


@needs_root
def test_a_link_of_somebody_else_is_refused_wherever_it_stands_in_a_chain(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    planted(tmp_path / "theirs", "victim")
    (tmp_path / "ours").symlink_to("theirs")
    for link in (tmp_path / "theirs", tmp_path / "ours"):
        with pytest.raises(StorageError, match=r"theirs is a symbolic link of another user \(uid 65534\)"):
            resolved(link)
        with pytest.raises(StorageError, match="another user"), atomic_write(link) as file:
            file.write(b"theirs")
    assert (tmp_path / "victim").read_text() == "mine"


def test_our_own_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "report").touch()
    (tmp_path / "door").symlink_to("folder")
    (tmp_path / "one").symlink_to("door/two")
    (tmp_path / "folder" / "two").symlink_to("report")
    assert resolved(tmp_path / "one") == tmp_path / "folder" / "report"
    assert resolved(tmp_path / "door" / "new") == tmp_path / "folder" / "new"


def test_nothing_is_made_through_a_link_that_leads_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(StorageError, match="nowhere, which does not exist"), atomic_write(tmp_path / "link"):
        pass
    assert names(tmp_path) == ["link"]


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(StorageError, match="leads in a circle"):
        resolved(tmp_path / "a")


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with suppress(OSError), socket.socket(socket.AF_UNIX) as bound:
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket has to be short
        try:
            bound.bind(path.name)
        finally:
            os.chdir(here)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


SPECIAL = pytest.mark.parametrize("make", [make_pipe, make_socket, make_device])


@SPECIAL
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x")
    with pytest.raises(OSError, match="pipe|No such device"):
        opened(tmp_path / "x")
    with pytest.raises(StorageError, match="a pipe, a device or a socket"):
        LocalFile(tmp_path / "x").sha256()


@SPECIAL
def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x")
    with (
        pytest.raises(StorageError, match="x cannot be written: it is a pipe, a device or a socket"),
        atomic_write(tmp_path / "x"),
    ):
        pass
    assert names(tmp_path) == ["x"]
    assert not (tmp_path / "x").is_file()


@SPECIAL
def test_what_stands_at_a_drafts_name_is_left_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    with atomic_write(tmp_path / "report.csv"):
        [draft] = names(tmp_path)
    make(tmp_path / draft)
    with atomic_write(tmp_path / "report.csv") as file:
        file.write(b"whole")
    assert (tmp_path / "report.csv").read_bytes() == b"whole"
    assert os.path.lexists(tmp_path / draft)


@SPECIAL
def test_a_lock_that_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "lock")
    with pytest.raises(OSError) as caught, locked(tmp_path / "lock", wait_seconds=10):  # noqa: PT011
        pass
    assert caught.value.errno in (errno.ENODEV, errno.ENXIO, errno.ELOOP)


@pytest.mark.parametrize("before", [None, 0o644])
def test_a_lock_is_its_owners_alone(tmp_path: Path, before: int | None) -> None:
    lock = tmp_path / "lock"
    if before:
        lock.touch(before)
    with locked(lock, wait_seconds=0):
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600


# ---- taking a name ---------------------------------------------------------------------------------------------------


class SavesJustBefore:
    """A keeper, and somebody who saves the file between its check and the exchange."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.seen: list[str] = []

    def before(self, draft: Path, target: TargetFile) -> bool:
        mine = draft.with_name("mine")
        mine.write_text(self.text)
        mine.replace(str(target))
        return True

    def after(self, old: Path, target: TargetFile) -> None:
        self.seen.append(old.read_text())
        target.back_up("kept", lies=old)


@pytest.mark.parametrize("stands", [True, False])
def test_what_is_saved_until_a_name_is_taken_comes_out(tmp_path: Path, stands: bool) -> None:
    report = tmp_path / "report"
    if stands:
        report.write_text("as published")
    keeper = SavesJustBefore("my edit")
    with atomic_write_all([LocalFile(report)], keeper=keeper) as [handle]:
        handle.write(b"new")
    assert (report.read_text(), keeper.seen) == ("new", ["my edit"])
    assert names(tmp_path) == ["kept", "report"]
    assert (tmp_path / "kept").read_text() == "my edit"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
def test_where_names_cannot_be_exchanged_the_file_is_renamed(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "_rename", lambda *_: number)
    (tmp_path / "draft").write_text("new")
    (tmp_path / "report").write_text("old")
    assert put_in_place(tmp_path / "draft", tmp_path / "report") is None
    assert names(tmp_path) == ["report"]
    assert (tmp_path / "report").read_text() == "new"


def test_a_file_that_replaces_one_keeps_its_mode(tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.touch()
    report.chmod(0o640)
    with atomic_write(report) as file:
        file.write(b"new")
        [draft] = tmp_path.glob(".*.tmp")
        assert stat.S_IMODE(draft.stat().st_mode) == 0o600  # nobody reads it sooner than the report
    assert stat.S_IMODE(report.stat().st_mode) == 0o640


@needs_root
def test_a_file_that_replaces_one_keeps_its_owner(tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.touch()
    os.chown(report, 12345, 54321)
    with atomic_write(report) as file:
        file.write(b"new")
    assert (report.stat().st_uid, report.stat().st_gid) == (12345, 54321)


WRITE = """
import os, pathlib, sys
from batchdigits.storage.atomic import atomic_write
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with atomic_write(pathlib.Path(sys.argv[1])) as file:
    file.write(b"new")
"""


@needs_root
def test_where_the_owner_cannot_be_kept_the_mode_is() -> None:
    with tempfile.TemporaryDirectory() as folder:  # that of tests is closed to others
        Path(folder).chmod(0o777)
        report = Path(folder, "report")
        report.touch()
        report.chmod(0o664)
        subprocess.run([sys.executable, "-c", WRITE, report], check=True, timeout=60)
        status = report.stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode), report.read_bytes()) == (65534, 0o664, b"new")


@pytest.mark.parametrize("make", [make_pipe, make_device, lambda path: path.write_text("theirs")])
def test_what_stands_at_the_name_of_a_backup_loses_no_edit(tmp_path: Path, make: Callable[[Path], None]) -> None:
    report = LocalFile(tmp_path / "report.csv")
    report.path.write_text("my edit")
    make(tmp_path / "kept.csv")
    kept = report.back_up("kept.csv")
    assert kept.path.name.startswith("kept-")
    assert kept.path.read_text() == "my edit"
    assert report.back_up(kept.name) == kept  # once is enough


def test_a_file_system_without_permissions_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    for name in ("fchmod", "fchown"):
        monkeypatch.setattr(os, name, refuse)
    for name in ("report", "lock"):
        (tmp_path / name).touch(0o755)
    with locked(tmp_path / "lock", wait_seconds=0), atomic_write(tmp_path / "report") as file:
        file.write(b"new")
    assert (tmp_path / "report").read_bytes() == b"new"


def test_files_at_the_root_are_read_and_its_descriptor_is_closed(tmp_path: Path) -> None:
    at_root = next((path for path in Path("/").iterdir() if path.is_file() and os.access(path, os.R_OK)), None)
    if at_root is None:
        pytest.skip("no file lies at the root of this machine")
    (tmp_path / "a.png").write_bytes(b"a")
    before = len(list(Path("/dev/fd").iterdir()))
    for paths in ([at_root], [tmp_path / "a.png", at_root]):
        with Sources(["/"]) as sources:
            for path in paths:
                os.close(sources.open(str(path)))
    assert len(list(Path("/dev/fd").iterdir())) == before

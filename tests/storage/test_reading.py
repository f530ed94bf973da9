"""Whole files of this machine: read in parts where it has to be, and what is wrong with one is its fault."""

import os
from pathlib import Path

import pytest

from batchdigits.errors import Fault, FaultKind
from batchdigits.storage import guards, reading
from batchdigits.storage.reading import read_all, read_local

LIMIT = 2**20


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"12345")
    assert read_local(str(path), 5, LIMIT) == b"12345"


def test_a_file_that_grew_is_read_whole_up_to_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"12345")
    whole = os.pread
    monkeypatch.setattr(reading.os, "pread", lambda descriptor, _count, at: whole(descriptor, 2, at))
    assert read_local(str(path), 2, 5) == b"12345"
    fault = read_local(str(path), 2, 4)
    assert isinstance(fault, Fault)
    assert fault.kind == FaultKind.TOO_LARGE


def test_a_file_over_the_limit_is_not_opened() -> None:
    fault = read_local("/does/not/exist", 6, 5)
    assert isinstance(fault, Fault)
    assert fault.kind == FaultKind.TOO_LARGE


def test_what_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    reasons = {"dangling": "symbolic link", "gone": "deleted", "pipe": "regular", ".": "regular"}
    for name, reason in (reasons | {"loop": "too many levels", "n" * 300: "too long"}).items():
        fault = read_local(str(tmp_path / name), 0, LIMIT)
        assert isinstance(fault, Fault)
        assert fault.kind == FaultKind.UNREADABLE
        assert reason in fault.detail

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(reading.os, "open", refuse)
    assert read_local("x", 0, LIMIT) == Fault(FaultKind.UNREADABLE, "cannot be opened: permission denied")


@pytest.mark.parametrize("folded", [0, -(2**64)])
def test_a_file_is_read_as_what_it_was_when_it_was_found(tmp_path: Path, folded: int) -> None:
    (tmp_path / "a.png").write_bytes(b"found")
    (tmp_path / "secret").write_bytes(b"outside")
    (tmp_path / "link.png").symlink_to("a.png")
    inode = (tmp_path / "a.png").stat().st_ino + folded
    changed_ns = (tmp_path / "a.png").stat().st_ctime_ns + folded
    names = [str(tmp_path / "a.png"), str(tmp_path / "link.png")]
    for known in ((inode, changed_ns), (inode, 1), (inode + 1, changed_ns)):  # of a share that numbers files anew
        assert list(read_all([(name, 5, *known, 0) for name in names], 100)) == [b"found", b"found"]
    (tmp_path / "a.png").unlink()
    (tmp_path / "a.png").symlink_to("secret")
    for data in read_all([(name, 5, inode, changed_ns, 0) for name in names], 100):
        assert isinstance(data, Fault)
        assert "another file took its place" in data.detail
    assert list(read_all([(names[0], 5, 0, 0, 0)], 100)) == [b"outside"]


def test_what_changes_while_it_is_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opening = guards.Sources.open

    def opened(self: guards.Sources, path: str) -> int:
        descriptor = opening(self, path)
        if path.endswith("grows"):
            before = os.fstat(descriptor)
            Path(path).write_bytes(b"found and more")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        if path.endswith("touched"):
            os.utime(path, ns=(1, 2))
        return descriptor

    monkeypatch.setattr(guards.Sources, "open", opened)
    files = []
    for name in ("still", "grows", "touched"):
        (tmp_path / name).write_bytes(b"found")
        status = (tmp_path / name).stat()
        files.append((str(tmp_path / name), 5, status.st_ino, status.st_ctime_ns, status.st_mtime_ns - 2**64))
    changed: set[str] = set()
    assert list(read_all(files, 100, changed=changed)) == [b"found", b"found and more", b"found"]
    assert changed == {str(tmp_path / "grows"), str(tmp_path / "touched")}


def reading_from(*sources: Path, path: Path) -> bytes | str:
    """What is read of a file that was found under some sources; or why it is not."""
    (data,) = read_all([(str(path), 5, 0, 0, 0)], 100, [str(source) for source in sources])
    return data.detail if isinstance(data, Fault) else data


def test_links_are_followed_within_the_sources_and_where_a_user_names_them(tmp_path: Path) -> None:
    scans, outside = tmp_path / "scans", tmp_path / "outside"
    for folder in (scans / "a" / "b", outside):
        folder.mkdir(parents=True)
        (folder / "7.png").write_bytes(b"%5s" % folder.name[:5].encode())
    (scans / "in.png").symlink_to("a/b/7.png")
    (scans / "a/up.png").symlink_to("../in.png")
    (scans / "out.png").symlink_to("../outside/7.png")
    (scans / "none.png").symlink_to("../outside/8.png")
    (scans / "linked").symlink_to("../outside")
    (tmp_path / "named").symlink_to("scans")
    for name in ("in.png", "a/up.png", "a/b/7.png"):
        assert reading_from(scans, path=scans / name) == b"    b"
        assert reading_from(tmp_path / "named", path=tmp_path / "named" / name) == b"    b"
    assert reading_from(scans / "a", scans, path=scans / "a/up.png") == b"    b"
    assert reading_from(scans, scans / "linked", path=scans / "linked/7.png") == b"outsi"
    assert reading_from(scans, scans / "out.png", path=scans / "out.png") == b"outsi"
    assert "leads out of the source" in str(reading_from(scans, path=scans / "out.png"))
    assert "does not exist" in str(reading_from(scans, path=scans / "none.png"))
    assert "was replaced after it was found" in str(reading_from(scans, path=scans / "linked/7.png"))


def test_a_link_beside_a_file_that_was_read_is_followed_like_any_other(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for path in (scans / "1", scans / "9", tmp_path / "outside"):
        path.write_bytes(path.name.encode())
    for name, target in (("2", "1"), ("3", "../outside"), ("4", "../outside"), ("5", "5"), ("6", "/none")):
        (scans / name).symlink_to(target)
    files = [(str(scans / name), 9, 0, 0, 0) for name in "1234569"]
    found = list(read_all(files, 100, [str(scans), str(scans / "4")]))
    assert [data for data in found if isinstance(data, bytes)] == [b"1", b"1", b"outside", b"9"]
    reasons = [data.detail.partition(": ")[2] for data in found if isinstance(data, Fault)]
    assert reasons == [
        "it is a symbolic link that leads out of the source now",
        "too many levels of symbolic links",
        "it is a symbolic link to a file that does not exist",
    ]


def test_the_folder_of_the_last_file_stays_open_and_no_other(tmp_path: Path) -> None:
    for name in ("a/1", "a/2", "b/c/3", "b/4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208
    names = ["a/1", "a/2", "b/c/3", "gone/5", "b/4", "a/1"]
    reading = read_all([(str(tmp_path / name), 5, 0, 0, 0) for name in names], 100, [str(tmp_path)])
    for name, data in zip(names, reading, strict=False):
        assert data == name.encode() if (tmp_path / name).exists() else isinstance(data, Fault)
        assert len(os.listdir("/dev/fd")) <= before + 1  # noqa: PTH208
    reading.close()
    assert len(os.listdir("/dev/fd")) == before  # noqa: PTH208

"""Whole files of this machine: read in parts where it has to be, and what is wrong with one is its fault."""

import os
from pathlib import Path

import pytest

from batchdigits.errors import Fault, FaultKind
from batchdigits.storage import reading
from batchdigits.storage.reading import read_all, read_local

LIMIT = 2**20


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"12345")
    assert read_local(str(path), 5, LIMIT) == b"12345"


def test_a_file_that_grew_is_read_whole_up_to_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"12345")
    whole = os.read
    monkeypatch.setattr(reading.os, "read", lambda descriptor, _count: whole(descriptor, 2))
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
    names = [str(tmp_path / "a.png"), str(tmp_path / "link.png")]
    assert list(read_all([(name, 5, inode) for name in names], 100)) == [b"found", b"found"]
    (tmp_path / "a.png").unlink()
    (tmp_path / "a.png").symlink_to("secret")
    for data in read_all([(name, 5, inode) for name in names], 100):
        assert isinstance(data, Fault)
        assert "another file took its place" in data.detail
    assert list(read_all([(names[0], 5)], 100)) == [b"outside"]

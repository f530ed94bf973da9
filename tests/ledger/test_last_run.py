"""Files that are gone by many at once, or with their disk, do not leave a report without a word."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchdigits.errors import StorageError
from batchdigits.ledger import last_run
from batchdigits.sources.mounts import disks_under
from tests.ledger.test_ledger import batch_of, image, ledger_at, record, seen


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def a_report(path: Path, found: list[str], disks: dict[str, str], *, allow: bool = False) -> None:
    """Let a run find files, read what is new, and publish."""
    files = [image(name.rpartition("/")[2], path=name) for name in found]
    with ledger_at(path) as ledger:
        plan = ledger.plan(files)
        if not allow:
            last_run.check(plan, disks)
        if plan.pending.total():
            record(ledger, batch_of([seen(file) for file in files]))
        last_run.remember(plan, disks)


def some(count: int, folder: str = "/nowhere/scans") -> list[str]:
    return [f"{folder}/{number:04}.png" for number in range(count)]


HERE = {"/nowhere/scans": "disk"}


@pytest.mark.parametrize(("before", "now"), [(1000, 900), (1010, 909), (200, 99)])
def test_many_that_are_gone_at_once_are_refused(path: Path, before: int, now: int) -> None:
    a_report(path, some(before), HERE)
    if before - now > 100:
        with pytest.raises(
            StorageError, match=rf"{before - now} files of the {before:,} in the last .*--allow-vanished"
        ):
            a_report(path, some(now), HERE)
    a_report(path, some(now), HERE, allow=True)
    a_report(path, some(now - 1), HERE)  # they are missed no more
    a_report(path, some(before), HERE)  # they have come back
    if before - now > 100:
        with pytest.raises(StorageError, match="gone at once"):
            a_report(path, some(now), HERE)


def test_less_than_a_tenth_and_up_to_a_hundred_may_go(path: Path) -> None:
    a_report(path, some(1200), HERE)
    a_report(path, some(1090), HERE)
    a_report(path, some(990), HERE)
    a_report(path, some(1), {"/nowhere/scans": "disk"}, allow=True)


def test_files_that_are_only_left_out_are_not_gone(path: Path, tmp_path: Path) -> None:
    names = some(150, str(tmp_path))
    for name in names:
        Path(name).touch()
    disks = {str(tmp_path): "disk"}
    a_report(path, names, disks)
    a_report(path, names[:10], disks)


@pytest.mark.parametrize(
    ("disks", "found", "are_refused"),
    [
        ({**HERE, "/nowhere/scans/nas": "share"}, 7, False),
        ({**HERE, "/nowhere/scans/nas": "share"}, 6, False),  # one was deleted
        (HERE, 3, True),
        (HERE, 4, True),  # one lies in the folder itself
        ({**HERE, "/nowhere/scans/nas": "another"}, 3, True),
        ({**HERE, "/nowhere/scans/nas": "another"}, 6, False),  # the share has another number
        ({"/nowhere/scans": "another", "/nowhere/scans/nas": "share"}, 4, False),
    ],
)
def test_files_of_a_disk_that_is_gone_are_refused_however_few(
    path: Path, disks: dict[str, str], found: int, are_refused: bool
) -> None:
    names = [*some(3), *some(4, "/nowhere/scans/nas")]
    a_report(path, names, {**HERE, "/nowhere/scans/nas": "share"})
    if are_refused:
        with pytest.raises(StorageError, match="gone from /nowhere/scans/nas, and the disk"):
            a_report(path, names[:found], disks)
    a_report(path, names[:found], disks, allow=True)
    a_report(path, names[:found], disks)


def test_a_ledger_of_an_older_version_begins_to_remember(path: Path) -> None:
    a_report(path, some(500), {})
    a_report(path, some(10), HERE)


def test_sources_of_another_report_in_one_ledger_are_not_missed(path: Path) -> None:
    a_report(path, some(500), HERE)
    a_report(path, some(500, "/elsewhere"), {"/elsewhere": "disk"})
    a_report(path, some(499), HERE)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own below a folder whose name needs escapes."""
    folder = tmp_path / "the scans" / "nas\\1"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True, timeout=60).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False, capture_output=True, timeout=60)


def test_disks_are_told_by_the_folders_of_a_source(mounted: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(mounted.parent)
    source = str(tmp_path / "link")
    disks = disks_under([source])
    assert list(disks) == [source, f"{source}/{mounted.name}"]
    assert len(set(disks.values())) == 2
    subprocess.run(["umount", mounted], check=True, timeout=60)
    assert disks_under([source]) == {source: disks[source]}


def test_a_folder_that_cannot_be_reached_has_no_disk(tmp_path: Path) -> None:
    assert disks_under([str(tmp_path / "missing")]) == {}

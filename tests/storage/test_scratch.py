import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batchdigits.errors import StorageError
from batchdigits.storage import scratch
from batchdigits.storage.scratch import Spool, in_order, scratch_folder, tidy_up
from tests.file_states import names

USE = """
from batchdigits.storage import scratch
from batchdigits.storage.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "draft").write_text("half")
    print(folder, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_goes_with_all_in_it(temporary: Path) -> None:
    with scratch_folder() as folder:
        (folder / "draft").write_text("half")
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o077 == 0
    assert names(temporary) == []


def test_what_a_killed_run_left_is_tidied_up_and_what_another_uses_is_not(temporary: Path) -> None:
    user = subprocess.Popen(
        [sys.executable, "-c", USE],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert user.stdout is not None
    used = Path(user.stdout.readline().decode().strip())
    (temporary / "of another program").mkdir()
    with scratch_folder() as mine:
        tidy_up()
        assert set(names(temporary)) == {used.name, mine.name, "of another program"}
    user.kill()
    user.communicate()
    tidy_up()
    assert names(temporary) == ["of another program"]


def test_where_a_name_has_to_be_short_the_folder_lies_elsewhere_and_is_tidied_up_there_too(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "short"
    elsewhere.mkdir()
    monkeypatch.setattr(scratch, "_SHORT", str(elsewhere))
    with scratch_folder(most_characters=len(f"{temporary}/batchdigits-scratch-12345678")) as folder:
        assert folder.parent == temporary
    with scratch_folder(most_characters=40) as folder:
        assert folder.parent == elsewhere
    (elsewhere / "batchdigits-scratch-left").mkdir()
    tidy_up()
    assert names(elsewhere) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_what_is_not_this_users_folder_is_left_alone(temporary: Path) -> None:
    (temporary / "batchdigits-scratch-theirs").mkdir()
    os.chown(temporary / "batchdigits-scratch-theirs", 65534, 65534)
    (temporary / "elsewhere").mkdir()
    (temporary / "batchdigits-scratch-link").symlink_to("elsewhere")
    tidy_up()
    assert names(temporary) == ["batchdigits-scratch-link", "batchdigits-scratch-theirs", "elsewhere"]


def test_a_spool_gives_what_was_put_in_also_while_more_is(temporary: Path) -> None:
    spool: Spool[tuple[int, bytes]] = Spool()
    blocks = [[(number, bytes(3000)) for number in range(first, first + 1000)] for first in range(0, 9000, 1000)]
    for block in blocks[:5]:
        spool.add(block)
    records = iter(spool)
    assert next(records) == blocks[0][0]
    for block in blocks[5:]:
        spool.add(block)
    assert (len(spool), spool[7]) == (9, blocks[7])
    assert list(spool) == [record for block in blocks for record in block]
    assert list(records) == [record for block in blocks[:5] for record in block][1:]
    assert names(temporary) == []


def test_a_spool_that_finds_no_room_names_the_folder_of_temporary_files(temporary: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(StorageError, match=re.escape(f"A temporary file in {temporary} (TMPDIR says where")):
            Spool[bytes]().add([bytes(2**22)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("count", [0, 1, 16_383, 16_384, 50_000])
def test_many_records_are_sorted_as_few_are(count: int) -> None:
    records = [number * 7919 % 100_003 for number in range(count)]
    assert list(in_order(iter(records), lambda record: -record)) == sorted(records, reverse=True)

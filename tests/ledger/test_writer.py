"""Recording: what is known of bytes is found, whichever batch or run saw them."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from batchdigits.errors import Fault, FaultKind
from batchdigits.ledger.ledger import Ledger, LostAnswer
from batchdigits.ledger.schema import row_sums
from batchdigits.records import ImageFile
from tests.ledger.test_ledger import (
    a_run,
    answer,
    batch_by_workers,
    batch_of,
    image,
    key,
    ledger_at,
    pending,
    record,
    rows_of,
    seen,
    whole,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "report.csv.ledger"


def predicted_again(path: Path, *sha256s: str) -> int:
    """Tell how many of these bytes are new to another run when it meets them under new names."""
    files = [image(f"new {number}.png") for number in range(len(sha256s))]
    pages = [seen(file, sha256=sha) for file, sha in zip(files, sha256s, strict=True)]
    with ledger_at(path) as ledger:
        ledger.plan(files)
        predicted = record(ledger, batch_by_workers(ledger, pages))
        assert whole(ledger).sha256 == list(sha256s)
    return predicted


def test_what_a_killed_run_observed_is_found_by_the_next(path: Path) -> None:
    files = [image("a.png"), image("b.png")]
    with ledger_at(path) as ledger:
        ledger.plan(files)
        record(ledger, batch_of([seen(file) for file in files]))
    assert predicted_again(path, seen(files[0]).sha256, seen(files[1]).sha256, "12" * 32) == 1


def test_a_run_that_observes_nothing_writes_nothing(path: Path) -> None:
    files = [image("a.png"), image("b.png")]
    a_run(path, files)
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert a_run(path, files) == (0, 0)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_bytes_whose_sums_only_begin_alike_are_not_taken_for_the_same(path: Path) -> None:
    sums = ["ab" * 16 + end * 16 for end in ("01", "02", "03")]
    files = [image(f"{number}.png") for number in range(3)]
    with ledger_at(path) as ledger:
        ledger.plan(files)
        record(ledger, batch_of([seen(file, sha256=sha256) for file, sha256 in zip(files, sums, strict=True)]))
        assert whole(ledger).sha256 == sums
    assert predicted_again(path, *sums, "ab" * 16 + "04" * 16) == 1


def test_copies_of_what_the_same_run_has_read_get_its_rows(path: Path) -> None:
    names = ["a.tif", "b.tif", "c.tif", "d.tif", "e.tif", "f.tif"]
    first, *same, second, last = files = [image(name, ending=".tif") for name in names]
    rows = [(name, page) for name in names for page in (1, 2)]

    def recorded(ledger: Ledger, read: Sequence[ImageFile], copies: Sequence[ImageFile], of: ImageFile) -> None:
        pages = [seen(file, number) for file in read for number in (1, 2)]
        pictures = {row: file.path.encode() for row, file in enumerate(read)}
        batch = batch_of(pages, thumbnails=pictures, unchanged=copies)
        batch.unchanged.update({batch.files.index(copy): seen(of).sha256 for copy in copies})
        ledger.record(batch)

    with ledger_at(path) as ledger:
        ledger.plan(files)
        recorded(ledger, [first], same[:2], first)
        recorded(ledger, [], same[2:], first)
        recorded(ledger, [second], [], second)
        recorded(ledger, [], [last], second)
        (found,) = ledger.observations(thumbnails=True)
    assert list(zip(found.names, found.pages, strict=True)) == rows
    assert found.sha256 == [seen(first).sha256] * 8 + [seen(second).sha256] * 4
    assert found.thumbnails == [first.path.encode(), b""] * 4 + [second.path.encode(), b""] * 2


def test_a_copy_of_what_was_never_recorded_is_left_to_the_next_run_and_keeps_its_row(path: Path) -> None:
    gone, new, touched = image("a.png"), image("b.png"), image("c.png")
    now = image("c.png", mtime_ns=8)
    a_run(path, [touched])
    with ledger_at(path) as ledger:
        plan = ledger.plan([gone, new, now])
        plan.defer([gone])  # it changed while it was read
        batch = batch_of(unchanged=[new, now])
        batch.unchanged.update(dict.fromkeys((0, 1), seen(gone).sha256))
        assert ledger.record(batch) == []
        assert (plan.deferred, rows_of(ledger)) == (3, [("c.png", 1)])
        assert whole(ledger).sha256 == [seen(touched).sha256]


def test_a_file_that_has_less_pages_than_before_loses_their_rows(path: Path) -> None:
    before, after = image("a.tif", ending=".tif"), image("a.tif", ending=".tif", mtime_ns=8)
    other = image("b.tif", ending=".tif")
    with ledger_at(path) as ledger:
        ledger.plan([before, other])
        record(ledger, batch_of([seen(file, number) for file in (before, other) for number in (1, 2, 3)]))
        ledger.plan([after, other])
        record(ledger, batch_of(faults=[(seen(after), Fault(FaultKind.UNREADABLE, "crashes its decoder"))]))
        assert rows_of(ledger) == [("a.tif", 1), ("b.tif", 1), ("b.tif", 2), ("b.tif", 3)]


def test_more_files_than_a_statement_asks_about_are_taken_in_at_once_and_lose_their_answers(path: Path) -> None:
    before = [image(f"{number:04}.png", mtime_ns=1) for number in range(1200)]
    a_run(path, before)
    assert answer(path, {key(file): "7" for file in before[::600]}) == (2, 0)
    after = [image(f"{number:04}.png", mtime_ns=2) for number in range(1200)]
    with ledger_at(path) as ledger:
        assert pending(ledger.plan(after)) != []
        lost = ledger.record(batch_of([seen(file) for file in after]))
        assert lost == [LostAnswer(file.path, 1, "7", is_read=True) for file in after[::600]]


def row_sum(row: tuple[object, ...]) -> int:
    """Compute the sum of a page as the ledgers of all versions have it."""
    path, seen = row[0], row[8]
    assert isinstance(path, bytes)
    assert isinstance(seen, bytes)
    return zlib.crc32(path + seen + ascii((row[1:8], row[9:])).encode())


GOOD = (b"/a", 1, 1, 5, 7, 9, 0, 1, b"seen", None, "no", zlib.crc32(b"png"))


def test_damage_to_any_value_of_a_page_changes_its_sum() -> None:
    others = [b"/b", 2, 2.0, 6, 8, None, True, "1", b"sees", "None", None, None]
    bad = [(*GOOD[:place], value, *GOOD[place + 1 :]) for place, value in enumerate(others)]
    for some in ([GOOD], [GOOD, GOOD], *([GOOD, one] for one in bad), bad):
        assert row_sums(list(zip(*some, strict=True))) == list(map(row_sum, some))
    assert row_sum(GOOD) not in map(row_sum, bad)
    for place in (0, 8):
        with pytest.raises(TypeError):
            row_sums([["text"] if at == place else [value] for at, value in enumerate(GOOD)])

"""Recording: what is known of bytes is found, whichever batch or run saw them, and nothing is recorded twice."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchdigits.errors import Fault, FaultKind
from batchdigits.ledger.database import checksum
from batchdigits.ledger.reader import file_checksum, page_checksum
from batchdigits.ledger.writer import LostAnswer
from tests.ledger.test_ledger import (
    a_run,
    answer,
    batch_of,
    image,
    key,
    ledger_at,
    logits_like,
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
    with ledger_at(path) as ledger:
        ledger.plan(files)
        return record(ledger, batch_of([seen(file, sha256=sha) for file, sha in zip(files, sha256s, strict=True)]))


def test_what_came_first_of_the_same_bytes_stays(path: Path) -> None:
    files = [image(f"{number}.png") for number in range(3)]
    first = batch_of([seen(files[0], sha256="12" * 32), seen(files[1])], thumbnails={0: b"a picture"})
    second = batch_of([seen(files[2], sha256="12" * 32)], logits=logits_like(1, start=4), thumbnails={0: b"another"})
    with ledger_at(path) as ledger:
        ledger.plan(files)
        assert (record(ledger, first), record(ledger, second)) == (2, 0)
        (rows,) = ledger.observations(thumbnails=True)
        assert (rows.logits[:, 0] // 10).tolist() == [0, 1, 0]
        assert rows.thumbnails == [b"a picture", b"", b"a picture"]


def test_what_a_killed_run_observed_is_found_by_the_next(path: Path) -> None:
    files = [image("a.png"), image("b.png")]
    with ledger_at(path) as ledger:
        ledger.plan(files)
        record(ledger, batch_of([seen(file) for file in files]))  # and nothing is forgotten, as at the end of a run
    assert predicted_again(path, seen(files[0]).sha256, seen(files[1]).sha256, "12" * 32) == 1


def test_what_takes_the_number_of_something_forgotten_is_found_too(path: Path) -> None:
    kept, half, new = image("a.png"), image("b.tif"), image("c.png")
    with ledger_at(path) as ledger:
        ledger.plan([kept, half])
        record(ledger, batch_of([seen(kept), seen(half)]))
        ledger._database.execute("DELETE FROM files WHERE path = ?", (half.path.encode(),))
    with ledger_at(path) as ledger:
        ledger.plan([kept])
        ledger.forget()  # the second of two observations
        assert [*ledger._database.execute("SELECT max(id) FROM observations")] == [(1,)]
    a_run(path, [kept, new])
    assert predicted_again(path, seen(new).sha256, seen(half).sha256) == 1


def test_what_is_known_is_sorted_in_at_the_end_of_a_run_and_goes_with_what_is_forgotten(path: Path) -> None:
    a_run(path, [image("a.png"), image("b.png")])
    a_run(path, [image("a.png"), image("b.png", mtime_ns=8)])
    a_run(path, [image("a.png"), image("b.png", mtime_ns=9), image("c.png")])
    expected = [(seen(file).sha256[:10],) for file in (image("a.png"), image("b.png", mtime_ns=9), image("c.png"))]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT key FROM known").fetchall() == sorted(expected)
        assert database.execute("SELECT upto = (SELECT max(id) FROM observations) FROM sorted_in").fetchall() == [(1,)]


def test_a_run_that_observes_nothing_writes_nothing(path: Path) -> None:
    files = [image("a.png"), image("b.png")]
    a_run(path, files)
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert a_run(path, files) == (0, 0)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_bytes_whose_sums_only_begin_alike_are_not_taken_for_the_same(path: Path) -> None:
    sums = ["ab" * 16 + end * 16 for end in ("01", "02", "03")]
    files = [image(f"{number}.png") for number in range(3)]
    pages = [seen(file, sha256=sha256) for file, sha256 in zip(files, sums, strict=True)]
    with ledger_at(path) as ledger:
        ledger.plan(files)
        assert record(ledger, batch_of(pages[:2])) == 2
        assert record(ledger, batch_of(pages[2:])) == 1
        ledger.forget()
        assert whole(ledger).sha256 == sums
    assert predicted_again(path, *sums, "ab" * 16 + "04" * 16) == 1


def test_bytes_that_crash_a_decoder_under_one_name_alone_have_the_rows_of_the_other(path: Path) -> None:
    first, second = image("a.tif", ending=".tif"), image("b.tif", ending=".tif")
    fault = (seen(second, sha256="12" * 32), Fault(FaultKind.UNREADABLE, "crashes its decoder"))
    with ledger_at(path) as ledger:
        ledger.plan([first, second])
        record(ledger, batch_of([seen(first, number, sha256="12" * 32) for number in (1, 2)], [fault]))
        ledger.forget()
        assert rows_of(ledger) == [("a.tif", 1), ("a.tif", 2), ("b.tif", 1), ("b.tif", 2)]
        assert whole(ledger).faults == [None] * 4


def test_more_files_than_a_statement_asks_about_are_taken_in_at_once_and_lose_their_answers(path: Path) -> None:
    before = [image(f"{number:04}.png", mtime_ns=1) for number in range(1200)]
    a_run(path, before)
    assert answer(path, {key(file): "7" for file in before[::600]}) == (2, 0)
    after = [image(f"{number:04}.png", mtime_ns=2) for number in range(1200)]
    with ledger_at(path) as ledger:
        assert pending(ledger.plan(after)) != []
        batch = batch_of([seen(file) for file in after])
        lost = ledger.record(batch)
        assert lost == [LostAnswer(file.path, 1, "7", is_read=True) for file in after[::600]]
        assert record(ledger, batch) == 0


texts = st.none() | st.text(max_size=9)
numbers = st.none() | st.integers(0, 2**31)
blobs = st.none() | st.binary(max_size=9)


@given(st.tuples(st.text(max_size=9), st.text(max_size=9), numbers, numbers, numbers, blobs, blobs, texts, texts))
def test_the_quick_sum_of_a_page_is_that_of_older_ledgers(values: tuple[str | int | bytes | None, ...]) -> None:
    assert (page_checksum(values) == checksum(*values)) is (len({value is None for value in values[5:7]}) == 1)


@given(st.binary(max_size=9), st.text(max_size=9))
def test_the_quick_sum_of_a_file_is_that_of_older_ledgers(path: bytes, sha256: str) -> None:
    assert file_checksum(path, sha256) == checksum(path, sha256)


def test_damage_that_changes_the_type_of_a_value_changes_the_sum() -> None:
    good = ("ab", "12", 1, 28, 28, b"logits", b"ink", None, None)
    for place, value in ((5, "logits"), (6, "ink"), (5, None), (1, b"12"), (2, "1"), (7, "None")):
        bad = (*good[:place], value, *good[place + 1 :])
        assert page_checksum(bad) != page_checksum(good)

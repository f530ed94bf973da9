"""The ledger: what is found comes out in the order of rows, and what is seen comes out as it went in."""

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchdigits.errors import Fault, FaultKind, StorageError, escape_name
from batchdigits.ledger import answers, last_run
from batchdigits.ledger import ledger as module
from batchdigits.ledger.database import Database
from batchdigits.ledger.ledger import CacheKey, Ledger, LostAnswer, Observations
from batchdigits.ledger.plan import Phase, Plan, Why
from batchdigits.ledger.schema import SCHEMA_VERSION
from batchdigits.records import NEVER, PAGE, Batch, ImageFile, Skipped
from batchdigits.storage.local import LocalFile
from batchdigits.storage.scratch import in_order

HERE = CacheKey(bundle="ab" * 32, others="decoding 1")


class SeenPage(NamedTuple):
    """A page, as these tests spell it."""

    file: ImageFile
    number: int
    width: int | None
    height: int | None
    sha256: str


class SortingLedger(Ledger):
    """A ledger that sorts what a test finds, as discovery does."""

    def plan(self, found: Iterable[ImageFile | Skipped], **options: Any) -> Plan:
        return super().plan(in_order(found, lambda record: os.fsencode(record.path)), **options)


def ledger_at(path: Path | None = None, condition: CacheKey = HERE) -> Ledger:
    return SortingLedger(path, condition)


def image(name: str = "a.png", *, path: str | None = None, **changes: Any) -> ImageFile:
    fields = {
        "path": f"/folder/{name}" if path is None else path,
        "name": escape_name(name),
        "size_bytes": 5,
        "mtime_ns": 7,
        "ending": ".png",
        "inode": 9,
    }
    return ImageFile(**{**fields, **changes})


def seen(file: ImageFile, number: int = 1, **changes: Any) -> SeenPage:
    """A page of a file whose bytes are its path, its size and its time."""
    sha256 = hashlib.sha256(f"{file.path!a} {file.size_bytes} {file.mtime_ns}".encode()).hexdigest()
    fields = {"file": file, "number": number, "width": 28, "height": 30, "sha256": sha256}
    return SeenPage(**{**fields, **changes})


def batch_of(
    pages: Sequence[SeenPage] = (),
    faults: Sequence[tuple[SeenPage, Fault]] = (),
    ink: np.ndarray | None = None,
    unchanged: Sequence[ImageFile] = (),
    *,
    logits: np.ndarray | None = None,
    thumbnails: dict[int, bytes] | None = None,
) -> Batch:
    rows = [*pages, *(page for page, _ in faults)]
    files = list(dict.fromkeys([*(page.file for page in rows), *unchanged]))
    table = np.zeros(len(rows), PAGE)
    table["logits"], table["fault"] = NEVER, True
    logits = logits_like(len(pages)) if logits is None else logits
    table["logits"][: len(pages), : logits.shape[1]], table["fault"][: len(pages)] = logits, False
    if ink is not None:
        table["ink"][: len(pages), : ink.shape[1]] = ink
    for row, page in enumerate(rows):
        table["file"][row], table["number"][row] = files.index(page.file), page.number
        table["width"][row], table["height"][row] = page.width or 0, page.height or 0
        table["sha256"][row] = np.void(bytes.fromhex(page.sha256 or "00" * 32))
    fault_of = {len(pages) + row: fault for row, (_, fault) in enumerate(faults)}
    known = {files.index(file): file.known_sha256 for file in unchanged}
    return Batch(files, table, fault_of, thumbnails or {}, known)


def record(ledger: Ledger, batch: Batch, logits: np.ndarray | None = None) -> int:
    """Record a batch, and tell how many pages were read for it."""
    if logits is not None:
        batch.pages["logits"][: len(logits), : logits.shape[1]] = logits
    ledger.record(batch)
    return len(batch)


def batch_by_workers(ledger: Ledger, pages: Sequence[SeenPage]) -> Batch:
    """Make a batch of files of a page each, as workers do: bytes that are known are not decoded."""
    known = {(ending, bytes(sum)) for ending, sums in ledger.known_bytes().items() for sum in sums}
    same = [
        page
        for page in pages
        if page.sha256 == page.file.known_sha256 or (page.file.ending, bytes.fromhex(page.sha256)) in known
    ]
    batch = batch_of([page for page in pages if page not in same], unchanged=[page.file for page in same])
    sum_of = {page.file: page.sha256 for page in same}
    batch.unchanged.update({place: sum_of[batch.files[place]] for place in batch.unchanged})
    return batch


def pending(plan: Plan) -> list[ImageFile]:
    """Take all that is to be read with its neighbours."""
    return list(plan.in_phase(Phase.STABLE))


def logits_like(count: int, start: int = 0) -> np.ndarray:
    """Logits whose first column says which row they are."""
    return np.arange(start * 10, (start + count) * 10, dtype=np.float32).reshape(count, 10)


def rows_of(ledger: Ledger, chunk: int = 8192) -> list[tuple[str, int]]:
    return [row for part in ledger.observations(chunk) for row in zip(part.names, part.pages, strict=True)]


def whole(ledger: Ledger) -> Observations:
    (observations,) = ledger.observations()
    return observations


# File names as Linux has them: any bytes but NUL and the slash.
names = st.binary(min_size=1, max_size=8).map(lambda name: os.fsdecode(name.replace(b"\0", b"0").replace(b"/", b"_")))
names |= st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=6)
names |= st.sampled_from(
    ["a", "B", "é", "e\u0301", "\uffff", "\U00010000", "\ue000", "a.b", "a/b", "a b", "\udcff", "\n"]
)


def test_the_files_are_counted_once_and_what_is_skipped_by_its_reason() -> None:
    found = [image("b.png"), Skipped("/x", "not an image"), image("a.png"), Skipped("/y", "not an image")]
    with ledger_at() as ledger:
        plan = ledger.plan([*found, Skipped("/z", "hidden"), image("a.png")])
        assert (plan.files, plan.pending) == (2, {Why.NEW: 2})
        assert plan.skipped == {"not an image": 2, "hidden": 1}


def test_an_empty_ledger_has_nothing_pending_and_nothing_observed() -> None:
    with ledger_at() as ledger:
        plan = ledger.plan([])
        assert (plan.files, plan.pending.total(), plan.skipped.total()) == (0, 0, 0)
        assert pending(plan) == []
        assert list(ledger.observations()) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(names, unique=True, max_size=12))
def test_files_come_out_as_they_went_in_by_the_code_points_of_their_names(found: list[str]) -> None:
    files = [image(name, inode=number) for number, name in enumerate(found)]
    with ledger_at() as ledger:
        assert pending(ledger.plan(files)) == sorted(files, key=lambda file: os.fsencode(file.path))
        record(ledger, batch_of([seen(file) for file in files]), logits_like(len(files)))
        assert [name for name, _ in rows_of(ledger)] == sorted(escape_name(name) for name in found)


def test_order_is_by_code_point_not_by_utf_16_nor_by_any_language() -> None:
    expected = ["B", "Z", "a", "a!b", "a.b", "a/b", "a0", "é", "\uffff", "\U00010000"]
    with ledger_at() as ledger:
        plan = ledger.plan(image(name) for name in reversed(expected))
        assert [file.name for file in pending(plan)] == expected


def test_pages_of_a_file_are_in_the_order_of_numbers() -> None:
    file, other = image("b.tif"), image("a.tif")
    with ledger_at() as ledger:
        ledger.plan([file, other])
        pages = [seen(file, number) for number in (11, 2, 1, 10)]
        record(ledger, batch_of([*pages, seen(other)]), logits_like(5))
        assert rows_of(ledger) == [("a.tif", 1), ("b.tif", 1), ("b.tif", 2), ("b.tif", 10), ("b.tif", 11)]
        assert (whole(ledger).logits[:, 0] // 10).tolist() == [4, 2, 1, 3, 0]


def test_a_file_reached_twice_gives_one_row_and_keeps_its_first_name() -> None:
    first = image("b.png", path="/one/b.png")
    again = image("a/b.png", path="/one/b.png")
    with ledger_at() as ledger:
        plan = ledger.plan([first, again])
        assert (plan.files, pending(plan)) == (1, [first])


def test_two_files_of_one_name_stay_two() -> None:
    with ledger_at() as ledger:
        files = pending(ledger.plan([image("a.png", path="/one/a.png"), image("a.png", path="/two/a.png")]))
        assert sorted(file.path for file in files) == ["/one/a.png", "/two/a.png"]
        record(ledger, batch_of([seen(file) for file in files]), logits_like(2))
        assert rows_of(ledger) == [("a.png", 1), ("a.png", 1)]


def test_paths_that_differ_in_bytes_that_are_not_utf_8_stay_apart() -> None:
    names = [os.fsdecode(name) for name in (b"\xff.png", b"\xfe.png", "ÿ.png".encode(), b"\\xff.png")]
    files = [image(name) for name in names]
    with ledger_at() as ledger:
        found = pending(ledger.plan(files))
        assert sorted(file.path for file in found) == sorted(file.path for file in files)
        assert len(found) == 4


floats = st.floats(width=32, allow_subnormal=True) | st.sampled_from([-0.0, float("inf"), float("-inf"), 1e-45])
numbers = st.none() | st.integers(1, 2**31 - 1)
faults = st.builds(Fault, st.sampled_from(FaultKind), st.text(st.characters(exclude_categories=["Cs"]), max_size=9))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), wide=st.integers(10, 12), measures=st.integers(1, 8), chunk=st.sampled_from([1, 2, 3, 100]))
def test_what_was_seen_comes_back_bit_for_bit(data: st.DataObject, wide: int, measures: int, chunk: int) -> None:
    kinds = data.draw(st.lists(st.booleans(), max_size=9))
    pages, bad = [], []
    for number, readable in enumerate(kinds):
        page = seen(
            image(f"{number:03}"),
            width=data.draw(numbers),
            height=data.draw(numbers),
            sha256=f"{number + 1:064}" if readable else data.draw(st.sampled_from(["", f"{number + 1:064}"])),
        )
        if readable:
            pages.append(page)
        else:
            bad.append((page, data.draw(faults)))
    rows = st.lists(floats, min_size=wide, max_size=wide)
    logits = np.array([data.draw(rows) for _ in pages], np.float32).reshape(len(pages), wide)
    ink = np.array([data.draw(rows)[:measures] for _ in pages], np.float32).reshape(len(pages), measures)
    with ledger_at() as ledger:
        ledger.plan(page.file for page in [*pages, *(page for page, _ in bad)])
        record(ledger, batch_of(pages, bad, ink), logits)
        parts = list(ledger.observations(chunk))
    expected = sorted([*pages, *(page for page, _ in bad)], key=lambda page: page.file.name)
    fault_of = {page.file.name: fault for page, fault in bad}
    assert all(len(part.names) == chunk for part in parts[:-1])
    assert [name for part in parts for name in part.names] == [page.file.name for page in expected]
    assert [number for part in parts for number in part.pages] == [page.number for page in expected]
    assert [sha256 for part in parts for sha256 in part.sha256] == [page.sha256 for page in expected]
    assert [width for part in parts for width in part.widths] == [page.width or 0 for page in expected]
    assert [height for part in parts for height in part.heights] == [page.height or 0 for page in expected]
    assert [fault for part in parts for fault in part.faults] == [fault_of.get(page.file.name) for page in expected]
    for part in parts:
        assert part.logits.dtype == part.ink.dtype == np.float32
        assert len(part.logits) == len(part.ink) == part.faults.count(None)
    assert b"".join(part.logits[:, :wide].tobytes() for part in parts) == logits.tobytes()
    assert all((part.logits[:, wide:] == NEVER).all() for part in parts)
    assert b"".join(part.ink[:, :measures].tobytes() for part in parts) == ink.tobytes()


def test_a_chunk_of_faults_alone_has_no_logits() -> None:
    bad = [
        (seen(image(f"{n}.png"), width=None, height=None, sha256=""), Fault(FaultKind.UNREADABLE, "cut"))
        for n in (1, 2)
    ]
    good = seen(image("3.png"))
    with ledger_at() as ledger:
        ledger.plan([*(page.file for page, _ in bad), good.file])
        record(ledger, batch_of([good], bad), logits_like(1))
        first, second = ledger.observations(2)
    assert first.faults == [Fault(FaultKind.UNREADABLE, "cut")] * 2
    assert first.widths.tolist() == first.heights.tolist() == [0, 0]
    assert len(first.logits) == len(first.ink) == 0
    assert first.logits.ndim == first.ink.ndim == 2
    assert second.faults == [None]
    assert second.logits.shape == (1, 12)


def test_a_fault_by_the_header_keeps_the_size_that_the_header_told() -> None:
    page = seen(image(), width=60_000, height=50_000)
    with ledger_at() as ledger:
        ledger.plan([page.file])
        record(ledger, batch_of(faults=[(page, Fault(FaultKind.TOO_LARGE, "big", 60_000, 50_000))]), logits_like(0))
        observations = whole(ledger)
    assert (observations.widths.tolist(), observations.heights.tolist()) == ([60_000], [50_000])


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 6, 7, 8, 100])
def test_chunks_are_full_but_the_last_and_lose_nothing_between_them(chunk: int) -> None:
    files = [image(f"{number}.png") for number in range(7)]
    with ledger_at() as ledger:
        ledger.plan(files)
        record(ledger, batch_of([seen(file) for file in files]), logits_like(7))
        parts = list(ledger.observations(chunk))
    assert [len(part.names) for part in parts] == [chunk] * (7 // chunk) + [7 % chunk] * (7 % chunk > 0)
    assert np.concatenate([part.logits[:, :10] for part in parts]).tolist() == logits_like(7).tolist()


def test_files_stay_pending_in_order_while_batches_are_recorded() -> None:
    files = [image(f"{number:03}.png") for number in range(300)]
    with ledger_at() as ledger:
        plan = ledger.plan(files)
        taken = []
        for number, file in enumerate(plan.in_phase(Phase.STABLE)):
            taken.append(file)
            record(ledger, batch_of([seen(file)]), logits_like(1, number))
        assert taken == files
        assert (whole(ledger).logits[:, 0] // 10).tolist() == list(range(300))


def test_a_listing_that_fails_in_its_middle_leaves_no_file_behind() -> None:
    def listing() -> Any:  # noqa: ANN401
        yield image("a.png")
        message = "the disk is gone"
        raise ArithmeticError(message)

    with ledger_at() as ledger:
        with pytest.raises(ArithmeticError, match="the disk is gone"):
            ledger.plan(listing())
        plan = ledger.plan([image("b.png")])
        assert pending(plan) == [image("b.png")]


def test_a_file_that_was_never_read_is_missed_and_not_lost() -> None:
    with ledger_at() as ledger:
        ledger.plan([image("a.png"), image("b.png")])
        record(ledger, batch_of([seen(image("a.png"))]))
        with pytest.raises(StorageError, match="is damaged; move it away"):
            list(ledger.observations())


def test_a_ledger_without_a_path_is_private_to_its_run() -> None:
    with ledger_at() as first, ledger_at() as second:
        first.plan([image()])
        assert pending(second.plan([])) == []


# ---- from run to run -----------------------------------------------------------------------------------------------


def a_run(path: Path, files: Sequence[ImageFile], condition: CacheKey = HERE, **options: bool) -> tuple[int, int]:
    """Observe what is pending, a page a file: how many files were, and how many were predicted."""
    with ledger_at(path, condition) as ledger:
        plan = ledger.plan(files, **options)
        found = pending(plan)
        assert len(found) == plan.pending.total()
        predicted = record(ledger, batch_by_workers(ledger, [seen(file) for file in found]))
        assert rows_of(ledger) == sorted((file.name, 1) for file in files)
    return len(found), predicted


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "report.csv.ledger"


def test_what_is_known_is_not_pending_and_keeps_its_row(path: Path) -> None:
    files = [image(f"{number}.png") for number in range(5)]
    assert a_run(path, files) == (5, 5)
    assert a_run(path, files) == (0, 0)
    assert a_run(path, [*files, image("new.png")]) == (1, 1)


@pytest.mark.parametrize("changes", [{"size_bytes": 6}, {"mtime_ns": 8}, {"mtime_ns": 6}])
def test_a_file_that_changed_is_read_again(path: Path, changes: dict[str, Any]) -> None:
    a_run(path, [image("a.png"), image("b.png")])
    assert a_run(path, [image("a.png"), image("b.png", **changes)]) == (1, 1)
    assert a_run(path, [image("a.png"), image("b.png", **changes)]) == (0, 0)


@pytest.mark.parametrize("changes", [{"inode": 8}, {"ctime_ns": 8}])
def test_a_file_of_the_same_size_and_time_but_another_inode_is_read_and_not_predicted(
    path: Path, changes: dict[str, Any]
) -> None:
    a_run(path, [image("a.png"), image("b.png")])
    assert a_run(path, [image("a.png"), image("b.png", **changes)]) == (1, 0)
    assert a_run(path, [image("a.png"), image("b.png", **changes)]) == (0, 0)


@pytest.mark.parametrize(
    "other", [CacheKey(bundle="cd" * 32, others=HERE.others), CacheKey(bundle=HERE.bundle, others="decoding 2")]
)
def test_under_another_condition_everything_is_observed_anew(path: Path, other: CacheKey) -> None:
    files = [image("a.png"), image("b.png")]
    a_run(path, files)
    assert a_run(path, files, other) == (2, 2)
    assert a_run(path, files, other) == (0, 0)
    with ledger_at(path, other) as ledger:
        ledger.plan(files)
        assert whole(ledger).models == [other.bundle] * 2


def test_a_touched_file_with_the_same_bytes_is_read_and_not_predicted(path: Path) -> None:
    before, after = image("a.png", mtime_ns=1), image("a.png", mtime_ns=2)
    a_run(path, [before])
    with ledger_at(path) as ledger:
        [file] = pending(ledger.plan([after]))
        assert file.known_sha256 == seen(before).sha256
        assert record(ledger, batch_of(unchanged=[file])) == 0
        assert rows_of(ledger) == [("a.png", 1)]
    with ledger_at(path) as ledger:
        assert not ledger.plan([after]).pending


def test_what_files_have_is_known_by_their_endings_under_one_condition(path: Path) -> None:
    files = [image("a.png"), image("b.png"), image("a.jpg", ending=".jpg"), image("gone.png")]
    closed = (seen(image("closed.png"), sha256=""), Fault(FaultKind.UNREADABLE, "closed"))
    with ledger_at(path) as ledger:
        assert ledger.known_bytes() == {}
        plan = ledger.plan([*files, closed[0].file])
        record(ledger, batch_of([seen(file) for file in files], [closed]))
        assert ledger.known_bytes() == {}  # a file that is to be read may have other bytes soon
        ledger.plan(files[:3])
        known = ledger.known_bytes()
        assert {ending: sums.tolist() for ending, sums in known.items()} == {
            ".png": sorted(bytes.fromhex(seen(file).sha256) for file in files if file.ending == ".png"),
            ".jpg": [bytes.fromhex(seen(files[2]).sha256)],
        }
        ledger.plan(files, force=True)
        assert ledger.known_bytes() == {}
        assert plan.files == 5
    with ledger_at(path, CacheKey(bundle="cd" * 32, others=HERE.others)) as ledger:
        assert ledger.known_bytes() == {}


def test_bytes_that_are_known_under_another_name_give_its_rows_without_being_read_again(path: Path) -> None:
    first, gone, second = image("a.tif", ending=".tif"), image("b.tif", ending=".tif"), image("c.tif", ending=".tif")
    fault = (seen(first, 2), Fault(FaultKind.UNREADABLE, "cut"))
    with ledger_at(path) as ledger:
        ledger.plan([first, gone])
        record(ledger, batch_of([seen(first), seen(gone)], [fault], thumbnails={0: b"a picture"}))
        ledger.plan([first, second])
        batch = batch_of(unchanged=[second])
        batch.unchanged[0] = seen(first).sha256
        record(ledger, batch)
        (rows,) = ledger.observations(thumbnails=True)
        assert list(zip(rows.names, rows.pages, strict=True)) == [
            ("a.tif", 1),
            ("a.tif", 2),
            ("c.tif", 1),
            ("c.tif", 2),
        ]
        assert rows.thumbnails == [b"a picture", b"", b"a picture", b""]
        assert rows.faults == [None, fault[1], None, fault[1]]


def steps_of_a_copy(path: Path, copies: int) -> int:
    """Count what SQLite does to record one more copy of bytes that so many files have."""
    files = [image(f"{number:04}.png") for number in range(copies + 2)]
    sha256 = seen(files[0]).sha256
    taken = [0]
    with ledger_at(path) as ledger:
        ledger.plan(files)
        record(ledger, batch_of([seen(file, sha256=sha256) for file in files[:copies]]))
        for file in files[copies:]:  # the first one makes the table of copies
            taken.clear()
            ledger._database._connection.set_progress_handler(lambda: taken.append(0), 1)
            batch = batch_of(unchanged=[file])
            batch.unchanged[0] = sha256
            record(ledger, batch)
    return len(taken)


def test_a_copy_costs_no_look_at_all_others(tmp_path: Path) -> None:
    assert steps_of_a_copy(tmp_path / "many", 1000) < 1.5 * steps_of_a_copy(tmp_path / "few", 20)


def test_files_that_change_names_are_taken_for_what_they_are(path: Path) -> None:
    """The one takes the name of the other, whose row goes before anybody can ask it."""
    first, second = image("a.png"), image("b.png")
    a_run(path, [first, second])
    swapped = [image("a.png", mtime_ns=8), image("b.png", mtime_ns=8)]
    with ledger_at(path) as ledger:
        found = pending(ledger.plan(swapped))
        pages = [seen(found[0], sha256=seen(second).sha256), seen(found[1], sha256=seen(first).sha256)]
        assert record(ledger, batch_by_workers(ledger, pages)) == 2
        assert whole(ledger).sha256 == [seen(second).sha256, seen(first).sha256]


@pytest.mark.parametrize("damage", ["detail = 'nothing'", "png = x'00'", "png = NULL", "pages = 2", "sum = sum + 1"])
@pytest.mark.parametrize("name", ["a.png", "b.png"])
def test_what_is_damaged_is_not_given_a_right_sum(path: Path, damage: str, name: str) -> None:
    """Neither where a file is only touched, nor where another has its bytes."""
    first, now = image("a.png"), image(name, mtime_ns=8)
    with ledger_at(path) as ledger:
        ledger.plan([first])
        record(ledger, batch_of([seen(first)], thumbnails={0: b"a picture"}))
        ledger.plan([now])
        batch = batch_of(unchanged=[now])
        batch.unchanged[0] = seen(first).sha256
        ledger._database.execute(f"UPDATE pages SET {damage}")
        with pytest.raises(StorageError, match="damaged"):
            record(ledger, batch)


def test_the_same_bytes_under_another_ending_are_another_thing(path: Path) -> None:
    files = [image("a.png"), image("a.jpg", ending=".jpg")]
    a_run(path, files[:1])
    with ledger_at(path) as ledger:
        ledger.plan(files)
        page = seen(files[1], sha256=seen(files[0]).sha256)
        assert record(ledger, batch_by_workers(ledger, [page])) == 1


def with_a_fault(path: Path, *, sha256: str) -> tuple[ImageFile, ImageFile]:
    good, bad = image("a.png"), image("b.png")
    fault = (seen(bad, sha256=sha256), Fault(FaultKind.UNREADABLE, "cut"))
    with ledger_at(path) as ledger:
        ledger.plan([good, bad])
        record(ledger, batch_of([seen(good)], [fault]))
    return good, bad


def test_what_could_not_be_opened_is_tried_in_every_run(path: Path) -> None:
    files = with_a_fault(path, sha256="")
    with ledger_at(path) as ledger:
        plan = ledger.plan(files)
        assert [file.name for file in pending(plan)] == ["b.png"]
        assert plan.pending == {Why.UNOPENED: 1}
    assert a_run(path, files) == (1, 1)
    assert a_run(path, files) == (0, 0)


def test_what_could_not_be_decoded_is_read_again_when_it_is_asked_for(path: Path) -> None:
    files = with_a_fault(path, sha256="12" * 32)
    assert a_run(path, files) == (0, 0)
    assert a_run(path, files, retry_failed=True) == (1, 1)
    assert a_run(path, files, retry_failed=True) == (0, 0)


def test_force_predicts_all_anew_and_keeps_the_old_until_then(path: Path) -> None:
    files = [image("a.png"), image("b.png")]
    a_run(path, files)
    with ledger_at(path) as ledger:
        assert ledger.plan(files, force=True).pending == {Why.ASKED: 2}
        assert rows_of(ledger) == [("a.png", 1), ("b.png", 1)]
    assert a_run(path, files) == (2, 2)  # a killed run goes on
    assert a_run(path, files) == (0, 0)


def test_a_file_that_is_gone_has_no_row_and_is_known_when_it_comes_back(path: Path) -> None:
    files = [image("a.png"), image("b.png")]
    a_run(path, files)
    assert a_run(path, files[:1]) == (0, 0)
    assert a_run(path, files) == (0, 0)


@pytest.mark.parametrize("statement", [module.UNREPORTED.replace("?", "x'00'"), module._HAD.replace("?", "x'00'")])
def test_a_batch_and_its_faults_do_not_cost_a_look_at_all_pages(statement: str) -> None:
    looks = steps(statement)
    assert looks
    assert not any(step.startswith("SCAN pages") for step in looks)


def steps(statement: str, *values: str | int) -> list[str]:
    """Tell how SQLite would go about a statement."""
    with ledger_at() as ledger:
        return [step for *_, step in ledger._database.execute(f"EXPLAIN QUERY PLAN {statement}", values)]


# ---- people's answers ----------------------------------------------------------------------------------------------


def answer(path: Path, given: dict[answers.Key, str], time: str = "now") -> tuple[int, int]:
    with Database(path) as database:
        assert answers.unknown(database, given.keys()) == set()
        return answers.store_answers(database, given, time=time, source="a test")


def key(file: ImageFile, number: int = 1) -> answers.Key:
    return seen(file).sha256, number


def changed(path: Path, files: Sequence[ImageFile], faults: Sequence[ImageFile] = ()) -> list[LostAnswer]:
    """Observe all files, some of which cannot be opened: the answers that are lost by that."""
    with ledger_at(path) as ledger:
        ledger.plan([*files, *faults])
        closed = [(seen(file, sha256=""), Fault(FaultKind.UNREADABLE, "closed")) for file in faults]
        return ledger.record(batch_of([seen(file) for file in files], closed))


def corrected(path: Path, files: Sequence[ImageFile]) -> list[str]:
    with ledger_at(path) as ledger:
        ledger.plan(files)
        return whole(ledger).corrected


def test_an_answer_comes_with_the_rows_of_its_bytes_and_page(path: Path) -> None:
    files = [image("a.tif"), image("b.tif"), image("c.tif")]
    pages = [
        seen(file, number, sha256=sha256 * 32)
        for file, sha256 in zip(files, ("12", "34", "12"), strict=True)
        for number in (1, 2)
    ]
    with ledger_at(path) as ledger:
        ledger.plan(files)
        record(ledger, batch_of(pages))
    assert answer(path, {("12" * 32, 2): "7", ("34" * 32, 1): "x"}) == (2, 0)
    assert corrected(path, files) == ["", "7", "x", "", "", "7"]


def test_the_same_answer_again_changes_nothing_and_another_one_replaces_it(path: Path) -> None:
    files = [image("a.png"), image("b.png"), image("c.png")]
    a_run(path, files)
    assert answer(path, {key(files[0]): "7", key(files[1]): "x"}) == (2, 0)
    before, time = path.read_bytes(), path.stat()
    assert answer(path, {key(files[0]): "7", key(files[1]): "x"}, time="later") == (0, 0)
    assert answer(path, {}) == (0, 0)
    assert (path.read_bytes(), path.stat()) == (before, time)
    assert answer(path, {key(files[0]): "7", key(files[1]): "4", key(files[2]): "0"}, time="later") == (1, 1)
    assert corrected(path, files) == ["7", "4", "0"]
    with Database(path) as database:
        assert [*database.execute("SELECT time FROM answers ORDER BY answer")] == [("later",), ("later",), ("now",)]


def test_pages_that_the_ledger_never_saw_are_unknown_and_those_with_an_answer_are_not(path: Path) -> None:
    old, other = image("a.png"), image("b.png")
    a_run(path, [old, other])
    answer(path, {key(old): "7"})
    a_run(path, [image("a.png", mtime_ns=8), other])
    with Database(path) as database:
        asked = [key(old), key(other), key(other, 2), ("12" * 32, 1), ("", 1)]
        assert answers.unknown(database, asked) == {key(other, 2), ("12" * 32, 1), ("", 1)}
        assert answers.unknown(database, []) == set()


def test_an_answer_stays_under_other_names_conditions_and_after_force(path: Path) -> None:
    files = [image("a.png"), image("b.png")]
    a_run(path, files)
    answer(path, {key(files[0]): "7"})
    a_run(path, files, force=True)
    assert corrected(path, files) == ["7", ""]
    a_run(path, files, CacheKey(bundle="cd" * 32, others="decoding 2"))
    a_run(path, files)
    assert corrected(path, files) == ["7", ""]
    a_run(path, files[1:])
    a_run(path, files)
    assert corrected(path, files) == ["7", ""]
    moved = image("z.png")
    with ledger_at(path) as ledger:
        ledger.plan([files[1], moved])
        record(ledger, batch_by_workers(ledger, [seen(moved, sha256=key(files[0])[0])]))
        assert whole(ledger).corrected == ["", "7"]


def test_a_file_whose_bytes_changed_loses_its_answers_and_that_is_told_once(path: Path) -> None:
    old, other = image("a.png"), image("b.png")
    a_run(path, [old, other])
    answer(path, {key(old): "7", key(other): "x"})
    new = image("a.png", size_bytes=6)
    assert changed(path, [new, other]) == [LostAnswer("/folder/a.png", 1, "7", is_read=True)]
    assert corrected(path, [new, other]) == ["", "x"]
    assert changed(path, [new, other]) == []
    a_run(path, [old, other])  # the bytes that it was about come back
    assert corrected(path, [old, other]) == ["7", "x"]


def test_bytes_that_have_an_answer_of_their_own_lose_none(path: Path) -> None:
    first, second = image("a.png", mtime_ns=1), image("a.png", mtime_ns=2)
    a_run(path, [first])
    answer(path, {key(first): "7"})
    assert changed(path, [second]) == [LostAnswer("/folder/a.png", 1, "7", is_read=True)]
    answer(path, {key(second): "4"})
    assert changed(path, [first]) == []
    assert corrected(path, [first]) == ["7"]


def test_an_answer_does_not_count_while_its_file_cannot_be_read(path: Path) -> None:
    file = image("a.png")
    a_run(path, [file])
    answer(path, {key(file): "7"})
    closed = image("a.png", mtime_ns=8)
    assert changed(path, [], [closed]) == [LostAnswer("/folder/a.png", 1, "7", is_read=False)]
    assert corrected(path, [closed]) == [""]
    assert changed(path, [file]) == []
    assert corrected(path, [file]) == ["7"]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE answers SET answer = '8' WHERE page = 1",
        "UPDATE answers SET time = 'then' WHERE page = 1",
        "UPDATE answers SET source = 'a tesu' WHERE page = 1",
        "UPDATE answers SET sha256 = 'ff' WHERE page = 1",
        "UPDATE answers SET page = 3 WHERE page = 1",
        "UPDATE answers SET sum = sum + 1 WHERE page = 1",
        "DELETE FROM answers WHERE page = 2",
        "UPDATE answered SET answers = 1",
        "DELETE FROM answered",
    ],
)
def test_a_damaged_answer_is_noticed(path: Path, damage: str) -> None:
    file = image("a.tif")
    with ledger_at(path) as ledger:
        ledger.plan([file])
        record(ledger, batch_of([seen(file, number) for number in (1, 2)]))
    answer(path, {key(file, 1): "7", key(file, 2): "x"})
    with Database(path) as database:
        answers.check(database)
        database.execute(damage)
    with pytest.raises(StorageError, match="damaged"):
        corrected(path, [file])
    with pytest.raises(StorageError, match="damaged"), Database(path) as database:
        answers.check(database)


def test_answers_out_of_order_are_noticed_since_they_would_not_be_found(path: Path) -> None:
    files = [image("a.png"), image("b.png")]
    a_run(path, files)
    answer(path, {key(files[0]): "7", key(files[1]): "x"})
    with Database(path) as database:
        [(root,)] = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'answers'")
        [(size,)] = database.execute("PRAGMA page_size")
    data = bytearray(path.read_bytes())
    cells = (root - 1) * size + 8  # where the page's two-byte pointers begin; www.sqlite.org/fileformat.html
    data[cells : cells + 4] = data[cells + 2 : cells + 4] + data[cells : cells + 2]
    path.write_bytes(data)
    with pytest.raises(StorageError, match="damaged"):
        corrected(path, files)


# ---- a ledger that cannot be used ------------------------------------------------------------------------------------


def test_a_newer_ledger_is_refused_and_stays_as_it_is(path: Path) -> None:
    a_run(path, [image()])
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    database.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="a newer batchdigits wrote it"), ledger_at(path):
        pass
    assert path.read_bytes() == before


def test_another_program_s_database_is_refused_and_stays_as_it_is(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE bookmarks (url TEXT)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="no ledger"), ledger_at(path):
        pass
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_text("a shopping list, longer than the header of a database, " * 40)
    with pytest.raises(StorageError, match="damaged"), ledger_at(path):
        pass


REPORT = LocalFile(Path("/folder/report.csv"))


def seen_in(path: Path, files: Sequence[ImageFile]) -> list[Any] | None:
    """What a run would report without reading anything: None where it would read something, or refuses."""
    try:
        with ledger_at(path) as ledger:
            if ledger.plan(files).pending:
                return None
            (found,) = ledger.observations(thumbnails=True)
            published = ledger.published(REPORT)
    except StorageError:
        return None
    columns = [getattr(found, field.name) for field in fields(found)]
    return [published, *(column.tolist() if isinstance(column, np.ndarray) else column for column in columns)]


@pytest.mark.parametrize("seed", range(150))
def test_a_damaged_ledger_is_never_silently_wrong(path: Path, seed: int) -> None:
    files = [image(f"{number}.png") for number in range(40)]
    with ledger_at(path) as ledger:
        ledger.plan(files)
        faults = [(seen(file, 2), Fault(FaultKind.UNREADABLE, "it is cut")) for file in files[::4]]
        pictures = {row: bytes([row]) * 60 for row in range(0, 40, 3)}
        record(ledger, batch_of([seen(file) for file in files], faults, thumbnails=pictures))
        ledger.publish(REPORT, "12" * 32, ["/scans", "/more"], replaced="")
    answer(path, {key(file): "7" for file in files[::2]})
    expected = seen_in(path, files)
    assert expected is not None
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    if seed % 5 == 0:
        data = data[: rng.integers(1, len(data))]
    else:
        data[rng.integers(len(data))] ^= int(rng.integers(1, 256))
    path.write_bytes(data)
    assert seen_in(path, files) in (None, expected)


ABSURD = (
    *(
        f"UPDATE pages SET {column} = 9223372036854775807"
        for column in ("pages", "size_bytes", "mtime_ns", "condition")
    ),
    "UPDATE pages SET page = 9223372036854775807 WHERE path = x'2f666f6c6465722f612e706e67'",
    "UPDATE pages SET mtime_ns = 'yesterday', inode = x'00', stale = 'perhaps'",
    "UPDATE pages SET path = CAST(path AS TEXT)",
    "UPDATE pages SET path = CAST('x' || path AS BLOB) WHERE path > x'2f666f6c6465722f61'",
    "UPDATE pages SET seen = zeroblob(5)",
    "UPDATE pages SET seen = 'text', stale = 1",
    "UPDATE pages SET fault = 'unreadable', seen = 'text'",
    "UPDATE pages SET png = 7, detail = x'ff'",
    "UPDATE conditions SET id = 9223372036854775807",
    "UPDATE conditions SET bundle = x'ff'",
    "INSERT INTO told VALUES ('text', 'text', 'text')",
    "INSERT INTO gone VALUES ('text')",
)


class Damaged(Exception):
    """A ledger was refused, in the right words."""


@contextmanager
def damage_alone() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        if "is damaged; move it away" in str(error):
            raise Damaged from error
        raise


@pytest.mark.parametrize("damage", ABSURD)
def test_absurd_values_are_damage_or_change_nothing(path: Path, damage: str) -> None:
    files = [image("a.png"), image("b.png")]
    a_run(path, files)
    with Database(path) as database:
        database.execute(damage)
    copied = [*files, image("c.png", known_sha256=seen(files[0]).sha256)]
    with suppress(Damaged), damage_alone(), ledger_at(path) as ledger:
        plan = ledger.plan(copied)
        found = pending(plan)
        pages = [seen(file, sha256=file.known_sha256 or seen(file).sha256) for file in found]
        record(ledger, batch_by_workers(ledger, pages))
        ledger.mark_faults_reported()
        last_run.check(plan, {"/folder": "disk"})
        last_run.remember(plan, {"/folder": "disk"})
        assert [name for name, _ in rows_of(ledger)] == ["a.png", "b.png", "c.png"]
        assert list(ledger.observations(thumbnails=True))


@pytest.mark.parametrize(
    "sources", ["'[half'", "NULL + 1", "5", "'5'", "'[[1], [2]]'", "'[null]'", f"'{100_000 * '['}'"]
)
def test_damage_in_what_was_published_is_damage(path: Path, sources: str) -> None:
    report = path.with_name("report.csv")
    with ledger_at(path) as ledger:
        ledger.publish(report, "ab" * 32, ["/scans"], replaced="")
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA writable_schema = 1")
        database.execute("UPDATE sqlite_master SET sql = replace(sql, 'sources TEXT NOT NULL', 'sources TEXT')")
        database.commit()
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"UPDATE reports SET sources = {sources}")
        database.commit()
    with ledger_at(path) as ledger, pytest.raises(StorageError, match="is damaged"):
        ledger.published(report)


def test_an_error_of_sqlite_that_nobody_caught_is_told_as_the_ledger_s(path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be used"), ledger_at(path) as ledger:
        ledger._database.execute("SELECT * FROM nothing")

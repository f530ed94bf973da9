"""The ledger: what is found comes out in the order of rows, and what is seen comes out as it went in."""

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchdigits.batches import Batch, SeenPage
from batchdigits.errors import Fault, FaultKind, printable
from batchdigits.images import ImageFile, PassedOver
from batchdigits.ledger import Found, Ledger, Observations

SHA256 = "ab" * 32


def image(name: str = "a.png", *, path: str | None = None, **changes: Any) -> ImageFile:
    fields = {
        "path": f"/folder/{name}" if path is None else path,
        "name": printable(name),
        "size_bytes": 5,
        "mtime_ns": 7,
        "ending": ".png",
        "device": 3,
        "inode": 9,
    }
    return ImageFile(**{**fields, **changes})


def seen(file: ImageFile, number: int = 1, **changes: Any) -> SeenPage:
    return SeenPage(**{"file": file, "number": number, "width": 28, "height": 30, "sha256": SHA256, **changes})


def batch_of(
    pages: Sequence[SeenPage] = (), faults: Sequence[tuple[SeenPage, Fault]] = (), ink: np.ndarray | None = None
) -> Batch:
    pixels = np.zeros((len(pages), 28, 28), np.uint8)
    measures = np.zeros((len(pages), 2), np.float32) if ink is None else ink
    return Batch(list(pages), pixels, measures, list(faults))


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


def test_the_files_are_counted_once_and_what_is_passed_over_by_its_reason() -> None:
    found = [image("b.png"), PassedOver("/x", "not an image"), image("a.png"), PassedOver("/y", "not an image")]
    with Ledger() as ledger:
        assert ledger.plan([*found, PassedOver("/z", "hidden"), image("a.png")]) == Found(
            2, Counter({"not an image": 2, "hidden": 1})
        )


def test_an_empty_ledger_has_nothing_pending_and_nothing_observed() -> None:
    with Ledger() as ledger:
        assert ledger.plan([]) == Found(0, Counter())
        assert list(ledger.pending()) == []
        assert list(ledger.observations()) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(names, unique=True, max_size=12))
def test_files_come_out_as_they_went_in_by_the_code_points_of_their_names(found: list[str]) -> None:
    files = [image(name, inode=number) for number, name in enumerate(found)]
    with Ledger() as ledger:
        ledger.plan(files)
        pending = list(ledger.pending())
        assert pending == sorted(files, key=lambda file: file.name)
        ledger.record(batch_of([seen(file) for file in files]), logits_like(len(files)))
        assert [name for name, _ in rows_of(ledger)] == sorted(printable(name) for name in found)


def test_order_is_by_code_point_not_by_utf_16_nor_by_any_language() -> None:
    expected = ["B", "Z", "a", "a!b", "a.b", "a/b", "a0", "é", "\uffff", "\U00010000"]
    with Ledger() as ledger:
        ledger.plan(image(name) for name in reversed(expected))
        assert [file.name for file in ledger.pending()] == expected


def test_pages_of_a_file_are_in_the_order_of_numbers() -> None:
    file, other = image("b.tif"), image("a.tif")
    with Ledger() as ledger:
        ledger.plan([file, other])
        pages = [seen(file, number) for number in (11, 2, 1, 10)]
        ledger.record(batch_of([*pages, seen(other)]), logits_like(5))
        assert rows_of(ledger) == [("a.tif", 1), ("b.tif", 1), ("b.tif", 2), ("b.tif", 10), ("b.tif", 11)]
        assert (whole(ledger).logits[:, 0] // 10).tolist() == [4, 2, 1, 3, 0]


def test_a_file_reached_twice_gives_one_row_and_keeps_its_first_name() -> None:
    first = image("b.png", path="/one/b.png")
    again = image("a/b.png", path="/one/b.png")
    with Ledger() as ledger:
        assert ledger.plan([first, again]).files == 1
        assert list(ledger.pending()) == [first]


def test_two_files_of_one_name_stay_two() -> None:
    with Ledger() as ledger:
        ledger.plan([image("a.png", path="/one/a.png"), image("a.png", path="/two/a.png")])
        pending = list(ledger.pending())
        assert sorted(file.path for file in pending) == ["/one/a.png", "/two/a.png"]
        ledger.record(batch_of([seen(file) for file in pending]), logits_like(2))
        assert rows_of(ledger) == [("a.png", 1), ("a.png", 1)]


def test_paths_that_differ_in_bytes_that_are_not_utf_8_stay_apart() -> None:
    names = [os.fsdecode(name) for name in (b"\xff.png", b"\xfe.png", "ÿ.png".encode(), b"\\xff.png")]
    files = [image(name) for name in names]
    with Ledger() as ledger:
        assert ledger.plan(files).files == 4
        assert sorted(file.path for file in ledger.pending()) == sorted(file.path for file in files)


floats = st.floats(width=32, allow_subnormal=True) | st.sampled_from([-0.0, float("inf"), float("-inf"), 1e-45])
numbers = st.none() | st.integers(0, 2**31)
faults = st.builds(Fault, st.sampled_from(FaultKind), st.text(st.characters(exclude_categories=["Cs"]), max_size=9))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), wide=st.integers(10, 13), measures=st.integers(1, 4), chunk=st.sampled_from([1, 2, 3, 100]))
def test_what_was_seen_comes_back_bit_for_bit(data: st.DataObject, wide: int, measures: int, chunk: int) -> None:
    kinds = data.draw(st.lists(st.booleans(), max_size=9))
    pages, bad = [], []
    for number, readable in enumerate(kinds):
        page = seen(
            image(f"{number:03}"),
            data.draw(st.integers(1, 3)),
            width=data.draw(numbers),
            height=data.draw(numbers),
            sha256=data.draw(st.sampled_from(["", SHA256])),
        )
        if readable:
            pages.append(page)
        else:
            bad.append((page, data.draw(faults)))
    rows = st.lists(floats, min_size=wide, max_size=wide)
    logits = np.array([data.draw(rows) for _ in pages], np.float32).reshape(len(pages), wide)
    ink = np.array([data.draw(rows)[:measures] for _ in pages], np.float32).reshape(len(pages), measures)
    with Ledger() as ledger:
        ledger.plan(page.file for page in [*pages, *(page for page, _ in bad)])
        ledger.record(batch_of(pages, bad, ink), logits)
        parts = list(ledger.observations(chunk))
    expected = sorted([*pages, *(page for page, _ in bad)], key=lambda page: page.file.name)
    fault_of = {page.file.name: fault for page, fault in bad}
    assert all(len(part.names) == chunk for part in parts[:-1])
    assert [name for part in parts for name in part.names] == [page.file.name for page in expected]
    assert [number for part in parts for number in part.pages] == [page.number for page in expected]
    assert [sha256 for part in parts for sha256 in part.sha256] == [page.sha256 for page in expected]
    assert [width for part in parts for width in part.widths] == [page.width for page in expected]
    assert [height for part in parts for height in part.heights] == [page.height for page in expected]
    assert [fault for part in parts for fault in part.faults] == [fault_of.get(page.file.name) for page in expected]
    for part in parts:
        assert part.logits.dtype == part.ink.dtype == np.float32
        assert len(part.logits) == len(part.ink) == part.faults.count(None)
    assert b"".join(part.logits.tobytes() for part in parts) == logits.tobytes()
    assert b"".join(part.ink.tobytes() for part in parts) == ink.tobytes()


def test_a_chunk_of_faults_alone_has_no_logits() -> None:
    bad = [
        (seen(image(f"{n}.png"), width=None, height=None, sha256=""), Fault(FaultKind.UNREADABLE, "cut"))
        for n in (1, 2)
    ]
    good = seen(image("3.png"))
    with Ledger() as ledger:
        ledger.plan([*(page.file for page, _ in bad), good.file])
        ledger.record(batch_of([good], bad), logits_like(1))
        first, second = ledger.observations(2)
    assert first.faults == [Fault(FaultKind.UNREADABLE, "cut")] * 2
    assert first.widths == first.heights == [None, None]
    assert len(first.logits) == len(first.ink) == 0
    assert first.logits.ndim == first.ink.ndim == 2
    assert second.faults == [None]
    assert second.logits.shape == (1, 10)


def test_a_fault_by_the_header_keeps_the_size_that_the_header_told() -> None:
    page = seen(image(), width=60_000, height=50_000)
    with Ledger() as ledger:
        ledger.plan([page.file])
        ledger.record(batch_of(faults=[(page, Fault(FaultKind.TOO_LARGE, "big", 60_000, 50_000))]), logits_like(0))
        observations = whole(ledger)
    assert (observations.widths, observations.heights) == ([60_000], [50_000])


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 6, 7, 8, 100])
def test_chunks_are_full_but_the_last_and_lose_nothing_between_them(chunk: int) -> None:
    files = [image(f"{number}.png") for number in range(7)]
    with Ledger() as ledger:
        ledger.plan(files)
        ledger.record(batch_of([seen(file) for file in files]), logits_like(7))
        parts = list(ledger.observations(chunk))
    assert [len(part.names) for part in parts] == [chunk] * (7 // chunk) + [7 % chunk] * (7 % chunk > 0)
    assert np.concatenate([part.logits for part in parts]).tolist() == logits_like(7).tolist()


def test_files_stay_pending_in_order_while_batches_are_recorded() -> None:
    files = [image(f"{number:03}.png") for number in range(300)]
    with Ledger() as ledger:
        ledger.plan(files)
        pending = ledger.pending()
        taken = []
        for number, file in enumerate(pending):
            taken.append(file)
            ledger.record(batch_of([seen(file)]), logits_like(1, number))
        assert taken == files
        assert (whole(ledger).logits[:, 0] // 10).tolist() == list(range(300))


def test_a_batch_that_fails_in_its_middle_is_not_recorded_at_all() -> None:
    first, second, third = (image(name) for name in "abc")
    with Ledger() as ledger:
        ledger.plan([first, second, third])
        ledger.record(batch_of([seen(first)]), logits_like(1))
        with pytest.raises(Exception, match="UNIQUE"):
            ledger.record(batch_of([seen(second), seen(first), seen(third)]), logits_like(3))
        assert rows_of(ledger) == [("a", 1)]
        ledger.record(batch_of([seen(second), seen(third)]), logits_like(2))
        assert rows_of(ledger) == [("a", 1), ("b", 1), ("c", 1)]


def test_a_batch_whose_faults_fail_is_not_recorded_at_all() -> None:
    file = image()
    fault = (seen(file), Fault(FaultKind.UNREADABLE, "cut"))
    with Ledger() as ledger:
        ledger.plan([file])
        with pytest.raises(Exception, match="UNIQUE"):
            ledger.record(batch_of([seen(file)], [fault]), logits_like(1))
        assert rows_of(ledger) == []


def test_a_listing_that_fails_in_its_middle_leaves_no_file_behind() -> None:
    def listing() -> Any:  # noqa: ANN401
        yield image("a.png")
        message = "the disk is gone"
        raise ArithmeticError(message)

    with Ledger() as ledger:
        with pytest.raises(ArithmeticError, match="the disk is gone"):
            ledger.plan(listing())
        assert list(ledger.pending()) == []
        assert ledger.plan([image("b.png")]).files == 1


@pytest.mark.parametrize("count", [1, 3])
def test_logits_that_do_not_fit_the_pages_are_refused(count: int) -> None:
    file = image()
    with Ledger() as ledger:
        ledger.plan([file])
        with pytest.raises(ValueError, match="zip"):
            ledger.record(batch_of([seen(file), seen(file, 2)]), logits_like(count))
        assert rows_of(ledger) == []


def test_a_page_of_a_file_that_was_not_planned_is_refused_and_not_lost() -> None:
    with Ledger() as ledger:
        ledger.plan([image("a.png")])
        with pytest.raises(Exception):  # noqa: B017, PT011  (which one is the ledger's own business)
            ledger.record(batch_of([seen(image("other.png"))]), logits_like(1))


def test_a_ledger_is_private_to_its_run() -> None:
    with Ledger() as first, Ledger() as second:
        first.plan([image()])
        assert list(second.pending()) == []

"""The plan: what is pending, why, in which phase; and what stays marked as in progress when a run dies."""

import os
from pathlib import Path

import pytest

from batchdigits.errors import DecoderDied, Fault, FaultKind, NoImages, StorageError, Terminated
from batchdigits.ledger.ledger import CacheKey
from batchdigits.ledger.plan import Phase, Why
from batchdigits.records import Skipped
from tests.ledger.test_ledger import (
    HERE,
    a_run,
    batch_of,
    image,
    ledger_at,
    pending,
    record,
    rows_of,
    seen,
    with_a_fault,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "report.csv.ledger"


def alone(path: Path, *names: str) -> list[str]:
    """Tell which files of these names the next run would read by themselves."""
    with ledger_at(path) as ledger:
        plan = ledger.plan([image(name) for name in names])
        return [name.rpartition("/")[2] for name, phase, _ in plan.todo() if phase is Phase.SUSPECT]


def die(path: Path, *names: str, done: int = 0, error: type[BaseException] = ArithmeticError) -> None:
    """Let a run end by an error when it has files in hand and has recorded some of them."""

    def run() -> None:
        with ledger_at(path) as ledger:
            plan = ledger.plan([image(name) for name in names])
            taken = [file for file, _ in zip(plan.in_phase(Phase.STABLE), range(done + 1), strict=False)]
            record(ledger, batch_of([seen(file) for file in taken[:done]]))
            raise error

    with pytest.raises(error):
        run()


# ---- phases ----------------------------------------------------------------------------------------------------------


def test_young_files_come_last_and_each_file_has_one_turn() -> None:
    files = [image("a.png", mtime_ns=12), image("b.png", mtime_ns=9), image("c.png", mtime_ns=10)]
    files += [image("d.png", mtime_ns=11), image("e.png", mtime_ns=13)]
    with ledger_at() as ledger:
        plan = ledger.plan(files, recent_ns=lambda: range(10, 13))
        phases = {phase: [file.name for file in plan.in_phase(phase)] for phase in Phase}
    assert phases == {Phase.SUSPECT: [], Phase.STABLE: ["b.png", "e.png"], Phase.RECENT: ["a.png", "c.png", "d.png"]}


def test_more_files_than_are_marked_at_a_time_all_have_their_turn(path: Path) -> None:
    files = [image(f"{number:05}.png") for number in range(5000)]
    with ledger_at(path) as ledger:
        assert pending(ledger.plan(files)) == files


@pytest.mark.parametrize("error", [ArithmeticError, KeyboardInterrupt, DecoderDied, MemoryError, Terminated])
@pytest.mark.parametrize("done", [0, 20])
def test_what_was_in_hand_when_a_run_died_is_read_by_itself_by_the_next(
    path: Path, error: type[BaseException], done: int
) -> None:
    names = [f"{number:04}.png" for number in range(2100)]
    die(path, *names, done=done, error=error)
    assert alone(path, *names) == names[done:2048]  # neither what was done nor what nobody had taken


def test_fewer_files_are_in_hand_where_they_are_large(path: Path) -> None:
    files = [image(f"{number:04}.png", size_bytes=40_000) for number in range(600)]
    with ledger_at(path) as ledger:
        taken = ledger.plan(files).in_phase(Phase.STABLE)
        first = next(taken)
        assert ledger._database.execute("SELECT count(*) FROM in_hand").fetchone() == (512,)
        assert [first, *taken] == files
        assert ledger._database.execute("SELECT count(*) FROM in_hand").fetchone() == (600,)


@pytest.mark.parametrize("error", [NoImages, StorageError])
def test_a_run_that_ends_in_order_leaves_nothing_in_hand(path: Path, error: type[BaseException]) -> None:
    die(path, "a.png", "b.png", done=1, error=error)
    assert alone(path, "a.png", "b.png") == []


@pytest.mark.parametrize(("pages", "expected"), [((1, 2), ["a.tif"]), ((1, 2, 3), [])])
def test_a_file_of_several_pages_is_in_hand_until_all_are_recorded(
    path: Path, pages: tuple[int, ...], expected: list[str]
) -> None:
    file = image("a.tif", ending=".tif")

    def run() -> None:
        with ledger_at(path) as ledger:
            list(ledger.plan([file]).in_phase(Phase.STABLE))
            record(ledger, batch_of([seen(file, number, of=3) for number in pages]))
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        run()
    with ledger_at(path) as ledger:
        assert [found.name for found in ledger.plan([file]).in_phase(Phase.SUSPECT)] == expected


def test_a_suspect_that_a_run_over_another_folder_does_not_find_stays_one(path: Path) -> None:
    die(path, "a.png")
    a_run(path, [image("other.png")])
    assert alone(path, "a.png") == ["a.png"]


def test_a_file_that_crashed_its_decoder_is_read_by_itself_whenever_it_is_read_again(path: Path) -> None:
    with_a_fault(path, sha256="12" * 32, is_deadly=True)
    with ledger_at(path) as ledger:
        plan = ledger.plan([image("a.png"), image("b.png")], retry_failed=True)
        assert list(plan.todo()) == [("/folder/b.png", Phase.SUSPECT, "asked")]
    with ledger_at(path, CacheKey(bundle="cd" * 32, others=HERE.others)) as ledger:
        plan = ledger.plan([image("a.png"), image("b.png", size_bytes=6)])
        assert [phase for _, phase, _ in plan.todo()] == [Phase.STABLE, Phase.SUSPECT]


def test_a_file_that_was_lost_for_want_of_memory_is_tried_by_itself_in_every_run(path: Path) -> None:
    with_a_fault(path, sha256="", is_deadly=True)
    for _ in range(2):
        with ledger_at(path) as ledger:
            plan = ledger.plan([image("a.png"), image("b.png")])
            assert list(plan.todo()) == [("/folder/b.png", Phase.SUSPECT, "unopened")]
            fault = Fault(FaultKind.UNREADABLE, "again", is_deadly=True)
            record(ledger, batch_of([], [(seen(file, sha256=""), fault) for file in plan.in_phase(Phase.SUSPECT)]))


# ---- why -------------------------------------------------------------------------------------------------------------


def test_every_reason_is_told(path: Path) -> None:
    with_a_fault(path, sha256="")  # a.png, and b.png that could not be opened
    a_run_over = [image("c.png"), image("d.png")]
    with ledger_at(path) as ledger:
        ledger.plan(a_run_over)
        record(ledger, batch_of([seen(file) for file in a_run_over]))
    changed, new = image("c.png", size_bytes=6), image("e.png")
    with ledger_at(path) as ledger:
        plan = ledger.plan(
            [image("a.png"), image("b.png"), changed, image("d.png"), new, Skipped("/folder/x", "not an image")]
        )
        assert plan.pending == {Why.UNOPENED: 1, Why.CHANGED: 1, Why.NEW: 1}
        assert list(plan.todo()) == [
            ("/folder/b.png", Phase.STABLE, "unopened"),
            ("/folder/c.png", Phase.STABLE, "changed"),
            ("/folder/e.png", Phase.STABLE, "new"),
            ("/folder/x", None, "not an image"),
        ]


# ---- deferred --------------------------------------------------------------------------------------------------------


def test_a_deferred_file_keeps_its_last_row_and_a_new_one_has_none_yet(path: Path) -> None:
    a_run(path, [image("a.png"), image("b.png")])
    changed, new = image("b.png", mtime_ns=8), image("c.png")
    with ledger_at(path) as ledger:
        plan = ledger.plan([image("a.png"), changed, new])
        assert plan.deferred == 0
        plan.defer([new])
        plan.defer([changed, new])
        assert plan.deferred == 2
        ledger.forget()
        assert rows_of(ledger) == [("a.png", 1), ("b.png", 1)]
        (rows,) = ledger.observations()
        assert rows.sha256[1] == seen(image("b.png")).sha256
    with ledger_at(path) as ledger:
        assert ledger.plan([image("a.png"), changed, new]).pending == {Why.CHANGED: 1, Why.NEW: 1}
    assert alone(path, "b.png", "c.png") == []


def test_a_file_that_is_deferred_with_half_of_its_pages_recorded_has_no_row(path: Path) -> None:
    file = image("a.tif", ending=".tif")
    with ledger_at(path) as ledger:
        plan = ledger.plan([file, image("b.png")])
        record(ledger, batch_of([seen(file, number, of=3) for number in (1, 2)]))
        plan.defer([file])
        record(ledger, batch_of([seen(image("b.png"))]))
        assert rows_of(ledger) == [("b.png", 1)]


def test_paths_that_are_not_utf_8_are_planned_and_deferred_by_their_bytes(path: Path) -> None:
    files = [image(os.fsdecode(name)) for name in (b"\xff.png", b"\xfe.png")]
    with ledger_at(path) as ledger:
        plan = ledger.plan(files)
        assert sorted(found for found, _, _ in plan.todo()) == sorted(file.path for file in files)
        plan.defer(files[:1])
        record(ledger, batch_of([seen(files[1])]))
        assert rows_of(ledger) == [(r"\xfe.png", 1)]


def test_the_size_of_what_is_pending_is_told() -> None:
    with ledger_at() as ledger:
        plan = ledger.plan([image("a.png", size_bytes=700), image("b.png", size_bytes=40)])
        assert plan.pending_bytes == 740
        record(ledger, batch_of([seen(image("a.png", size_bytes=700))]))
    with ledger_at() as ledger:
        assert ledger.plan([]).pending_bytes == 0

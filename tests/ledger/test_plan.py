"""The plan: what is pending, why, and in which phase."""

import os
from pathlib import Path

import pytest

from batchdigits.errors import StorageError
from batchdigits.ledger import plan as module
from batchdigits.ledger.database import Database
from batchdigits.ledger.plan import Phase, Why
from batchdigits.records import Skipped
from tests.ledger.test_ledger import (
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


# ---- phases ----------------------------------------------------------------------------------------------------------


def test_young_files_come_last_and_each_file_has_one_turn() -> None:
    files = [image("a.png", mtime_ns=12), image("b.png", mtime_ns=9), image("c.png", mtime_ns=10)]
    files += [image("d.png", mtime_ns=11), image("e.png", mtime_ns=13)]
    with ledger_at() as ledger:
        plan = ledger.plan(files, recent_ns=lambda: range(10, 13))
        phases = {phase: [file.name for file in plan.in_phase(phase)] for phase in Phase}
    assert phases == {Phase.STABLE: ["b.png", "e.png"], Phase.UNDRAWN: [], Phase.RECENT: ["a.png", "c.png", "d.png"]}


def test_more_files_than_are_held_at_a_time_all_have_their_turn(path: Path) -> None:
    files = [image(f"{number:05}.png") for number in range(20_000)]
    with ledger_at(path) as ledger:
        assert pending(ledger.plan(files)) == files


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
        assert rows_of(ledger) == [("a.png", 1), ("b.png", 1)]
        (rows,) = ledger.observations()
        assert rows.sha256[1] == seen(image("b.png")).sha256
    with ledger_at(path) as ledger:
        assert ledger.plan([image("a.png"), changed, new]).pending == {Why.CHANGED: 1, Why.NEW: 1}


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


def test_a_path_that_is_listed_and_cannot_be_looked_up_is_damage(tmp_path: Path) -> None:
    with Database(tmp_path / "ledger") as database, pytest.raises(StorageError, match="is damaged; move it away"):
        module._sha256(database, (b"/gone.png", 1, 1, 1, 1, 1, 0, 0, None), 1)

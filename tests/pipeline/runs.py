"""Runs of the pipeline within this process, and what their reports say."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from batchdigits import pipeline
from batchdigits.engine import local
from batchdigits.engine.run_context import Stop
from batchdigits.inference.bundle import Bundle
from batchdigits.monitoring import Summary
from batchdigits.settings import PredictSettings
from tests.fake_model import FakeInkFinder
from tests.file_states import names

DATA = Path(__file__).parents[1] / "data"
FINDER = FakeInkFinder(Path())

PAGES = {
    "=1+1.png": 1,
    "B.png": 1,
    "a/b/pages.tif": 5,
    "a/blank.png": 1,
    "a/bomb.png": 1,
    "a/broken_second_page.tif": 3,
    "a.png": 1,
    "a b\n.png": 1,
    "photo.heic": 1,
    "truncated.jpg": 1,
    "zero_bytes.png": 1,
    "é.png": 1,
    **{f"many/{number:03}.png": 1 for number in range(40)},
}
"""What is in the folder of these tests, and how many pages."""


def predicted(model: Bundle, *sources: Path | str, outputs: tuple[Path | str, ...] = ("-",), **options: Any) -> bytes:
    stdout = io.BytesIO()
    run(model, *sources, outputs=outputs, stdout=stdout, **options)
    return stdout.getvalue()


def run(
    model: Bundle,
    *sources: Path | str,
    outputs: tuple[Path | str, ...] = ("-",),
    stdout: io.BytesIO | None = None,
    stop: Stop | None = None,
    **options: Any,
) -> Summary:
    chosen = PredictSettings(
        sources=tuple(str(source) for source in sources),
        outputs=tuple(str(output) for output in outputs),
        **{"model": model.directory, "settle_seconds": 0.0, **options},
    )
    return pipeline.run(chosen, stdout=stdout or io.BytesIO(), stop=stop)


def reports_in(folder: Path) -> list[str]:
    """The names in a folder, but for the ledger and its lock."""
    return [name for name in names(folder) if not name.endswith((".ledger", ".lock"))]


def rows_of(report: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(report.decode(), newline="")))


def by_page(report: bytes) -> dict[tuple[str, int], dict[str, str]]:
    return {(row["path"], int(row["page"])): row for row in rows_of(report)}


def shown_in_csv(name: str) -> str:
    escaped = name.replace("\n", r"\x0a")
    return f"'{escaped}" if escaped.startswith("=") else escaped


@contextmanager
def no_model() -> Iterator[None]:
    """See to it that no model begins to be loaded."""

    def refuse(*_: object, **__: object) -> None:
        message = "nothing is new, so no model is needed"
        raise AssertionError(message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "NetworkProcess", refuse)
        patch.setattr(local, "OwnNetworks", refuse)
        yield


def interrupted(*_: object, **__: object) -> Any:  # noqa: ANN401
    raise KeyboardInterrupt

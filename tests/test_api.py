"""The Python API: whatever an image comes as, it is read alike, as a run would; and the package itself stays light."""

import io
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import batchdigits
from batchdigits import api
from batchdigits.engine import local, networks, shared_finder
from batchdigits.errors import NoImages, StorageError, UsageError
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.thresholds import Domain, ThresholdCounts
from batchdigits.reports.schema import COLUMNS
from tests.cli_runner import CHECKOUT, run
from tests.fake_model import FakeInkFinder, FakePredictor, bundle_in
from tests.sample_pages import on_page, one_of_each, write_png, write_tiff

DATA = Path(__file__).parent / "data"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle, and stand-ins for its networks."""
    monkeypatch.setattr(api, "Predictor", FakePredictor)
    monkeypatch.setattr(api, "InkFinder", FakeInkFinder)
    monkeypatch.setattr(networks, "Predictor", FakePredictor)
    monkeypatch.setattr(local, "can_fork", lambda: True)
    monkeypatch.setattr(shared_finder, "InkFinder", FakeInkFinder)
    return bundle_in(tmp_path / "bundle", temperature=50.0)


@pytest.fixture
def reader(model: Bundle) -> Iterator[batchdigits.Reader]:
    with batchdigits.Reader(model=model.directory, threshold=0.5) as found:
        yield found


def test_an_image_is_read_alike_whatever_it_comes_as(reader: batchdigits.Reader, tmp_path: Path) -> None:
    page = on_page(one_of_each()[7])
    path = write_png(tmp_path / "7.png", page)
    first = reader.read(path)
    assert first.digit is not None
    assert first.confidence == pytest.approx(max(first.probabilities), abs=1e-6)
    colours = np.repeat(page[:, :, None], 3, axis=2)
    opaque = np.dstack([colours, np.full(page.shape, 255, np.uint8)])
    same = [str(path), path.read_bytes(), page, colours, opaque, page.astype(np.uint16) * 257]
    same += [Image.fromarray(page), Image.fromarray(colours).convert("CMYK"), Image.open(path)]
    assert list(reader.read_many(same)) == [first] * len(same)


def test_what_cannot_be_read_is_a_reading_that_says_so_and_the_others_go_on(
    reader: batchdigits.Reader, tmp_path: Path
) -> None:
    good = write_png(tmp_path / "7.png", on_page(one_of_each()[7]))
    readings = list(reader.read_many(image for image in (DATA / "truncated.png", good, b"junk", DATA / "bomb.png")))
    assert [reading.status for reading in readings][0::2] == ["unreadable", "unreadable"]
    assert readings[3].status == "too_large"
    assert [(reading.digit, reading.probabilities) for reading in readings[::2]] == [(None, ())] * 2
    assert readings[1] == reader.read(good)
    assert all(reading.detail for reading in (readings[0], *readings[2:]))
    assert list(reader.read_many([])) == []


def test_what_is_no_image_at_all_is_the_callers_mistake(reader: batchdigits.Reader, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"missing\.png cannot be found"):
        reader.read(tmp_path / "missing.png")
    for wrong in (np.zeros((2, 2)), np.zeros((2, 2, 2), np.uint8), np.zeros((0, 5), np.uint8), np.zeros(5, np.uint8)):
        with pytest.raises(UsageError, match="is no image; expected"):
            reader.read(wrong)
    with pytest.raises(UsageError, match="A int is no image"):
        reader.read(7)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="There is no runtime gpu; expected auto"):
        batchdigits.Reader(runtime="gpu")


def test_of_several_pages_the_first_is_read(reader: batchdigits.Reader, tmp_path: Path) -> None:
    first, second = on_page(one_of_each()[7]), on_page(one_of_each()[1])
    path = write_tiff(tmp_path / "pages.tif", [first, second])
    assert reader.read(path) == reader.read(first)


def test_a_folder_becomes_a_table_with_the_columns_of_the_report(model: Bundle, tmp_path: Path) -> None:
    for number, digit in enumerate(one_of_each()):
        write_png(tmp_path / "scans" / f"{number}.png", on_page(digit))
    ledger = tmp_path / "known"
    options: dict[str, typing.Any] = {"model": model.directory, "threshold": 0.5, "exclude": ["3.png"]}
    table = batchdigits.read_folder(tmp_path / "scans", ledger=ledger, **options)
    assert list(table.columns) == [column.name for column in COLUMNS]
    assert list(table["path"]) == [f"{number}.png" for number in range(10) if number != 3]
    with batchdigits.Reader(model=model.directory, threshold=0.5) as reader:
        readings = list(reader.read_many(tmp_path / "scans" / path for path in table["path"]))
    assert list(table["status"]) == [reading.status for reading in readings]
    assert list(table["digit"]) == [reading.digit for reading in readings]
    assert list(table["confidence"]) == [reading.confidence for reading in readings]
    assert ledger.exists()
    assert batchdigits.read_folder(tmp_path / "scans", ledger=ledger, **options).equals(table)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoImages):
        batchdigits.read_folder(tmp_path / "empty", **options)


def test_empty_cells_leave_whole_numbers_whole(model: Bundle, tmp_path: Path) -> None:
    write_png(tmp_path / "scans" / "7.png", on_page(one_of_each()[7]))
    (tmp_path / "scans" / "broken.png").write_bytes(b"junk")
    table = batchdigits.read_folder(tmp_path / "scans", model=model.directory, threshold=0.0)
    names = ("page", "digit", "final", "runner_up", "width")
    assert [str(table[name].dtype) for name in names] == ["Int32", "Int8", "Int8", "Int8", "Int32"]
    assert list(table["digit"].isna()) == [False, True]
    assert f"{table['digit'][0]}" in "0123456789"


def test_where_the_default_target_cannot_be_proven_the_tightest_that_can_is_used_as_the_command_does(
    model: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hard = Domain("all", digits=6000, risks=(ThresholdCounts(0.9, passed=5000, wrong=80),))
    other = bundle_in(tmp_path / "hard", domains=(hard,)).directory
    write_png(tmp_path / "scans" / "7.png", on_page(one_of_each()[7]))
    said = "cannot prove a target error of 0.5%; 2.0% is the tightest that they can, and is used"
    with batchdigits.Reader(model=other):
        assert said in caplog.text
    caplog.clear()
    assert len(batchdigits.read_folder(tmp_path / "scans", model=other)) == 1
    assert said in caplog.text
    for read in (batchdigits.Reader, lambda **options: batchdigits.read_folder(tmp_path / "scans", **options)):
        with pytest.raises(UsageError, match="cannot prove the target error"):  # who names it wants it
            read(model=other, target_error=0.005)
    caplog.clear()
    with batchdigits.Reader(model=other, threshold=0.9):
        assert "cannot prove" not in caplog.text


def test_every_name_of_the_package_is_there_and_typed() -> None:
    for name in batchdigits.__all__:
        assert getattr(batchdigits, name)
    for function in (batchdigits.read, batchdigits.Reader.read, batchdigits.Reader.read_many):
        assert "return" in function.__annotations__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        batchdigits.nothing  # type: ignore[attr-defined]  # noqa: B018
    stub = (CHECKOUT / "batchdigits" / "__init__.pyi").read_text()
    assert all(name in stub for name in batchdigits.__all__)


def test_importing_the_package_is_light_and_reading_writes_nothing_to_standard_error(tmp_path: Path) -> None:
    light = "import sys, batchdigits; assert not {'numpy', 'cv2', 'pandas', 'tensorflow'} & {*sys.modules}"
    assert run([sys.executable, "-c", light]).code == 0
    write_png(tmp_path / "7.png", on_page(one_of_each()[7]))
    program = (
        "import batchdigits, sys; reader = batchdigits.Reader(runtime='litert');"
        f"print(reader.read({str(tmp_path / '7.png')!r}).digit); print('mine', file=sys.stderr)"
    )
    done = run([sys.executable, "-c", program])
    assert (done.code, done.stdout, done.stderr) == (0, "7\n", "mine\n")


def test_the_readme_s_cell_runs(tmp_path: Path) -> None:
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    cell = readme.partition("```python\n")[2].partition("```")[0]
    lines = ["if __name__ == '__main__':", *cell.splitlines(), "print(len(table))"]
    (tmp_path / "cell.py").write_text("\n    ".join(lines))
    done = run([sys.executable, tmp_path / "cell.py"], cwd=CHECKOUT)
    assert (done.code, done.stdout, done.stderr) == (0, "55\n", "")


def test_bytes_of_any_kind_of_file_are_read(reader: batchdigits.Reader) -> None:
    page = Image.fromarray(on_page(one_of_each()[7]))
    for kind in ("JPEG", "WebP", "BMP", "TIFF"):
        buffer = io.BytesIO()
        page.save(buffer, format=kind, **({"lossless": True} if kind == "WebP" else {}))
        assert reader.read(buffer.getvalue()).digit is not None

import io

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from batchdigits.reports.formats.parquet import ParquetReport
from batchdigits.reports.schema import COLUMNS, Rows
from batchdigits.settings import ReportSettings
from tests.reports.report_rows import ABOUT, seven, sevens


def written(*chunks: Rows) -> bytes:
    handle = io.BytesIO()
    with ParquetReport(handle, ABOUT, ReportSettings()) as report:
        for rows in chunks:
            report.write(rows)
    return handle.getvalue()


def table(*chunks: Rows) -> pa.Table:
    return parquet.read_table(io.BytesIO(written(*chunks)))


def test_a_row_reads_back_as_it_was() -> None:
    [row] = table(seven()).to_pylist()
    assert row.pop("probabilities") == np.array([0, 0.0269, 0, 0, 0, 0, 0, 0.9731, 0, 0], np.float32).tolist()
    assert row == {
        **{"path": "7.png", "page": 1, "status": "ok", "digit": 7, "confidence": 0.9731},
        **{"runner_up": 1, "runner_up_confidence": 0.0269, "corrected": None, "final": None, "detail": None},
        **{"width": 28, "height": 30, "sha256": "ab" * 32, "model": "0123456789ab"},
    }


def test_the_columns_are_typed() -> None:
    schema = table(seven()).schema
    assert schema.names == [column.name for column in COLUMNS]
    assert schema.field("status").type == pa.dictionary(pa.int8(), pa.string())
    assert {schema.field(name).type for name in ("digit", "runner_up", "final")} == {pa.int8()}
    assert {schema.field(name).type for name in ("page", "width", "height")} == {pa.int32()}
    assert {schema.field(name).type for name in ("confidence", "runner_up_confidence")} == {pa.float64()}
    assert schema.field("probabilities").type == pa.list_(pa.float32(), 10)


def test_the_file_is_compressed_with_zstd() -> None:
    group = parquet.read_metadata(io.BytesIO(written(seven()))).row_group(0)
    assert {group.column(index).compression for index in range(group.num_columns)} == {"ZSTD"}


def test_the_metadata_say_what_the_report_was_made_by_and_under() -> None:
    metadata = table(seven()).schema.metadata
    assert metadata == {name.encode(): value.encode() for name, value in ABOUT.metadata().items()}


@pytest.mark.parametrize(("rows", "groups"), [(0, []), (3, [3]), (4, [4]), (8, [4, 4]), (9, [4, 4, 1])])
def test_no_row_group_is_empty(monkeypatch: pytest.MonkeyPatch, rows: int, groups: list[int]) -> None:
    monkeypatch.setattr("batchdigits.reports.formats.parquet._ROW_GROUP", 4)
    metadata = parquet.read_metadata(io.BytesIO(written(sevens(["a"] * rows))))
    assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == groups


def test_the_bytes_do_not_depend_on_the_chunks_where_a_column_fills_several_pages() -> None:
    names = [f"{number:0100}.png" for number in range(15_000)]
    assert written(sevens(names)) == written(*(sevens(names[start : start + 700]) for start in range(0, 15_000, 700)))

from dataclasses import fields

from batchdigits.reports.schema import COLUMNS, SCHEMA_VERSION, Rows
from tests.reports.report_rows import ABOUT, sevens


def test_the_columns_stand_in_the_order_of_the_contract() -> None:
    assert [column.name for column in COLUMNS] == [
        *("path", "page", "final", "status", "digit", "confidence", "corrected", "detail"),  # for people
        *("runner_up", "runner_up_confidence", "width", "height", "sha256", "model", "probabilities"),
    ]


def test_rows_have_a_field_for_every_column_in_the_same_order() -> None:
    names = [field.name for field in fields(Rows)]
    assert names == [column.name for column in COLUMNS] + ["verdict", "thumbnail", "audit"]  # for reports for people


def test_a_chunk_knows_its_number_of_rows() -> None:
    assert len(sevens(["a", "b", "c"])) == 3


def test_the_metadata_name_the_schema_the_tool_the_model_and_every_setting_that_changes_answers() -> None:
    assert ABOUT.metadata() == {
        "batchdigits.schema_version": str(SCHEMA_VERSION),
        "batchdigits.tool_version": "0.1.0",
        "batchdigits.model": "0123456789abcdef" * 4,
        "batchdigits.temperature": "1.25",
        "batchdigits.gate": "0.75",
        "batchdigits.threshold": "0.9",
        "batchdigits.target_error": "0.005",
        "batchdigits.expected_error": "0.002",
        "batchdigits.basis": "validation",
        "batchdigits.trust": "target error 0.50% (proven for scans like the validation data)",
        "batchdigits.answers_missing": "(299, 598, 2995)",
        "batchdigits.max_pixels": "100000000",
        "batchdigits.max_bytes": "536870912",
        "batchdigits.versions": "decoding 1, normalisation 1, tensorflow 2.21.0",
    }

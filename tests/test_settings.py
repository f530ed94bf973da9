"""Settings: frozen records in which each default stands once."""

import ast
import inspect
from dataclasses import MISSING, FrozenInstanceError, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

import pytest

from batchdigits import settings
from batchdigits.settings import (
    EPOCHS,
    Arch,
    CsvDialect,
    DecodingSettings,
    NormalisationSettings,
    PredictSettings,
)

RECORDS = [record for record in vars(settings).values() if isinstance(record, type) and is_dataclass(record)]
NEEDED: dict[str, Any] = {"sources": ("a",), "output": Path("out"), "source": "mnist", "image": "a.png"}


def made(record: Any) -> Any:
    needed = [field.name for field in fields(record) if field.default is MISSING and field.default_factory is MISSING]
    return record(**{name: NEEDED[name] for name in needed})


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_is_frozen_slotted_and_hashable(record: Any) -> None:
    instance = made(record)
    field = fields(record)[0]
    with pytest.raises(FrozenInstanceError):
        setattr(instance, field.name, None)
    with pytest.raises((AttributeError, TypeError)):
        instance.unknown = 1
    assert not hasattr(instance, "__dict__")
    assert instance == made(record)
    assert hash(instance) == hash(made(record))


@pytest.mark.parametrize("record", RECORDS)
def test_every_field_and_every_record_says_what_it_is(record: Any) -> None:
    assert record.__doc__
    assert "(" not in record.__doc__.partition(".")[0]  # a sentence, and not what dataclass puts there
    body = ast.parse(inspect.getsource(record)).body[0]
    assert isinstance(body, ast.ClassDef)
    for line, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(line, ast.AnnAssign):
            assert isinstance(following, ast.Expr), ast.unparse(line)
            assert isinstance(following.value, ast.Constant)


def test_fields_of_one_name_have_one_default() -> None:
    defaults: dict[str, set[object]] = {}
    for record in RECORDS:
        for field in fields(record):
            if field.default is not MISSING and field.name not in {"output", "batch_size"}:  # these differ by purpose
                defaults.setdefault(field.name, set()).add(field.default)
    assert {name: values for name, values in defaults.items() if len(values) > 1} == {}


def test_numbers_of_the_contract_are_the_defaults() -> None:
    predict = PredictSettings(sources=())
    assert predict.outputs == ("-",)
    assert predict.model is None
    assert (predict.target_error, predict.threshold) == (0.005, None)
    assert predict.decoding == DecodingSettings(max_pixels=150_000_000, max_bytes=512 * 2**20)
    assert predict.report.csv_dialect is CsvDialect.RFC4180
    assert not predict.report.probabilities
    assert not predict.allow_empty
    assert [dialect.value for dialect in CsvDialect] == ["rfc4180", "excel", "excel-eu"]


@pytest.mark.parametrize("record", [DecodingSettings, NormalisationSettings])
def test_the_version_of_a_stage_is_no_setting(record: Any) -> None:
    assert isinstance(record.VERSION, int)
    assert get_type_hints(record)["VERSION"] == ClassVar[int]
    assert "VERSION" not in {field.name for field in fields(record)}


def test_every_architecture_has_its_number_of_epochs() -> None:
    assert set(EPOCHS) == set(Arch)


@pytest.mark.parametrize("record", RECORDS)
def test_defaults_of_two_runs_are_not_shared_where_they_could_be_changed(record: Any) -> None:
    for field in fields(record):
        default = getattr(made(record), field.name)
        assert not isinstance(default, list | dict | set)


def test_settings_stand_at_the_bottom_of_the_imports() -> None:
    tree = ast.parse(Path(settings.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any((module or "").startswith("batchdigits") for module in imported)
    assert not any(isinstance(node, ast.Import) for node in ast.walk(tree))


def test_the_command_line_repeats_no_default() -> None:
    """Its numbers and words come from the records; what it says itself is only None and switches that are off."""
    from batchdigits.cli import app, predict, train

    commands = [
        node
        for module in (app, predict, train)
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.FunctionDef)
        and any(word in ast.unparse(part) for part in node.decorator_list for word in ("command", "exits"))
    ]
    assert len(commands) >= 6
    for command in commands:
        defaults = [*command.args.defaults, *(default for default in command.args.kw_defaults if default)]
        literals = [node.value for default in defaults for node in ast.walk(default) if isinstance(node, ast.Constant)]
        assert set(literals) <= {None, False}, command.name

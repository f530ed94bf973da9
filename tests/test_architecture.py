"""The table «Who may import whom» of the architecture, read from the imports themselves."""

import ast
import importlib.util
import io
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import CHECKOUT, run

PACKAGE = CHECKOUT / "batchdigits"
MODULES = sorted(PACKAGE.rglob("*.py"))
JOBS = sorted((CHECKOUT / "jobs").glob("*.py"))

LEAVES = {"errors", "settings", "files", "remote"}  # anyone may import them
MAY_IMPORT: dict[str, set[str]] = {
    "": set(),  # batchdigits/__init__.py
    "__main__": {"cli"},
    "cli": {
        "console",
        "engine",  # as a type
        "scaleout",
        "options",
        "stopping",
        "pipeline",
        "explain",
        "corrections",
        "schedule",
        "reports",
        "training",
    },
    "console": {"monitoring", "risk", "schedule"},
    "options": {"console"},
    "schedule": set(),
    "pipeline": {
        "rendering",
        "risk",
        "drift",
        "images",
        "batches",
        "predictor",
        "decisions",
        "ledger",
        "database",
        "plan",
        "reports",
        "bundle",
        "monitoring",
        "locking",
        "stopping",
        "stopwatch",
        "selection",
        "settling",
        "overlap",
        "engine",
        "publication",
        "dryrun",
    },
    "engine": {
        "batches",
        "bundle",
        "decisions",
        "thumbnails",
        "isolation",
        "overlap",
        "plan",
        "predictor",
        "settling",
        "stopping",
        "stopwatch",
    },
    "scaleout": {
        "pipeline",
        "engine",
        "batches",
        "bundle",
        "children",
        "images",
        "isolation",
        "monitoring",
        "observing",
        "overlap",
        "plan",
        "predictor",
        "stopping",
    },
    "rendering": {"bundle", "decisions", "observations", "monitoring", "reports", "risk"},
    "explain": {"decoding", "normalisation", "predictor", "decisions", "bundle"},
    "training": {
        "images",
        "batches",
        "decoding",
        "normalisation",
        "bundle",
        "decisions",
        "predictor",
        "risk",
        "drift",
        "answered",
    },
    "batches": {"children", "images", "normalisation", "observing", "stopwatch"},
    "children": set(),
    "observing": {"children", "images", "decoding", "canvases", "normalisation", "thumbnails"},
    "thumbnails": {"canvases"},
    "predictor": {"bundle", "normalisation"},
    "observations": {"database", "answers"},
    "ledger": {"database", "plan", "observations", "recording", "images", "batches"},
    "recording": {"database", "plan", "observations", "images", "batches"},  # of batches, the records of a batch
    "plan": {"database", "images"},
    "answers": {"database"},
    "answered": {"database", "ledgers"},
    "ledgers": {"database"},
    "corrections": {"answers", "database", "ledgers", "locking", "reports"},  # of reports, how CSV spells text
    "database": set(),
    "publication": {"ledger", "database", "corrections"},
    "dryrun": {"plan", "reports"},
    "settling": {"images", "batches"},
    "isolation": {"children", "observing", "images", "batches", "decoding", "normalisation", "stopwatch"},
    "overlap": {"batches", "normalisation", "predictor", "stopping", "stopwatch"},
    "selection": set(),
    "locking": set(),
    "stopping": set(),
    "stopwatch": set(),
    "reports": {"decisions", "risk"},
    "images": {"selection", "candidates", "distant"},
    "distant": {"candidates"},
    "candidates": {"selection"},
    "decoding": {"headers", "samples"},
    "samples": set(),
    "headers": set(),
    "normalisation": {"canvases", "borders", "polarity", "lines", "strips"},
    "canvases": {"strips"},
    "borders": {"strips"},
    "polarity": {"strips"},
    "lines": {"strips"},
    "strips": set(),
    "bundle": {"risk"},
    "risk": set(),
    "drift": set(),
    "decisions": set(),
    "monitoring": {"risk", "reports"},  # of reports, the type of rows
    "files": set(),
    "remote": set(),
    "settings": set(),
    "errors": set(),
}
LEAVES_IMPORT = {"files": {"errors", "remote"}, "remote": {"errors"}, "settings": {"errors"}, "errors": set()}

ONLY_IN = {
    "tensorflow": {"predictor", "training"},
    "keras": {"predictor", "training"},
    "ai_edge_litert": {"predictor"},
    "typer": {"cli", "console", "options"},
    "prometheus_client": {"monitoring"},
    "click": set(),
    "selenium": set(),  # drives the tests alone
    "ray": {"scaleout"},
    "fsspec": {"remote"},
    "s3fs": {"remote"},
    "sshfs": {"remote"},
    "tenacity": {"remote"},
    **dict.fromkeys(("aiobotocore", "aiohttp", "asyncssh", "boto3", "botocore", "moto"), set()),
    "sqlite3": {"database"},
    "PIL": {"decoding", "samples", "training"},
    "pyarrow": {"reports", "scaleout"},
    "xlsxwriter": {"reports"},
    "openpyxl": {"reports"},
    "seaborn": {"training"},
    "matplotlib": {"training"},
    "tqdm": {"pipeline", "training"},
}
NEVER_AT_THE_TOP = {
    *("tensorflow", "keras", "ai_edge_litert", "pandas", "pyarrow", "seaborn", "matplotlib", "prometheus_client"),
    *("xlsxwriter", "openpyxl", "ray", "fsspec", "s3fs", "sshfs", "tenacity", "asyncio"),
}
MOST_LINES = 250  # of code: docstrings, comments and blank lines are free


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module of one import statement."""

    module: str
    """Its whole name; `from x import y` gives `x.y` where that is a module, else `x`."""
    line: int
    """Where it stands."""
    is_lazy: bool
    """Whether it stands in a function."""
    is_for_types: bool
    """Whether it stands under `if TYPE_CHECKING:`."""


def imports(path: Path) -> list[Import]:
    return list(_imports(ast.parse(path.read_text(encoding="utf-8")), is_lazy=False, is_for_types=False))


def _imports(node: ast.AST, *, is_lazy: bool, is_for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for name in child.names:
                yield Import(name.name, child.lineno, is_lazy, is_for_types)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"relative import in line {child.lineno}"
            for name in child.names:
                yield Import(_module(f"{child.module}", name.name), child.lineno, is_lazy, is_for_types)
        else:
            yield from _imports(
                child,
                is_lazy=is_lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda),
                is_for_types=is_for_types or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)),
            )


def _module(parent: str, name: str) -> str:
    """Tell whether `from parent import name` takes a module of this package or something in one."""
    if parent.partition(".")[0] == "batchdigits":
        path = PACKAGE.joinpath(*parent.split(".")[1:], name)
        if path.is_dir() or path.with_suffix(".py").is_file():
            return f"{parent}.{name}"
    return parent


def room(path: Path) -> str:
    """Name the room that a module stands in: a module, or a package that counts as one."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0].replace("__init__", "")


def room_of(module: str) -> str:
    return [*module.split("."), ""][1]


def name(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


every_module = pytest.mark.parametrize("path", MODULES, ids=name)


@every_module
def test_a_module_imports_only_what_the_table_allows(path: Path) -> None:
    here = room(path)
    allowed = {here, ""} | LEAVES_IMPORT.get(here, LEAVES) | MAY_IMPORT[here]
    wrong = [
        f"{name(path)}:{found.line} imports {found.module}"
        for found in imports(path)
        if found.module.partition(".")[0] == "batchdigits" and room_of(found.module) not in allowed
    ]
    assert wrong == []


def test_every_room_stands_in_the_table_and_every_room_of_the_table_exists() -> None:
    assert {room(path) for path in MODULES} == set(MAY_IMPORT)


def test_the_command_line_alone_and_what_observes_are_lazy_within_the_package() -> None:
    lazy = {
        (room(path), room_of(found.module))
        for path in MODULES
        for found in imports(path)
        if found.is_lazy and found.module.startswith("batchdigits")
    }
    assert {(here, other) for here, other in lazy if here != "cli"} == {("pipeline", "engine")}


def test_the_modules_import_one_another_without_a_circle() -> None:
    needs: dict[str, set[str]] = {room(path): set() for path in MODULES}
    for path in MODULES:
        needs[room(path)] |= {
            room_of(found.module) for found in imports(path) if found.module.startswith("batchdigits.")
        }
    order: list[str] = []
    while ready := [here for here, others in needs.items() if here not in order and others <= {*order, here}]:
        order += ready
    assert sorted(order) == sorted(needs)


@every_module
def test_a_library_is_imported_only_in_the_rooms_of_its_trade(path: Path) -> None:
    wrong = [
        f"{name(path)}:{found.line} imports {found.module}"
        for found in imports(path)
        if room(path) not in ONLY_IN.get(found.module.partition(".")[0], {room(path)})
    ]
    assert wrong == []


@every_module
def test_heavy_libraries_are_imported_only_when_called(path: Path) -> None:
    wrong = [
        f"{name(path)}:{found.line} imports {found.module}"
        for found in imports(path)
        if found.module.partition(".")[0] in NEVER_AT_THE_TOP and not (found.is_lazy or found.is_for_types)
    ]
    assert wrong == []


@pytest.mark.parametrize("path", JOBS, ids=name)
def test_a_job_imports_nothing_but_typer_and_the_command_line(path: Path) -> None:
    libraries = {found.module for found in imports(path)} - {"sys"}
    assert libraries <= {"typer", "batchdigits.cli"}


@every_module
def test_a_module_stays_readable_in_one_sitting(path: Path) -> None:
    assert lines_of_code(path) <= MOST_LINES


def lines_of_code(path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    free = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in free
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


@every_module
def test_a_module_begins_by_saying_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@every_module
def test_only_one_module_starts_processes(path: Path) -> None:
    starting = {"Process", "Pool", "ProcessPoolExecutor", "get_context", "set_start_method", "fork", "posix_spawn"}
    called = {
        getattr(node.func, "attr", getattr(node.func, "id", ""))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    }
    assert room(path) == "children" or not starting & called


HEAVY = [
    *("tensorflow", "keras", "typer", "pandas", "numpy", "cv2", "PIL", "pyarrow", "matplotlib", "sqlite3", "tqdm"),
    *("xlsxwriter", "openpyxl"),
]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("batchdigits", HEAVY),
        ("batchdigits.cli", [library for library in HEAVY if library != "typer"]),
        ("batchdigits.pipeline", ["tensorflow", "keras", "typer", "pandas", "pyarrow", "matplotlib", "xlsxwriter"]),
        ("batchdigits.training.runs", ["tensorflow", "keras", "typer", "pandas", "pyarrow", "matplotlib", "openpyxl"]),
    ],
)
def test_an_import_brings_in_no_heavy_library(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print(*sorted({set(absent)!r} & set(sys.modules)))"
    result = run([sys.executable, "-W", "error", "-c", code])
    assert (result.code, result.stdout.strip(), result.stderr) == (0, "", "")
    assert all(importlib.util.find_spec(library) for library in absent)

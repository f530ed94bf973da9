"""The table «Who may import whom» of the architecture, read from the imports themselves."""

import ast
import importlib.util
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.cli_runner import CHECKOUT, run

PACKAGE = CHECKOUT / "batchdigits"
MODULES = sorted(PACKAGE.rglob("*.py"))
JOBS = sorted((CHECKOUT / "jobs").glob("*.py"))

LEAVES = {"errors", "settings"}  # anyone may import them
MAY_IMPORT: dict[str, set[str]] = {
    "": set(),  # batchdigits/__init__.py
    "errors": set(),
    "settings": set(),
    "records": set(),
    "storage": set(),
    "decoding": {"records"},
    "preprocessing": {"records"},
    "sources": {"records", "storage"},
    "inference": {"records", "storage"},
    "ledger": {"records", "storage"},
    "progress": set(),
    "monitoring": {"records", "inference", "storage"},
    "engine": {"records", "storage", "decoding", "preprocessing", "inference"},
    "explain": {"records", "storage", "decoding", "preprocessing", "inference"},
    "reports": {"records", "storage", "inference", "ledger"},
    "training": {
        "records",
        "storage",
        "sources",
        "decoding",
        "preprocessing",
        "inference",
        "engine",
        "ledger",
        "progress",
    },
    "pipeline": {"records", "storage", "sources", "inference", "ledger", "engine", "reports", "monitoring", "progress"},
    "cli": {"pipeline", "explain", "training", "reports", "monitoring", "inference", "engine", "ledger", "storage"},
    "api": {"pipeline", "records", "storage", "decoding", "preprocessing", "inference"},
    "__main__": {"cli"},
}
ONLY_IN = {
    "tensorflow": {"inference", "training"},
    "keras": {"inference", "training"},
    "ai_edge_litert": {"inference"},
    "typer": {"cli"},
    "prometheus_client": {"monitoring"},
    "click": set(),
    "selenium": set(),  # drives the tests alone
    "ray": {"engine"},
    "fsspec": {"storage"},
    "s3fs": {"storage"},
    "sshfs": {"storage"},
    "tenacity": {"storage"},
    **dict.fromkeys(("aiobotocore", "aiohttp", "asyncssh", "boto3", "botocore", "moto"), set()),
    "sqlite3": {"ledger"},
    "PIL": {"decoding", "training"},
    **dict.fromkeys(("imagecodecs", "simplejpeg", "tifffile", "pi_heif", "pypdfium2"), {"decoding"}),
    "pyarrow": {"reports", "engine"},
    "xlsxwriter": {"reports"},
    "openpyxl": {"reports"},
    "seaborn": {"training"},
    "matplotlib": {"training"},
    "tqdm": {"training"},
}
NEVER_AT_THE_TOP = {
    *("tensorflow", "keras", "ai_edge_litert", "pandas", "pyarrow", "seaborn", "matplotlib", "prometheus_client"),
    *("xlsxwriter", "openpyxl", "ray", "fsspec", "s3fs", "sshfs", "tenacity", "asyncio"),
    *("tifffile", "pi_heif", "pypdfium2"),
}
MOST_LINES = 350  # of code: docstrings, comments and blank lines are free
MOST_FILES = 8  # a folder, beside __init__.py


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


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> list[Import]:
    return list(_imports(parsed(path), is_lazy=False, is_for_types=False))


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


def module(path: Path) -> str:
    """Name a module as others import it."""
    return ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")


def room_of(name: str) -> str:
    """Name the room that a module stands in: a folder or a module of the package; "" for the package itself."""
    return [*name.split("."), ""][1]


def inside(module: str) -> str:
    """Name a module by its place in the package."""
    return module.removeprefix("batchdigits.")


def room(path: Path) -> str:
    return room_of(module(path))


def name(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


every_module = pytest.mark.parametrize("path", MODULES, ids=name)


@every_module
def test_a_module_imports_only_what_the_table_allows(path: Path) -> None:
    here = room(path)
    allowed = MAY_IMPORT[here] | {here, ""} | (LEAVES if here not in LEAVES else {"errors"})
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
    assert {(here, other) for here, other in lazy if here != "cli"} == {
        ("pipeline", "engine"),
        ("monitoring", "records"),
    }


def test_a_text_is_asked_only_once_whether_it_is_a_url() -> None:
    """Sources and reports are parsed as a run begins; below, they are objects that know."""
    asking = re.compile(r"(?<![\w.])(is_url|is_remote|absolute|locate|target_file)\((?!self)")
    rooms = {room(path) for path in MODULES if asking.search(path.read_text(encoding="utf-8"))}
    assert rooms == {"storage", "pipeline", "cli", "reports", "training"}  # of reports, `parse_outputs`


def test_nobody_tells_local_files_from_remote_ones_by_their_type() -> None:
    asking = re.compile(r"isinstance\([^()]*\b(LocalFile|RemoteFile)\b")
    assert [name(path) for path in MODULES if asking.search(path.read_text(encoding="utf-8"))] == []


def test_no_two_modules_import_each_other_in_a_loop() -> None:
    needs = {module(path): {found.module for found in imports(path)} for path in MODULES}
    order: list[str] = []
    while ready := [here for here, others in needs.items() if here not in order and others & needs.keys() <= {*order}]:
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


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES} - {PACKAGE}), ids=name)
def test_a_folder_is_seen_at_one_glance(folder: Path) -> None:
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= MOST_FILES


def lines_of_code(path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    free = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in free
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


@every_module
def test_a_module_begins_by_saying_what_it_is(path: Path) -> None:
    assert ast.get_docstring(parsed(path))


def test_a_folder_has_no_code_of_its_own() -> None:
    """But for the names that the package gives, and the sentence that Windows is told before imports fail there."""
    with_code = [module(path) for path in MODULES if path.name == "__init__.py" and len(parsed(path).body) > 1]
    assert with_code == ["batchdigits", "batchdigits.cli"]


@every_module
def test_only_one_module_starts_processes(path: Path) -> None:
    starting = {"Process", "Pool", "ProcessPoolExecutor", "get_context", "set_start_method", "fork", "posix_spawn"}
    called = {
        getattr(node.func, "attr", getattr(node.func, "id", ""))
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
    }
    assert inside(module(path)) == "engine.children" or not starting & called


HEAVY = [
    *("tensorflow", "keras", "typer", "pandas", "numpy", "cv2", "PIL", "pyarrow", "matplotlib", "sqlite3", "tqdm"),
    *("xlsxwriter", "openpyxl"),
]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("batchdigits", HEAVY),
        ("batchdigits.api", ["tensorflow", "keras", "typer", "pandas", "pyarrow", "matplotlib", "xlsxwriter"]),
        ("batchdigits.cli.app", [library for library in HEAVY if library != "typer"]),
        ("batchdigits.pipeline", ["tensorflow", "keras", "typer", "pandas", "pyarrow", "matplotlib", "xlsxwriter"]),
        ("batchdigits.training.train", ["tensorflow", "keras", "typer", "pandas", "pyarrow", "matplotlib", "openpyxl"]),
    ],
)
def test_an_import_brings_in_no_heavy_library(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print(*sorted({set(absent)!r} & set(sys.modules)))"
    result = run([sys.executable, "-W", "error", "-c", code])
    assert (result.code, result.stdout.strip(), result.stderr) == (0, "", "")
    assert all(importlib.util.find_spec(library) for library in absent)

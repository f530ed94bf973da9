"""Write the tables of options and exit codes into the documents: `python -m tests.documented_options`.

A table stands between two markers, `<!-- table: options of predict -->` and `<!-- end of table -->`. What is written
there comes from the commands themselves; `test_docs.py` compares it, so that no document can say anything else.
"""

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import typer.main

from batchdigits.cli.app import app
from batchdigits.errors import ExitCode

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "jobs" / "options.md"]
"""The documents that hold such tables."""
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
_TABLE = re.compile(r"(<!-- table: (?P<name>.*?) -->\n)(?P<table>.*?)(<!-- end of table -->)", re.DOTALL)


def options_table(command: str) -> str:
    """Render the arguments and options of a command, in the order of its help."""
    rows = ((_names(option), _values(option), option.help, _default(option)) for option in COMMANDS[command].params)
    return _table(("option", "value", "meaning", "default"), rows)


def exit_codes_table() -> str:
    """Render the exit codes, with what their docstrings say."""
    body = ast.parse(inspect.getsource(ExitCode)).body[0]
    assert isinstance(body, ast.ClassDef)
    statements = list(zip(body.body, body.body[1:], strict=False))
    said = {
        name.targets[0].id: text.value.value
        for name, text in statements
        if isinstance(name, ast.Assign) and isinstance(name.targets[0], ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }
    return _table(("code", "meaning"), ((str(code.value), said[code.name]) for code in ExitCode))


TABLES: dict[str, Callable[[], str]] = {
    **{f"options of {command}": partial(options_table, command) for command in COMMANDS},
    "exit codes": exit_codes_table,
}


def tables_of(text: str) -> dict[str, str]:
    """Give the tables that stand between markers, by name."""
    return {found["name"]: found["table"] for found in _TABLE.finditer(text)}


def renewed(text: str) -> str:
    """Write all tables of a document anew."""
    return _TABLE.sub(lambda found: f"{found[1]}{TABLES[found['name']]()}{found[4]}", text)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(map(_line, [head, ["---"] * len(head), *rows]))


def _line(cells: Iterable[str]) -> str:
    return "|" + "|".join(" " + cell.replace("|", r"\|") + " " if cell else " " for cell in cells) + "|\n"


def _names(option: Any) -> str:
    if option.param_type_name == "argument":
        return f"`{option.metavar}`"
    return ", ".join(f"`{name}`" for name in option.opts)


def _values(option: Any) -> str:
    if getattr(option, "is_flag", False) or option.param_type_name == "argument":
        return ""
    choices = getattr(option.type, "choices", None)
    if choices:
        return ", ".join(f"`{getattr(choice, 'value', choice)}`" for choice in choices)
    least, most = getattr(option.type, "min", None), getattr(option.type, "max", None)
    if least is not None:
        return f"{least:,} or more" if most is None else f"{least:,} to {most:,}"
    return option.metavar or {"path": "PATH", "str": "TEXT"}[option.type.name]


def _default(option: Any) -> str:
    value = option.default
    if value is None or value is False or value == []:
        return ""
    if option.metavar == "SHARE":
        return f"`{value:.1%}`"
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value)
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value.value if isinstance(value, Enum) else value}`"


def main() -> None:
    """Write the tables of all documents anew."""
    for document in DOCUMENTS:
        document.write_text(renewed(document.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()

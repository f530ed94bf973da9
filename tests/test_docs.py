"""The README says what is true: its commands, options, columns, exit codes and map of the code."""

import re
import tomllib
from pathlib import Path

import pytest
import typer.main

from batchdigits.cli.app import app
from batchdigits.errors import ExitCode
from batchdigits.reports.schema import COLUMNS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
OPTIONS = [(name, option) for name, command in COMMANDS.items() for option in command.params]


def test_the_set_up_is_two_commands_in_the_first_block() -> None:
    block = re.search(r"```sh\n(.*?)```", README, re.DOTALL)
    assert block is not None
    install_and_run, install_and_test = block.group(1).splitlines()
    assert "batchdigits predict sample_images" in install_and_run
    assert install_and_test.endswith(".venv/bin/python -m pytest")
    assert all("-c constraints.txt" in line for line in (install_and_run, install_and_test))


def test_ci_runs_that_block_and_the_linters() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "README.md" in script
    assert all(command in script for command in ("ruff check", "ruff format --check", "mypy"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_stands_in_the_readme(name: str) -> None:
    assert COMMANDS[name].help
    assert f"batchdigits {name}" in README


@pytest.mark.parametrize(("command", "option"), OPTIONS, ids=lambda value: getattr(value, "name", value))
def test_every_option_has_help_and_stands_in_the_readme(command: str, option: object) -> None:
    assert getattr(option, "help", None), command
    names = getattr(option, "opts", [])
    if getattr(option, "param_type_name", "") == "option":
        assert any(f"`{name}" in README for name in names), names


@pytest.mark.parametrize("column", [column.name for column in COLUMNS if column.name != "probabilities"])
def test_every_column_stands_in_the_readme(column: str) -> None:
    assert f"`{column}`" in README


@pytest.mark.parametrize("code", list(ExitCode))
def test_every_exit_code_in_use_stands_in_the_readme(code: ExitCode) -> None:
    assert re.search(rf"^\| (\d+, )?{code.value}(, \d+)? \|", README, re.MULTILINE)


def test_the_map_names_every_module_and_nothing_else() -> None:
    package = ROOT / "batchdigits"
    there = {f"batchdigits/{path.name}" for path in package.glob("*.py") if not path.name.startswith("__")}
    there |= {f"batchdigits/{path.name}/" for path in package.iterdir() if (path / "__init__.py").exists()}
    assert set(re.findall(r"\| `(batchdigits/[a-z]+(?:\.py|/))`", README)) == there


def test_every_link_and_picture_of_the_readme_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert "://" in target or (ROOT / target).exists(), target


def test_every_dependency_that_is_installed_has_a_pinned_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {re.split(r"[<>=!~\[]", name)[0].lower() for name in named} <= pinned | {
        "batchdigits"
    }  # an extra of its own


def test_the_constraints_are_names_and_versions_only() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line), line

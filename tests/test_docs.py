"""The documents say what is true: their commands, options, columns, exit codes, links, pictures and map of the code."""

import re
import tomllib
from pathlib import Path

import pytest

from batchdigits.errors import ExitCode
from batchdigits.records import Status
from batchdigits.reports.schema import COLUMNS
from tests.documented_options import COMMANDS, DOCUMENTS, TABLES, renewed, tables_of
from tests.test_architecture import LEAVES, MAY_IMPORT

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "batchdigits"
BENCHMARKS = ROOT / "tests" / "benchmarks"
README = (ROOT / "README.md").read_text(encoding="utf-8")
CARD = (PACKAGE / "model" / "README.md").read_text(encoding="utf-8")
MAP = (PACKAGE / "README.md").read_text(encoding="utf-8")
FOLDERS = [ROOT / name for name in ("batchdigits", "jobs", "sample_images", "tests")]
PAGES = [*sorted(ROOT.glob("*.md")), *(path for folder in FOLDERS for path in sorted(folder.rglob("*.md")))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
OPTIONS = [(name, option) for name, command in COMMANDS.items() for option in command.params]
every_page = pytest.mark.parametrize("page", [name for name in TEXTS if "licences/" not in name])


# ---- the README ----------------------------------------------------------------------------------------------------


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


def test_the_readme_is_read_in_ten_minutes() -> None:
    assert len(README.splitlines()) <= 180
    assert len(README.encode()) <= 12 * 1024
    assert [line for line in README.splitlines() if len(line) > 120] == []


def test_the_readme_has_a_picture_of_the_review_page_near_its_top() -> None:
    assert "](jobs/pictures/review.png)" in "\n".join(README.splitlines()[:20])


@pytest.mark.parametrize("column", [column.name for column in COLUMNS if column.name != "probabilities"])
def test_every_column_stands_in_the_readme(column: str) -> None:
    assert f"`{column}`" in README


@pytest.mark.parametrize("status", list(Status))
def test_every_status_stands_in_the_readme(status: Status) -> None:
    assert f"\n| `{status}` |" in README


@pytest.mark.parametrize("name", [name for name in TEXTS if name.endswith("README.md") and name != "README.md"])
def test_the_readme_leads_to_every_other_one(name: str) -> None:
    assert f"]({name}" in README or name.startswith("tests/data/")


def test_the_figures_of_the_readme_are_those_of_the_models_card() -> None:
    assert set(re.findall(r"\b\d+\.\d\d%", README)) <= set(re.findall(r"\b\d+\.\d\d%", CARD))
    (told,) = re.findall(r"MNIST's test images that are `ok`, (\S+) are wrong", README)
    assert re.findall(r"are ok, (\S+) of them wrong", CARD) == [told]
    (measured,) = re.findall(r"^    Accuracy .*", TEXTS["batchdigits/training/README.md"], re.MULTILINE)
    assert measured in CARD


# ---- commands, options and exit codes ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_stands_in_the_readme(name: str) -> None:
    assert COMMANDS[name].help
    assert f"batchdigits {name}" in README


@pytest.mark.parametrize(("command", "option"), OPTIONS, ids=lambda value: getattr(value, "name", value))
def test_every_option_has_help(command: str, option: object) -> None:
    assert getattr(option, "help", None), command


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_tables_are_what_the_commands_say(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == renewed(text), "run: python -m tests.documented_options"


def test_every_such_table_stands_in_a_document() -> None:
    assert {name for path in DOCUMENTS for name in tables_of(path.read_text(encoding="utf-8"))} == set(TABLES)


def test_every_exit_code_has_its_row() -> None:
    assert re.findall(r"^\| (\d+) \|", TABLES["exit codes"](), re.MULTILINE) == [str(code.value) for code in ExitCode]


@every_page
def test_every_option_that_a_document_shows_exists(page: str) -> None:
    for name, arguments in re.findall(r"batchdigits (\w+)((?: [^`\n]*)?)", TEXTS[page]):
        if name in COMMANDS:
            options = COMMANDS["predict"].params if name == "schedule" else []  # which takes both
            there = {spelling for option in [*COMMANDS[name].params, *options] for spelling in option.opts}
            assert set(re.findall(r"(?<= )--?[a-z][\w-]*", arguments.split(" #")[0])) <= there | {"--help", "-h"}


def test_every_metric_stands_in_the_document_of_jobs() -> None:
    source = (PACKAGE / "monitoring.py").read_text(encoding="utf-8")
    metrics = set(re.findall(r'(?:gauge|single)\(\s*"(\w+)"', source))
    assert len(metrics) > 10
    assert {name for name in metrics if f"`batchdigits_{name}`" not in TEXTS["jobs/README.md"]} == set()


def test_the_lines_for_cron_are_those_of_the_crontab() -> None:
    lines = re.findall(r"^    (\d.* cd .*)$", TEXTS["jobs/README.md"], re.MULTILINE)
    crontab = (ROOT / "jobs" / "crontab").read_text(encoding="utf-8").splitlines()
    assert lines == [line for line in crontab if not line.startswith("#")]


# ---- the map of the code -------------------------------------------------------------------------------------------


def floors() -> dict[str, tuple[int, set[str]]]:
    """Read the picture: for each folder (with a slash) and module of it, its floor, and the modules in it."""
    block = re.search(r"```text\n(.*?)```", MAP, re.DOTALL)
    assert block is not None
    found: dict[str, tuple[int, set[str]]] = {}
    floor = 0
    for line in block.group(1).splitlines():
        floor = int(line[0]) if line[0] != " " else floor
        name, _, modules = line[1:].strip().partition(" ")
        found[name] = floor, set(modules.replace(",", "").split())
    return found


def test_the_map_names_every_module_and_nothing_else() -> None:
    there: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        folder = path.parent.relative_to(PACKAGE).as_posix()
        if path.name != "__init__.py":
            there.setdefault(path.stem if folder == "." else f"{folder}/", set()).update(
                set() if folder == "." else {path.stem}
            )
    assert {name: modules for name, (_, modules) in floors().items()} == there


def test_a_room_of_the_map_imports_only_from_floors_below_it() -> None:
    floor = {name.rstrip("/"): number for name, (number, _) in floors().items()}
    assert [
        (room, other)
        for room, others in MAY_IMPORT.items()
        if room
        for other in (others | LEAVES) - {room}
        if floor[other] >= floor[room] and room not in LEAVES
    ] == []


def test_every_room_of_the_map_is_described() -> None:
    described = set(re.findall(r"`([a-z_]+/?)`", "\n".join(re.findall(r"^\| (`.*?`) \|", MAP, re.MULTILINE))))
    rooms = {name for name in floors() if "/" not in name.rstrip("/")}
    assert described == (rooms - {"__main__"}) | {"model/"}


def test_every_place_where_something_is_found_is_there() -> None:
    [table] = re.findall(r"^\| looked for .*?\n\n", MAP, re.MULTILINE | re.DOTALL)
    places = re.findall(r"`([a-z_]+/[a-z_/]+)`", table)
    assert len(places) > 10
    assert [place for place in places if not (PACKAGE / place).with_suffix(".py").is_file()] == []


# ---- links, pictures, commands of benchmarks -----------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """Give the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_every_link_and_picture_is_there(page: str) -> None:
    folder = (ROOT / page).parent
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", TEXTS[page]):
        if "://" not in target:
            path = folder / target if target else ROOT / page
            assert path.exists(), target
            assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), f"{target}#{anchor}"


def test_every_picture_stands_in_a_document() -> None:
    shown = {Path(target).name for text in TEXTS.values() for target in re.findall(r"!\[.*?\]\((.*?)\)", text)}
    assert {path.name for path in (ROOT / "jobs" / "pictures").iterdir()} == shown


def test_every_benchmark_stands_in_their_document_and_every_one_that_is_named_exists() -> None:
    told = TEXTS["tests/benchmarks/README.md"]
    for text in TEXTS.values():
        assert "python tests/" not in text, "a script there finds no module of the tests: python -m tests.…"
        for script, module in re.findall(r"(tests/benchmarks/[\w/]+\.py)|python -m (tests\.benchmarks\.[\w.]+)", text):
            path = script or module.replace(".", "/") + ".py"
            assert (ROOT / path).exists(), path
    parts = {"one_runtime", "peers", "processor", "program"}  # that another one starts
    for path in BENCHMARKS.rglob("*.py"):
        if "__main__" in path.read_text(encoding="utf-8") and path.stem not in parts:
            assert path.stem in told, path.stem


def test_every_set_that_travels_with_the_package_stands_in_the_models_card_with_its_licence() -> None:
    for folder in (PACKAGE / "training" / "data").iterdir():
        assert re.search(rf"^\| `{folder.name}` \|.*{folder.name}/ATTRIBUTION.md.*\| .+ \|$", CARD, re.MULTILINE)


# ---- what is packed ------------------------------------------------------------------------------------------------


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


def test_the_models_card_travels_with_the_model() -> None:
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "model/*" in packed["batchdigits"]

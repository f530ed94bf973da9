"""The jobs of a checkout, run as a scheduler runs them: by their path, from a folder of its own choice."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from batchdigits.cli.app import app
from batchdigits.inference.bundle import PACKAGED
from tests.cli_runner import CHECKOUT, Result, run

JOBS = CHECKOUT / "jobs"
every_job = pytest.mark.parametrize("job", ["predict", "train"])


def job(script: str, *arguments: str | Path, cwd: Path, **env: str) -> Result:
    return run([sys.executable, JOBS / f"{script}.py", *arguments], cwd=cwd, env=env)


def options(command: str) -> set[str]:
    group = get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return {parameter.name or "" for parameter in group.commands[command].params} - {"config"}


@pytest.mark.parametrize(
    ("file", "command"), [("predict", "predict"), ("train", "train"), ("teacher", "train"), ("finder", "train")]
)
def test_every_key_of_a_job_file_is_an_option_of_its_command(file: str, command: str) -> None:
    keys = tomllib.loads((JOBS / f"{file}.toml").read_text(encoding="utf-8"))
    assert keys
    assert {key.replace("-", "_") for key in keys} <= options(command)


@every_job
def test_a_job_file_that_is_shipped_is_accepted_by_its_job(job: str, tmp_path: Path) -> None:
    """A missing folder, given on the command line, ends the run as soon as the settings stand."""
    missing = ["missing"] if job == "predict" else ["--data", "missing", "--finder", PACKAGED]
    result = run([sys.executable, JOBS / f"{job}.py", *missing, "--config", JOBS / f"{job}.toml"], cwd=tmp_path)
    assert result.code == 5
    assert "missing" in result.message


@every_job
def test_a_job_has_help_without_tensorflow_in_the_process(job: str, tmp_path: Path) -> None:
    result = run(
        [sys.executable, JOBS / f"{job}.py", "--help"],
        cwd=tmp_path,
        env={"PYTHONPROFILEIMPORTTIME": "1", "COLUMNS": "200", "NO_COLOR": "1"},
    )
    assert result.code == 0
    group = get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    flags = [parameter.opts[0] for parameter in group.commands[job].params if parameter.param_type_name == "option"]
    assert [flag for flag in flags if flag not in result.stdout] == []
    assert "tensorflow" not in result.stderr
    assert "numpy" not in result.stderr


def test_a_job_file_gives_sources_and_reports_and_its_paths_start_where_the_job_starts(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "night.toml").write_text('sources = ["scans"]\noutput = ["a.csv", "b.parquet"]\nallow-empty = true\n')
    result = job("predict", "--config", "night.toml", cwd=tmp_path)
    assert result.code == 0
    assert result.stderr.startswith("0 images: ")
    made = sorted(path.name for path in tmp_path.glob("[!.]*"))
    assert made == ["a.csv", "a.csv.ledger", "b.parquet", "night.toml", "scans"]


@every_job
def test_an_unknown_key_of_a_job_file_ends_the_job_with_the_nearest_one(job: str, tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text("batch-sise = 7\n")
    result = run([sys.executable, JOBS / f"{job}.py", "--config", "job.toml"], cwd=tmp_path, env={"COLUMNS": "300"})
    assert result.code == 2
    assert "batch-sise" in result.stderr
    assert "did you mean batch_size?" in result.stderr


def test_a_job_passes_on_the_exit_code_of_its_command(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert job("predict", "empty", cwd=tmp_path).code == 4
    assert job("predict", "empty", "--model", "nowhere", cwd=tmp_path).code == 6
    assert job("train", "--data", "missing", "-o", "made", cwd=tmp_path).code == 5


def test_a_recipe_whose_ink_finder_was_not_trained_yet_says_what_to_train(tmp_path: Path) -> None:
    result = job("train", "--config", JOBS / "train.toml", cwd=tmp_path)
    assert result.code == 6
    assert result.message == "The folder runs/finder holds no finder.keras; train one with --arch finder."


def test_the_crontab_trains_an_ink_finder_and_a_teacher_before_their_pupil_and_each_month_anew() -> None:
    [line] = [line for line in (JOBS / "crontab").read_text().splitlines() if "train.py" in line and line[0] != "#"]
    recipes = [tomllib.loads((CHECKOUT / name).read_text()) for name in re.findall(r"--config (\S+)", line)]
    made: list[str] = []
    for recipe in recipes:
        assert {recipe.get("teacher"), recipe.get("finder")} <= {None, *made}
        made.append(recipe["output"])
    assert made == ["runs/finder", "runs/teacher", "runs/cnn"]
    assert line.count("--overwrite") == len(made)

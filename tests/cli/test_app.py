"""The installed command in a process of its own: help, exit codes, streams, options. Three tests load TensorFlow."""

import csv
import io
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import pytest

from batchdigits import __version__
from batchdigits.engine.run_context import resumable
from batchdigits.errors import Interrupted
from batchdigits.inference.bundle import PACKAGED
from batchdigits.inference.thresholds import Domain, ThresholdCounts
from tests import sample_pages
from tests.cli_runner import (
    BATCHDIGITS,
    CHECKOUT,
    Result,
    batchdigits,
    environment,
    on_a_terminal,
    permissions_hold,
    run,
    under_permissions,
)
from tests.fake_model import bundle_in
from tests.file_states import names
from tests.sample_pages import on_page, one_of_each, write_png

DATA = Path(__file__).parents[1] / "data"
COMMANDS = ["predict", "train", "evaluate", "explain", "schedule", "correct"]
HEADER = (
    "path,page,final,status,digit,confidence,corrected,detail,runner_up,runner_up_confidence,width,height,sha256,model"
)

MANY = 600
"""Small files, of which one is made work for processes; they are more than two chunks, and two batches."""


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A folder without images, in a folder where reports can be written."""
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """Last night's report."""
    path = tmp_path / "report.csv"
    path.write_bytes(b"last night")
    return path


def imported(result: Result) -> set[str]:
    """Read what PYTHONPROFILEIMPORTTIME wrote: the top-level modules of a process."""
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.splitlines() if "|" in line}


# help and version


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], *([command, "-h"] for command in COMMANDS)])
def test_help_and_version_load_no_library_of_the_trade(arguments: list[str]) -> None:
    result = batchdigits(*arguments, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert result.code == 0
    assert "typer" in imported(result)  # so that the list is one
    assert imported(result) & {"tensorflow", "keras", "numpy", "pandas", "pyarrow", "cv2", "PIL", "matplotlib"} == set()


def test_help_names_every_command_and_the_help_of_each_its_options() -> None:
    shown = batchdigits("--help", env={"COLUMNS": "200"}).stdout
    assert all(re.search(rf"^│ {command} +\w", shown, re.MULTILINE) for command in COMMANDS)
    options = {
        "predict": "SOURCE --output -o --model --threshold --batch-size --workers --max-pixels --probabilities "
        "--csv-dialect --allow-empty --config --quiet -q --verbose -v",
        "train": "--output --data --arch --epochs --seed --resume --config --quiet",
        "evaluate": "SOURCE --output --model --config",
        "explain": "IMAGE --save-input --model --threshold --config",
    }
    for command, words in options.items():
        shown = batchdigits(command, "--help", env={"COLUMNS": "200"}).stdout
        assert [word for word in words.split() if word.lower() not in shown.lower()] == []


def test_the_version_is_that_of_the_package_and_goes_to_standard_output() -> None:
    assert batchdigits("--version") == Result(0, f"batchdigits {__version__}\n", "")


def test_a_variable_with_the_version_in_it_does_not_change_what_a_command_does(empty: Path) -> None:
    """Container files set such variables."""
    assert batchdigits("predict", empty, env={"BATCHDIGITS_VERSION": __version__}).code == 4


# bad input: one sentence, the right exit code, the old report untouched


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["missing"], 5, ["missing", "does not exist"]),
        (["empty"], 4, ["empty", "No image was found", ".png"]),
        (["empty", "missing"], 5, ["missing", "does not exist"]),
        (["empty/*.png"], 5, ["empty/*.png", "Nothing matches"]),
        (["pipe.png"], 2, ["pipe.png", "pipe"]),
        (["empty", "-o", "report.doc"], 2, ["report.doc", ".csv", ".parquet"]),
        (["empty", "-o", "report"], 2, ["report", ".csv", ".parquet"]),
        (["empty", "-o", "report.csv", "-o", "./report.csv"], 2, ["report.csv", "twice"]),
        (["images", "-o", "report.csv/more.csv"], 5, ["report.csv", "cannot be made", "a file of this name is in"]),
        (["images", "-o", "report.csv/in/r.csv"], 5, ["report.csv/in", "cannot be made", "of its path is no folder"]),
        (["images", "-o", "images/7.png"], 2, ["images/7.png", "ending"]),
        (["images/scan.csv", "-o", "images/scan.csv"], 2, ["images/scan.csv", "overwrite", "another name"]),
        (["empty", "--model", "nowhere"], 6, ["nowhere", "--model"]),
    ],
)
def test_bad_input_to_predict_is_one_sentence_on_stderr_and_changes_nothing(
    arguments: list[str], code: int, words: list[str], tmp_path: Path, empty: Path, report: Path
) -> None:
    write_png(tmp_path / "images" / "7.png", one_of_each()[7])
    shutil.copy(tmp_path / "images" / "7.png", tmp_path / "images" / "scan.csv")
    os.mkfifo(tmp_path / "pipe.png")
    before = {path: path.read_bytes() for path in tmp_path.rglob("[!.]*") if path.is_file()}  # but for the lock
    into = [] if "-o" in arguments else ["-o", "report.csv"]
    result = batchdigits("predict", *arguments, *into, cwd=tmp_path, env={"PYTHONDONTWRITEBYTECODE": "1"})
    assert result.code == code
    assert [word for word in words if word not in result.message] == []
    assert result.message.endswith(".")
    assert result.stdout == ""
    assert {path: path.read_bytes() for path in tmp_path.rglob("[!.]*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("given", "ledger"), [(["--no-ledger"], False), (["--no-ledger", "--ledger", "line"], True), ([], True)]
)
def test_no_ledger_on_the_command_line_wins_over_a_ledger_in_the_environment(
    given: list[str], ledger: bool, tmp_path: Path, empty: Path
) -> None:
    env = {"BATCHDIGITS_PREDICT_LEDGER": "named"}
    assert batchdigits("predict", empty, "-o", "r.csv", "--allow-empty", *given, cwd=tmp_path, env=env).code == 0
    assert ledger == any((tmp_path / name).exists() for name in ("named", "line"))


def test_an_error_does_not_wait_for_tensorflow(tmp_path: Path, empty: Path) -> None:
    for source in (tmp_path / "missing", empty):
        result = batchdigits("predict", source, "-v", env={"PYTHONPROFILEIMPORTTIME": "1"})
        assert result.code in (4, 5)
        assert "numpy" in imported(result)  # they are told, then
        assert imported(result) & {"tensorflow", "keras"} == set()


BUDGET = {
    *("typer", "annotated_doc"),  # Typer's own
    "shellingham",
    *("numpy",),
}
"""Third-party modules that a run may import, whatever it does."""
OF_READING = {"cv2", "PIL", "imagecodecs", "simplejpeg"}
OF_RUNTIME = {"ai_edge_litert", "ai_edge_litert_sdk_intel"}  # the second is looked for, and is not there


@pytest.mark.parametrize(
    ("report", "more"),
    [
        ("report.csv", set()),
        ("report.html", set()),
        ("report.xlsx", {"xlsxwriter"}),
        ("report.parquet", {"pyarrow", "cloudpickle", "dateutil"}),
    ],
)
def test_a_run_imports_what_it_uses_and_nothing_else(tmp_path: Path, digits: Path, report: str, more: set[str]) -> None:
    arguments = ["predict", digits, "-o", tmp_path / report, "--runtime", "litert", "-v"]
    for reading, budget in ((OF_READING, OF_READING | OF_RUNTIME), (set(), set())):  # then nothing is new
        result = batchdigits(*arguments, env={"PYTHONPROFILEIMPORTTIME": "1"})
        assert result.code == 0
        found = {name for name in imported(result) if name.isidentifier() and not name.startswith("_")}
        ours = {"batchdigits", "sitecustomize", "org"}  # the last is what pickle looks for
        assert found - sys.stdlib_module_names - ours <= BUDGET | more | budget
        assert found >= BUDGET | reading


def test_the_end_of_the_process_looks_at_no_object_again() -> None:
    code = (
        "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count()));"
        "from batchdigits.cli.app import main; main(['predict', '--help'])"
    )
    ended = run([sys.executable, "-c", code], cwd=CHECKOUT)
    assert ended.code == 0
    assert int(ended.stdout.splitlines()[-1]) > 10_000


def test_an_empty_folder_makes_an_empty_report_where_that_is_allowed(empty: Path, report: Path) -> None:
    report.unlink()
    result = batchdigits("predict", empty, "-o", report, "--allow-empty")
    assert (result.code, result.stdout) == (0, "")
    assert result.stderr.startswith("0 images: ")
    assert report.read_bytes().decode() == HEADER + "\r\n"


@pytest.mark.parametrize("where", [[], ["-o", "-"]])
def test_without_a_report_csv_goes_to_standard_output_and_nothing_else_does(where: list[str], empty: Path) -> None:
    result = batchdigits("predict", empty, *where, "--allow-empty")
    assert (result.code, result.stdout) == (0, HEADER + "\r\n")
    assert result.stderr.startswith("0 images: ")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("model.keras", "model.keras does not match"),
        ("finder.keras", "finder.keras does not match"),
        ("finder.tflite", "finder.tflite does not match"),
        ("bundle.json", "damaged"),
        ("-model.keras", "model.keras"),
        ("-finder.keras", "finder.keras"),
        ("-finder.tflite", "finder.tflite"),
    ],
)
def test_a_bundle_with_a_changed_byte_and_one_without_a_network_are_refused(
    damage: str, words: str, tmp_path: Path, report: Path
) -> None:
    write_png(tmp_path / "7.png", one_of_each()[7])
    bundle = tmp_path / "bundle"
    shutil.copytree(PACKAGED, bundle)
    if damage.startswith("-"):
        (bundle / damage.removeprefix("-")).unlink()
    else:
        data = bytearray((bundle / damage).read_bytes())
        data[len(data) // 2] ^= 1
        (bundle / damage).write_bytes(data)
    other = [["explain", tmp_path / "7.png"]] if damage == "model.keras" else []
    for command in (["predict", tmp_path / "7.png", "-o", report], *other):
        result = batchdigits(*command, "--model", bundle)
        assert result.code == 6
        assert words in result.message
        assert str(bundle) in result.message
        assert "--model" in result.message
    assert report.read_bytes() == b"last night"


def test_an_ink_finder_that_cannot_be_opened_ends_the_run_with_code_6_and_no_row_is_lost(tmp_path: Path) -> None:
    finder = {"finder": b"no finder", "exported_finder": b"no finder"}
    reader = {"weights": (PACKAGED / "model.keras").read_bytes(), "exported": (PACKAGED / "model.tflite").read_bytes()}
    broken = bundle_in(tmp_path / "broken", **finder, **reader).directory
    for number, digit in enumerate(sample_pages.digits(60)[:8]):
        write_png(tmp_path / f"scans/cut_out{number}.png", digit)
        write_png(tmp_path / f"scans/page{number}.png", on_page(digit, 80, 70))
    command = ["predict", tmp_path / "scans", "-o", tmp_path / "r.csv", "--runtime", "litert", "--workers", "2"]
    failed = batchdigits(*command, "--model", broken)
    assert failed.code == 6
    assert "LiteRT cannot open the model of the bundle" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "r.csv").exists()
    mended = batchdigits(*command)
    assert mended.code == 0, mended.stderr
    rows = (tmp_path / "r.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == sorted(path.name for path in (tmp_path / "scans").iterdir())


@pytest.mark.parametrize("command", [["evaluate"], ["train", "--data"]])
def test_a_label_file_with_unknown_digits_is_a_usage_error(command: list[str], tmp_path: Path) -> None:
    write_png(tmp_path / "7.png", one_of_each()[7])
    (tmp_path / "labels.csv").write_text("path,label\n7.png,7\n7.png,seven\n7.png,12\n")
    result = batchdigits(*command, "labels.csv", "-o", "out", cwd=tmp_path)
    assert result.code == 2
    words = ["labels.csv", "'seven'", "row 2", "0 to 9", "1 more", "mend or remove"]
    assert [word for word in words if word not in result.message] == []


def test_labelled_data_that_do_not_exist_are_a_storage_error_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,label\nnowhere.png,7\n")
    for source in ("missing", "labels.csv"):
        result = batchdigits("evaluate", source, "-o", "out", cwd=tmp_path)
        assert result.code == 5
        assert ("nowhere.png" if source == "labels.csv" else "missing") in result.message


# permissions


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder with an image and a folder for reports, where permissions count."""
    write_png(tmp_path / "in" / "7.png", one_of_each()[7])
    (tmp_path / "out").mkdir()
    (tmp_path / "closed").touch(mode=0o000)
    if not permissions_hold(tmp_path / "closed"):
        pytest.skip("this is root, and its right to pass over permissions cannot be laid down here")
    return tmp_path


@pytest.mark.parametrize("closed", ["in", "in/sub"])
def test_a_folder_that_may_not_be_listed_ends_the_run(closed: str, scans: Path) -> None:
    (scans / "in" / "sub").mkdir()
    (scans / "out" / "report.csv").write_bytes(b"last night")
    (scans / closed).chmod(0o000)
    result = under_permissions("predict", scans / "in", "-o", scans / "out" / "report.csv")
    (scans / closed).chmod(0o755)
    assert result.code == 5
    assert str(scans / closed) in result.message
    assert "ermission" in result.message
    assert ("--exclude /sub/ or" in result.message) == (closed == "in/sub")
    assert (scans / "out" / "report.csv").read_bytes() == b"last night"


def test_a_report_folder_that_may_not_be_written_ends_the_run_before_any_work(scans: Path) -> None:
    (scans / "out").chmod(0o555)
    result = under_permissions("predict", scans / "in", "-o", scans / "out" / "report.csv")
    assert result.code == 5
    assert str(scans / "out") in result.message
    assert "permission" in result.message
    assert names(scans / "out") == []


@pytest.mark.parametrize("mode", [0o000, 0o400])
def test_a_ledger_that_may_not_be_written_is_named_with_what_to_change(scans: Path, mode: int) -> None:
    report = scans / "out" / "report.csv"
    assert batchdigits("predict", scans / "in", "-o", report, "--runtime", "litert").code == 0
    Path(f"{report}.ledger").chmod(mode)
    (scans / "answers.csv").write_text("path,corrected\n7.png,7\n")
    for arguments in (["predict", scans / "in", "-o", report], ["correct", report, scans / "answers.csv"]):
        result = under_permissions(*arguments)
        assert result.code == 5
        assert f"{report}.ledger cannot be written: there is no permission to; change the permissions" in result.message


def test_an_image_a_bundle_and_a_job_file_that_may_not_be_read_are_named(scans: Path) -> None:
    image, bundle, job = scans / "in" / "7.png", scans / "bundle", scans / "job.toml"
    shutil.copytree(PACKAGED, bundle)
    job.write_text("threshold = 0.5\n")
    for path in (image, bundle / "model.keras", job):
        path.chmod(0o000)
    explained = under_permissions("explain", image)
    assert (explained.code, explained.stderr) == (3, "")
    assert "unreadable" in explained.stdout
    assert "permission" in explained.stdout.lower()
    damaged = under_permissions("explain", image, "--model", bundle)
    assert damaged.code in (5, 6)
    assert str(bundle) in damaged.message
    configured = under_permissions("predict", scans / "in", "--config", job)
    assert configured.code == 2
    assert "job.toml" in configured.stderr
    assert "read" in configured.stderr


# options


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--zzz"], ["--zzz", "Options are --output, --model, "]),
        (["--workers", "many"], ["'many' is not a whole number"]),
        (["--treshold", "0.5"], ["--treshold", "--threshold"]),
        (["--threshold", "1.5"], ["--threshold", "1"]),
        (["--threshold", "nan"], ["--threshold"]),
        (["--batch-size", "0"], ["--batch-size"]),
        (["--wait", "inf"], ["--wait", "86400"]),
        (["--settle", "nan"], ["--settle"]),
        (["--csv-dialect", "lotus"], ["--csv-dialect", "excel-eu"]),
    ],
)
def test_an_option_that_makes_no_sense_is_a_usage_error(arguments: list[str], words: list[str], empty: Path) -> None:
    result = batchdigits("predict", empty, "--allow-empty", *arguments, env={"COLUMNS": "200"})
    assert (result.code, result.stdout) == (2, "")
    assert [word for word in words if word not in result.stderr] == []
    assert "Traceback" not in result.stderr


def test_a_confidence_may_be_per_cent(empty: Path) -> None:
    for threshold in ("95%", "0.95", " 95 %"):
        result = batchdigits("predict", empty, "--threshold", threshold, "--show-config")
        assert "threshold = 0.95  # from the command line" in result.stdout
    for threshold, meant in (("95", "95%"), ("0,95", "0.95")):
        refused = batchdigits("predict", empty, "--threshold", threshold)
        assert refused.code == 2
        assert f"{threshold} is no confidence; expected 0% to 100%, as in 95%, or 0 to 1; did you mean {meant}?" in (
            refused.stderr
        )


def test_the_folders_of_reports_are_made_but_not_by_a_dry_run(empty: Path, tmp_path: Path) -> None:
    report = tmp_path / "new" / "folder" / "report.csv"
    write_png(empty / "7.png", one_of_each()[7])
    assert batchdigits("predict", empty, "-o", report, "--dry-run").code == 5
    assert not (tmp_path / "new").exists()
    made = batchdigits("predict", empty, "-o", report, "--runtime", "litert")
    assert made.code == 0
    assert made.stderr.startswith(f"Made the folder {report.parent}.\n")
    assert report.exists()


@pytest.mark.parametrize(("arguments", "code"), [(["--model", "nowhere"], 6), (["--threads", "0"], 2)])
def test_no_folder_is_made_for_reports_that_do_not_come(arguments: list[str], code: int, empty: Path) -> None:
    (empty / "notes.txt").touch()
    result = batchdigits("predict", empty, "-o", empty / "new" / "folder" / "report.csv", *arguments)
    assert (result.code, "Made the folder" in result.stderr) == (code, False)
    assert names(empty) == ["notes.txt"]


def test_a_source_alone_is_read_and_a_terminal_gets_the_reports_for_people(tmp_path: Path) -> None:
    write_png(tmp_path / "scans" / "7.png", one_of_each()[7])
    piped = batchdigits("scans/", "--no-ledger", cwd=tmp_path)
    assert (piped.code, piped.stdout.splitlines()[0]) == (0, HEADER)
    assert names(tmp_path) == ["scans"]
    shown = on_a_terminal("scans", data=True, cwd=tmp_path)
    assert shown.code == 0
    assert "Wrote report.csv, report.html" in shown.stderr
    assert {"report.csv", "report.html"} <= set(names(tmp_path))
    assert batchdigits("nowhere", cwd=tmp_path).code == 2  # neither a command nor there


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_panels_at_the_width_of_the_terminal_two_examples_and_no_variables(command: str) -> None:
    shown = batchdigits(command, "--help", env={"COLUMNS": "80"}).stdout
    assert max(map(len, shown.splitlines())) == 80
    assert "[env var" not in shown
    assert shown.count(f"  batchdigits {command} ") == 2
    assert "╭─ Basics ─" in shown
    if command == "predict":
        panels = re.findall(r"╭─ (.*?) ─+╮", shown)
        assert panels == [
            *("Arguments", "Basics", "Confidence", "Reports", "Every night", "This machine", "Cluster"),
        ]
        _, confidence = shown.split("╭─ Confidence ─")
        assert "--no-adapt" in confidence.partition("╭─ Reports ─")[0]
        assert "0.5%)]" in confidence
        assert "0.005" not in shown


@pytest.mark.parametrize(
    ("target", "share"), [("0.5%", 0.005), ("0.005", 0.005), (" 1 % ", 0.01), ("10%", 0.1), ("0.1%", 0.001)]
)
def test_a_target_error_is_a_share_or_per_cent(target: str, share: float, empty: Path) -> None:
    result = batchdigits("predict", empty, "--target-error", target, "--show-config")
    assert f"target_error = {share}  # from the command line" in result.stdout


@pytest.mark.parametrize("target", ["0.5", "1", "0.05%", "nan", "half", "-1%"])
def test_a_target_error_that_makes_no_sense_is_a_usage_error(target: str, empty: Path) -> None:
    result = batchdigits("predict", empty, "--target-error", target, env={"COLUMNS": "200"})
    assert result.code == 2
    assert "is no share of errors; expected 0.1% to 10%, as in 0.5%" in result.stderr


def test_where_the_default_target_cannot_be_proven_the_tightest_that_can_is_used(tmp_path: Path) -> None:
    hard = Domain("all", digits=6000, risks=(ThresholdCounts(0.9, passed=5000, wrong=80),))
    model = bundle_in(tmp_path / "model", domains=(hard,)).directory
    write_png(tmp_path / "scans" / "1.png", on_page(one_of_each()[1]))

    def predict(*options: str) -> Result:
        command = ["-m", "tests.fake_model_cli", "predict", tmp_path / "scans", "-o", tmp_path / "r.csv"]
        return run([sys.executable, *command, "--model", model, *options], cwd=CHECKOUT)

    found = predict()
    assert found.code == 0
    assert "cannot prove a target error of 0.5%; 2.0% is the tightest that they can, and is used" in found.stderr
    refused = predict("--target-error", "0.5%")  # who names it wants it
    assert (refused.code, "cannot prove the target error 0.50%" in refused.message) == (2, True)
    assert "cannot prove" not in predict("--threshold", "0.9").stderr


def test_of_threshold_and_target_error_the_one_nearer_to_the_command_line_counts(tmp_path: Path) -> None:
    write_png(tmp_path / "scans" / "7.png", one_of_each()[7])
    (tmp_path / "job.toml").write_text("threshold = 0.75\n")
    said = []
    for options in (["--target-error", "2%"], [], ["--target-error", "2%", "--threshold", "0.8"]):
        arguments = ["predict", "scans", "--config", "job.toml", "--no-ledger", "-o", "r.csv", "-v", *options]
        done = run(
            [sys.executable, "-m", "tests.fake_model_cli", *arguments], cwd=tmp_path, env={"PYTHONPATH": CHECKOUT}
        )
        words = " ".join(done.stderr.partition("Trust: ")[2].split())
        said.append(words)
    assert said[0].startswith(
        "target error 2.00% (proven for scans like those that were tested; the hardest kind was «"
    )
    assert said[1].startswith("ok from a confidence of 0.75")
    assert said[2].startswith("ok from a confidence of 0.8")


@pytest.mark.parametrize("arguments", [[], ["predict"], ["recognise", "x.png"]])
def test_a_command_that_is_incomplete_or_unknown_is_a_usage_error(arguments: list[str]) -> None:
    result = batchdigits(*arguments)
    assert result.code == 2
    assert "Usage: batchdigits" in result.stderr + result.stdout
    commands = "\nNor is there a file or folder of that name. Commands:\npredict, train, evaluate, explain, schedule"
    assert (commands in result.stderr) == ("recognise" in arguments)


@pytest.mark.parametrize(
    ("command", "lines", "words"),
    [
        ("predict", "treshold = 0.5", "treshold; did you mean threshold?"),
        ("train", "epoch = 3", "epoch; did you mean epochs?"),
        ("explain", "qqqq = 3", "qqqq; known are"),
        ("predict", 'config = "other.toml"', "unknown key config"),
        ("predict", "threshold = ", "is not TOML"),
        ("predict", 'threshold = "high"', "--threshold"),
        ("predict", "threshold = 7", "--threshold"),
        (
            "predict",
            'output = "sftp://user:secret@host/report.csv"',
            'gives output as another type; expected a list: output = ["…"]',
        ),
        ("predict", 'sources = "scans"', 'expected a list: sources = ["…"]'),
        ("predict", "output = 5", 'output as another type; expected a list: output = ["…"]'),
        ("predict", 'output = ["a\\u0000b.csv"]', 'output as another type; expected a list: output = ["…"]'),
        ("predict", "include = [[1], 2]", "include as another type"),
        ("predict", "workers = inf", "workers as another type; expected a whole number"),
        ("predict", "workers = 2.5", "workers as another type; expected a whole number"),
        ("predict", "workers = true", "workers as another type; expected a whole number"),
        ("predict", "threshold = nan", "threshold as another type; expected a number"),
        ("predict", "target-error = [0.5]", "target-error as another type; expected a number"),
        ("predict", "ray-address = 5", 'ray-address as another type; expected a text: "…"'),
        ("predict", "settle = " + 400 * "9", "settle as another type; expected a number"),
        ("predict", "model = 5", 'model as another type; expected a text: "…"'),
        ("predict", "force = 1979-05-27", "force as another type; expected true or false"),
        ("predict", "a = " + 5000 * "[", "is not TOML"),
        ("predict", '"a\\u001b[2J\\n" = 1', r"unknown key a\x1b[2J\x0a"),
        ("predict", "threads = 100000", "--threads"),
    ],
)
def test_a_job_file_that_makes_no_sense_is_a_usage_error(
    command: str, lines: str, words: str, tmp_path: Path, empty: Path
) -> None:
    (tmp_path / "job.toml").write_text(lines + "\n")
    arguments = {"predict": ["empty"], "train": ["--data", "missing"], "explain": ["missing.png"]}[command]
    result = batchdigits(command, *arguments, "--config", "job.toml", cwd=tmp_path, env={"COLUMNS": "500"})
    assert (result.code, result.stdout) == (2, "")
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert names(tmp_path) == ["empty", "job.toml"]


def test_a_pipe_in_the_place_of_a_job_file_is_not_waited_for(empty: Path) -> None:
    os.mkfifo(empty / "job.toml")
    result = batchdigits("predict", empty, "--config", empty / "job.toml")
    assert (result.code, "it is a pipe, a device or a socket" in result.stderr.replace("\n", " ")) == (2, True)


def test_a_job_file_that_is_missing_is_named(empty: Path) -> None:
    result = batchdigits("predict", empty, "--config", "night.toml")
    assert result.code == 2
    assert "night.toml" in result.stderr


def test_the_command_line_wins_over_the_environment_that_over_the_job_file_and_that_over_the_default(
    tmp_path: Path, empty: Path
) -> None:
    def reports(*arguments: str, **env: str) -> list[str]:
        """Run in this folder; tell, and remove, the reports that were written, and `-` for standard output."""
        result = batchdigits("predict", "empty", *arguments, cwd=tmp_path, env=env)
        assert result.code == 0, result.stderr
        written = sorted(path.name for path in tmp_path.glob("*.csv"))
        for name in written:
            (tmp_path / name).unlink()
        return written + ["-"] * bool(result.stdout)

    (tmp_path / "job.toml").write_text('output = ["file.csv", "twin.csv"]\nallow-empty = true\n')
    variable = {"BATCHDIGITS_PREDICT_OUTPUT": "variable.csv"}
    assert reports("--config", "job.toml", "-o", "line.csv", **variable) == ["line.csv"]
    assert reports("--config", "job.toml", **variable) == ["variable.csv"]
    assert reports("--config", "job.toml") == ["file.csv", "twin.csv"]
    assert reports("--allow-empty") == ["-"]
    assert reports(BATCHDIGITS_PREDICT_CONFIG="job.toml") == ["file.csv", "twin.csv"]
    assert reports(BATCHDIGITS_PREDICT_ALLOW_EMPTY="1", **variable) == ["variable.csv"]


def test_sources_of_a_job_file_serve_where_the_command_line_names_none(tmp_path: Path, empty: Path) -> None:
    (tmp_path / "job.toml").write_text('sources = ["missing"]\n')
    assert "missing" in batchdigits("predict", "--config", "job.toml", cwd=tmp_path).message
    assert "in empty" in batchdigits("predict", "empty", "--config", "job.toml", cwd=tmp_path).message


# trouble that nobody planned


def stand_in_for_tensorflow(folder: Path, *lines: str) -> dict[str, str]:
    """Put a module in TensorFlow's place that does what `lines` say when it is imported."""
    (folder / "tensorflow").mkdir(parents=True)
    (folder / "tensorflow" / "__init__.py").write_text("\n".join(lines) + "\n")
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with so many digits that several worker processes read them."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(MANY):
        write_png(folder / f"{number}.png", one_of_each()[number % 10])
    return folder


@pytest.fixture(params=["few", "many"])
def few_or_many(request: pytest.FixtureRequest, many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that one process and that several read."""
    if request.param == "many":
        return many
    folder = tmp_path_factory.mktemp("few")
    write_png(folder / "7.png", one_of_each()[7])
    return folder


def test_ctrl_c_is_130_with_one_sentence_and_leaves_the_old_report(
    tmp_path: Path, report: Path, few_or_many: Path
) -> None:
    interrupting = stand_in_for_tensorflow(
        tmp_path / "modules",
        "import os, time",
        "os.write(2, b'what TensorFlow writes while it is loaded\\n')",
        f"os.kill(os.getppid(), {int(signal.SIGINT)})",
        "time.sleep(60)",
    )
    result = batchdigits("predict", few_or_many, "-o", report, "--runtime", "keras", env=interrupting)
    assert (result.code, result.stdout) == (130, "")
    assert "Interrupted: what was finished is kept" in result.message
    assert report.read_bytes() == b"last night"
    assert names(tmp_path) == [".report.csv.ledger.lock", "modules", "report.csv"]


def test_ctrl_c_while_modules_load_shows_no_traceback() -> None:
    pressing = "import os, signal, batchdigits.cli; os.kill(os.getpid(), signal.SIGINT); import batchdigits.cli.app"
    assert run([sys.executable, "-c", pressing]) == Result(-signal.SIGINT, "", "")


def test_ctrl_c_is_not_lost_in_what_explain_loads(tmp_path: Path) -> None:
    write_png(tmp_path / "7.png", on_page(one_of_each()[7]))
    swallowing = stand_in_for_tensorflow(
        tmp_path / "modules",
        "import os, time",
        "try:",
        f"    os.kill(os.getpid(), {int(signal.SIGINT)})",
        "    time.sleep(60)",
        "except BaseException:",
        "    pass",
    )
    result = batchdigits("explain", tmp_path / "7.png", "--runtime", "keras", env=swallowing)
    assert result == Result(130, "", "interrupted\n")


def test_an_error_that_nobody_planned_is_1_and_shows_its_traceback_only_when_asked(
    tmp_path: Path, report: Path
) -> None:
    write_png(tmp_path / "in" / "7.png", one_of_each()[7])
    failing = stand_in_for_tensorflow(tmp_path / "modules", "raise RuntimeError('no such instruction')")
    result = batchdigits("predict", tmp_path / "in", "-o", report, "--runtime", "keras", env=failing)
    assert result.code == 1
    assert "RuntimeError: no such instruction" in result.message
    assert "-v" in result.message
    verbose = batchdigits("predict", tmp_path / "in", "-o", report, "-v", "--runtime", "keras", env=failing)
    assert verbose.code == 1
    assert "Traceback (most recent call last)" in verbose.stderr
    assert report.read_bytes() == b"last night"


# train


def test_a_training_that_is_interrupted_says_which_command_goes_on_and_is_not_lost_by_the_same_command(
    tmp_path: Path,
) -> None:
    labelled, output = tmp_path / "a folder", tmp_path / "out"
    for number in range(100):
        write_png(labelled / str(number % 10) / f"{number}.png", one_of_each()[number % 10])
    command = ["train", "--arch", "dense", "--data", labelled, "--epochs", "9999", "--batch-size", "8", "-o", output]
    found = on_a_terminal(*command, "--overwrite", signal_after=(b"epoch 3/", int(signal.SIGINT)))
    assert found.code == 130
    said = re.sub(r"\s+", " ", "Interrupted:" + found.stderr.rpartition("Interrupted:")[2].replace("\r\n", " ")).strip()
    goes_on = shlex.join(["batchdigits", *map(str, command), "--resume"])
    assert said == f"Interrupted: the epochs that were finished are kept; go on with: {goes_on}"

    kept = (output / "history.jsonl").read_bytes()
    again = batchdigits(*command)
    assert again.code == 2
    assert again.message == (
        f"The folder {output} holds a training; go on with it by --resume, replace it by --overwrite, or choose "
        "another --output."
    )
    assert (output / "history.jsonl").read_bytes() == kept


def test_a_training_ends_with_where_the_model_is_and_evaluate_with_where_it_wrote(tmp_path: Path) -> None:
    for number in range(100):
        write_png(tmp_path / "data" / str(number % 10) / f"{number}.png", one_of_each()[number % 10])
    done = batchdigits("train", "--arch", "dense", "--data", "data", "--epochs", "1", "-o", "a model", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert re.search(
        r"^epoch 1 of 1: [\d.]+% of the validation part right, loss [\d.]+; \d+ s$", done.stderr, re.MULTILINE
    )
    assert done.stderr.splitlines()[-2:] == [
        "The model stands in 'a model', with its metrics and pictures.",
        "Next: batchdigits predict scans/ -o report.csv -o report.html --model 'a model' --threshold 90%",
    ]  # a network that learnt so little can prove no target, so that without a threshold it would be refused
    measured = batchdigits("evaluate", "data", "--model", "a model", "-o", "out", cwd=tmp_path)
    assert measured.code == 0, measured.stderr
    assert measured.stderr.splitlines()[-1] == "Wrote metrics and pictures into out"


@pytest.mark.parametrize("arguments", [["train", "-o", "train"], ["-o", "train", "--overwrite", "--resume"]])
def test_the_command_that_goes_on_is_spelled_for_the_program_and_for_its_job(arguments: list[str]) -> None:
    with pytest.raises(Interrupted, match=r"go on with: batchdigits train -o train --resume$"), resumable(arguments):
        raise KeyboardInterrupt


def test_an_interrupt_that_falls_into_a_lock_is_one_all_the_same() -> None:
    def released() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("cannot release un-acquired lock")

    with pytest.raises(Interrupted, match="go on with"), resumable(["train"]):
        released()
    with pytest.raises(RuntimeError, match="another"), resumable(["train"]):
        raise RuntimeError("another")


# explain


def test_explain_asks_for_the_path_on_a_terminal() -> None:
    result = on_a_terminal("explain", typed=f"{DATA / 'truncated.png'}\n")
    assert result.code == 3
    assert "Path of the image" in result.stderr
    assert result.stdout.startswith("No digit is recognised: unreadable: ")


def test_a_file_that_is_dropped_onto_the_terminal_may_be_quoted(tmp_path: Path) -> None:
    shutil.copy(DATA / "truncated.png", tmp_path / "a b's.png")
    for typed in (shlex.quote(str(tmp_path / "a b's.png")), f"{tmp_path}/a\\ b\\'s.png", f"{tmp_path}/a b's.png"):
        assert on_a_terminal("explain", typed=f"{typed}\n").code == 3


def test_windows_is_told_in_one_sentence_where_this_runs() -> None:
    told = run([sys.executable, "-c", "import sys; sys.platform = 'win32'; import batchdigits.cli.app"])
    assert (told.code, told.stdout) == (1, "")
    assert (
        told.message == "batchdigits needs Linux or macOS; on Windows, install and run it within WSL (wsl --install)."
    )


@pytest.mark.parametrize(("typed", "code"), [("\x04", 2), ("", 130)])
def test_explain_is_left_at_its_question_by_ctrl_d_and_by_ctrl_c(typed: str, code: int) -> None:
    ctrl_c = None if typed else (b"Path of the image", int(signal.SIGINT))
    result = on_a_terminal("explain", typed=typed, signal_after=ctrl_c)
    assert result.code == code
    assert "unexpected" not in result.stderr


def test_explain_without_an_image_and_without_a_terminal_is_a_usage_error() -> None:
    result = batchdigits("explain")
    assert (result.code, result.stdout) == (2, "")
    assert "batchdigits explain scan.png" in result.message


@pytest.mark.parametrize(
    ("name", "kind"),
    [("zero_bytes.png", "unreadable"), ("bomb.png", "too_large"), ("scan.pdf", "unsupported")],
)
def test_explain_says_what_is_wrong_with_an_image_and_exits_with_3(name: str, kind: str) -> None:
    result = batchdigits("explain", DATA / name)
    assert (result.code, result.stderr) == (3, "")
    assert result.stdout.startswith(f"No digit is recognised: {kind}")


def test_explain_of_a_missing_image_is_5_and_names_it() -> None:
    result = batchdigits("explain", "nowhere.png")
    assert result.code == 5
    assert "nowhere.png" in result.message


def test_explain_of_a_folder_is_refused_as_a_folder(empty: Path) -> None:
    result = batchdigits("explain", empty)
    assert result.code in (2, 5)
    assert "folder" in result.message


def test_names_in_messages_cannot_steer_the_terminal(tmp_path: Path) -> None:
    name = "a\nb\x1b[31m\u202egnp.\\.png"
    for command in ("predict", "explain", "evaluate"):
        assert r"a\x0ab\x1b[31m\u202egnp.\\.png" in batchdigits(command, name, cwd=tmp_path).message


# with the real model


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a 7 and a 1."""
    folder = tmp_path_factory.mktemp("digits")
    for digit in (7, 1):
        write_png(folder / f"{digit}.png", one_of_each()[digit])
    return folder


@pytest.fixture(scope="module")
def quiet(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A run with -q into two reports and a pipe that nobody reads, over three digits: the folder of the reports."""
    folder = tmp_path_factory.mktemp("quiet")
    shutil.copytree(digits, folder / "in")
    seven = (digits / "7.png").read_bytes()
    profile = chunk(b"iCCP", b"bad profile\0\0" + zlib.compress(bytes(200)))
    (folder / "in" / "grumbled about.png").write_bytes(seven[:33] + profile + seven[33:])  # after the IHDR chunk
    reading, writing = os.pipe()
    os.close(reading)  # as `| head -1` does, only sooner
    command = [BATCHDIGITS, "predict", "in", "-q", "-o", "report.csv", "-o", "-", "-o", "report.parquet"]
    done = subprocess.run(
        command, cwd=folder, env=environment(), stdout=writing, stderr=subprocess.PIPE, timeout=120, check=False
    )
    os.close(writing)
    return folder, Result(done.returncode, "", done.stderr.decode())


def test_many_files_are_read_by_processes_without_a_word_of_theirs(many: Path) -> None:
    result = batchdigits("predict", many, "-q")
    assert (result.code, result.stderr) == (0, "")
    rows = csv.DictReader(io.StringIO(result.stdout))
    said = {int(row["path"].removesuffix(".png")): int(row["digit"]) for row in rows}
    assert said == {number: number % 10 for number in range(MANY)}


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def test_a_reader_that_leaves_early_is_no_trouble_and_the_reports_are_whole(quiet: tuple[Path, Result]) -> None:
    folder, result = quiet
    assert result.code == 0
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr
    assert [name for name in names(folder) if "ledger" not in name] == ["in", "report.csv", "report.parquet"]
    rows = list(csv.DictReader(io.StringIO((folder / "report.csv").read_text(encoding="utf-8"))))
    assert [row["digit"] for row in rows] == ["1", "7", "7"]


def test_explain_to_a_reader_that_has_left_is_no_trouble(digits: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [BATCHDIGITS, "explain", digits / "7.png"]
    done = subprocess.run(
        command, cwd=digits, env=environment(), stdout=writing, stderr=subprocess.PIPE, timeout=120, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_quiet_success_is_silent_though_tensorflow_ran(quiet: tuple[Path, Result]) -> None:
    said = [line for line in quiet[1].stderr.splitlines() if not line.startswith("libpng")]
    assert said == []


def test_quiet_success_is_silent_though_a_codec_grumbles_about_a_file_that_it_reads(quiet: tuple[Path, Result]) -> None:
    assert quiet[1].stderr == ""


def test_a_report_gets_the_permissions_that_the_umask_says(quiet: tuple[Path, Result]) -> None:
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((quiet[0] / "report.csv").stat().st_mode) == 0o666 & ~umask


@pytest.fixture(scope="module")
def on_terminal(digits: Path) -> Result:
    """A run with messages on a terminal, over two digits, a blank page and a broken file, without -o."""
    write_png(digits / "more" / "blank.png", one_of_each()[0] * 0 + 255)
    shutil.copy(DATA / "truncated.jpg", digits / "more")
    return on_a_terminal("predict", digits, digits / "7.png")


def test_a_file_that_cannot_be_read_makes_a_row_and_exit_code_3(on_terminal: Result) -> None:
    assert on_terminal.code == 3
    rows = list(csv.DictReader(io.StringIO(on_terminal.stdout)))
    found = [(row["path"].rpartition("/")[2], row["status"], row["digit"]) for row in rows]
    assert [name for name, _, _ in found] == ["1.png", "7.png", "blank.png", "truncated.jpg"]
    assert [digit for _, _, digit in found] == ["1", "7", "", ""]
    assert [status for _, status, _ in found][2:] == ["blank", "unreadable"]


def test_data_goes_to_standard_output_alone(on_terminal: Result) -> None:
    assert on_terminal.stdout.startswith(HEADER + "\r\n")
    assert on_terminal.stdout.count("\n") == on_terminal.stdout.count("\r\n") == 5
    assert HEADER not in on_terminal.stderr


def test_a_terminal_sees_a_bar_and_then_a_few_lines_of_words(on_terminal: Result) -> None:
    bar, _, lines = on_terminal.stderr.rpartition("\r\x1b[K")
    shown = [re.sub(r" … \d+:\d\d$", "", line) for line in bar.split("\r\x1b[K")]
    assert any(re.fullmatch(r"Loading the model: 0/4 images", line) for line in shown)
    assert "oneDNN" not in bar
    counts, after, failed = lines.splitlines()
    assert re.fullmatch(r"4 images: [012] read(, [12] to check)?, 1 without a digit, 1 failed", counts)
    assert re.fullmatch(
        r"\x1b\[1;36mNext:\x1b\[0m add -o report\.html to check what is doubtful \([1-5] to look at\)", after
    )
    assert re.fullmatch(r"\x1b\[1;31mFailed:\x1b\[0m …\S+/truncated\.jpg \(unreadable\), see column detail", failed)


def test_explain_says_the_digit_shows_ten_bars_and_saves_what_the_model_saw(digits: Path, tmp_path: Path) -> None:
    result = batchdigits("explain", digits / "7.png", "--save-input", tmp_path / "seen.png")
    assert (result.code, result.stderr) == (0, "")
    sentence, *bars = result.stdout.splitlines()
    assert sentence == "The handwritten digit is recognised as 7"
    bars = bars[-10:]
    shares = [float(bar.split()[1]) for bar in bars]
    assert [bar.split()[0] for bar in bars] == [str(digit) for digit in range(10)]
    assert sum(shares) == pytest.approx(1, abs=0.001)
    assert max(range(10), key=shares.__getitem__) == 7
    assert [bar.count("█") for bar in bars] == [round(40 * share) for share in shares]
    seen = cv2.imread(str(tmp_path / "seen.png"), cv2.IMREAD_UNCHANGED)
    assert seen is not None
    assert (seen.shape, seen.dtype.name) == ((28, 28), "uint8")
    assert seen.max() > 200
    assert (seen[:3] == 0).all()  # bright ink on 0, with the frame's margin


def test_an_empty_path_is_the_folder_that_one_is_in_and_no_question_for_another() -> None:
    result = batchdigits("explain", "")
    assert result.code == 2
    assert "is a folder; name one image" in result.message

"""The engine ray: the bytes of the local engine, whatever becomes of its workers. Real Ray; a stand-in predicts."""

import importlib.util
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from batchdigits.engine import networks
from batchdigits.engine.ray_cluster import driver, engine
from batchdigits.engine.ray_cluster import worker as reading
from batchdigits.engine.ray_cluster.client import _descendants
from batchdigits.engine.ray_cluster.driver import host_and_port
from batchdigits.engine.ray_cluster.worker import RayWorker, versions
from batchdigits.engine.run_context import StageTimer
from batchdigits.engine.worker import Drawing
from batchdigits.errors import BatchDigitsError, BundleError, Fault, FaultKind, UsageError
from batchdigits.inference import bundle
from batchdigits.records import ImageFile
from batchdigits.settings import PredictSettings, Runtime
from batchdigits.sources.discovery import discover
from batchdigits.storage.local import file_sha256
from batchdigits.storage.urls import locate
from tests.cli_runner import BATCHDIGITS, CHECKOUT, PATIENCE, Result, batchdigits, environment, run
from tests.engine.ray_cluster.cluster import SECRET, command_of, two_nodes
from tests.fake_model import FakePredictor
from tests.sample_pages import digits, on_page, write_differing, write_png, write_tiff
from tests.test_recovery import known, rows_of, wait_until_known

DATA = Path(__file__).parents[2] / "data"
FILES = 1500


def ray(*arguments: str | Path, **env: str | Path) -> Result:
    """Run the command on Ray, with a stand-in for the model; the driver's and the workers' environment is `env`."""
    return run(_command(*arguments), cwd=CHECKOUT, env={"PYTHONPATH": CHECKOUT, **env})


def _command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "tests.engine.ray_cluster.cli", "predict", *map(str, arguments)]


def started(*arguments: str | Path, **env: str | Path) -> "subprocess.Popen[str]":
    """Start it, with few files in a shard."""
    settings = environment({"CHUNK_FILES": "10", "PYTHONPATH": CHECKOUT, **env})
    return subprocess.Popen(
        _command(*arguments), cwd=CHECKOUT, env=settings, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every kind of file; half of them are old."""
    folder = tmp_path_factory.mktemp("mixed") / "scans"
    for number in range(60):
        write_png(folder / f"many/{number:02}.png", on_page(digits(60)[number], 40 + number % 7, 36))
    write_png(folder / "a/blank.png", np.full((30, 30), 255, np.uint8))
    write_tiff(folder / "a/b/pages.tif", [on_page(digit, 40, 50) for digit in digits(60)[50:55]])
    for name in ("bomb.png", "broken_second_page.tif", "photo.heic", "truncated.jpg", "zero_bytes.png"):
        shutil.copy(DATA / name, folder / name)
    shutil.copy(folder / "many/07.png", folder / "again.png")
    (folder / "a b\n.png").write_bytes((folder / "many/08.png").read_bytes())
    for file in sorted(folder.rglob("*.*"))[::2]:
        os.utime(file, (1e9, 1e9))
    return folder


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that all differ, so that each is predicted."""
    folder = tmp_path_factory.mktemp("scans") / "scans"
    write_differing(folder, FILES)
    return folder


@pytest.fixture(scope="module")
def expected(scans: Path) -> bytes:
    """The report of the local engine."""
    report = scans.with_name("whole.csv")
    local = [sys.executable, "-m", "tests.fake_model_cli", "predict", str(scans), "-o", str(report), "--no-ledger"]
    assert run(local, cwd=CHECKOUT).code == 0
    return report.read_bytes()


# ---- without Ray ---------------------------------------------------------------------------------------------------


def test_without_ray_the_message_names_the_extra(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['ray'] = None")
    missing = batchdigits("predict", mixed, "--engine", "ray", env={"PYTHONPATH": tmp_path})
    assert (missing.code, missing.stdout) == (2, "")
    assert missing.message == "The engine ray is not installed; install batchdigits[ray], or use --engine local."


def test_an_address_that_is_none_stands_in_the_summary(mixed: Path, tmp_path: Path) -> None:
    summary = tmp_path / "run.json"
    options = ("--engine", "ray", "--ray-address", "head", "--summary", summary)
    assert batchdigits("predict", mixed, *options).code == 2
    told = json.loads(summary.read_text())
    assert (told["exit_code"], told["error"].startswith(("--ray-address names", "The engine ray"))) == (2, True)
    assert batchdigits("predict", mixed, *options[:-2], "--dry-run").code == 2


def test_an_address_without_the_engine_is_refused_unless_the_engine_was_chosen_closer(mixed: Path) -> None:
    options = ("predict", mixed, "--dry-run", "-q")
    elsewhere = {"BATCHDIGITS_PREDICT_RAY_ADDRESS": "10.0.0.1:6379", "BATCHDIGITS_PREDICT_ENGINE": "ray"}
    for extra, env in ((("--ray-address", "auto"), {}), (("--engine", "local", "--ray-address", "auto"), elsewhere)):
        refused = batchdigits(*options, *extra, env=env)
        assert (refused.code, "--ray-address is for --engine ray" in refused.message) == (2, True)
    assert batchdigits(*options, "--engine", "local", env=elsewhere).code == 0


@pytest.mark.parametrize(
    "address",
    [
        "",
        "head",
        "head:",
        ":6379",
        "ray://head:10001",
        "head:66000",
        "head:x",
        "me:hunter2@head:6379",
        "a b:1",
        "::1:6379",
    ],
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="expected auto, or host:port such as") as told:
        host_and_port(address)
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize(
    ("address", "place"), [("auto", None), ("head:6379", ("head", 6379)), ("[::1]:6379", ("::1", 6379))]
)
def test_an_address_is_read(address: str, place: object) -> None:
    assert host_and_port(address) == place


def reader(monkeypatch: pytest.MonkeyPatch, *sources: str, **changes: str) -> RayWorker:
    monkeypatch.setattr(networks, "Predictor", FakePredictor)
    settings = PredictSettings(sources=(), runtime=Runtime.LITERT)
    chosen = pickle.dumps((settings, Drawing(1.0, 0.0, is_wanted=True), sources))
    return RayWorker(versions(Runtime.LITERT) | changes, "litert", chosen, bundle.packed(bundle.load()))


def shard(folder: Path) -> pa.Table:
    files = [file for file in discover([locate(str(folder))], outputs=[]) if isinstance(file, ImageFile)]
    return pa.table({"number": [7], "shard": [pickle.dumps([files[:5], files[5:]])]})


def sent(table: pa.Table) -> reading.Found | BatchDigitsError:
    assert table["number"].to_pylist() == [7]
    found: reading.Found | BatchDigitsError = pickle.loads(table["found"][0].as_py())
    return found


def test_a_worker_sends_a_row_for_each_page_and_loads_the_model_once(
    mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = reader(monkeypatch)
    first, second = sent(worker(shard(mixed))), sent(worker(shard(mixed)))
    assert isinstance(first, reading.Found)
    assert isinstance(second, reading.Found)
    assert sum(len(part) for part in first.chunks) == 75
    assert sum(len(part.faults) for part in first.chunks) == 5
    assert all((one.pages == other.pages).all() for one, other in zip(first.chunks, second.chunks, strict=True))
    stages = {"decode", "normalise", "predict", "decide"}
    assert (set(first.seconds), set(second.seconds)) == (stages | {"load model"}, stages)


def test_a_worker_reads_nothing_outside_in_the_place_of_what_was_found(
    mixed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scans, outside = tmp_path / "scans", tmp_path / "outside"
    shutil.copytree(mixed, scans)
    files = shard(scans)
    (scans / "many").rename(outside)
    (scans / "many").symlink_to(outside)
    found = sent(reader(monkeypatch, str(scans))(files))
    assert isinstance(found, reading.Found)
    details = [fault.detail for part in found.chunks for fault in part.faults.values()]
    assert sum("was replaced after it was found" in detail for detail in details) == len(list(outside.iterdir()))


def test_a_worker_of_another_version_says_so(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trouble = sent(reader(monkeypatch, batchdigits="9.9", opencv="1.0")(shard(mixed)))
    assert isinstance(trouble, UsageError)
    assert " instead of the run's 9.9, opencv " in str(trouble)
    assert str(trouble).endswith("; install the same versions on every node.")


def test_a_worker_that_cannot_load_the_model_says_so(mixed: Path) -> None:
    files = bundle.packed(bundle.load()) | {"model.keras": b"damaged"}
    chosen = pickle.dumps((PredictSettings(sources=()), Drawing(1.0, 0.0, is_wanted=True), ()))
    worker = RayWorker(versions(Runtime.LITERT), "litert", chosen, files)
    trouble = sent(worker(shard(mixed)))
    assert isinstance(trouble, BundleError)
    assert "model.keras does not match its sha256" in str(trouble)


def test_a_batch_has_the_files_of_its_shard_without_those_that_are_read_here(
    mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = shard(mixed)
    files, found = pickle.loads(table["shard"][0].as_py()), sent(reader(monkeypatch)(table))
    assert isinstance(found, reading.Found)
    gone = files[1][0]
    rows = [row for row, page in enumerate(found.chunks[1].pages) if page["file"] == 0]
    for row in rows:
        found.chunks[1].pages["fault"][row] = True
        found.chunks[1].pages["sha256"][row] = np.void(bytes(32))
        found.chunks[1].faults[row] = Fault(FaultKind.UNREADABLE, "cannot be opened: it was deleted")
    run_of = SimpleNamespace(timer=StageTimer(), settings=PredictSettings(sources=()))
    left: list[ImageFile] = []
    batch = engine._checked(run_of, files, found, left)  # type: ignore[arg-type]
    assert left == [gone]
    assert batch.files == [file for chunk in files for file in chunk if file != gone]
    expected = np.concatenate([found.chunks[0].pages, found.chunks[1].pages[len(rows) :]])
    assert (batch.pages["logits"] == expected["logits"]).all()
    sums = {file.path: file_sha256(Path(file.path)) for file in batch.files}
    assert batch.sha256 == [sums[batch.files[page["file"]].path] for page in batch.pages]


def tables(*rounds: list[int]) -> Callable[..., Iterator[pa.Table]]:
    """What the workers bring back in each round, in the place of Ray."""
    left = iter(rounds)

    def bring(ray: object, kept: list[bytes], job: object) -> Iterator[pa.Table]:
        for number in next(left):
            yield pa.table({"number": [number], "shard": [b"%d" % number], "found": [b"found %d" % number]})

    return bring


def read(count: int, monkeypatch: pytest.MonkeyPatch, *rounds: list[int]) -> list[driver.Message]:
    monkeypatch.setattr(driver, "_tables", tables(*rounds))
    ray = SimpleNamespace(get=lambda number: pa.table({"shard": [b"%d" % number]}))
    return list(driver._read(ray, {number: number for number in range(count)}, None))  # type: ignore[arg-type]


def test_what_comes_twice_counts_once_and_what_does_not_come_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {number: (b"%d" % number, b"found %d" % number) for number in range(4)}
    assert read(3, monkeypatch, [2, 0, 2, 1]) == [found[2], found[0], found[1]]
    assert read(4, monkeypatch, [0, 1], [1, 3]) == [found[0], found[1], found[3], (b"2", None)]
    assert read(0, monkeypatch) == []


def test_a_worker_that_hangs_in_a_decoder_ends_itself() -> None:
    hang = (
        "import time; from types import SimpleNamespace as Some; from batchdigits.engine.ray_cluster import worker;"
        "worker._SECONDS_A_CHUNK = 0.5;"
        "here = object.__new__(worker.RayWorker); here._trouble = None;"
        "here._reader = Some(parts=lambda _: time.sleep(60));"
        "here._read([[]])"
    )
    ended = run([sys.executable, "-c", hang], cwd=CHECKOUT)
    assert (ended.code, "Timeout (0:00:00.5" in ended.stderr) == (1, True)


@pytest.mark.parametrize("address", [None, "auto"])
def test_a_cluster_of_this_run_alone_has_a_secret_and_no_page_and_none_is_told_of(
    address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, object]]] = []
    ray = ModuleType("ray")
    ray.init = lambda where, **how: asked.append((where, how))  # type: ignore[attr-defined]
    ray.data = ModuleType("ray.data")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", ray.data)
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "before")
    driver._started(driver.Job(address, "/folder", 3, None, ({}, "", b"", {})))
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    if address:
        assert [where for where, _ in asked] == ["auto"]
        assert (os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"]) == ("before", "before")
    else:
        [(where, how)] = asked
        assert (where, how["include_dashboard"], how["_temp_dir"], how["num_cpus"]) == ("local", False, "/folder", 3)
        assert (os.environ["RAY_AUTH_MODE"], len(os.environ["RAY_AUTH_TOKEN"])) == ("token", 64)


# ---- with Ray --------------------------------------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="batchdigits[ray] is not installed")
class TestOnRay:
    """Each run of the command starts Ray, and ends it."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("seconds", [0.0, 0.3, 1.5, 4.0])
    def test_a_signal_to_all_while_ray_starts_ends_the_run_at_once(
        self, scans: Path, tmp_path: Path, seconds: float, number: signal.Signals
    ) -> None:
        report = tmp_path / "report.csv"
        run = started(scans, "-o", report, "--engine", "ray", "--workers", "2", "-q", SLOW=tmp_path / "count")
        wait_for(lambda: [pid for pid in _descendants(run.pid) if b"spawn_main" in command_of(pid)])
        time.sleep(seconds)
        asked = time.monotonic()
        os.killpg(run.pid, number)  # as a terminal does, and `timeout`
        _, said = run.communicate(timeout=PATIENCE)
        name = "Interrupted" if number == signal.SIGINT else "Terminated"
        assert (run.returncode, time.monotonic() - asked < 15) == (128 + number, True), said
        assert said == f"{name}: what was finished is kept, the next run goes on from there.\n"

    def test_every_kind_of_file_gives_the_bytes_of_the_local_engine(self, mixed: Path, tmp_path: Path) -> None:
        options = (mixed, "--runtime", "litert", "-q")
        local = batchdigits("predict", *options, "-o", "-", "-o", tmp_path / "a.parquet")
        there = ("predict", *options, "-o", "-", "-o", tmp_path / "b.parquet", "--engine", "ray", "--workers", "2")
        home = tmp_path / "home"
        home.mkdir()
        # Half of the files are young, and come in a second round.
        found = batchdigits(*there, env={"BATCHDIGITS_PREDICT_SETTLE": "5", "HOME": home, "TMPDIR": tmp_path})
        assert (found.code, found.stdout) == (local.code, local.stdout)
        assert found.code == 3
        assert "Failed: " in found.stderr  # the summary, since there are faults
        assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
        assert list(home.iterdir()) == []  # no secret, no settings
        # Where nothing is new, neither Ray nor TensorFlow is imported.
        for library in ("ray", "tensorflow"):
            (tmp_path / "modules" / library).mkdir(parents=True)
            (tmp_path / "modules" / library / "__init__.py").write_text("raise AssertionError")
        again = batchdigits(*there, env={"PYTHONPATH": tmp_path / "modules"})
        assert (again.code, again.stdout, again.stderr) == (0, local.stdout, "")

    def test_a_file_that_crashes_its_decoder_is_one_fault(self, scans: Path, expected: bytes, tmp_path: Path) -> None:
        killer, report = scans / "0123.png", tmp_path / "report.csv"
        options = (scans, "-o", report, "--engine", "ray", "--workers", "2")
        found = ray(*options, CRASH_ON=file_sha256(killer), CHUNK_FILES="20")
        assert found.code == 3, found.stderr
        # Others may have waited twice for the worker that the file killed.
        assert re.search(r"No worker brought back [1-9]\d* of the shards of files; they are read here", found.stderr)
        whole = tmp_path / "whole.csv"
        whole.write_bytes(expected)
        rows, others = rows_of(report), rows_of(whole)
        row = rows.pop("0123.png")
        others.pop("0123.png")
        assert row["detail"].startswith("crashes its decoder (SIGSEGV); ")
        assert rows == others

    def test_a_signal_keeps_what_was_finished_and_the_next_run_goes_on(
        self, scans: Path, expected: bytes, tmp_path: Path
    ) -> None:
        report = tmp_path / "report.csv"
        options = (scans, "-o", report, "--engine", "ray", "--workers", "2")
        first = started(*options, "-q", SLOW=tmp_path / "count")  # on a slow machine it would say that it waits
        wait_until_known(120, report, first)
        others = _descendants(first.pid)
        assert any(b"raylet" in command_of(pid) for pid in others)
        first.send_signal(signal.SIGTERM)
        _, said = first.communicate(timeout=PATIENCE)
        assert first.returncode == 143, said
        assert outliving(others) == []
        assert said == "Terminated: what was finished is kept, the next run goes on from there.\n"
        assert not report.exists()
        kept = known(report)
        assert 120 <= kept < FILES
        again = ray(*options)
        assert again.code == 0, again.stderr
        assert f"{FILES - kept:,} of them new or changed" in again.stderr
        assert report.read_bytes() == expected

    def test_files_that_a_node_does_not_see_are_read_here(self, mixed: Path, tmp_path: Path) -> None:
        options = (mixed, "-q", "--no-ledger", "--settle", "0", "-o", "-")
        local = run([sys.executable, "-m", "tests.fake_model_cli", "predict", *map(str, options)], cwd=CHECKOUT)
        assert (local.code, "many/03.png,1," in local.stdout) == (3, True)
        found = ray(*options, "--engine", "ray", "--workers", "2", UNSEEN="/many/0", CHUNK_FILES="5")
        assert (found.code, found.stdout) == (3, local.stdout)

    def test_a_node_that_sees_no_file_ends_the_run_and_leaves_the_report(self, scans: Path, tmp_path: Path) -> None:
        report = tmp_path / "report.csv"
        report.write_text("old")
        found = ray(scans, "-o", report, "--engine", "ray", "--workers", "2", "-q", "--overwrite", UNSEEN=str(scans))
        assert (found.code, report.read_text()) == (5, "old")
        assert re.fullmatch(
            r"The worker on \S+ cannot open \S+/\d{4}\.png, which this machine can: local folders have to lie on "
            r"storage that all nodes share; mount it there under the same name, or use --engine local\.",
            found.message,
        )

    def test_a_fault_of_a_worker_ends_the_run_and_is_told(self, mixed: Path) -> None:
        found = ray(mixed, "-q", "--no-ledger", "--engine", "ray", "--workers", "1", FAIL="a mistake of ours")
        assert (found.code, found.stdout) == (1, "")
        assert re.fullmatch(
            r"The worker on \S+ met an unexpected error: ValueError: a mistake of ours\.", found.message
        )

    def test_a_signal_to_all_in_the_middle_is_what_is_told(self, scans: Path, tmp_path: Path) -> None:
        report = tmp_path / "report.csv"
        run = started(scans, "-o", report, "--engine", "ray", "--workers", "2", "-q", SLOW=tmp_path / "count")
        wait_until_known(120, report, run)
        others = _descendants(run.pid)
        os.killpg(run.pid, signal.SIGTERM)
        _, said = run.communicate(timeout=PATIENCE)
        assert run.returncode == 143, said
        assert "Terminated: what was finished is kept" in said
        assert not outliving(others)

    def test_nothing_of_the_scans_folder_is_imported(self, mixed: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(mixed, tmp_path / "scans")
        for name in ("multiprocessing", "pickle", "numpy", "cv2", "ray", "pyarrow", "batchdigits", "signal"):
            (folder / f"{name}.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r} + {name!r})")
        options = ("--engine", "ray", "--workers", "1", "--runtime", "litert", "-q", "-o", tmp_path / "r.csv")
        found = run([BATCHDIGITS, "predict", ".", *map(str, options)], cwd=folder)
        assert (found.code, list(tmp_path.glob("ran*"))) == (3, []), found.stderr

    def test_a_cluster_that_is_not_there_is_told_in_a_sentence(self, scans: Path, tmp_path: Path) -> None:
        summary = tmp_path / "run.json"
        options = ("--engine", "ray", "--ray-address", "127.0.0.1:1", "-q", "--summary", summary)
        gone = batchdigits("predict", scans, *options)
        assert json.loads(summary.read_text())["exit_code"] == 5
        assert (gone.code, gone.stdout) == (5, "")
        assert gone.message == (
            "Ray cannot be reached at 127.0.0.1:1: connection refused; check the name and the port, and that the head "
            "node runs."
        )

    def test_a_worker_and_a_node_that_are_killed_cost_no_row(
        self, scans: Path, expected: bytes, tmp_path: Path
    ) -> None:
        report = tmp_path / "report.csv"
        with two_nodes() as nodes:
            options = (scans, "-o", report, "--engine", "ray", "--ray-address", nodes.address)
            first = started(*options, SLOW=tmp_path / "count", **SECRET)
            wait_until_known(200, report, first)
            os.kill(wait_for(lambda: nodes.workers(0) + nodes.workers(1)), signal.SIGKILL)
            wait_until_known(600, report, first)
            os.kill(nodes.raylets[1], signal.SIGKILL)
            _, said = first.communicate(timeout=PATIENCE)
        assert first.returncode == 0, said
        assert "No worker brought back" not in said
        assert report.read_bytes() == expected


def outliving(processes: Sequence[int]) -> list[int]:
    """Give those that are there still after a while: Ray's last ones end a moment after the run."""
    for _ in range(100 * PATIENCE):
        if not (left := [pid for pid in processes if command_of(pid)]):
            break
        time.sleep(0.01)
    return left


def wait_for(processes: Callable[[], list[int]]) -> int:
    """Wait until there is a process, and give its pid."""
    for _ in range(100 * PATIENCE):
        if found := processes():
            return found[0]
        time.sleep(0.01)
    pytest.fail("there never was one")

"""Real servers, S3 by moto and SFTP by OpenSSH: listed, read, written, cut off, and entered with the wrong keys."""

import csv
import errno
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from batchdigits.errors import Fault, StorageError
from batchdigits.storage import reading, retries
from batchdigits.storage.backends.s3 import S3
from batchdigits.storage.backends.sftp import Sftp
from batchdigits.storage.reading import read_remote
from batchdigits.storage.remote import RemoteFile, remote_sources_exist
from batchdigits.storage.urls import Parts, absolute, parts
from tests.cli_runner import CHECKOUT, Result, batchdigits, environment, run
from tests.sample_pages import digits, png, write_png
from tests.servers import SSHD, Proxy, S3Server, SshServer, make_key, proxy_to, s3_server, ssh_server
from tests.storage.test_urls import predict

MISSING = [name for name in ("s3fs", "sshfs", "tenacity", "moto", "boto3") if find_spec(name) is None]
pytestmark = [
    pytest.mark.remote,
    pytest.mark.skipif(bool(MISSING), reason=f"the extra scaleout-test is not installed: {', '.join(MISSING)}"),
]
needs_sshd = pytest.mark.skipif(not SSHD, reason="OpenSSH's server is not installed: apt-get install openssh-server")

FILES = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remote") / "scans"
    for number in range(FILES):
        write_png(folder / f"{number % 3}" / f"{number:02}.png", digits(FILES)[number])
    write_png(folder / ".hidden" / "1.png", digits(FILES)[0])
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> bytes:
    """The report of the same folder on this machine."""
    assert predict(folder, "-o", folder.with_name("here.csv"), "--no-ledger").code == 0
    return folder.with_name("here.csv").read_bytes()


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(server: S3Server, folder: Path, request: pytest.FixtureRequest) -> S3Server:
    """The server, with a bucket for this test that holds the folder."""
    server.client.create_bucket(Bucket=bucket_of(request))
    server.upload(folder, bucket_of(request), "scans/")
    return server


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> str:
    return bucket_of(request)


def bucket_of(request: pytest.FixtureRequest) -> str:
    return re.sub("[^a-z0-9]+", "-", request.node.name.lower())[-60:].strip("-")


@pytest.fixture
def proxy(server: S3Server) -> Iterator[Proxy]:
    with proxy_to(server.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("ssh")) as server:
        yield server


def body(s3: S3Server, bucket: str, key: str) -> bytes:
    data: bytes = s3.client.get_object(Bucket=bucket, Key=key)["Body"].read()
    return data


def keys(s3: S3Server, bucket: str, prefix: str = "") -> list[str]:
    return [found["Key"] for found in s3.client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])]


# S3


def test_a_bucket_gives_the_report_of_the_same_folder_here_and_takes_it(
    s3: S3Server, bucket: str, expected: bytes, proxy: Proxy, tmp_path: Path
) -> None:
    env = s3.environment(proxy.port, XDG_STATE_HOME=tmp_path / "state")
    outputs = ["-o", tmp_path / "r.csv", "-o", f"s3://{bucket}/out/r.csv", "--ledger", tmp_path / "ledger"]
    assert predict(f"s3://{bucket}/scans", *outputs, **env).code == 0
    assert (tmp_path / "r.csv").read_bytes() == body(s3, bucket, "out/r.csv") == expected
    assert keys(s3, bucket, "out/") == ["out/r.csv"]
    proxy.requests.clear()
    told = {**env, "PYTHONPROFILEIMPORTTIME": "1"}
    again = batchdigits("predict", f"s3://{bucket}/scans", *outputs, "-v", env=told)
    assert again.code == 0  # the stand-in's bundle was the package's own
    assert re.search(r"\| +s3fs$", again.stderr, re.MULTILINE)
    assert not re.search(r"\| +tensorflow$", again.stderr, re.MULTILINE)
    assert "0 of them new or changed" in again.stderr
    assert not any("/scans/" in request and ".png" in request for request in proxy.requests)
    assert not any(request.startswith(("PUT", "HEAD")) for request in proxy.requests)


def test_a_changed_object_alone_is_read_again(s3: S3Server, bucket: str, proxy: Proxy, tmp_path: Path) -> None:
    env = s3.environment(proxy.port)
    assert predict(f"s3://{bucket}/scans", "-o", tmp_path / "r.csv", **env).code == 0
    s3.client.put_object(Bucket=bucket, Key="scans/1/01.png", Body=png(digits(60)[50]))
    proxy.requests.clear()
    done = predict(f"s3://{bucket}/scans", "-o", tmp_path / "r.csv", **env)
    assert "1 of them new or changed" in done.stderr
    assert [request for request in proxy.objects_read if ".png" in request] == [f"GET /{bucket}/scans/1/01.png"]


def test_ten_thousand_objects_are_listed_without_reading_one(
    server: S3Server, proxy: Proxy, bucket: str, tmp_path: Path
) -> None:
    server.client.create_bucket(Bucket=bucket)
    server.fill(bucket, 10_000)
    done = predict(f"s3://{bucket}/many", "-o", tmp_path / "r.csv", "--dry-run", **server.environment(proxy.port))
    assert done.code == 0
    assert "10,000 images found" in done.stderr
    assert proxy.objects_read == []
    assert len(set(proxy.requests)) == 10
    assert len(proxy.requests) < 20  # a slow answer is asked for again


def test_an_object_by_itself_is_a_source_and_what_is_not_there_is_told(
    s3: S3Server, bucket: str, tmp_path: Path
) -> None:
    env = s3.environment()
    report = tmp_path / "r.csv"
    assert predict(f"s3://{bucket}/scans/1/01.png", "-o", report, "--no-ledger", **env).code == 0
    assert report.read_text().splitlines()[1].startswith(f"s3://{bucket}/scans/1/01.png,")
    stands = report.read_bytes()
    for source, words in (
        (f"s3://{bucket}/none", "does not exist"),
        ("s3://no-such-bucket/scans", "bucket of s3://no-such-bucket/scans does not exist"),
    ):
        done = predict(source, "-o", report, "--no-ledger", **env)
        assert (done.code, words in done.message) == (5, True)
    s3.client.put_object(Bucket=bucket, Key="other/notes.txt", Body=b"no image")
    assert predict(f"s3://{bucket}/other", "-o", report, "--no-ledger", "--overwrite", **env).code == 4
    assert report.read_bytes() == stands


def test_a_connection_that_is_cut_in_the_middle_is_made_again(
    s3: S3Server, bucket: str, expected: bytes, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.cuts = 3
    done = predict(f"s3://{bucket}/scans", "-o", tmp_path / "r.csv", "-q", **s3.environment(proxy.port))
    assert (done.code, done.stderr) == (0, "")
    assert proxy.cuts == 0
    assert (tmp_path / "r.csv").read_bytes() == expected


def test_a_server_that_once_says_nothing_is_asked_again(
    s3: S3Server, bucket: str, expected: bytes, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.stalls = 1
    done = predict(f"s3://{bucket}/scans", "-o", tmp_path / "r.csv", "-q", **s3.environment(proxy.port))
    assert (done.code, done.stderr) == (0, "")
    assert proxy.stalls == 0
    assert (tmp_path / "r.csv").read_bytes() == expected


def test_a_connection_that_is_always_cut_ends_the_run_and_leaves_the_report(
    s3: S3Server, bucket: str, proxy: Proxy, tmp_path: Path
) -> None:
    (tmp_path / "r.csv").write_text("old")
    proxy.cuts = 10**6
    done = predict(f"s3://{bucket}/scans", "-o", tmp_path / "r.csv", **s3.environment(proxy.port))
    assert done.code == 5
    assert "after several tries" in done.message
    assert (tmp_path / "r.csv").read_text() == "old"


def test_an_upload_that_fails_leaves_the_old_report_and_no_part_of_the_new(
    s3: S3Server, bucket: str, folder: Path, proxy: Proxy, tmp_path: Path
) -> None:
    s3.client.put_object(Bucket=bucket, Key="r.csv", Body=b"old")
    proxy.cuts, proxy.cut = 10**6, re.compile(rb"PUT ")
    env = s3.environment(proxy.port, XDG_STATE_HOME=tmp_path / "state")
    outputs = ["-o", f"s3://{bucket}/r.parquet", "-o", tmp_path / "r.csv"]
    done = predict(folder, *outputs, **env)
    assert done.code == 5
    assert f"s3://{bucket}/r.parquet cannot be written" in done.message
    assert body(s3, bucket, "r.csv") == b"old"
    assert not (tmp_path / "r.csv").exists()


def test_a_report_that_was_edited_is_kept_beside_the_new_one(
    s3: S3Server, bucket: str, expected: bytes, tmp_path: Path
) -> None:
    env = s3.environment(XDG_STATE_HOME=tmp_path / "state")
    command = [f"s3://{bucket}/scans", "-o", f"s3://{bucket}/out/r.csv"]
    assert predict(*command, **env).code == 0
    s3.client.put_object(Bucket=bucket, Key="out/r.csv", Body=expected + b"mine")
    done = predict(*command, **env)
    assert done.code == 0
    assert "it is kept as r.edited-" in done.stderr
    assert "Fetch it." in done.stderr
    [report, kept] = sorted(keys(s3, bucket, "out/"), key=len)
    assert (body(s3, bucket, report), body(s3, bucket, kept)) == (expected, expected + b"mine")


def test_answers_to_a_report_in_a_bucket_reach_its_ledger(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    env = s3.environment(XDG_STATE_HOME=tmp_path / "state")
    url = f"s3://{bucket}/out/r.csv"
    assert predict(f"s3://{bucket}/scans", "-o", url, **env).code == 0
    header, first, *_ = body(s3, bucket, "out/r.csv").decode().splitlines()
    cells = first.split(",")
    cells[header.split(",").index("corrected")] = "7"
    (tmp_path / "answers.csv").write_text(f"{header}\n{','.join(cells)}\n")
    done = batchdigits("correct", url, tmp_path / "answers.csv", env=env)
    assert (done.code, "1 answer taken into" in done.stderr) == (0, True)
    assert predict(f"s3://{bucket}/scans", "-o", url, **env).code == 0
    assert body(s3, bucket, "out/r.csv").decode().splitlines()[1].split(",") == [
        {"corrected": "7", "final": "7", "status": "answered"}.get(name, cell)
        for name, cell in zip(header.split(","), cells, strict=True)
    ]


def test_an_archive_in_a_bucket_is_read_where_it_is(
    s3: S3Server, bucket: str, folder: Path, expected: bytes, tmp_path: Path
) -> None:
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", folder)
    s3.client.put_object(Bucket=bucket, Key="packed.zip", Body=Path(archive).read_bytes())
    done = predict(f"zip://::s3://{bucket}/packed.zip", "-o", tmp_path / "r.csv", **s3.environment())
    assert done.code == 0
    assert (tmp_path / "r.csv").read_bytes() == expected


def test_worker_processes_read_by_connections_of_their_own(s3: S3Server, bucket: str, folder: Path) -> None:
    code = f"""
from batchdigits.engine.local import Reading, on_this_machine
from batchdigits.engine.run_context import StageTimer, Stop
from batchdigits.engine.worker import Drawing
from batchdigits.inference import bundle
from batchdigits.records import ImageFile
from batchdigits.settings import PredictSettings, Runtime
from batchdigits.sources.discovery import discover
from batchdigits.storage.urls import locate
if __name__ == "__main__":
    files = [item for item in discover([locate("s3://{bucket}/scans")], outputs=[]) if isinstance(item, ImageFile)]
    settings = PredictSettings(sources=("s3://{bucket}/scans",), runtime=Runtime.LITERT, workers=2)
    reading = Reading(bundle.load(), settings, Drawing(1, 0, False), StageTimer(), Stop(), {{}}, True)
    with on_this_machine(reading) as read:
        print(sum(len(batch) - len(batch.faults) for batch in read(files)))
"""
    script = folder.with_name("script.py")
    script.write_text(code)
    done = run([sys.executable, script], cwd=CHECKOUT, env=s3.environment(PYTHONPATH=CHECKOUT))
    told = [line for line in done.stderr.splitlines() if "XNNPACK" not in line]  # which LiteRT says by itself
    assert (done.code, done.stdout.strip(), told) == (0, str(FILES), [])


def no_secret(done: Result, *secrets: str) -> None:
    assert not [secret for secret in secrets if secret in done.stdout + done.stderr]


def test_wrong_or_missing_credentials_end_the_run_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    with s3_server() as s3:
        s3.client.create_bucket(Bucket="closed")
        s3.upload(folder, "closed", "scans/")
        good = s3.check_credentials()
        env = s3.environment(XDG_STATE_HOME=tmp_path / "state")
        assert predict("s3://closed/scans", "-o", tmp_path / "r.csv", **{**env, **good}).code == 0
        wrong = {**good, "AWS_SECRET_ACCESS_KEY": "hunter2-Zx9"}
        unknown = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "hunter2-Zx9"}
        for credentials in (wrong, unknown):
            for command in (["s3://closed/scans", "-o", tmp_path / "r.csv"], [folder, "-o", "s3://closed/r.csv"]):
                done = predict(*command, **{**env, **credentials})
                assert done.code == 5
                assert "AWS_SECRET_ACCESS_KEY" in done.message
                no_secret(done, "hunter2-Zx9")
        none = {name: value for name, value in env.items() if "KEY" not in name}
        done = predict("s3://closed/scans", "-o", tmp_path / "r.csv", **none, HOME=tmp_path)
        assert (done.code, "there are no credentials" in done.message) == (5, True)


def test_a_server_that_is_not_there_ends_the_run_in_one_sentence(tmp_path: Path, server: S3Server) -> None:
    done = predict("s3://bucket/a", "-o", tmp_path / "r.csv", **server.environment(9))
    assert (done.code, "the server cannot be reached, after several tries" in done.message) == (5, True)


# SFTP


@needs_sshd
def test_a_server_gives_the_report_of_the_same_folder_here_and_takes_it(
    ssh: SshServer, folder: Path, expected: bytes, tmp_path: Path
) -> None:
    env = ssh.environment(XDG_STATE_HOME=tmp_path / "state")
    (tmp_path / "out").mkdir()
    outputs = ["-o", tmp_path / "here.csv", "-o", ssh.url(tmp_path / "out" / "r.csv"), "--ledger", tmp_path / "ledger"]
    done = predict(ssh.url(folder), *outputs, "-q", **env)
    assert (done.code, done.stderr) == (0, "")
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "out" / "r.csv").read_bytes() == expected
    assert os.listdir(tmp_path / "out") == ["r.csv"]  # noqa: PTH208
    stands = (tmp_path / "out" / "r.csv").stat().st_mtime_ns
    assert "0 of them new or changed" in predict(ssh.url(folder), *outputs, **env).stderr
    assert (tmp_path / "out" / "r.csv").stat().st_mtime_ns == stands
    (tmp_path / "out" / "r.csv").write_bytes(expected + b"mine")
    assert "it is kept as r.edited-" in predict(ssh.url(folder), *outputs, **env).stderr
    assert sorted(path.read_bytes() for path in (tmp_path / "out").iterdir()) == [expected, expected + b"mine"]


@needs_sshd
def test_a_host_key_that_is_unknown_or_has_changed_is_refused(ssh: SshServer, folder: Path, tmp_path: Path) -> None:
    try:
        for key in (None, make_key(tmp_path / "other")):
            ssh.know(*([] if key is None else [ssh.port]), key=key)
            done = predict(ssh.url(folder), "-o", tmp_path / "r.csv", **ssh.environment())
            assert done.code == 5
            assert "host key is unknown or has changed" in done.message
        (ssh.home / ".ssh" / "known_hosts").unlink()
        assert predict(ssh.url(folder), "-o", tmp_path / "r.csv", **ssh.environment()).code == 5
    finally:
        ssh.know(ssh.port)


@needs_sshd
def test_a_user_whose_key_is_not_known_is_told_what_to_check(ssh: SshServer, folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    make_key(home / ".ssh" / "id_ed25519")
    (home / ".ssh" / "known_hosts").write_text((ssh.home / ".ssh" / "known_hosts").read_text())
    done = predict(ssh.url(folder), "-o", tmp_path / "r.csv", HOME=home, SSH_AUTH_SOCK="")
    assert (done.code, "its key in ~/.ssh" in done.message) == (5, True)


@needs_sshd
def test_what_is_not_on_a_server_is_told(ssh: SshServer, folder: Path, tmp_path: Path) -> None:
    env = ssh.environment(XDG_STATE_HOME=tmp_path / "state")
    done = predict(ssh.url(tmp_path / "none"), "-o", tmp_path / "r.csv", **env)
    assert (done.code, "does not exist" in done.message) == (5, True)
    done = predict(folder, "-o", ssh.url(tmp_path / "none" / "r.csv"), **env)
    assert (done.code, "does not exist; create" in done.message) == (5, True)
    assert not (tmp_path / "none").exists()


@needs_sshd
def test_a_session_that_is_cut_off_is_begun_again_and_one_that_always_is_ends_the_run(
    ssh: SshServer, folder: Path, expected: bytes, tmp_path: Path
) -> None:
    with proxy_to(ssh.port) as proxy:
        ssh.know(proxy.port)
        try:
            proxy.cut_after_bytes = 15_000
            done = predict(ssh.url(folder, proxy.port), "-o", tmp_path / "r.csv", **ssh.environment())
            assert done.code == 5
            assert "after several tries" in done.message
            assert not (tmp_path / "r.csv").exists()
            proxy.cut_after_bytes, proxy.cut_all = 15_000, False
            done = predict(ssh.url(folder, proxy.port), "-o", tmp_path / "r.csv", **ssh.environment())
            assert done.code == 0
            assert proxy.cut_after_bytes is None
        finally:
            ssh.know(ssh.port)
    assert (tmp_path / "r.csv").read_bytes() == expected


@needs_sshd
def test_an_upload_that_is_cut_off_leaves_the_old_report_alone(ssh: SshServer, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "r.xlsx").write_bytes(b"old")
    with proxy_to(ssh.port) as proxy:
        ssh.know(proxy.port)
        try:
            proxy.cut_after_bytes = 14_000
            env = ssh.environment(XDG_STATE_HOME=tmp_path / "state")
            done = predict(folder, "-o", ssh.url(tmp_path / "out" / "r.xlsx", proxy.port), **env)
        finally:
            ssh.know(ssh.port)
    assert (done.code, "r.xlsx cannot be written" in done.stderr) == (5, True)
    assert (tmp_path / "out" / "r.xlsx").read_bytes() == b"old"


@needs_sshd
def test_reports_of_two_runs_at_once_are_never_mixed(ssh: SshServer, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    report = RemoteFile(absolute(ssh.url(tmp_path / "out" / "r.csv")))
    imports = "from pathlib import Path; import sys; from batchdigits.storage.remote import RemoteFile"
    drafts = [tmp_path / letter for letter in "AB"]
    for draft in drafts:
        draft.write_bytes(draft.name.encode() * 20_000_000)
    command = [sys.executable, "-c", f"{imports}; RemoteFile({report.url!r}).replace_with(Path(sys.argv[1]))"]
    env = environment(ssh.environment())
    both = [subprocess.Popen([*command, str(draft)], cwd=CHECKOUT, env=env) for draft in drafts]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert (tmp_path / "out" / "r.csv").read_bytes() in [draft.read_bytes() for draft in drafts]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["r.csv"]


@needs_sshd
def test_a_file_that_is_still_being_sent_waits_for_the_next_run(ssh: SshServer, folder: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    shutil.copytree(folder, scans)
    for path in scans.rglob("*.png"):
        os.utime(path, (10**9, 10**9))
    whole, growing = (scans / "1" / "01.png").read_bytes(), scans / "new.png"
    growing.write_bytes(whole[: len(whole) // 2])
    is_over = threading.Event()

    def go_on() -> None:
        while not is_over.wait(0.2):
            os.utime(growing)

    sender = threading.Thread(target=go_on)
    sender.start()
    try:
        done = predict(ssh.url(scans), "-o", tmp_path / "r.csv", "--settle", "2", **ssh.environment())
    finally:
        is_over.set()
        sender.join()
    assert (done.code, "Left to the next run: 1 image" in done.stderr) == (0, True)
    assert "new.png" not in (tmp_path / "r.csv").read_text()
    growing.write_bytes(whole)
    os.utime(growing, (10**9, 10**9))
    assert predict(ssh.url(scans), "-o", tmp_path / "r.csv", "--settle", "2", **ssh.environment()).code == 0
    assert re.search(r"^new\.png,1,\d?,(ok|review),", (tmp_path / "r.csv").read_text(), re.MULTILINE)


@needs_sshd
def test_a_source_that_is_taken_away_is_noticed(
    ssh: SshServer, s3: S3Server, bucket: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**ssh.environment(), **s3.environment()}.items():
        monkeypatch.setenv(name, str(value))
    shutil.copytree(folder, tmp_path / "scans")
    sources = [ssh.url(tmp_path / "scans"), f"s3://{bucket}/scans", f"s3://{bucket}", f"s3://{bucket}/scans/1/01.png"]
    assert remote_sources_exist(sources)
    for key in keys(s3, bucket, ""):
        s3.client.delete_object(Bucket=bucket, Key=key)
    (tmp_path / "scans").rename(tmp_path / "gone")
    assert [remote_sources_exist([source]) for source in sources] == [False, False, False, False]


@needs_sshd
def test_a_known_hosts_file_that_cannot_be_read_ends_the_run_in_one_sentence(
    ssh: SshServer, folder: Path, tmp_path: Path
) -> None:
    known = ssh.home / ".ssh" / "known_hosts"
    known.write_text(f"garbage\n{known.read_text()}")
    try:
        done = predict(ssh.url(folder), "-o", tmp_path / "r.csv", **ssh.environment())
    finally:
        ssh.know(ssh.port)
    assert (done.code, "a line of ~/.ssh/known_hosts cannot be read" in done.message) == (5, True)


def test_a_page_of_a_listing_may_be_empty_and_have_others_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"Key": "scans/1.png", "Size": 3, "ETag": "x"}
    pages = iter([{"NextContinuationToken": "1"}, {"Contents": [found], "NextContinuationToken": "2"}, {}])

    async def page(*_: object) -> dict[str, object]:
        return next(pages)

    monkeypatch.setattr(S3, "_page", page)
    listing = S3("s3://").listed(parts("s3://bucket/scans"), lambda _: True)
    assert [entry.rest for entry in listing] == ["1.png"]


class Folder:
    """A channel of SFTP to a folder of many files, whose session is lost in the middle of its first listing."""

    names = tuple(f"{number:04}.png" for number in range(2500))
    status = SimpleNamespace(permissions=stat.S_IFREG, size=1, mtime=1, mtime_ns=0)

    def __init__(self) -> None:
        self.listings: list[int] = []

    async def scandir(self, _: str) -> AsyncIterator[SimpleNamespace]:
        self.listings.append(0)
        for name in (".", "..", *self.names):
            if len(self.listings) == 1 and self.listings[0] == 1500:
                raise ConnectionResetError
            self.listings[-1] += 1
            yield SimpleNamespace(filename=name, attrs=self.status)

    async def stat(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(permissions=stat.S_IFDIR)


def test_a_large_folder_is_listed_as_it_comes_and_a_lost_session_doubles_no_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Folder()

    @asynccontextmanager
    async def channel(_: Sftp) -> AsyncIterator[Folder]:
        yield folder

    monkeypatch.setattr(Sftp, "_channel", channel)
    listing = Sftp("sftp://host/").listed(parts("sftp://host/scans"), lambda _: True)
    assert next(listing).rest == "0000.png"
    assert folder.listings == [1002]  # with the folder itself and the one above; the rest has not been asked for
    assert ["0000.png", *(entry.rest for entry in listing)] == list(Folder.names)
    assert folder.listings == [1500, 2502]


@needs_sshd
def test_links_on_a_server_are_judged_as_they_are_here(ssh: SshServer, folder: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    shutil.copytree(folder, scans)
    for number in range(3):
        (scans / f"in-{number}.png").symlink_to(f"{number}/0{number}.png")
    (scans / "out.png").symlink_to(folder / "0" / "00.png")
    (scans / "folder.png").symlink_to(scans / "1")
    (scans / "nowhere.png").symlink_to("gone.png")
    assert predict(scans, "-o", tmp_path / "here.csv", "--no-ledger").code == 3
    done = predict(ssh.url(scans), "-o", tmp_path / "there.csv", "--no-ledger", **ssh.environment())
    assert done.code == 3
    here, there = (
        list(csv.DictReader((tmp_path / name).read_text().splitlines())) for name in ("here.csv", "there.csv")
    )
    assert [row["path"] for row in here] == [row["path"] for row in there]
    assert len(there) == FILES + 4


@needs_sshd
def test_a_report_is_no_folder_and_is_kept_where_the_server_has_no_links(
    ssh: SshServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.csv").mkdir()
    env = ssh.environment(XDG_STATE_HOME=tmp_path / "state")
    done = predict(folder, "-o", ssh.url(tmp_path / "r.csv"), **env)
    assert (done.code, "r.csv is a folder; give the name of a file" in done.message) == (2, True)
    for name, value in ssh.environment().items():
        monkeypatch.setenv(name, str(value))
    (tmp_path / "kept.csv").write_bytes(b"edited" * 500_000)
    copy = RemoteFile(absolute(ssh.url(tmp_path / "kept.csv"))).back_up("copy.csv")
    assert (tmp_path / "copy.csv").read_bytes() == (tmp_path / "kept.csv").read_bytes()
    assert (tmp_path / "copy.csv").stat().st_nlink == 1
    (tmp_path / "kept.csv").write_bytes(b"another")
    assert copy.sha256() == hashlib.sha256(b"edited" * 500_000).hexdigest()


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("http://me:hunter2@localhost", "cannot be reached"),
        ("hunter2", "~/.aws/config"),
        ("http://local host", "~/.aws/config"),
    ],
)
def test_a_server_that_the_aws_configuration_does_not_spell_is_told_without_it(
    address: str, word: str, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(f"[default]\nregion = us-east-1\nendpoint_url = {address}\n")
    env = {"AWS_CONFIG_FILE": tmp_path / "config", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    done = predict("s3://bucket", "-o", tmp_path / "r.csv", **env)
    assert (done.code, "hunter2" in done.stderr) == (5, False)
    assert word in done.message


class ClientError(Exception):
    """What S3 answers, as its library raises it."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def read_by(raises: dict[str, Exception], monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes | Fault]:
    """Fetch objects of a stand-in, of which some raise."""

    class Stub:
        async def get(self, place: Parts, _: int) -> bytes:
            if error := raises.get(place.path):
                raise error
            return b"data"

    monkeypatch.setattr(reading, "server", lambda _: Stub())
    monkeypatch.setattr(retries, "_FIRST_WAIT", 0.001)
    return read_remote([(f"s3://bucket/{name}", 4) for name in "ab"], 100)


def test_what_an_object_cannot_be_read_for_is_its_own_row(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_by({"a": ClientError("InvalidObjectState", 403)}, monkeypatch)
    assert found["s3://bucket/b"] == b"data"
    fault = found["s3://bucket/a"]
    assert isinstance(fault, Fault)
    assert "restore it first" in fault.detail
    denied = read_by({"a": ClientError("AccessDenied", 403)}, monkeypatch)["s3://bucket/a"]
    assert isinstance(denied, Fault)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ClientError("AccessDenied", 403), "there is no permission to"),
        (ClientError("RequestTimeTooSkewed", 403), "the clock of this machine"),
        (OSError(errno.ENETUNREACH, "no network"), "cannot be read"),
    ],
)
def test_what_no_object_can_be_read_for_ends_the_run(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StorageError, match=words):
        read_by({"a": error, "b": error}, monkeypatch)


def test_a_fault_of_this_program_is_no_fault_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="ours"):
        read_by({"a": TypeError("ours")}, monkeypatch)


def test_a_connection_that_fails_for_whatever_reason_is_tried_again_and_is_about_no_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = []

    def refused(**_: object) -> None:
        tries.append(1)
        raise OSError("Multiple exceptions: [Errno 111], [Errno 111]")  # of a host with two addresses

    server = Sftp("sftp://host/")
    server._open = refused
    monkeypatch.setattr(reading, "server", lambda _: server)
    monkeypatch.setattr(retries, "_FIRST_WAIT", 0.001)
    with pytest.raises(StorageError, match="cannot be reached, after several tries"):
        read_remote([("sftp://host/a", 1)], 100)
    assert len(tries) == retries.ATTEMPTS


def test_a_login_that_is_refused_is_not_tried_again() -> None:
    from asyncssh import ConnectionLost, ProtocolError

    assert not retries.is_transient(ProtocolError("Too many authentication failures"))
    assert retries.is_transient(ConnectionLost("gone"))
    assert "may offer too many keys" in str(retries.storage_error(ProtocolError("no more"), "sftp://host/a", "read"))

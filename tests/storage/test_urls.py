"""URLs as people write them, and archives on this machine: what needs no server and no extra."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchdigits.cli.schedule import Parameter, schedule
from batchdigits.errors import StorageError, UsageError
from batchdigits.records import ImageFile
from batchdigits.settings import ScheduleSettings
from batchdigits.sources.discovery import discover
from batchdigits.sources.rules import Selection
from batchdigits.storage.backends.base import Entry, entered, version
from batchdigits.storage.remote import RemoteFile, target_file
from batchdigits.storage.retries import is_transient
from batchdigits.storage.urls import absolute, check, file_ending, is_url, locate, parts, refuse, refuse_secrets, span
from tests.cli_runner import CHECKOUT, Result, batchdigits, run
from tests.sample_pages import digits, png, write_png

SECRET = "hunter2-Zx9"
OF_THE_EXTRA = ("fsspec", "s3fs", "sshfs", "asyncssh", "tenacity", "botocore", "aiohttp")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("s3://bucket", "s3://bucket/"),
        ("S3://bucket/a/b//", "s3://bucket/a/b"),
        ("s3://bucket/a b/c?d#e@f:g", "s3://bucket/a b/c?d#e@f:g"),
        ("sftp://host", "sftp://host/"),
        ("sftp://me@host:2222//a/../b/", "sftp://me@host:2222/b"),
        ("sftp://me@[::1]:2222/a", "sftp://me@[::1]:2222/a"),
        ("sftp://me@host:2222/a@b", "sftp://me@host:2222/a@b"),
        ("sftp://[::1]/a@b", "sftp://[::1]/a@b"),
        ("sftp://Me@HOST:22/A", "sftp://Me@host/A"),
        ("sftp://host:00022", "sftp://host/"),
        ("sftp://host:65535/a", "sftp://host:65535/a"),
        ("s3://bucket/x::y:z@w/a.png", "s3://bucket/x::y:z@w/a.png"),
        ("s3://bucket/design?signal=1&passport=2", "s3://bucket/design?signal=1&passport=2"),
        ("zip:///x/a.zip", "zip://::file:///x/a.zip"),
        ("zip://::file:///x/a.zip", "zip://::file:///x/a.zip"),
        ("zip://in/side/::/x/a.zip", "zip://in/side::file:///x/a.zip"),
        ("zip://1.png::s3://bucket/a.zip", "zip://1.png::s3://bucket/a.zip"),
        ("zip://::SFTP://me@host/a.zip", "zip://::sftp://me@host/a.zip"),
    ],
)
def test_a_url_is_spelled_in_one_way(given: str, url: str) -> None:
    assert is_url(given)
    assert absolute(given) == url
    assert absolute(url) == url
    assert parts(url).url == url


def test_a_relative_archive_begins_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("zip://in/a.zip") == f"zip://::file://{tmp_path}/in/a.zip"


@pytest.mark.parametrize("name", ["scans", "/scans/*.png", "C:/scans", "s3:/bucket", "./s3://bucket", "", "-"])
def test_a_path_is_no_url(name: str) -> None:
    assert not is_url(name)


def test_a_folder_that_is_there_is_no_url_of_an_unknown_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_url("odd://scans")
    Path("odd:/scans").mkdir(parents=True)
    assert not is_url("odd://scans")
    assert absolute("odd://scans") == str(tmp_path / "odd:/scans")


WITH_SECRETS = [
    f"s3://KEY:{SECRET}@bucket/a",
    f"s3://{SECRET}@bucket/a",
    f"sftp://me:{SECRET}@host/a",
    f"sftp://me:{SECRET}/with/slash@host/a",
    f"sftp://:{SECRET}@host",
    f"http://me:{SECRET}@host/a",
    f"zip://a::sftp://me:{SECRET}@host/a.zip",
    f"zip://::s3://KEY:{SECRET}@bucket/a.zip",
    f"zip://me:{SECRET}@host/a.zip",
    f"s3://bucket/a?X-Amz-Signature={SECRET}",
    f"s3://bucket/a?region=x&aws_secret_access_key={SECRET}",
    f"sftp://host/a?password={SECRET}",
    f"s3://bucket/a?pwd={SECRET}",
    f"s3://bucket/a?pass={SECRET}",
    f"s3://bucket/a?user=me&db_passphrase={SECRET}",
    f"s3://bucket/a?sv=1&sig={SECRET}",
    f"sftp://me:12345/{SECRET}@host/a",
    f"sftp://me:a::b{SECRET}@host/a",
    f"sftp://me:/{SECRET}://b@host/a",
    f"sftp://me:12]/{SECRET}@host/a",
    f"sftp://me:/://{SECRET}/@host/a",
    f"sftp:/me:{SECRET}@host/a",
    f"sftp:///me:{SECRET}@host/a",
    f"s3:/KEY:{SECRET}@bucket/a",
    f"s3://KEY:a/{SECRET}@bucket/a",
    f"http://{SECRET}@host/a",
    f"zip://me:12345/{SECRET}@host/a.zip",
]


@pytest.mark.parametrize("url", WITH_SECRETS)
def test_a_secret_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as error:
        check("scans", url)
    assert SECRET not in str(error.value)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("url", WITH_SECRETS)
def test_a_secret_is_found_wherever_its_url_stands_in_an_argument(url: str) -> None:
    for argument in (url, f"--model={url}", f"-o{url}", f"a {url}", f"zip://in::{url}"):
        with pytest.raises(UsageError, match="A URL holds a password or a key") as error:
            refuse_secrets("scans", argument)
        assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    "argument",
    [
        "-osftp://me@host/a",
        "--model=sftp://me@host:22/a",
        "sftp://host:2222/a sftp://me@other/b",
        "zip://::sftp://me@host/a.zip",
        "zip://12:30::/data/me@home.zip",
        "zip://a::file:///me@home:1.zip",
        "zip:///data/a:b@c/x.zip",
        "/data/class3:/me@home:1.png",
        "a:b@c",
        "*?key=*",
        "user:pw@host",
    ],
)
def test_what_holds_no_secret_is_no_url_with_one(argument: str) -> None:
    refuse_secrets(argument)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://host/a", "http:// is not known; use s3://bucket/folder, sftp://"),
        ("file:///a", "file:// is not known"),
        ("s3://", "name of a bucket"),
        ("s3:///a", "name of a bucket"),
        ("sftp:///a", "name a server"),
        ("sftp://host:port/a", "name a server"),
        ("sftp://host:99999/a", "name a server"),
        ("sftp://host:0/a", "name a server"),
        ("sftp://./a", "name a server"),
        ("sftp://a..b/a", "name a server"),
        (f"sftp://{'a' * 64}/a", "name a server"),
        ("sftp://a\0b/a", "name a server"),
        ("sftp://[:]/a", "name a server"),
        ("zip://", "name an archive"),
        ("zip://::", "name an archive"),
    ],
)
def test_a_url_that_names_nothing_is_refused(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        check(url)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_another_server_of_s3_is_named_without_a_secret(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "http://host", "HTTPS://store.example.:9000/", "http://[::1]:9000/a", "http://127.0.0.1:9000"):
        monkeypatch.setenv(name, value)
        check("s3://bucket/a")
    for value in (
        f"user:{SECRET}@host:9000",
        f"http://user:{SECRET}@host:9000",
        f"http://{SECRET}@host",
        f"http://host/?key={SECRET}",
        f"http://{SECRET}_1:9000",
        f"http://[{SECRET}]",
        "http://[:]",
        "http://host:99999",
        "host",
    ):
        monkeypatch.setenv(name, value)
        for url in ("s3://bucket/a", "zip://::s3://bucket/a.zip"):
            with pytest.raises(UsageError, match=f"{name} names no server of S3; expected http://host:port") as error:
                check(url)
            assert SECRET not in str(error.value)
        check("scans", "sftp://host/a")


@given(st.text(), st.sampled_from(["s3://", "sftp://", "zip://", "s3://bucket/", "sftp://host/", "zip://::/x/"]))
def test_whatever_is_written_is_refused_or_has_one_spelling(text: str, beginning: str) -> None:
    try:
        url = absolute(beginning + text)
    except UsageError:
        return
    assert absolute(url) == url
    assert parts(url).url == url


@pytest.mark.parametrize("name", ["s3://bucket/a", Path("s3://bucket/a"), Path(f"sftp://me:{SECRET}@host/a")])
def test_where_a_file_of_this_machine_is_needed_a_url_is_refused(name: str | Path) -> None:
    with pytest.raises(UsageError, match="The ledger has to be on this machine") as error:
        refuse(name, "The ledger")
    assert SECRET not in str(error.value)
    refuse("/a/s3:/b", "The ledger")


def test_a_report_behind_a_url_is_named_like_a_path() -> None:
    for url in ("s3://bucket/out/r.tar.CSV", "zip://out/r.tar.CSV::file:///x/a.zip"):
        report = target_file(url)
        assert isinstance(report, RemoteFile)
        assert report.name == "r.tar.CSV"
        assert str(report.with_name("other.csv")) == url.replace("r.tar.CSV", "other.csv")
        assert bytes(report) == url.encode()


def test_what_stands_in_a_folder_has_its_beginning_and_end() -> None:
    assert span("/scans/") == ("/scans/", "")
    assert span("/") == ("/", "")
    assert span("s3://bucket/a") == ("s3://bucket/a/", "")
    assert span("s3://bucket/") == ("s3://bucket/", "")
    assert span("zip://a::file:///x.zip") == ("zip://a/", "::file:///x.zip")
    assert span("zip://::file:///x.zip") == ("zip://", "::file:///x.zip")


def test_a_folder_is_asked_about_once_and_what_lies_in_a_closed_one_is_not() -> None:
    asked: list[str] = []

    def enters(folder: str) -> bool:
        asked.append(folder)
        return not folder.endswith("no")

    names = ["1", "a-b/1", "a/1", "a/c/1", "a/c/2", "a/no/1", "a/no/deeper/2", "a/z", "no/1", "no/2", "yes/1"]
    kept = entered([Entry(name, 1, -1) for name in names], enters)
    assert [entry.rest for entry in kept] == ["1", "a-b/1", "a/1", "a/c/1", "a/c/2", "a/z", "yes/1"]
    assert asked == ["a-b", "a", "a/c", "a/no", "no", "yes"]


@given(st.text())
def test_the_number_of_a_mark_is_never_the_time_of_a_recent_file_and_fits_a_ledger(mark: str) -> None:
    assert -(2**63) <= version(mark) < 0
    assert version(mark) == version(mark) != version(mark + "x")


def test_an_error_of_this_program_is_not_tried_again() -> None:
    assert is_transient(ConnectionResetError())
    assert is_transient(TimeoutError())
    assert not is_transient(TypeError())
    assert not is_transient(FileNotFoundError())
    assert not is_transient(PermissionError())


# archives on this machine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(
        ("b.png", "a.jpg", "in/c.PNG", "in/deep/d.bmp", ".hidden/e.png", "in/.f.png", "x/.g/h.png")
    ):
        write_png(tmp_path / "scans" / name, digits(60)[number])
    (tmp_path / "scans" / "notes.txt").write_text("no image")
    return tmp_path / "scans"


@pytest.fixture
def archive(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder.with_name("packed")), "zip", folder))


def records(source: str, **selection: list[str]) -> list[tuple[str, str]]:
    found = discover([locate(source)], outputs=[], selection=Selection(**selection))
    beginning, end = span(absolute(source))
    return sorted(
        (item.name, item.ending)
        if isinstance(item, ImageFile)
        else (item.path.removeprefix(beginning).removesuffix(end), item.reason)
        for item in found
    )


@pytest.mark.parametrize(
    "selection",
    [{}, {"exclude": ["in/deep/"]}, {"include": ["*.png"], "exclude": ["/in"]}, {"exclude": ["*.pdf", "b*"]}],
)
def test_an_archive_is_listed_like_the_folder_that_was_packed(
    folder: Path, archive: Path, selection: dict[str, list[str]]
) -> None:
    assert records(f"zip://{archive}", **selection) == records(str(folder), **selection)


def test_a_folder_of_an_archive_and_one_of_its_files_can_be_a_source(archive: Path) -> None:
    assert records(f"zip://in::file://{archive}") == [
        (".f.png", "hidden or system file"),
        ("c.PNG", ".png"),
        ("deep/d.bmp", ".bmp"),
    ]
    [alone] = discover([locate(f"zip://in/c.PNG::{archive}")], outputs=[])
    assert isinstance(alone, ImageFile)
    assert alone.path == f"zip://in/c.PNG::file://{archive}"
    several = discover([locate(f"zip://{archive}"), locate(str(archive.parent / "scans"))], outputs=[])
    assert {item.name for item in several if isinstance(item, ImageFile)} >= {f"zip://{archive}/b.png"}


def test_what_is_no_archive_or_not_there_is_told(tmp_path: Path, archive: Path) -> None:
    (tmp_path / "no.zip").write_text("no archive")
    for source, words in (
        (f"zip://{tmp_path}/none.zip", "does not exist"),
        (f"zip://{tmp_path}/no.zip", "no ZIP file"),
        (f"zip://nothing::{archive}", "no member of the archive is named so"),
    ):
        with pytest.raises(StorageError, match=words):
            list(discover([locate(source)], outputs=[]))


def predict(*arguments: str | Path, **env: str | Path) -> Result:
    return run([sys.executable, "-m", "tests.fake_model_cli", "predict", *arguments], cwd=CHECKOUT, env=env)


def test_the_report_of_an_archive_has_the_bytes_of_that_of_its_folder(
    folder: Path, archive: Path, tmp_path: Path
) -> None:
    assert predict(folder, "-o", tmp_path / "here.csv").code == 0
    assert predict(f"zip://{archive}", "-o", tmp_path / "packed.csv").code == 0
    assert (tmp_path / "packed.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()
    again = predict(f"zip://{archive}", "-o", tmp_path / "packed.csv")
    assert (again.code, "0 of them new or changed" in again.stderr) == (0, True)
    with zipfile.ZipFile(archive, "a") as more:
        more.writestr("later.png", png(digits(60)[50]))
    assert "1 of them new or changed" in predict(f"zip://{archive}", "-o", tmp_path / "packed.csv").stderr


def test_a_member_that_is_encrypted_or_damaged_is_a_row_and_the_others_are_read(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "odd.zip"
    with zipfile.ZipFile(archive, "w") as odd:
        for name in ("encrypted.png", "damaged.png", "good.png"):
            odd.writestr(name, (folder / "b.png").read_bytes())
        encrypted, damaged = odd.getinfo("encrypted.png"), odd.getinfo("damaged.png")
    data = bytearray(archive.read_bytes())
    data[encrypted.header_offset + 6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1  # of the directory, whose first entry it is
    data[damaged.header_offset + 100] ^= 1
    archive.write_bytes(data)
    done = predict(f"zip://{archive}", "-o", tmp_path / "r.csv")
    assert done.code == 3
    rows = (tmp_path / "r.csv").read_text().splitlines()
    assert len(rows) == 4
    assert "unreadable" in rows[1]
    assert "Bad CRC-32" in rows[1]
    assert "unreadable" in rows[2]
    assert "it is encrypted" in rows[2]
    assert "unreadable" not in rows[3]


def test_a_report_in_an_archive_replaces_one_member_and_leaves_the_others(
    folder: Path, archive: Path, tmp_path: Path
) -> None:
    before = {name: zipfile.ZipFile(archive).read(name) for name in zipfile.ZipFile(archive).namelist()}
    report = f"zip://out/r.csv::file://{archive}"
    env = {"XDG_STATE_HOME": tmp_path / "state"}
    assert predict(folder, "-o", tmp_path / "here.csv", "-o", report, **env).code == 0
    with zipfile.ZipFile(archive) as after:
        assert after.testzip() is None
        assert {name: after.read(name) for name in after.namelist()} == before | {
            "out/r.csv": (tmp_path / "here.csv").read_bytes()
        }
    stands = archive.read_bytes()
    assert predict(folder, "-o", tmp_path / "here.csv", "-o", report, **env).code == 0
    assert archive.read_bytes() == stands
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".batchdigits")) == []


def test_a_report_in_an_archive_that_was_edited_is_kept_beside(folder: Path, tmp_path: Path) -> None:
    report, archive = f"zip://r.csv::{tmp_path}/new.zip", tmp_path / "new.zip"
    env = {"XDG_STATE_HOME": tmp_path / "state"}
    assert predict(folder, "-o", report, **env).code == 0
    published = zipfile.ZipFile(archive).read("r.csv")
    with zipfile.ZipFile(archive, "w") as edited:
        edited.writestr("r.csv", published + b"mine")
    told = predict(folder, "-o", report, **env)
    assert "was edited since it was published; it is kept as r.edited-" in told.stderr
    with zipfile.ZipFile(archive) as after:
        [kept] = set(after.namelist()) - {"r.csv"}
        assert (after.read("r.csv"), after.read(kept)) == (published, published + b"mine")


@pytest.mark.parametrize("url", [WITH_SECRETS[0], WITH_SECRETS[2], WITH_SECRETS[6], WITH_SECRETS[9]])
def test_no_command_repeats_a_secret(url: str, folder: Path, tmp_path: Path) -> None:
    summary, report = tmp_path / "summary.json", tmp_path / "r.csv"
    commands: list[list[str | Path]] = [
        ["predict", url, "-o", report, "--summary", summary],
        ["predict", folder, "-o", f"{url}.csv", "--summary", summary],
    ]
    if url == WITH_SECRETS[2]:
        commands += [
            ["predict", url, "-o", report, "--dry-run"],
            ["predict", url, "-o", report, "--show-config"],
            ["predict", folder, "-o", report, "--ledger", url],
            ["predict", folder, "-o", report, "--summary", f"{url}.json"],
            ["predict", folder, "-o", report, "--metrics", f"{url}.prom"],
            ["predict", folder, "-o", report, "--model", url, "--summary", summary],
            ["predict", folder, "-o", report, f"--model={url}", "--log-json"],
            ["predict", folder, "-o", report, "--config", url],
            ["predict", folder, "-o", report, "--ledger", url, "--show-config"],
            ["predict", folder, "-o", report, "--model", url, "--show-config"],
            ["predict", folder, "-o", report, "--no-such-option", url],
            ["predict", folder, "-o", report, "--threshold", url],
            ["schedule", "--every", "1h", "--", folder, "-o", report, "--ledger", url],
            ["schedule", "--every", "1h", "--", folder, "-o", report, "--model", url],
            ["explain", folder / "b.png", "--save-input", f"{url}.png"],
            ["explain", folder / "b.png", "--model", url],
            ["evaluate", folder, "-o", url],
            ["evaluate", folder, "--model", url],
            ["train", "--data", folder, "-o", url],
            ["train", "--data", folder, "-o", tmp_path / "bundle", "--from", url],
            ["train", "--data", folder, "-o", tmp_path / "bundle", "--teacher", url],
            ["correct", report, folder / "notes.txt", "--ledger", url],
            [url],
            ["schedule", "--every", "1h", "--", url, "-o", report],
            ["explain", url],
            ["evaluate", url],
            ["correct", f"{url}.csv", report],
            ["correct", report, f"{url}.csv"],
            ["train", "--data", url, "-o", tmp_path / "bundle"],
        ]
    for command in commands:
        done = batchdigits(*command, cwd=tmp_path)
        assert done.code == 2, command
        assert SECRET not in done.stdout + done.stderr, command
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert not report.exists()


@pytest.mark.parametrize(
    "line",
    [
        'model = "sftp://me:SECRET@host/m"',
        'include = ["*.png", "sftp://me:SECRET@host/m"]',
        '"sftp://me:SECRET@host/m" = 1',
        'threshold = {a = "sftp://me:SECRET@host/m"}',
        'model = "sftp://me:SECRET\\u0040host/m"',
    ],
)
def test_no_job_file_brings_a_secret_in(line: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(line.replace("SECRET", SECRET))
    for more in ((), ("--show-config",)):
        done = batchdigits("predict", folder, "-o", tmp_path / "r.csv", "--config", tmp_path / "job.toml", *more)
        assert done.code == 2
        assert "A URL holds a password or a key" in done.stderr or "another type" in " ".join(done.stderr.split())
        assert SECRET not in done.stdout + done.stderr


def test_no_variable_brings_a_secret_in(folder: Path, tmp_path: Path) -> None:
    env = {"BATCHDIGITS_PREDICT_MODEL": WITH_SECRETS[2]}
    for more in ((), ("--show-config",)):
        done = batchdigits("predict", folder, "-o", tmp_path / "r.csv", *more, env=env)
        assert done.code == 2
        assert done.message.startswith("A URL holds a password or a key")
        assert SECRET not in done.stdout + done.stderr


def test_no_schedule_holds_a_secret_of_any_parameter() -> None:
    for value in (WITH_SECRETS[2], [WITH_SECRETS[2]], Path(WITH_SECRETS[2])):
        asked = [Parameter("output", "--output", ["r.csv"], "COMMANDLINE"), Parameter("x", "--x", value, "COMMANDLINE")]
        with pytest.raises(UsageError, match="A URL holds a password or a key") as error:
            schedule(
                asked, ScheduleSettings(nightly=True), folder="/", python="p", timeout="t", is_there=lambda _: False
            )
        assert SECRET not in str(error.value)


def test_a_secret_in_the_name_of_the_server_of_s3_is_not_repeated(tmp_path: Path) -> None:
    env: dict[str, str | Path] = {"AWS_ENDPOINT_URL": f"user:{SECRET}@host:9000"}
    summary = tmp_path / "summary.json"
    done = predict("s3://bucket/a", "-o", tmp_path / "r.csv", "--summary", summary, **env)
    assert done.code == 2
    assert done.message.startswith("AWS_ENDPOINT_URL names no server of S3")
    assert SECRET not in done.stderr + summary.read_text()


def test_a_schedule_leaves_urls_as_they_are(tmp_path: Path) -> None:
    report = f"zip://r.csv::file://{tmp_path}/x.zip"
    done = batchdigits("schedule", "--every", "1h", "--", "s3://bucket/a", "-o", report, cwd=tmp_path)
    assert done.code == 0
    assert f"predict s3://bucket/a --output {report} --if-locked skip -q" in done.stdout


def test_without_the_extra_the_error_names_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "block").mkdir()
    (tmp_path / "block" / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({OF_THE_EXTRA!r}))\n"
    )
    env: dict[str, str | Path] = {"PYTHONPATH": tmp_path / "block"}
    for command in (
        ["predict", "s3://bucket/a", "-o", tmp_path / "r.csv"],
        ["predict", "sftp://host/a", "-o", tmp_path / "r.csv"],
        ["predict", folder, "-o", "s3://bucket/r.csv"],
        ["predict", "zip://::s3://bucket/x.zip", "-o", tmp_path / "r.csv"],
        ["predict", "s3://bucket/a", "-o", tmp_path / "r.csv", "--dry-run"],
    ):
        done = batchdigits(*command, env=env)
        assert done.code == 2
        assert done.message.endswith("needs the extra: pip install 'batchdigits[remote]'.")
    assert batchdigits("predict", folder, "-o", tmp_path / "r.csv", "--dry-run", env=env).code == 0


def test_a_local_run_and_an_archive_here_import_nothing_of_the_extra(folder: Path, archive: Path) -> None:
    for source in (str(folder), f"zip://{archive}"):
        code = (
            "import sys; from batchdigits.sources.discovery import discover; from batchdigits import pipeline;"
            "from batchdigits.storage.urls import locate;"
            f"list(discover([locate({source!r})], outputs=[]));"
            f"print(*{{*{OF_THE_EXTRA!r}, 'asyncio'}} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == ""


def test_a_report_in_an_archive_that_is_not_here_is_refused(folder: Path) -> None:
    done = batchdigits("predict", folder, "-o", "zip://r.csv::s3://bucket/x.zip")
    assert done.code == 2
    assert "cannot be replaced whole" in done.message


def test_the_ledger_of_a_report_behind_a_url_is_among_the_users_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = RemoteFile("s3://bucket/out/r.csv")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert re.fullmatch(rf"{tmp_path}/batchdigits/r\.csv-[0-9a-f]{{8}}", str(report.here))
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(report.here).startswith(f"{tmp_path}/.local/state/batchdigits/")
    assert report.here != RemoteFile("s3://bucket/other/r.csv").here


def test_an_archive_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be used"):
        list(discover([locate(f"zip://{tmp_path}")], outputs=[]))


@pytest.mark.parametrize(
    ("path", "ending"),
    [("/a/b.PNG", ".png"), ("zip://a/b::c.tif::file:///x.zip", ".tif"), ("s3://bucket/a.b/c", ""), ("/a.b/c", "")],
)
def test_a_files_ending_is_that_of_its_own_name(path: str, ending: str) -> None:
    assert file_ending(path) == ending

"""Discovery: which files are images, under which names, and what ends the run before it starts."""

import os
import shlex
import socket
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from batchdigits.errors import StorageError, UsageError
from batchdigits.records import ImageFile, Skipped
from batchdigits.sources import discovery
from batchdigits.sources.discovery import discover
from batchdigits.sources.rules import NAMED, Selection
from batchdigits.storage import scratch
from batchdigits.storage.local import LocalFile
from batchdigits.storage.remote import target_file
from batchdigits.storage.urls import locate

PNG = b"\x89PNG\r\n\x1a\n"


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def found(*sources: Path | str, outputs: Sequence[Path] = ()) -> list[ImageFile]:
    records = discover([locate(str(source)) for source in sources], outputs=[LocalFile(output) for output in outputs])
    return sorted((record for record in records if isinstance(record, ImageFile)), key=lambda image: image.name)


def names(*sources: Path | str, outputs: Sequence[Path] = ()) -> list[str]:
    return [image.name for image in found(*sources, outputs=outputs)]


def skipped(*sources: Path | str, outputs: Sequence[Path] = ()) -> dict[str, str]:
    records = discover([locate(str(source)) for source in sources], outputs=[LocalFile(output) for output in outputs])
    return {Path(record.path).name: record.reason for record in records if isinstance(record, Skipped)}


def test_images_are_found_in_all_subfolders_under_names_relative_to_the_only_folder(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.JPG", "a/d/e.Tiff", "a/f.webp", "x.gif", "y.bmp", "z.jpeg", "z.tif"):
        touch(tmp_path / name)
    assert names(tmp_path) == ["a/c.JPG", "a/d/e.Tiff", "a/f.webp", "b.png", "x.gif", "y.bmp", "z.jpeg", "z.tif"]
    assert names(f"{tmp_path}/") == names(tmp_path)


def test_a_record_tells_what_the_file_system_knows(tmp_path: Path) -> None:
    path = touch(tmp_path / "a" / "B.PNG", b"12345")
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    status = path.stat()
    expected = ImageFile(str(path), "a/B.PNG", 5, 1_234_567_890_123_456_789, ".png", status.st_ino, status.st_ctime_ns)
    assert found(tmp_path) == [expected]


def test_formats_that_few_programs_write_and_those_that_are_not_read_get_a_row_too(tmp_path: Path) -> None:
    expected = ["a.HEIC", "a.avif", "a.heif", "a.hif", "a.j2k", "a.jp2", "a.jpx", "a.pdf", "a.svg"]
    for name in expected:
        touch(tmp_path / name)
    assert names(tmp_path) == expected


def test_with_several_sources_names_begin_with_the_source_as_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "one" / "a.png")
    touch(tmp_path / "two" / "b" / "c.png")
    monkeypatch.chdir(tmp_path)
    assert names("one/", "./two", "one/a.png") == ["./two/b/c.png", "one/a.png", "one/a.png"]
    assert [image.path for image in found("two", "one/../one")] == [f"{tmp_path}/one/a.png", f"{tmp_path}/two/b/c.png"]


def test_a_file_given_by_name_is_an_image_whatever_its_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / ".hidden" / "scan")
    monkeypatch.chdir(tmp_path)
    (image,) = found(".hidden/scan")
    assert (image.name, image.ending, image.path) == (".hidden/scan", "", str(tmp_path / ".hidden" / "scan"))


def test_a_file_reached_twice_is_yielded_twice_under_one_path(tmp_path: Path) -> None:
    path = touch(tmp_path / "a" / "b.png")
    assert [image.path for image in found(tmp_path, tmp_path / "a", path)] == [str(path)] * 3


def test_what_is_no_image_is_skipped_with_its_reason(tmp_path: Path) -> None:
    touch(tmp_path / "notes.txt")
    touch(tmp_path / "png")
    touch(tmp_path / "A letter", b"BMW sent a letter of some length")
    assert skipped(tmp_path) == dict.fromkeys(["notes.txt", "png", "A letter"], "not an image")


@pytest.mark.parametrize("ending", [".jfif", ".JPE", ".pjpeg", ".pjp", ".dib", ".apng"])
def test_an_image_may_have_any_of_its_formats_endings(tmp_path: Path, ending: str) -> None:
    touch(tmp_path / f"a{ending}")
    assert names(tmp_path) == [f"a{ending}"]


IMAGES = {
    **{"png": PNG, "jpeg": b"\xff\xd8\xff\xe0", "tiff": b"II*\0", "bigtiff": b"MM\0+", "gif": b"GIF89a"},
    **{"webp": b"RIFF1234WEBP", "bmp": b"BM" + bytes(12) + b"\x28\0\0\0", "os2": b"BM" + bytes(12) + b"\x0c\0\0\0"},
    **{"heic": b"\0\0\0\x18ftypheic", "avif": b"\0\0\0\x18ftypavif", "pdf": b"%PDF-1.4"},
    **{"jp2": b"\0\0\0\x0cjP  \r\n\x87\n", "codestream": b"\xff\x4f\xff\x51"},
}


@pytest.mark.parametrize("kind", IMAGES)
def test_without_an_ending_the_first_bytes_tell_an_image(tmp_path: Path, kind: str) -> None:
    for name in ("IMG_0001", "Scan 12.05", "page.", "page.2024-05-01"):
        touch(tmp_path / name, IMAGES[kind])
    touch(tmp_path / "sub" / "link").unlink()
    (tmp_path / "sub" / "link").symlink_to(tmp_path / "page.")
    assert names(tmp_path) == ["IMG_0001", "Scan 12.05", "page.", "page.2024-05-01", "sub/link"]


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_with_a_foreign_ending_is_left_out_by_a_reason_of_its_own(tmp_path: Path, kind: str) -> None:
    touch(tmp_path / "a.dat", IMAGES[kind])
    (tmp_path / "b.dat").symlink_to("a.dat")
    reason = "an image by its first bytes, but not by its ending"
    assert skipped(tmp_path) == {"a.dat": reason, "b.dat": reason}
    selection = Selection(exclude=["*.dat"])
    [first, second] = discover([locate(str(tmp_path))], outputs=[], selection=selection)
    assert {first.reason, second.reason} == {"not an image"}  # type: ignore[union-attr]


def test_an_archive_beside_the_scans_is_left_out_by_a_reason_of_its_own(tmp_path: Path) -> None:
    touch(tmp_path / "scans.ZIP")
    assert skipped(tmp_path) == {"scans.ZIP": "ZIP archive"}
    assert "zip:///" in NAMED["ZIP archive"]
    [archive] = discover([locate(str(tmp_path))], outputs=[], selection=Selection(exclude=["*.ZIP"]))
    assert archive == Skipped(f"{tmp_path}/scans.ZIP", "not an image")


def test_an_archive_that_is_a_source_of_its_own_or_holds_a_report_is_not_left_out(tmp_path: Path) -> None:
    for name in ("scans.zip", "reports.zip", "other.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("7.png", PNG)
    sources = [locate(str(tmp_path)), locate(f"zip://{tmp_path}/scans.zip")]
    report = target_file(f"zip://report.csv::{tmp_path}/reports.zip")
    records = discover(sources, outputs=[report])
    reasons = {Path(record.path).name: record.reason for record in records if isinstance(record, Skipped)}
    assert reasons == {"scans.zip": "not an image", "reports.zip": "not an image", "other.zip": "ZIP archive"}


def test_of_an_ending_that_no_image_has_only_some_files_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        touch(tmp_path / f"{number}.txt")
        touch(tmp_path / f"{number}")
    opened = []
    look = discovery._first_bytes
    monkeypatch.setattr(discovery, "_first_bytes", lambda path: opened.append(path) or look(path))
    assert set(skipped(tmp_path).values()) == {"not an image"}
    assert sum(path.endswith(".txt") for path in opened) == 20
    assert len(opened) == 70


def test_no_file_is_opened_whose_name_shows_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", ".hidden", "scan.pdf"):
        touch(tmp_path / name)
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(discovery, "_first_bytes", pytest.fail)
    assert names(tmp_path) == ["a.png", "scan.pdf"]
    assert skipped(tmp_path) == {".hidden": "hidden or system file", "pipe": "not an image"}


@pytest.mark.parametrize(
    "name",
    [".a.png", "._a.png", "a.tmp", "a.PART", "a.png.crdownload", "~a.png", "Thumbs.db", "thumbs.DB"],
)
def test_hidden_and_system_files_are_skipped(tmp_path: Path, name: str) -> None:
    touch(tmp_path / name)
    assert skipped(tmp_path) == {name: "hidden or system file"}
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "folder",
    [
        *(".git", "__MACOSX", "@eaDir", "~x", "lost+found", "System Volume Information", "$RECYCLE.BIN", "RECYCLER"),
        *("#recycle", "@Recycle", "#snapshot", "@Recently-Snapshot", "~snapshot", ".Trash-1000", ".snapshots"),
    ],
)
def test_a_hidden_folder_is_skipped_whole(tmp_path: Path, folder: str) -> None:
    touch(tmp_path / folder / "a.png")
    touch(tmp_path / folder / "b" / "a.png")
    records = list(discover([locate(str(tmp_path))], outputs=[]))
    assert records == [Skipped(str(tmp_path / folder), "hidden or system file")]


def test_a_folder_that_only_sounds_like_a_bin_is_read(tmp_path: Path) -> None:
    for folder in ("recycled", "snapshots", "bin", "lost and found"):
        touch(tmp_path / folder / "a.png")
    assert len(names(tmp_path)) == 4


def test_a_folder_named_like_an_image_is_a_folder(tmp_path: Path) -> None:
    touch(tmp_path / "x.png" / "y.png")
    assert names(tmp_path) == ["x.png/y.png"]


@pytest.mark.parametrize("name", ["spaces and 'quotes'.png", "ünï 数字.png", "=HYPERLINK(1).png", "n" * 251 + ".png"])
def test_unusual_names_stay_as_they_are(tmp_path: Path, name: str) -> None:
    touch(tmp_path / name)
    assert names(tmp_path) == [name]


def test_control_characters_backslashes_and_foreign_bytes_in_names_are_escaped(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/d\n"
    Path(os.fsdecode(folder)).mkdir()
    touch(Path(os.fsdecode(folder + b"/\xff\\.png")))
    (image,) = found(tmp_path)
    assert image.name == "d\\x0a/\\xff\\\\.png"
    assert os.fsencode(image.path) == folder + b"/\xff\\.png"
    assert names(tmp_path, tmp_path / "d\n") == [f"{tmp_path}/d\\x0a/\\xff\\\\.png"] * 2


def test_pipes_and_sockets_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    os.mkfifo("pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        assert skipped(tmp_path) == {"pipe.png": "not a regular file", "socket.png": "not a regular file"}
        with pytest.raises(UsageError, match=r"pipe\.png is a pipe"):
            found("pipe.png")


def test_a_link_to_a_file_inside_the_source_is_an_image_under_its_own_name(tmp_path: Path) -> None:
    target = touch(tmp_path / "source" / "deep" / "a.png", b"12345")
    (tmp_path / "source" / "link.jpg").symlink_to(target)
    (tmp_path / "door").symlink_to("source")
    for source in (tmp_path / "source", tmp_path / "door"):
        assert [(image.name, image.size_bytes) for image in found(source)] == [("deep/a.png", 5), ("link.jpg", 5)]


def test_links_out_of_the_source_and_to_folders_are_not_followed(tmp_path: Path) -> None:
    outside = touch(tmp_path / "source-2" / "a.png")
    source = tmp_path / "source"
    source.mkdir()
    (source / "out.png").symlink_to(outside)
    (source / "up.png").symlink_to(tmp_path)
    (source / "loop").symlink_to(source)
    (source / "text").symlink_to(touch(source / "notes.txt"))
    (source / "device.png").symlink_to("/dev/null")
    assert names(source) == []
    assert skipped(source) == {
        "out.png": "symbolic link out of the source",
        "up.png": "symbolic link to a folder out of the source",
        "loop": "symbolic link to a folder",
        "text": "not an image",
        "notes.txt": "not an image",
        "device.png": "symbolic link out of the source",
    }


def test_a_link_that_leads_nowhere_gets_a_row(tmp_path: Path) -> None:
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "dangling.txt").symlink_to("nowhere")
    assert [(image.name, image.size_bytes, image.mtime_ns) for image in found(tmp_path)] == [
        ("dangling.png", 0, 0),
        ("loop.png", 0, 0),
    ]


def test_a_file_that_vanishes_while_its_folder_is_listed_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes = touch(tmp_path / "1.png")
    touch(tmp_path / "2.png")
    judge = discovery._file

    def judged(entry: os.DirEntry[str], *rest: Any) -> ImageFile | Skipped:
        goes.unlink(missing_ok=True)
        return judge(entry, *rest)

    monkeypatch.setattr(discovery, "_file", judged)
    first, second = discover([locate(str(tmp_path))], outputs=[])
    assert first == Skipped(str(goes), "gone while its folder was listed")
    assert isinstance(second, ImageFile)


@pytest.mark.parametrize("at_a_time", [3, 1000])
def test_records_come_in_the_order_of_their_paths_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    monkeypatch.setattr(scratch, "_SORTED_AT_A_TIME", at_a_time)
    for name in (
        "a.png",
        "a/b.png",
        "a/b/c.png",
        "a0.png",
        "a b.txt",
        "b/z.png",
        "Z.png",
        "\U00010000.png",
        "\uffff.png",
    ):
        touch(tmp_path / "in" / name)
    touch(tmp_path / "in" / os.fsdecode(b"a/\xff.png"))
    touch(tmp_path / "other" / "y.png")
    monkeypatch.chdir(tmp_path)
    for sources in (["in"], ["other", "in"], ["in/**/*.png", "in", "other/y.png"], ["in/*"]):
        paths = [os.fsencode(record.path) for record in discover([locate(source) for source in sources], outputs=[])]
        assert paths == sorted(paths)
        assert len(set(paths)) >= 10


def test_a_folder_whose_place_a_link_took_is_not_listed(tmp_path: Path) -> None:
    for name in ("scans/a/1.png", "scans/a/b/2.png", "scans/3.png", "outside/b/secret.png"):
        touch(tmp_path / name)
    for source in ("scans", "scans/*"):
        records = discover([locate(str(tmp_path / source))], outputs=[])
        first = next(records)
        (tmp_path / "scans/a").rename(tmp_path / "away")
        (tmp_path / "scans/a").symlink_to("../outside")
        seen = [record.path for record in (first, *records)]
        assert f"{tmp_path}/scans/3.png" in seen
        assert [path for path in seen if "secret" in path] == []
        (tmp_path / "scans/a").unlink()
        (tmp_path / "away").rename(tmp_path / "scans/a")


def test_a_glob_finds_by_ending_and_walks_the_folders_that_it_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("in/a.png", "in/b.txt", "in/sub/c.png", "in/sub/deep/d.png", "in/.hidden/e.png", "other/f.png"):
        touch(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert names("in/*.png") == ["in/a.png"]
    assert names("in/*") == ["in/a.png", "in/sub/c.png", "in/sub/deep/d.png"]
    assert names("in/**/*.png") == ["in/a.png", "in/sub/c.png", "in/sub/deep/d.png"]
    assert names("in/**") == ["in/a.png", "in/sub/c.png", "in/sub/deep/d.png"]
    assert names("*/[af].png") == ["in/a.png", "other/f.png"]
    assert names(f"{tmp_path}/*/?.png") == [f"{tmp_path}/in/a.png", f"{tmp_path}/other/f.png"]
    assert names("in/*/c.png", "other") == ["in/sub/c.png", "other/f.png"]
    assert skipped("in/*.txt") == {"b.txt": "not an image"}


def test_a_path_that_exists_is_no_glob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "scan[1].png")
    touch(tmp_path / "scan1.png")
    monkeypatch.chdir(tmp_path)
    assert names("scan[1].png") == ["scan[1].png"]


def test_a_glob_does_not_walk_through_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    assert names("in/**/*.png") == ["in/a.png"]
    assert skipped("in/*") == {"loop": "symbolic link to a folder"}


def test_a_link_to_a_folder_elsewhere_is_told_from_one_that_the_source_holds_already(tmp_path: Path) -> None:
    touch(tmp_path / "nas" / "a.png")
    touch(tmp_path / "in" / "b.png")
    (tmp_path / "in" / "2024").symlink_to(tmp_path / "nas")
    assert skipped(tmp_path / "in") == {"2024": "symbolic link to a folder out of the source"}
    assert skipped(f"{tmp_path}/in/*") == {"2024": "symbolic link to a folder out of the source"}
    assert skipped(tmp_path) == {"2024": "symbolic link to a folder"}
    selection = Selection(exclude=["2024/"])
    records = list(discover([locate(str(tmp_path / "in"))], outputs=[], selection=selection))
    assert Skipped(f"{tmp_path}/in/2024", "folder left out by --exclude") in records


@pytest.mark.parametrize("source", ["missing", "missing/*.png", "*.png", "", "dangling*.png", "a\0b", "file/x.png"])
def test_a_source_that_leads_to_nothing_ends_the_run_before_the_first_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    touch(tmp_path / "good" / "a.png")
    touch(tmp_path / "file")
    (tmp_path / "dangling*.png").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    if source == "*.png":
        (tmp_path / "dangling*.png").unlink()
    records = discover([locate("good"), locate(source)], outputs=[])
    with pytest.raises(StorageError, match=r"mounted|cannot be listed"):
        next(records)


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    assert list(discover([locate(str(tmp_path))], outputs=[])) == []


def when_opened(monkeypatch: pytest.MonkeyPatch, folders: set[str], happens: Callable[[], object]) -> None:
    """Let something happen when folders of these names are opened."""
    opened = os.open

    def opening(path: str, *flags: int, **where: int) -> int:
        if Path(path).name in folders:
            happens()
        return opened(path, *flags, **where)

    monkeypatch.setattr(discovery.os, "open", opening)


def refuse() -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("unlistable", ["", "sub"])
def test_a_folder_that_cannot_be_listed_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unlistable: str
) -> None:
    touch(tmp_path / "sub" / "a.png")
    when_opened(monkeypatch, {unlistable or tmp_path.name}, refuse)
    with pytest.raises(StorageError, match="Permission denied") as error:
        found(tmp_path)
    assert ("--exclude /sub/ or" in str(error.value)) == bool(unlistable)


@pytest.mark.parametrize("source", ["in", "in/*", "in/**/*.png"])
def test_the_option_that_is_named_for_a_folder_that_cannot_be_listed_lets_the_rest_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    touch(tmp_path / "in" / "a.png")
    touch(tmp_path / "in" / "b c*" / "d.png")
    when_opened(monkeypatch, {"b c*"}, refuse)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError) as error:
        found(source)
    option, pattern = shlex.split(str(error.value).partition("may not be listed with ")[2].partition(" or ")[0])
    assert option == "--exclude"
    records = discover([locate(source)], outputs=[], selection=Selection(exclude=[pattern]))
    assert [record.name.rpartition("/")[2] for record in records if isinstance(record, ImageFile)] == ["a.png"]


@pytest.mark.parametrize("source", ["in", "in/*", "in/**/*.png"])
def test_a_sub_folder_that_goes_while_it_is_listed_costs_its_own_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    touch(tmp_path / "in" / "a.png")
    touch(tmp_path / "in" / "goes" / "b.png")
    touch(tmp_path / "in" / "stays" / "c.png")
    when_opened(monkeypatch, {"goes"}, lambda: (tmp_path / "in" / "goes").rename(tmp_path / "gone"))
    monkeypatch.chdir(tmp_path)
    assert sorted(image.name.rpartition("/")[2] for image in found(source)) == ["a.png", "c.png"]


def test_all_folders_that_cannot_be_listed_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("", "open", "shut/a", "shut/b", "open/shut"):
        touch(tmp_path / folder / "x.png")
    when_opened(monkeypatch, {"shut"}, refuse)
    with pytest.raises(StorageError, match="2 folders cannot be listed: Permission denied") as error:
        found(tmp_path)
    patterns = shlex.split(str(error.value).partition("may not be listed with ")[2].partition(" or ")[0])[1::2]
    assert sorted(patterns) == ["/open/shut/", "/shut/"]
    records = discover([locate(str(tmp_path))], outputs=[], selection=Selection(exclude=patterns))
    assert sorted(record.name for record in records if isinstance(record, ImageFile)) == ["open/x.png", "x.png"]


def test_of_many_folders_that_cannot_be_listed_the_first_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(23):
        touch(tmp_path / f"{number}" / "x.png")
    when_opened(monkeypatch, {str(number) for number in range(23)}, refuse)
    with pytest.raises(StorageError, match="and 3 more") as error:
        found(tmp_path)
    assert str(error.value).count("--exclude") == 20


def test_a_file_whose_status_cannot_be_read_gets_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        name = "a.png"
        path = f"{tmp_path}/a.png"

        def is_symlink(self) -> bool:
            return False

        def is_dir(self, *, follow_symlinks: bool) -> bool:
            raise OSError(5, f"Input/output error {follow_symlinks}")

        def stat(self, *, follow_symlinks: bool) -> os.stat_result:
            raise OSError(5, f"Input/output error {follow_symlinks}")

    monkeypatch.setattr(discovery, "_listing", lambda *_: iter([Refusing()]))
    assert [(image.name, image.size_bytes) for image in found(tmp_path)] == [("a.png", 0)]


def test_folders_as_deep_as_a_path_may_be_are_read_and_deeper_ones_end_the_run(tmp_path: Path) -> None:
    folder = str(tmp_path)
    while len(folder) + 202 < 4090:
        folder += "/" + "d" * 200
        Path(folder).mkdir()
    touch(Path(folder) / "a.png")
    assert len(names(tmp_path)) == 1
    descriptor = os.open(folder, os.O_RDONLY)
    os.mkdir("e" * 250, dir_fd=descriptor)
    deeper = os.open("e" * 250, os.O_RDONLY, dir_fd=descriptor)
    try:
        with pytest.raises(StorageError, match="too long"):
            found(tmp_path)
    finally:
        os.rmdir("e" * 250, dir_fd=descriptor)
        os.close(deeper)
        os.close(descriptor)


def test_a_report_of_this_run_is_never_an_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = touch(tmp_path / "report.csv", b"path,page\r\n")
    touch(tmp_path / "a.png")
    os.link(report, tmp_path / "again.png")
    (tmp_path / "link.png").symlink_to(report)
    monkeypatch.chdir(tmp_path)
    expected = dict.fromkeys(["report.csv", "again.png", "link.png"], "report of this run")
    assert skipped(tmp_path, outputs=[Path("report.csv")]) == expected
    assert skipped("report.csv", outputs=[report]) == {"report.csv": "report of this run"}
    assert names(tmp_path, outputs=[tmp_path / "not-yet.csv"]) == ["a.png", "again.png", "link.png"]


@pytest.mark.parametrize("content", [PNG, b"\xff\xd8\xff\xe0", b"II*\0", b"MM\0*", b"BM12", b"GIF89a", b"RIFF1234WEBP"])
def test_an_output_that_would_overwrite_an_image_is_refused(tmp_path: Path, content: bytes) -> None:
    image = touch(tmp_path / "in" / "a.png", content)
    hard, soft = tmp_path / "hard.csv", tmp_path / "soft.csv"
    os.link(image, hard)
    soft.symlink_to(image)
    for output in (image, hard, soft):
        with pytest.raises(UsageError, match=r"overwrite the input image .*a\.png; choose another name for -o"):
            found(image.parent, outputs=[output])


def test_an_image_given_by_name_is_not_overwritten_whatever_its_ending(tmp_path: Path) -> None:
    image = touch(tmp_path / "scan.csv", PNG)
    with pytest.raises(UsageError, match="overwrite"):
        found(image, outputs=[image])


def test_an_output_that_cannot_be_read_counts_as_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = touch(tmp_path / "a.png")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(discovery, "opened", refuse)
    with pytest.raises(UsageError, match="overwrite"):
        found(tmp_path, outputs=[image])


def test_many_files_in_one_folder_are_streamed(tmp_path: Path) -> None:
    for number in range(1000):
        touch(tmp_path / f"{number}.{'png' if number % 2 else 'txt'}")
    kinds = Counter(type(record) for record in discover([locate(str(tmp_path))], outputs=[]))
    assert kinds == {ImageFile: 500, Skipped: 500}


def test_a_pipe_that_takes_an_images_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert discovery._first_bytes(str(tmp_path / "pipe")) is None

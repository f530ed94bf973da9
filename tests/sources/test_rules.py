"""Patterns: what --include and --exclude take is what git would ignore."""

import subprocess
from pathlib import Path

import pytest

from batchdigits.errors import UsageError
from batchdigits.records import ImageFile, Skipped
from batchdigits.sources.discovery import discover
from batchdigits.sources.rules import Selection
from batchdigits.storage.urls import locate

NAMES = ["a.png", "b.jpg", "drafts/a.png", "in/drafts/b.png", "in/a.png", "in/deep/keep.png", "drafts.png", "x y/a.png"]
PATTERNS = [
    ["*.png"],
    ["/a.png"],
    ["drafts/"],
    ["in/"],
    ["in/*.png"],
    ["**/drafts"],
    ["*.png", "!keep.png"],
    ["x\\ y/"],
    ["[ab].png"],
    ["# a remark", ""],
    ["in/**/keep.png"],
]


def taken(folder: Path, **patterns: list[str]) -> list[str]:
    found = discover([locate(str(folder))], outputs=[], selection=Selection(**patterns))
    return sorted(file.name for file in found if isinstance(file, ImageFile))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "scans"


@pytest.mark.parametrize("patterns", PATTERNS, ids=" ".join)
def test_what_is_excluded_is_what_git_ignores(folder: Path, patterns: list[str]) -> None:
    subprocess.run(["git", "init", "-q", folder], check=True)
    (folder / ".gitignore").write_text("\n".join(patterns) + "\n")
    listed = ["git", "ls-files", "-z", "--others", "--exclude-standard"]
    kept = subprocess.run(listed, cwd=folder, check=True, capture_output=True, text=True).stdout.split("\0")
    assert taken(folder, exclude=patterns) == sorted({*kept} - {"", ".gitignore"})


def test_only_what_is_included_is_taken_and_what_is_excluded_of_that_is_not(folder: Path) -> None:
    assert taken(folder, include=["*.jpg", "/in/"]) == ["b.jpg", "in/a.png", "in/deep/keep.png", "in/drafts/b.png"]
    assert taken(folder, include=["/in/"], exclude=["drafts/"]) == ["in/a.png", "in/deep/keep.png"]


def test_an_excluded_folder_is_not_even_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from batchdigits.sources import discovery

    listed = []
    listing = discovery._listing
    monkeypatch.setattr(discovery, "_listing", lambda name, *of: listed.append(Path(name).name) or listing(name, *of))
    found = list(discover([locate(str(folder))], outputs=[], selection=Selection(exclude=["in/"])))
    assert sorted(listed) == ["drafts", "scans", "x y"]
    reasons = {item.path: item.reason for item in found if isinstance(item, Skipped)}
    assert reasons == {str(folder / "in"): "folder left out by --exclude"}


def test_what_is_left_out_is_skipped_with_its_reason(folder: Path) -> None:
    found = discover([locate(str(folder))], outputs=[], selection=Selection(include=["in/"]))
    reasons = {Path(item.path).name: item.reason for item in found if isinstance(item, Skipped)}
    assert reasons["b.jpg"] == "left out by --include or --exclude"


def test_patterns_are_relative_to_the_folder_that_a_glob_begins_with(folder: Path) -> None:
    found = discover([locate(f"{folder}/*")], outputs=[], selection=Selection(exclude=["/in/drafts/", "/a.png"]))
    names = sorted(file.name.removeprefix(f"{folder}/") for file in found if isinstance(file, ImageFile))
    assert names == ["b.jpg", "drafts.png", "drafts/a.png", "in/a.png", "in/deep/keep.png", "x y/a.png"]


def test_a_file_that_is_named_is_taken_whatever_the_patterns(folder: Path) -> None:
    (file,) = discover([locate(str(folder / "a.png"))], outputs=[], selection=Selection(exclude=["*"]))
    assert isinstance(file, ImageFile)


def test_a_name_that_is_not_utf_8_is_judged_too(tmp_path: Path) -> None:
    (tmp_path / "caf\udce9.png").write_bytes(b"x")
    assert taken(tmp_path, exclude=["caf*"]) == []
    assert taken(tmp_path, include=["caf?.png"]) == [r"caf\xe9.png"]


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_what_is_no_pattern_is_named(option: str) -> None:
    with pytest.raises(UsageError, match=rf"--{option} \*\.png ! .*no pattern"):
        Selection(**{option: ["*.png", "!"]})

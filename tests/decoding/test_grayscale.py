"""The sample images: the installed command reads each of them, and says of each page the digit that a person sees.

`tests/data/golden-sample-report.csv` holds the first four columns of their report. Another model, decoding or
normalisation may change it; look at the difference, and write it anew from the root of the checkout with

    batchdigits predict sample_images | cut -d, -f1-4 > tests/data/golden-sample-report.csv
"""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from tests.commands import CHECKOUT, batchdigits

SAMPLES = CHECKOUT / "sample_images"
GOLDEN = Path(__file__).parents[1] / "data" / "golden-sample-report.csv"
README = (SAMPLES / "README.md").read_text(encoding="utf-8")

Row = dict[str, str]


def rows_of(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


LABELS = rows_of(SAMPLES / "labels.csv")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    path = tmp_path_factory.mktemp("samples") / "report.csv"
    done = batchdigits("predict", SAMPLES, "-o", path)
    assert done.code == 0, done.stderr
    return rows_of(path)


def test_every_page_of_every_sample_gives_one_row_and_none_is_unreadable(report: list[Row]) -> None:
    assert [(row["path"], row["page"]) for row in report] == [(row["path"], row["page"]) for row in LABELS]
    assert [row for row in report if row["status"] not in ("ok", "review")] == []


def test_every_file_of_the_folders_stands_in_the_labels() -> None:
    files = {str(path.relative_to(SAMPLES)) for path in SAMPLES.glob("*/*") if path.parent.name != "licences"}
    assert files == {row["path"] for row in LABELS}


def test_every_digit_of_the_samples_is_right(report: list[Row]) -> None:
    assert len(report) == len(LABELS)
    wrong = [
        f"{row['path']} page {row['page']}: {row['digit'] or row['status']} is {label['label']}"
        for row, label in zip(report, LABELS, strict=True)
        if row["digit"] != label["label"]
    ]
    assert wrong == []


def test_a_photo_stored_sideways_has_the_size_that_it_has_upright(report: list[Row]) -> None:
    name = "formats/exif-rotated.jpg"
    with Image.open(SAMPLES / name) as image:
        stored = image.size
    (row,) = [row for row in report if row["path"] == name]
    assert stored == (340, 240)
    assert (row["width"], row["height"]) == ("240", "340")


def test_the_report_is_the_golden_one(report: list[Row]) -> None:
    golden = rows_of(GOLDEN)
    assert [{column: row[column] for column in ("path", "page", "status", "digit")} for row in report] == golden


def test_every_digit_stands_in_the_samples_several_times() -> None:
    counts = Counter(row["label"] for row in LABELS)
    assert sorted(counts) == list("0123456789")
    assert min(counts.values()) >= 4


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("formats/grey-16-bit.png", {"mode": "I;16"}),
        ("formats/three-pages.tif", {"mode": "L", "n_frames": 3, "compression": "tiff_lzw"}),
        ("formats/four-pages-g4.tif", {"mode": "1", "n_frames": 4, "compression": "group4"}),
        ("scans/scan-04.tiff", {"mode": "1", "n_frames": 1, "compression": "group4"}),
        ("formats/transparent-black-ink.png", {"mode": "RGBA"}),
        ("formats/grey-alpha.png", {"mode": "LA"}),
        ("formats/palette-16-colours.png", {"mode": "P"}),
        ("formats/cmyk.jpg", {"mode": "CMYK"}),
        ("formats/progressive.jpg", {"mode": "RGB", "progressive": 1}),
        ("formats/exif-rotated.jpg", {"mode": "RGB", "orientation": 6}),
    ],
)
def test_a_sample_still_is_of_the_kind_that_it_stands_for(name: str, expected: dict[str, object]) -> None:
    with Image.open(SAMPLES / name) as image:
        seen = {
            "mode": image.mode,
            "n_frames": getattr(image, "n_frames", 1),
            "orientation": image.getexif().get(0x0112),
            **image.info,
        }
    assert {key: seen.get(key) for key in expected} == expected


def test_the_samples_are_of_every_format_that_is_read() -> None:
    formats = set()
    for row in LABELS:
        with Image.open(SAMPLES / row["path"]) as image:
            formats.add(image.format)
    assert formats == {"PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF"}


def test_the_readme_of_the_samples_names_every_folder_licence_and_file_of_formats() -> None:
    assert {f"`{path.name}/`" for path in SAMPLES.iterdir() if path.is_dir()} <= set(re.findall(r"`[a-z]+/`", README))
    texts = {f"licences/{path.name}" for path in (SAMPLES / "licences").iterdir()}
    assert texts == set(re.findall(r"\((licences/[^)]+)\)", README))
    assert {f"`{path.name}`" for path in (SAMPLES / "formats").iterdir()} <= set(re.findall(r"`[^`]+`", README))
    for licence in ("CC BY-SA 3.0", "CC BY 4.0", "MIT"):
        assert licence in README


def test_the_readme_of_the_samples_counts_them_rightly() -> None:
    assert f"{len({row['path'] for row in LABELS})} files with {len(LABELS)} handwritten digits" in README

"""The sample images: the installed command reads each of them, and says of each page the digit that a person sees.

`tests/data/golden-sample-report.csv` holds the columns path, page, status and digit of their report. Another model,
decoding or normalisation may change it; look at the difference, and write it anew from the root of the checkout with

    batchdigits predict sample_images | cut -d, -f1,2,4,5 > tests/data/golden-sample-report.csv
"""

import csv
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from batchdigits.decoding.grayscale import grey_of, grey_of_pillow, in_bytes, is_flat
from tests.cli_runner import CHECKOUT, batchdigits

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


def test_the_readme_shows_the_first_rows_of_that_report(report: list[Row]) -> None:
    """The last places of a confidence differ between processors."""
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    shown = list(csv.DictReader(re.findall(r"^    (path,page,.*|europe/.*)$", text, re.MULTILINE)))
    assert len(shown) == 4
    for told, row in zip(shown, report, strict=False):
        assert told | {"confidence": ""} == {column: row[column] for column in told} | {"confidence": ""}
        assert float(told["confidence"]) == pytest.approx(float(row["confidence"]), abs=0.002)


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


# ---- what is ink where lightness does not say it --------------------------------------------------------------------

INK = np.zeros((60, 50), bool)
INK[10:50, 20:27] = True


@pytest.mark.parametrize("blue", [0, 90])
def test_a_palette_of_greys_or_colours_gives_what_it_says(blue: int) -> None:
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).copy()
    image.putpalette([part for level in range(255, -1, -1) for part in (level, level, max(0, level - blue))])
    assert image.mode == "P"
    np.testing.assert_array_equal(grey_of_pillow(image), grey_of(np.asarray(image.convert("RGB"))))
    if not blue:
        np.testing.assert_array_equal(grey_of_pillow(image).ravel(), np.arange(255, -1, -1))


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (250, 240, 90), (30, 60, 200)])
@pytest.mark.parametrize("half", [False, True])
def test_where_transparency_varies_and_colour_does_not_transparency_is_the_ink(
    colour: tuple[int, int, int], half: bool
) -> None:
    pixels = np.full((60, 50, 3), colour, np.uint8)
    alpha = np.where(INK, 200 if half else 255, 0).astype(np.uint8)
    np.testing.assert_array_equal(grey_of(pixels, alpha), 255 - alpha)
    np.testing.assert_array_equal(grey_of(pixels[..., 0].copy(), alpha), 255 - alpha)


def test_transparency_that_hides_everything_or_nothing_is_none() -> None:
    pixels = np.where(INK, 10, 240).astype(np.uint8)
    for alpha in (0, 255):
        np.testing.assert_array_equal(grey_of(pixels, np.full_like(pixels, alpha)), pixels)


@pytest.mark.parametrize("paper_is_light", [True, False])
def test_ink_as_light_as_its_paper_is_told_by_its_colour(paper_is_light: bool) -> None:
    red, green = (205, 70, 70), (60, 141, 60)
    pixels = np.where(INK[..., None], red if paper_is_light else green, green if paper_is_light else red).astype(
        np.uint8
    )
    noise = np.random.default_rng(1).integers(-3, 4, pixels.shape)
    grey = grey_of(np.clip(pixels + noise, 0, 255).astype(np.uint8)).astype(int)
    assert grey[~INK].mean() - grey[INK].mean() > 100
    assert abs(grey[~INK].mean() - 220) < 5


def test_paper_of_one_colour_stays_empty() -> None:
    noise = np.random.default_rng(1).integers(-4, 5, (80, 80, 3))
    for colour in ((240, 235, 220), (120, 160, 200)):
        assert grey_of(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).std() < 5


@pytest.mark.parametrize("side", [1, 28, 64, 200, 1500])
def test_colours_are_asked_where_the_standard_deviation_of_grey_is_below_eight(side: int) -> None:
    rng = np.random.default_rng(side)
    for deviation, expected in ((0, True), (6, True), (11, side == 1), (60, side == 1)):
        grey = np.clip(rng.normal(120, deviation, (side, side)), 0, 255).astype(np.uint8)
        assert is_flat(grey) == expected
    assert is_flat(np.full((side, side), 255, np.uint8))


@pytest.mark.parametrize("top", [255, 1023, 4095, 16383, 32767, 65535])
def test_the_bits_that_are_used_are_the_range(top: int) -> None:
    samples = np.linspace(0, top, 512).astype(np.uint16).reshape(16, 32)
    np.testing.assert_allclose(in_bytes(samples), np.linspace(0, 255, 512).reshape(16, 32), atol=1)


def test_numbers_beyond_all_measure_raise_nothing() -> None:
    assert (in_bytes(np.array([[np.nan, 1e308, -1e308], [0.0, np.inf, 1.0]])) == [[0, 0, 0], [0, 0, 255]]).all()
    assert in_bytes(np.array([[-(2**63), 2**63 - 1]])).tolist() == [[0, 255]]

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from batchdigits.records import NO_DIGIT
from batchdigits.training.evaluation.metrics import Evaluation, evaluate
from batchdigits.training.evaluation.plots import (
    SHEET_LIMIT,
    contact_sheet,
    heatmap,
    learning_curves,
    reliability_diagram,
    risk_coverage_curve,
    sample_grid,
)

HISTORY = [
    {"epoch": 1, "loss": 0.41, "accuracy": 0.88, "val_loss": 0.12, "val_accuracy": 0.962, "seconds": 12.5},
    {"epoch": 2, "loss": 0.15, "accuracy": 0.95, "val_loss": 0.07, "val_accuracy": 0.981, "seconds": 12.1},
    {"epoch": 3, "loss": 0.11, "accuracy": 0.97, "val_loss": 0.08, "val_accuracy": 0.979, "seconds": 12.2},
]
LABELS = np.arange(200).astype(np.int8) % 10
IMAGES = np.random.default_rng(1).integers(0, 256, (200, 28, 28), np.uint8)


def evaluation(mistakes: int) -> Evaluation:
    true = np.repeat(np.arange(10, dtype=np.int8), 100)
    said = true.copy()
    said[:mistakes] = 6
    return evaluate(said, true, np.full(1000, 0.9))


def draw_heatmap(path: Path, change: int) -> None:
    heatmap(evaluation(1 + change), path)


def draw_curves(path: Path, change: int) -> None:
    learning_curves(HISTORY[: 3 - change], path)


def draw_sheet(path: Path, change: int) -> None:
    contact_sheet(IMAGES[:14], [f"said {9 - change}, true 4"] * 14, path, title="14 mistakes")


def draw_grid(path: Path, change: int) -> None:
    sample_grid(IMAGES[change:], LABELS[change:], path)


CONFIDENCE = np.linspace(0.5, 1, 400).round(4)
RIGHT = np.arange(400) % 7 > 0


def draw_reliability(path: Path, change: int) -> None:
    reliability_diagram(CONFIDENCE, RIGHT if change else ~RIGHT, path)


def draw_risk(path: Path, change: int) -> None:
    risk_coverage_curve(CONFIDENCE, RIGHT, path, threshold=0.8 if change else None)


Draw = Callable[[Path, int], None]
every_picture = pytest.mark.parametrize(
    "draw", [draw_heatmap, draw_curves, draw_sheet, draw_grid, draw_reliability, draw_risk]
)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_pictures_of_trust_bear_few_digits_and_none(count: int, tmp_path: Path) -> None:
    confidence = np.array([0.9, 1.0, np.nan])[:count]
    reliability_diagram(confidence, np.ones(count, np.bool_), tmp_path / "a.png")
    risk_coverage_curve(confidence, np.ones(count, np.bool_), tmp_path / "b.png", threshold=0.95)
    assert min(pixels(path).std() for path in tmp_path.iterdir()) > 0


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Draw], Path]:
    """What gives a function's picture, which it draws but once."""
    folder = tmp_path_factory.mktemp("pictures")

    def picture(draw: Draw) -> Path:
        path = folder / f"{draw.__name__}.png"
        if not path.exists():
            draw(path, 0)
        return path

    return picture


@every_picture
def test_a_picture_is_not_blank_has_the_same_bytes_every_time_and_no_author(
    draw: Draw, first: Callable[[Draw], Path], tmp_path: Path
) -> None:
    draw(tmp_path / "b.png", 0)
    assert first(draw).read_bytes() == (tmp_path / "b.png").read_bytes()
    assert len(np.unique(pixels(first(draw)))) > 20
    assert b"Software" not in first(draw).read_bytes()


@every_picture
def test_a_picture_changes_when_its_data_change(draw: Draw, first: Callable[[Draw], Path], tmp_path: Path) -> None:
    draw(tmp_path / "b.png", 1)
    assert (pixels(first(draw)) != pixels(tmp_path / "b.png")).any()


@every_picture
def test_drawing_leaves_no_figure_open_and_the_settings_of_matplotlib_as_they_were(
    draw: Draw, first: Callable[[Draw], Path], tmp_path: Path
) -> None:
    import matplotlib as mpl
    from matplotlib import pyplot

    with mpl.rc_context({"font.size": 31, "savefig.dpi": 20}):
        draw(tmp_path / "a.png", 0)
        assert mpl.rcParams["font.size"] == 31
    assert (tmp_path / "a.png").read_bytes() == first(draw).read_bytes()
    assert pyplot.get_fignums() == []


def test_importing_the_modules_imports_neither_matplotlib_nor_seaborn() -> None:
    code = (
        "import sys, batchdigits.training.evaluation.metrics, batchdigits.training.evaluation.plots; "
        "sys.exit(' '.join({'matplotlib', 'seaborn', 'pandas', 'tensorflow'} & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_single_mistake_is_coloured_and_right_answers_are_not(tmp_path: Path) -> None:
    def saturated(path: Path) -> int:
        cells = pixels(path)[:, :820].astype(int)  # without the colour bar
        return int(((cells.max(axis=2) - cells.min(axis=2)) > 60).sum())

    heatmap(evaluation(0), tmp_path / "perfect.png")
    heatmap(evaluation(1), tmp_path / "one.png")
    assert saturated(tmp_path / "perfect.png") == 0
    assert saturated(tmp_path / "one.png") > 50 * 50  # most of one cell


def test_a_heatmap_of_a_model_that_never_answers_is_drawn(tmp_path: Path) -> None:
    silent = evaluate(np.full(20, NO_DIGIT, np.int8), LABELS[:20], np.full(20, np.nan))
    heatmap(silent, tmp_path / "silent.png")
    assert pixels(tmp_path / "silent.png").shape == (800, 940, 3)


@pytest.mark.parametrize("epochs", [1, 3])
def test_learning_curves_of_one_epoch_and_more_are_drawn(epochs: int, tmp_path: Path) -> None:
    learning_curves(HISTORY[:epochs], tmp_path / "curves.png")
    assert pixels(tmp_path / "curves.png").shape == (420, 1000, 3)


def test_learning_curves_bear_a_loss_of_zero(tmp_path: Path) -> None:
    learning_curves([{**HISTORY[0], "loss": 0.0}, {**HISTORY[1], "loss": 0.0}], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists()


def test_an_empty_history_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one epoch"):
        learning_curves([], tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("count", "columns", "rows"), [(0, 12, 1), (1, 12, 1), (12, 12, 1), (13, 12, 2), (9, 3, 3)])
def test_a_contact_sheet_has_as_many_rows_as_its_images_need(
    count: int, columns: int, rows: int, tmp_path: Path
) -> None:
    contact_sheet(IMAGES[:count], ["said 9, true 4"] * count, tmp_path / "sheet.png", columns=columns, title="Mistakes")
    assert pixels(tmp_path / "sheet.png").shape == (60 + 122 * rows, 24 + 108 * columns, 3)


def test_a_contact_sheet_stops_at_its_limit_and_counts_the_rest_in_the_title(tmp_path: Path) -> None:
    captions = ["said 9, true 4"] * 200
    contact_sheet(IMAGES, captions, tmp_path / "long.png", title="Mistakes")
    contact_sheet(IMAGES[:SHEET_LIMIT], captions[:SHEET_LIMIT], tmp_path / "full.png", title="Mistakes")
    title = f"Mistakes (the first {SHEET_LIMIT}, and {200 - SHEET_LIMIT} more)"
    contact_sheet(IMAGES[:SHEET_LIMIT], captions[:SHEET_LIMIT], tmp_path / "told.png", title=title)
    assert (tmp_path / "long.png").read_bytes() != (tmp_path / "full.png").read_bytes()
    assert (tmp_path / "long.png").read_bytes() == (tmp_path / "told.png").read_bytes()


def test_a_contact_sheet_shows_a_small_image_pixel_by_pixel_and_any_shape_whole(tmp_path: Path) -> None:
    wide = np.full((10, 40), 200, np.uint8)
    contact_sheet([IMAGES[0], wide], ["", ""], tmp_path / "sheet.png", title="Mistakes")
    sheet = pixels(tmp_path / "sheet.png")[:, :, 0]
    enlarged = np.kron(IMAGES[0], np.ones((3, 3), np.uint8))
    np.testing.assert_allclose(sheet[48 : 48 + 84, 24 : 24 + 84], enlarged, atol=1)
    rows, columns = np.nonzero(sheet[48 : 48 + 84, 132 : 132 + 84] < 255)
    assert np.ptp(columns) + 1 == 84
    assert np.ptp(rows) + 1 == pytest.approx(21, abs=1)


def test_hostile_captions_are_drawn_as_they_are(tmp_path: Path) -> None:
    captions = [r"$\frac{1$", "漢字 😀\nsecond\nthird line is left out", "a" * 500]
    contact_sheet(IMAGES[:3], captions, tmp_path / "sheet.png", title=r"50 $ and \alpha$")
    assert (tmp_path / "sheet.png").exists()


def test_a_caption_too_few_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 images, 2 captions"):
        contact_sheet(IMAGES[:3], ["a", "b"], tmp_path / "sheet.png", title="Mistakes")


def test_a_sample_grid_shows_the_first_ten_of_each_digit_in_its_row(tmp_path: Path) -> None:
    sample_grid(IMAGES, LABELS, tmp_path / "grid.png")
    grid = pixels(tmp_path / "grid.png")[:, :, 0]
    for digit, column in [(0, 0), (4, 0), (4, 9), (9, 9)]:
        top, left = 48 + 60 * digit, 56 + 60 * column
        enlarged = np.kron(IMAGES[10 * column + digit], np.ones((2, 2), np.uint8))
        np.testing.assert_allclose(grid[top : top + 56, left : left + 56], enlarged, atol=1)


def test_a_digit_without_images_has_an_empty_row(tmp_path: Path) -> None:
    keep = LABELS != 3
    sample_grid(IMAGES[keep], LABELS[keep], tmp_path / "grid.png")
    assert (pixels(tmp_path / "grid.png")[48 + 180 : 48 + 236, 56:656] == 255).all()

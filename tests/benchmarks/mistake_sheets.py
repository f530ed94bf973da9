"""Draw the mistakes of each set on contact sheets: the page, beside it what the model saw, and what was said."""

import re
from pathlib import Path

from batchdigits.preprocessing.thumbnails import fit
from batchdigits.records import NO_DIGIT, GreyImage
from batchdigits.training.evaluation.plots import SHEET_LIMIT, contact_sheet
from tests.benchmarks.reading import Answers, PageSet
from tests.benchmarks.scores import mistakes

_SIDE = 168  # pixels that a page is reduced to: twice what a sheet shows of it
_PAGES = SHEET_LIMIT // 2  # of one sheet: each is there twice


def draw_mistakes(folder: Path, section: str, some: PageSet, found: Answers) -> None:
    """Write a set's sheets into a folder; a set without mistakes has none."""
    rows = mistakes(some, found).tolist()
    stem = re.sub(r"\W+", "-", f"{section} {some.name}").strip("-")
    for number, start in enumerate(range(0, len(rows), _PAGES), 1):
        images: list[GreyImage] = []
        captions: list[str] = []
        for row in rows[start : start + _PAGES]:
            file = Path(some.files[row]).name if some.files else f"page {row}"
            true = "no digit" if some.labels is None else f"true {some.labels[row]}"
            images += [fit(some.pages[row], _SIDE), found.pixels[row]]
            captions += [f"{true}\n{file}", _said(found, row)]
        title = f"{some.name}: {len(rows)} mistakes of {len(some.pages)}, each with what the model saw (sheet {number})"
        contact_sheet(images, captions, folder / f"{stem}-{number}.png", title=title)


def _said(found: Answers, row: int) -> str:
    """Spell what the report says of a page, and below it the likeliest digit where none is said."""
    if found.digit[row] == NO_DIGIT:
        return f"{found.status[row]}\nlikeliest {found.likeliest[row]}"
    return f"{found.status[row]} {found.digit[row]}\n{found.confidence[row]:.4f}"

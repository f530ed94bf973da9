"""Keys that a person presses to answer 1,000 doubtful digits on the review page, all of them rightly.

`python -m tests.benchmarks.review_keys` reads simulated pages by writers whom nobody learnt from, keeps those that are
to review, and makes folders of 1,000 of them: with a digit, of which some shares are read wrongly, and as they come,
with pages that show none. It opens each folder's page in headless Chromium. A driver that knows the truth answers as an
ordinary user would: in each group what is wrong, one by one or several of one digit as a range, by the runner-up's key
where that is right; then the rest of the group at once. With the keyboard alone, it goes a row down until the image has
a letter, and types the letter; it does all again with a mouse that points. Each press counts as one, also of Shift, the
arrows and the mouse's button. What is left of a person's time is looking.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import islice, pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from selenium.webdriver import ActionChains, Chrome, Keys

from batchdigits.inference import bundle
from batchdigits.inference.decisions import decide_calibrated
from batchdigits.inference.runtimes import InkFinder, Predictor, quickest
from batchdigits.preprocessing import thumbnails
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import NO_DIGIT, Status
from batchdigits.reports.formats.html import HtmlReport
from batchdigits.reports.schema import Rows
from batchdigits.settings import PredictSettings, ReportSettings
from batchdigits.training.datasets.simulator.hands import sources
from batchdigits.training.datasets.simulator.pages import Kind, simulate
from tests.browser import MISSING, chromium
from tests.reports.report_rows import ABOUT, sevens

_STACK = 200  # pages that are read together
_RANGE = 4  # wrong ones of one digit, side by side, from which a range takes fewer keys


SHARES = (0.1, 0.2, 0.3)  # of the digits to review, that are read wrongly

STATE = """
return { chosen, heard: window.heard, open: items.map((item) => answerOf(item) === ""),
         groups: report.groups.map((group) => group.members), letters: Object.fromEntries(lettered) };
"""


@dataclass(frozen=True, slots=True)
class Doubtful:
    """A page that is to review, as a run reads it."""

    digit: int
    confidence: float
    runner_up: int
    detail: str
    thumbnail: bytes
    truth: str
    """The answer that is right."""

    @property
    def is_right(self) -> bool:
        """Whether it was read rightly."""
        return self.truth == str(self.digit)


def doubtful(seed: int, kind: Kind | None) -> Iterator[Doubtful]:
    """Read simulated pages of a kind, or of all, and give those that are to review."""
    model = bundle.load(bundle.PACKAGED)
    runtime = quickest(model.directory)
    threshold = model.calibration.threshold(PredictSettings(sources=()))
    rng, hands = np.random.default_rng(seed), sources("test")
    with (
        InkFinder(model.directory, runtime=runtime) as finder,
        Predictor(model, batch_size=_STACK, runtime=runtime) as predictor,
    ):
        while True:
            pages = [simulate(hands, rng, kind=kind) for _ in range(_STACK)]
            seen = normalise([page.grey for page in pages], finder, model.normalisation)
            found = decide_calibrated(predictor(seen.pixels), seen.ink, model.calibration, threshold=threshold)
            for row, page in enumerate(pages):
                if found.status[row] == Status.REVIEW:
                    yield Doubtful(
                        int(found.digit[row]),
                        float(found.confidence[row]),
                        int(found.runner_up[row]),
                        found.detail[row],
                        thumbnails.png(page.grey, seen.places[row]),
                        "x" if page.label == NO_DIGIT else str(page.label),
                    )


def folders(count: int) -> Iterator[tuple[str, list[Doubtful]]]:
    """Make the folders to answer, each with its name."""
    most_wrong = round(max(SHARES) * count)
    right: list[Doubtful] = []
    wrong: list[Doubtful] = []
    for page in doubtful(1000, Kind.DIGIT):
        (right if page.is_right else wrong).append(page)
        if len(right) >= count and len(wrong) >= most_wrong:
            break
    for share in SHARES:
        size = round(share * count)
        yield "with a digit", wrong[:size] + right[: count - size]
    yield "as they come", list(islice(doubtful(1001, None), count))


def rows_of(pages: list[Doubtful]) -> Rows:
    """Make the rows of a report."""
    count = len(pages)
    rows = sevens([f"{number:04}.png" for number in range(count)])
    kept = {field.name: getattr(rows, field.name) for field in fields(Rows)}
    changes = {
        "digit": np.array([page.digit for page in pages]),
        "confidence": np.array([page.confidence for page in pages]),
        "runner_up": np.array([page.runner_up for page in pages]),
        "detail": [page.detail for page in pages],
        "thumbnail": [page.thumbnail for page in pages],
        "sha256": [f"{number:064x}" for number in range(count)],
        **{"status": [Status.REVIEW] * count, "verdict": [Status.REVIEW] * count},
    }
    return Rows(**{**kept, **changes})


class Driver:
    """A person who never errs."""

    def __init__(self, chrome: Chrome, truth: list[str], *, pointing: bool) -> None:
        """Take the open page; `pointing` uses a mouse."""
        self.chrome, self.pointing, self.presses = chrome, pointing, 0
        chrome.execute_script("window.heard = 0; addEventListener('keydown', () => { window.heard += 1; }, true);")
        self.items: list[dict[str, Any]] = chrome.execute_script("return items")
        self.truth = [truth[int(item["sha256"], 16)] for item in self.items]

    def state(self) -> dict[str, Any]:
        """Ask the page where it is."""
        found: dict[str, Any] = self.chrome.execute_script(STATE)
        return found

    def press(self, *keys: str, shift: bool = False) -> None:
        """Press keys, while Shift is held; under load the browser now and then drops one, which is pressed again."""
        self.presses += len(keys)
        for key in keys:
            before = self.state()["heard"]
            while self.state()["heard"] == before:
                actions = ActionChains(self.chrome, duration=0)
                actions = (
                    actions.key_down(Keys.SHIFT).send_keys(key).key_up(Keys.SHIFT) if shift else actions.send_keys(key)
                )
                actions.perform()

    def go(self, index: int, *, click: bool = False, shift: bool = False) -> None:
        """Choose an image by its letter, or by pointing at it, or a click; with Shift, all on the way."""
        if self.pointing:
            self._point(f".tile[data-index='{index}']", press=click or shift, shift=shift)
            return
        self.presses += shift
        while (state := self.state())["chosen"] != index:
            letter = next((letter for letter, other in state["letters"].items() if other == index), None)
            self.press(letter or (Keys.ARROW_DOWN if state["chosen"] < index else Keys.ARROW_LEFT), shift=shift)

    def accept(self, members: list[int]) -> None:
        """Accept what is open in a group."""
        if self.pointing:
            self._point(f".group:has([data-index='{members[0]}']) .rest", press=True)
            return
        if self.state()["chosen"] not in members:
            self.go(members[-1])
        self.presses += 1  # of Shift
        self.press(Keys.ENTER, shift=True)

    def _point(self, selector: str, *, press: bool, shift: bool = False) -> None:
        found = self.chrome.find_element("css selector", selector)
        self.chrome.execute_script("arguments[0].scrollIntoView({ block: 'center' })", found)  # as a wheel does
        actions = ActionChains(self.chrome, duration=0).move_to_element(found).move_by_offset(4, 4)
        if press:
            actions = actions.key_down(Keys.SHIFT).click().key_up(Keys.SHIFT) if shift else actions.click()
        actions.perform()
        self.presses += press + shift

    def answer_group(self, members: list[int]) -> None:
        """Answer what is wrong in a group, and accept the rest."""
        wrong = [index for index in members if self.truth[index] != str(self.items[index]["digit"])]
        for run in _runs(wrong, self.truth):
            for part in [run] if len(run) >= _RANGE else [[index] for index in run]:
                self.go(part[0], click=len(part) > 1)
                if len(part) > 1:
                    self.go(part[-1], shift=True)
                runner_up = all(self.truth[index] == str(self.items[index]["runner_up"]) for index in part)
                self.press(Keys.SPACE if runner_up else self.truth[part[0]])
        if any(self.state()["open"][index] for index in members):
            self.accept(members)


def _runs(wrong: list[int], truth: list[str]) -> list[list[int]]:
    """Part images into those side by side that have one answer."""
    starts = [0, *(1 + at for at, (a, b) in enumerate(pairwise(wrong)) if b != a + 1 or truth[a] != truth[b])]
    return [wrong[start:end] for start, end in zip(starts, [*starts[1:], len(wrong)], strict=True) if wrong]


def presses(page: Path, profile: Path, truth: list[str], *, pointing: bool) -> int:
    """Answer all images of a page; give how many presses that took."""
    profile.mkdir()
    with chromium(profile) as chrome:
        chrome.get(page.as_uri())
        driver = Driver(chrome, truth, pointing=pointing)
        for members in driver.state()["groups"]:
            driver.answer_group(members)
        answers = chrome.execute_script("return items.map(answerOf)")
    assert answers == driver.truth, "the answers are not those that are right"
    return driver.presses


def main(count: Annotated[int, typer.Option(help="Images of a folder.")] = 1000) -> None:
    """Measure the keys an image."""
    if MISSING:
        raise SystemExit(f"review_keys: {MISSING}")
    with tempfile.TemporaryDirectory() as name:
        for number, (kind, pages) in enumerate(folders(count)):
            truth = [page.truth for page in pages]
            wrong = sum(not page.is_right for page in pages)
            second = sum(page.truth == str(page.runner_up) for page in pages)
            none = truth.count("x")
            print(f"{len(pages):,} images {kind}, {none} show none; {wrong} read wrongly, runner-up right in {second}")
            report = Path(name) / f"{number}.html"
            with report.open("wb") as handle, HtmlReport(handle, ABOUT, ReportSettings()) as html:
                html.write(rows_of(pages))
            for pointing in (False, True):
                total = presses(report, Path(name) / f"profile-{number}-{pointing}", truth, pointing=pointing)
                how = "keyboard and mouse" if pointing else "keyboard alone"
                print(f"  {how}: {total:,} presses, {total / len(pages):.2f} an image", flush=True)


if __name__ == "__main__":
    typer.run(main)

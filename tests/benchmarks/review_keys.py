"""Keys that a person presses to answer 1,000 doubtful digits on the review page, all of them rightly.

`python -m tests.benchmarks.review_keys` reads simulated pages with a digit, by writers whom nobody learnt from, until
1,000 are to review, and opens their page in headless Chromium. A driver that knows the truth answers them: in each
group what is wrong, one by one or several of one digit as a range, by the runner-up's key where that is right; then the
rest by the group's button. It does so with the keyboard alone, and again with a mouse that points. Each press counts as
one, also of Shift, Tab, the arrows and the mouse's button. What is left of a person's time is looking.
"""

import tempfile
from dataclasses import fields
from itertools import pairwise
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
from batchdigits.records import Status
from batchdigits.reports.formats.html import HtmlReport
from batchdigits.reports.schema import Rows
from batchdigits.settings import PredictSettings, ReportSettings
from batchdigits.training.datasets.simulator.hands import sources
from batchdigits.training.datasets.simulator.pages import Kind, simulate
from tests.browser import MISSING, chromium
from tests.reports.report_rows import ABOUT, sevens

_STACK = 200  # pages that are read together
_RANGE = 5  # wrong ones of one digit, side by side, from which a range takes fewer keys

STATE = """
return { chosen, group: chosen < 0 ? -1 : items[chosen].group, heard: window.heard,
         open: items.map((item) => answerOf(item) === ""), groups: report.groups.map((group) => group.members) };
"""
PATH = """
const [from, to] = arguments;
const before = new Map([[from, null]]);
const ahead = [from];
while (!before.has(to)) {
  const at = ahead.shift();
  for (const [key, move] of Object.entries(MOVES)) {
    const next = move(at);
    if (!before.has(next)) { before.set(next, [at, key]); ahead.push(next); }
  }
}
const keys = [];
for (let step = before.get(to); step; step = before.get(step[0])) keys.unshift(step[1]);
return keys;
"""


def doubtful(count: int, seed: int = 1000) -> tuple[Rows, list[str]]:
    """Make rows of `review` as a run reads simulated pages, and the answers that are right."""
    model = bundle.load(bundle.PACKAGED)
    runtime = quickest(model.directory)
    threshold = model.calibration.threshold(PredictSettings(sources=()))
    rng, hands = np.random.default_rng(seed), sources("test")
    columns: dict[str, list[Any]] = {name: [] for name in ("digit", "confidence", "runner_up", "thumbnail")}
    truth: list[str] = []
    with (
        InkFinder(model.directory, runtime=runtime) as finder,
        Predictor(model, batch_size=_STACK, runtime=runtime) as predictor,
    ):
        while len(truth) < count:
            pages = [simulate(hands, rng, kind=Kind.DIGIT) for _ in range(_STACK)]
            seen = normalise([page.grey for page in pages], finder, model.normalisation)
            found = decide_calibrated(predictor(seen.pixels), seen.ink, model.calibration, threshold=threshold)
            for row, page in enumerate(pages):
                if found.status[row] == Status.REVIEW and len(truth) < count:
                    for name in ("digit", "confidence", "runner_up"):
                        columns[name].append(getattr(found, name)[row])
                    columns["thumbnail"].append(thumbnails.png(page.grey, seen.places[row]))
                    truth.append(str(page.label))
    rows = sevens([f"{number:04}.png" for number in range(count)])
    kept = {field.name: getattr(rows, field.name) for field in fields(Rows)}
    changes = {
        **{name: np.array(columns[name]) for name in ("digit", "confidence", "runner_up")},
        **{"status": [Status.REVIEW] * count, "verdict": [Status.REVIEW] * count},
        **{"sha256": [f"{number:064x}" for number in range(count)], "thumbnail": columns["thumbnail"]},
    }
    return Rows(**{**kept, **changes}), truth


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
        """Press keys; under load the browser now and then drops one, which is then pressed again."""
        self.presses += len(keys) + shift
        for key in keys:
            before = self.state()["heard"]
            while self.state()["heard"] == before:
                actions = ActionChains(self.chrome, duration=0)
                actions = (
                    actions.key_down(Keys.SHIFT).send_keys(key).key_up(Keys.SHIFT) if shift else actions.send_keys(key)
                )
                actions.perform()

    def go(self, index: int, *, click: bool = False, shift: bool = False) -> None:
        """Choose an image by the fewest keys, or by pointing at it, or a click; with Shift, all on the way."""
        if self.pointing:
            self._point(f".tile[data-index='{index}']", press=click or shift, shift=shift)
            return
        path: list[str] = self.chrome.execute_script(PATH, self.state()["chosen"], index)
        if path:
            self.press(*(getattr(Keys, _KEYS[key]) for key in path), shift=shift)

    def accept(self, members: list[int]) -> None:
        """Accept what is open in a group."""
        if self.pointing:
            self._point(f".group:has([data-index='{members[0]}']) .rest", press=True)
            return
        if self.state()["chosen"] not in members:
            self.go(members[-1])
        self.press(Keys.TAB, shift=True)
        self.press(Keys.ENTER)

    def _point(self, selector: str, *, press: bool, shift: bool = False) -> None:
        found = self.chrome.find_element("css selector", selector)
        self.chrome.execute_script("arguments[0].scrollIntoView({ block: 'center' })", found)  # as a wheel does
        actions = ActionChains(self.chrome, duration=0).move_to_element(found)
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


_KEYS = {
    **{"ArrowLeft": "ARROW_LEFT", "ArrowRight": "ARROW_RIGHT", "ArrowUp": "ARROW_UP", "ArrowDown": "ARROW_DOWN"},
    **{"Home": "HOME", "End": "END"},
}


def _runs(wrong: list[int], truth: list[str]) -> list[list[int]]:
    """Part images into those side by side that have one answer."""
    starts = [0, *(1 + at for at, (a, b) in enumerate(pairwise(wrong)) if b != a + 1 or truth[a] != truth[b])]
    return [wrong[start:end] for start, end in zip(starts, [*starts[1:], len(wrong)], strict=True) if wrong]


def main(count: Annotated[int, typer.Option(help="Images.")] = 1000) -> None:
    """Measure the keys an image."""
    if MISSING:
        raise SystemExit(f"review_keys: {MISSING}")
    rows, truth = doubtful(count)
    wrong = sum(answer != str(digit) for answer, digit in zip(truth, rows.digit.tolist(), strict=True))
    second = sum(answer == str(digit) for answer, digit in zip(truth, rows.runner_up.tolist(), strict=True))
    print(f"{count:,} images to review, {wrong} read wrongly, of which {second} have the runner-up right", flush=True)
    with tempfile.TemporaryDirectory() as name:
        page = Path(name) / "report.html"
        with page.open("wb") as handle, HtmlReport(handle, ABOUT, ReportSettings()) as report:
            report.write(rows)
        for pointing in (False, True):
            profile = Path(name) / f"profile-{pointing}"
            profile.mkdir()
            with chromium(profile) as chrome:
                chrome.get(page.as_uri())
                driver = Driver(chrome, truth, pointing=pointing)
                for members in driver.state()["groups"]:
                    driver.answer_group(members)
                answers = chrome.execute_script("return items.map(answerOf)")
            assert answers == driver.truth, "the answers are not those that are right"
            how = "keyboard and mouse" if pointing else "keyboard alone"
            print(f"{how}: {driver.presses:,} presses, {driver.presses / count:.2f} an image", flush=True)


if __name__ == "__main__":
    typer.run(main)

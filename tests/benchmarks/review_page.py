"""Seconds from opening a review page of 10,000 images to its first picture, and milliseconds a key press takes there.

Run it in one go: `python -m tests.benchmarks.review_page`. It writes the page from digits of MNIST's training half,
enlarged to thumbnails of 96 pixels, and opens it in a fresh headless Chromium, round after round. A key press counts
from the event to the end of the frame that shows its effect; a frame of scrolling is one of 60 steps of 700 pixels.
"""

import io
import os
import statistics
import tempfile
import time
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from selenium.webdriver import Chrome

from batchdigits.reports.formats.html import HtmlReport
from batchdigits.reports.schema import Rows
from batchdigits.settings import ReportSettings
from batchdigits.training.datasets.shipped import mnist
from tests.browser import MISSING, chromium
from tests.reports.report_rows import ABOUT, sevens
from tests.sample_pages import on_page, png

SIDE = 96

PRESSES = """
const done = arguments[0];
(async () => {
  const took = [];
  for (const key of arguments_keys) {
    const start = performance.now();
    document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    await new Promise((shown) => requestAnimationFrame(() => setTimeout(shown, 0)));
    took.push(performance.now() - start);
  }
  done(took);
})();
""".replace("arguments_keys", str([*("7", "Enter", "x", "3", "ArrowDown", "ArrowRight", "u")] * 6))
SCROLLING = """
const done = arguments[0];
(async () => {
  const took = [];
  let before = performance.now();
  for (let step = 0; step < 60; step++) {
    window.scrollBy(0, 700);
    await new Promise(requestAnimationFrame);
    took.push(performance.now() - before);
    before = performance.now();
  }
  done(took);
})();
"""


def rows_to_review(count: int) -> Rows:
    """Make rows of `review`, a thumbnail each, that are spread over the ten digits."""
    images, labels = mnist("train")
    rng = np.random.default_rng(1998)
    pages = (cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for image in images[:count])
    thumbnails = [png(on_page(np.asarray(page, np.uint8), SIDE, SIDE)) for page in pages]
    rows = sevens([f"scans/{number:05}.png" for number in range(count)])
    columns = {field.name: getattr(rows, field.name) for field in fields(Rows)}
    changes = {
        "status": ["review"] * count,
        "verdict": ["review"] * count,
        "digit": labels[:count].astype(np.int8),
        "confidence": np.round(rng.uniform(0.35, 0.9, count), 4),
        "sha256": [f"{number:064x}" for number in range(count)],
        "thumbnail": thumbnails,
    }
    return Rows(**{**columns, **changes})  # type: ignore[arg-type]


def seconds_to_first_picture(chrome: Chrome, page: Path) -> float:
    """Open the page, and wait until a picture of the list is decoded."""
    seen = "const image = document.querySelector('.tile img'); return Boolean(image?.complete && image.naturalWidth)"
    start = time.perf_counter()
    chrome.get(page.as_uri())
    while not chrome.execute_script(seen):  # type: ignore[no-untyped-call]
        time.sleep(0.005)
    return time.perf_counter() - start


def main(
    count: Annotated[int, typer.Option(help="Images on the page.")] = 10_000,
    rounds: Annotated[int, typer.Option(help="Fresh browsers.")] = 5,
) -> None:
    """Measure the review page."""
    if MISSING:
        raise SystemExit(f"review_page: {MISSING}")
    with tempfile.TemporaryDirectory() as name:
        rows, data = rows_to_review(count), io.BytesIO()
        start = time.perf_counter()
        with HtmlReport(data, ABOUT, ReportSettings()) as report:
            report.write(rows)
        written = time.perf_counter() - start
        page = Path(name) / "report.html"
        page.write_bytes(data.getvalue())
        mean = statistics.mean(map(len, rows.thumbnail))
        print(
            f"{count:,} images, {mean:,.0f} bytes a thumbnail: {len(data.getvalue()) / 1e6:.1f} MB in {written:.2f} s"
        )
        firsts, presses, frames = [], [], []
        for number in range(rounds):
            profile = Path(name) / f"profile-{number}"
            profile.mkdir()
            with chromium(profile, wait="none") as chrome:
                firsts.append(seconds_to_first_picture(chrome, page))
                while chrome.execute_script("return document.readyState") != "complete":  # type: ignore[no-untyped-call]
                    time.sleep(0.05)
                chrome.set_script_timeout(60)
                presses += chrome.execute_async_script(PRESSES)  # type: ignore[no-untyped-call]
                frames += chrome.execute_async_script(SCROLLING)  # type: ignore[no-untyped-call]
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f}; {rounds} browsers")
    print(f"first picture: median {statistics.median(firsts):.2f} s, slowest {max(firsts):.2f} s")
    print(f"key press: median {statistics.median(presses):.0f} ms, slowest {max(presses):.0f} ms")
    print(f"frame while scrolling: median {statistics.median(frames):.0f} ms, slowest {max(frames):.0f} ms")


if __name__ == "__main__":
    typer.run(main)

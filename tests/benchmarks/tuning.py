"""A handwriting that the model reads badly in; how well it reads it after people's answers taught it, out.

Make the table in one go: `python -m tests.benchmarks.tuning` (some five minutes on two cores). The handwriting is made
up: digits of MNIST's validation part, which no model was trained on, leaning far over. All goes through the installed
commands as a user would: predict, answers to what is in review and in the audit sample, correct, train --from, predict.
"""

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.inference import bundle
from batchdigits.inference.audit import wilson_interval
from tests.benchmarks.digit_sets import validation_part
from tests.benchmarks.reading import Reader

_PROGRAM = [str(Path(sys.executable).with_name("batchdigits"))]
_IMAGES = 800  # to answer; as many others measure
_LEAN = 0.9  # pixels to the right for each pixel up: 42 degrees
_TURN = 20.0  # degrees
_SCALE = 1.4


def main() -> None:
    """Print how many of the leaning digits are right before and after, and what it costs elsewhere."""
    with Reader(bundle.load()) as reader:
        digits, _, labels = validation_part(reader.model, reader.network)
    rng = np.random.default_rng(4)
    chosen = rng.permutation(len(digits))[: 2 * _IMAGES]
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        answered, fresh = here / "answered", here / "fresh"
        for number, row in enumerate(chosen.tolist()):
            write(answered if number < _IMAGES else fresh, number, leaning(digits[row]), int(labels[row]))
        before = share_right(fresh, here / "before.csv")
        run("predict", answered, "-o", here / "report.csv")
        count = answer(here / "report.csv", here / "answers.csv")
        run("correct", here / "report.csv", here / "answers.csv")
        print(run("train", "--from", bundle.PACKAGED, "--data", here / "report.csv", "-o", here / "tuned"))
        after = share_right(fresh, here / "after.csv", "--model", here / "tuned")
        print(f"{_IMAGES} leaning digits, {count} of them answered; {_IMAGES} others read by predict:")
        for name, right in (("before", before), ("after", after)):
            low, high = wilson_interval(right, _IMAGES)
            print(f"{name}: {right / _IMAGES:.2%} right (95% interval {low:.2%} to {high:.2%})")


def leaning(digit: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Let a digit, uint8[28, 28], lean and turn, dark on light on a page of 60×60."""
    lean = np.array([[_SCALE, -_SCALE * _LEAN], [0, _SCALE]])
    angle = np.deg2rad(_TURN)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    both = turn @ lean
    place = np.array([30, 30]) - both @ np.array([14, 14])
    return np.asarray(255 - cv2.warpAffine(digit, np.column_stack([both, place]), (60, 60)), np.uint8)


def write(folder: Path, number: int, page: NDArray[np.uint8], label: int) -> None:
    """Write a page whose name says what is on it: the commands do not look at names."""
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / f"{number:04}-{label}.png"), page)


def label_of(path: str) -> str:
    """Read the true digit off a name."""
    return Path(path).stem[-1]


def answer(report: Path, answers: Path) -> int:
    """Answer all rows that a person is asked about, as one who knows would; return how many."""
    with report.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["sha256"]]
    with answers.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "page", "sha256", "corrected"])
        writer.writerows([row["path"], row["page"], row["sha256"], label_of(row["path"])] for row in rows)
    return len(rows)


def share_right(folder: Path, report: Path, *options: object) -> int:
    """Count the pages whose digit is right, in review or not."""
    run("predict", folder, "-o", report, *options)
    with report.open(newline="") as file:
        return sum(row["digit"] == label_of(row["path"]) for row in csv.DictReader(file))


def run(*arguments: object) -> str:
    """Run a command; give what it said."""
    done = subprocess.run([*_PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        sys.exit(done.stderr)
    return done.stdout + done.stderr


if __name__ == "__main__":
    main()

"""How well this program reads all that lies in folders of digits, and what it takes for a digit though it is none.

Make the whole table in one go: `python tests/benchmarks/accuracy.py`. Every page takes the program's own path:
normalisation, the shipped model, decisions at the default threshold. Choices are made on this table; so without
`--final` it keeps away from MNIST's test half and takes the validation part instead: those MNIST images that the
shipped model's own training split off. All pages made here are seeded: the same model gives the same table.

What later work adds: other sets of digits stand beside `handed_out`, other pages without one in `no_digit.py`.
"""

import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from corruptions import CORRUPTIONS
from no_digit import HANDED_OUT, SEED, blanks, letters, others
from numpy.typing import NDArray
from printed import printed

from batchdigits.decoding.codecs import Page, decode
from batchdigits.inference import bundle
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.decisions import ANOTHER, Decisions, decide
from batchdigits.inference.runtimes import Predictor
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import OTHER, GreyImage, InkImages, InkMeasures, Labels, Logits, Status
from batchdigits.settings import DecodingSettings, PredictSettings
from batchdigits.training.datasets.augmentation import vary
from batchdigits.training.datasets.shipped import MNIST, mnist, pages
from batchdigits.training.evaluation.metrics import wilson_interval
from batchdigits.training.evaluation.plots import contact_sheet
from batchdigits.training.finetuning import own_data

DEFAULTS = PredictSettings(sources=())
SHOWN = 4  # images of each corruption on the contact sheet

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answers:
    """What the program says of N pages, and what its model saw."""

    pixels: InkImages
    """uint8[N, 28, 28]."""
    status: NDArray[np.str_]
    """[N], values of `Status`."""
    digit: NDArray[np.int8]
    """int8[N], -1 where there is none."""
    other: NDArray[np.float32]
    """float32[N], the largest thing that was left out, as a share of the digit."""

    def share(self, status: Status) -> float:
        """Count the pages of one status: 0 to 1."""
        return float((self.status == status.value).mean())


Read = Callable[[Sequence[GreyImage]], Answers]


def main(
    final: Annotated[bool, typer.Option("--final", help="Take MNIST's test half, not the validation part.")] = False,
    save: Annotated[Path | None, typer.Option(help="A folder for a contact sheet of the corruptions.")] = None,
) -> None:
    """Measure the shipped model on clean, corrupted, handed-out, simulated and framed digits, letters, blank pages."""
    model = bundle.load()
    with Predictor(model, batch_size=DEFAULTS.batch_size) as predictor:
        read = partial(answers, model=model, predictor=predictor)
        held, held_normalised, held_labels = validation_part(model)
        digits, labels = mnist("test") if final else (held, held_labels)
        name = "MNIST, test half" if final else "MNIST, validation part"
        print(f"Model {model.id[:12]}, threshold {model.calibration.threshold(DEFAULTS)}; 95% Wilson intervals\n")
        print(heading("digits", "right", "ok", "right of ok"))
        true = [read(list(digits))]
        print_digits(name, true[0], labels)
        shown = print_corruptions(read, digits, labels)
        for name, some, of_set in handed_out():
            true.append(read(some))
            print_digits(name, true[-1], of_set)
        print_refused(true)
        scans = vary(held_normalised, np.random.default_rng(SEED), clean_share=0)
        print_digits("simulated scans, validation", read(scans), held_labels)
        for name, some in printed(held):
            print_digits(f"{name}, validation", read(some), held_labels[: len(some)])

        print("\n" + heading("no digit on them", "not ok", "review", f"rest > {ANOTHER}"))
        for name, some in (*letters(), *others(held), *blanks()):
            print_others(name, read(some))
    if save:
        save.mkdir(parents=True, exist_ok=True)
        images, captions = zip(*shown, strict=True)
        title = "Corruptions: pages and what the model saw and said"
        contact_sheet(images, captions, save / "corruptions.png", columns=2 * SHOWN, title=title)


def answers(some: Sequence[GreyImage], model: Bundle, predictor: Predictor) -> Answers:
    """Take pages uint8[H, W] the program's own path, a batch at a time."""
    parts = [
        normalise(some[start : start + DEFAULTS.batch_size], model.normalisation)
        for start in range(0, len(some), DEFAULTS.batch_size)
    ]
    pixels = np.concatenate([part.pixels for part in parts])
    ink = np.concatenate([part.ink for part in parts])
    decided = decided_on(predictor(pixels), ink, model)
    return Answers(pixels, np.array(decided.status, np.str_), decided.digit, ink[:, OTHER])


def decided_on(logits: Logits, ink: InkMeasures, model: Bundle) -> Decisions:
    """Decide as `predict` does by default."""
    terms = model.calibration
    return decide(logits, ink, threshold=terms.threshold(DEFAULTS), temperature=terms.temperature, gate=terms.gate)


# ---- digits --------------------------------------------------------------------------------------------------------


def validation_part(model: Bundle) -> tuple[InkImages, InkImages, Labels]:
    """Repeat the split of the training that made a model, and keep MNIST's images of the validation part.

    Returns:
        uint8[N, 28, 28] as they are, the same normalised, and int8[N].
    """
    _, held = own_data(model)
    held = held.take(np.array([row for row, name in enumerate(held.names) if name.startswith(f"{MNIST} ")], np.int64))
    numbers = [int(name.split()[-1]) for name in held.names]
    return mnist("train")[0][numbers], held.pixels, held.labels


def handed_out() -> Iterator[tuple[str, list[GreyImage], Labels]]:
    """Give the sets that no model was trained on: name, N pages and int8[N]."""
    for name in ("hwd1000", "optdigits"):
        yield f"{name}, test half", *pages(name, "test")
    if not HANDED_OUT.is_dir():
        print(f"{HANDED_OUT} does not exist: USPS, the photos and real paper are left out.")
        return
    yield "USPS ZIP-code digits", *archived("usps_train.tar.gz", "usps_train/")
    yield "photos: cut from paper", *archived("photos.tar.gz", "photos/digits/", "deskool-")
    yield "photos: newspaper cells", *archived("photos.tar.gz", "photos/digits/", "image")


def archived(archive: str, folder: str, start: str = "") -> tuple[list[GreyImage], Labels]:
    """Decode the files `FOLDER/DIGIT/START….png` of a handed-out archive: N pages and int8[N]."""
    found: list[GreyImage] = []
    labels: list[int] = []
    with tarfile.open(HANDED_OUT / archive) as members:
        for member in sorted(members.getmembers(), key=lambda member: member.name):
            path = Path(member.name)
            file = (
                members.extractfile(member) if member.name.startswith(folder) and path.name.startswith(start) else None
            )
            if file is None or not path.parent.name.isdigit():
                continue
            page = decode(file.read(), DecodingSettings())[0]
            assert isinstance(page, Page), member.name
            found.append(page.grey)
            labels.append(int(path.parent.name))
    return found, np.array(labels, np.int8)


# ---- what is printed -----------------------------------------------------------------------------------------------


def print_corruptions(read: Read, digits: InkImages, labels: Labels) -> list[tuple[GreyImage, str]]:
    """Print a line for each corruption, and their mean.

    Returns:
        A few pages of each and what the model saw of them, with captions.
    """
    right: dict[str, float] = {}
    shown: list[tuple[GreyImage, str]] = []
    for name, corrupt in CORRUPTIONS.items():
        corrupted = corrupt(digits, np.random.default_rng(SEED))
        found = read(list(corrupted))
        right[name] = print_digits(f"corrupted: {name}", found, labels)
        for row in range(SHOWN):
            said = f"{found.status[row]} {found.digit[row] if found.digit[row] >= 0 else ''}"
            shown += [(corrupted[row], f"{name}\n{labels[row]}"), (found.pixels[row], f"seen\n{said}")]
    worst = min(right, key=lambda name: right[name])
    print(f"{'mean of the 15':35}{np.mean(list(right.values())):9.2%}   worst: {worst}, {right[worst]:.2%}")
    return shown


def print_digits(name: str, found: Answers, labels: Labels) -> float:
    """Print a line of the table of digits, and give the share that was said rightly; no answer counts as wrong."""
    right, ok = found.digit == labels, found.status == Status.OK.value
    of_ok = f"{right[ok].mean():.2%}" if ok.any() else "–"
    print(f"{name:28}{counted(right)}{ok.mean():9.2%}{of_ok:>13}{flagged(found)}", flush=True)
    return float(right.mean())


def print_refused(sets: Sequence[Answers]) -> None:
    """Print how many digits, of all these sets together, were taken for something else."""
    refused = np.concatenate([found.digit < 0 for found in sets])
    several = sum(int((found.other > ANOTHER).sum()) for found in sets)
    print(f"{'all of these, refused':28}{counted(refused)}   of {several} more than {ANOTHER} was left out")


def print_others(name: str, found: Answers) -> None:
    """Print a line of the table of what is no digit."""
    not_ok = found.status != Status.OK.value
    several = float((found.other > ANOTHER).mean())
    line = f"{counted(not_ok)}{found.share(Status.REVIEW):9.2%}{several:13.2%}{flagged(found)}"
    print(f"{name:28}{line}", flush=True)


def heading(name: str, main: str, second: str, third: str) -> str:
    """Name the columns of a table."""
    return f"{name:28}{'images':>7}{main:>9}{'interval':>18}{second:>9}{third:>13}{'blank':>9}{'no digit':>10}"


def counted(hits: NDArray[np.bool_]) -> str:
    """Spell how many there are, the share that is true, and its interval."""
    low, high = wilson_interval(int(hits.sum()), len(hits))
    interval = f"{low:.2%}–{high:.2%}"
    return f"{len(hits):7,}{hits.mean():9.2%}{interval:>18}"


def flagged(found: Answers) -> str:
    """Spell the shares that are taken for blank, and for something else than a digit."""
    return f"{found.share(Status.BLANK):9.2%}{found.share(Status.NOT_A_DIGIT):10.2%}"


if __name__ == "__main__":
    typer.run(main)

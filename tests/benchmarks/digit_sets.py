"""Give the digits that travel with the package, and that no shipped model was trained on, as sets of pages."""

from collections.abc import Iterator

import numpy as np

from batchdigits.inference.bundle import Bundle
from batchdigits.preprocessing.finder import InkNetwork
from batchdigits.records import InkImages, Labels
from batchdigits.training.datasets import shipped
from batchdigits.training.datasets.shipped import MNIST, NAMES, mnist
from batchdigits.training.finetuning import own_data
from tests.benchmarks.corruptions import CORRUPTIONS
from tests.benchmarks.reading import SEED, PageSet, Reader


def validation_part(model: Bundle, network: InkNetwork) -> tuple[InkImages, InkImages, Labels]:
    """Repeat the split of the training that made a model, and keep MNIST's images of the validation part.

    Returns:
        uint8[N, 28, 28] as they are, the same normalised, and int8[N].
    """
    _, held = own_data(model, network)
    held = held.take(np.array([row for row, name in enumerate(held.names) if name.startswith(f"{MNIST} ")], np.int64))
    numbers = [int(name.split()[-1]) for name in held.names]
    return mnist("train")[0][numbers], held.pixels, held.labels


def clean_and_corrupted(reader: Reader, *, final: bool) -> Iterator[PageSet]:
    """Give MNIST's validation part, or its test half at the end, as it is and under each corruption."""
    if final:
        digits, labels = mnist("test")
    else:
        digits, _, labels = validation_part(reader.model, reader.network)
    yield PageSet("MNIST, test half" if final else "MNIST, validation part", list(digits), labels)
    for name, corrupt in CORRUPTIONS.items():
        yield PageSet(
            f"corrupted: {name}", list(corrupt(digits, np.random.default_rng(SEED))), labels, group="the 15 corruptions"
        )


def by_others() -> Iterator[PageSet | str]:
    """Give the test half of each set but MNIST: by writers, or in blocks, that are left out of training."""
    for name in NAMES:
        if name == MNIST:
            continue
        if not shipped.has(name):
            yield f"{name} was taken out of the package."
            continue
        pages, labels = shipped.pages(name, "test")
        yield PageSet(f"{name}, test half", pages, labels, group="all test halves")

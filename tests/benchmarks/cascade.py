"""From which share of the likeliest digit on is the teacher not worth asking: accuracy against cost, one table.

`python -m tests.benchmarks.cascade`, some minutes. Each line is another value of `runtimes.SURE`: at 0 the reader
answers all. Right is the likeliest of the ten digits, whatever the status. The cost is that of
MNIST's validation part, in multiplications a digit, as a multiple of the network that shipped before the cascade.
None of the pages is of MNIST's test half.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from unittest import mock

import numpy as np
import typer

from batchdigits.inference import bundle, runtimes
from batchdigits.settings import Arch
from batchdigits.training.architectures import build
from tests.benchmarks.development_sets import development_sets
from tests.benchmarks.digit_sets import by_others, clean_and_corrupted
from tests.benchmarks.reading import PageSet, Reader

BEFORE = 1_078_656
"""Multiplications of 16k5s2 – 64k3s2 – 64k3 – 96, the network that shipped before."""
VALUES = (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.98)


def main(model: Annotated[Path | None, typer.Option(help="A bundle; the packaged one without.")] = None) -> None:
    """Read all sets of digits at each value."""
    with Reader(bundle.load(model)) as reader:
        sets = dict(columns(reader))
        pixels, labels = {}, {}
        for name, some in sets.items():
            pixels[name] = np.concatenate([reader(one.pages, one.full_resolution).pixels for one in some])
            labels[name] = np.concatenate([one.labels for one in some if one.labels is not None])
        small, large = (multiplications(arch) for arch in (Arch.CNN, Arch.TEACHER))
        print(f"Model {reader.model.id[:12]}; {small:,} multiplications, the teacher {large:,}\n")
        print("| sure from | teacher asked, MNIST | cost, MNIST | " + " | ".join(sets) + " |")
        print("| --- |" + " ---: |" * (2 + len(sets)))
        for value in VALUES:
            with mock.patch.object(runtimes, "SURE", value):
                shares = [right(reader, pixels[name], labels[name]) for name in sets]
                asked = share_asked(reader, pixels["MNIST"])
            cost = (small + asked * large) / BEFORE
            print(
                f"| {value} | {asked:.2%} | {cost:.2f} | " + " | ".join(f"{100 * share:.2f}" for share in shares) + " |"
            )


def columns(reader: Reader) -> Iterator[tuple[str, list[PageSet]]]:
    """Give the sets of each column."""
    mnist, *corrupted = clean_and_corrupted(reader, final=False)
    yield "MNIST", [mnist]
    yield "corrupted", corrupted
    yield "others' hands", [some for some in by_others() if isinstance(some, PageSet)]
    for some in development_sets():
        if isinstance(some, PageSet):
            yield some.name, [some]


def right(reader: Reader, pixels: np.ndarray, labels: np.ndarray) -> float:
    """Compute the share of digits whose likeliest is right."""
    return float((reader.predict(pixels)[:, :10].argmax(1) == labels).mean())


def share_asked(reader: Reader, pixels: np.ndarray) -> float:
    """Compute the share of digits that the teacher is asked about."""
    asked = [0]
    teacher = reader.predict.teacher
    assert teacher is not None, "the bundle has no teacher"
    run = teacher.run

    def counted(some: np.ndarray) -> np.ndarray:
        asked[0] += len(some)
        return run(some)

    with mock.patch.object(teacher, "run", counted):
        reader.predict(pixels)
    return asked[0] / len(pixels)


def multiplications(arch: Arch) -> int:
    """Count the multiplications of convolutions and dense layers for one digit."""
    count = 0
    for layer in build(arch, folded=True).layers:
        if layer.weights:
            kernel = int(np.prod(layer.kernel.shape))
            count += kernel * int(np.prod(layer.output.shape[1:-1]))
    return count


if __name__ == "__main__":
    typer.run(main)

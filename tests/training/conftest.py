"""What the tests of training share: a small package, and one dense network that was trained on it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from batchdigits.inference.bundle import Bundle
from batchdigits.settings import Arch, TrainSettings
from batchdigits.training import train
from batchdigits.training.datasets import shipped

Halves = dict[str, tuple[NDArray[np.uint8], NDArray[np.int8]]]

DENSE = TrainSettings(output=Path(), arch=Arch.DENSE, batch_size=64, data=("mnist",))
"""How the dense network is trained."""


@pytest.fixture(scope="session")
def halves() -> Halves:
    """1,000 training and 100 test images of MNIST."""
    return {
        part: (images[:count], labels[:count])
        for part, count in (("train", 1000), ("test", 100))
        for images, labels in [shipped.mnist(part)]
    }


@pytest.fixture(scope="module")
def small_mnist(halves: Halves) -> Iterator[None]:
    """Let the package hold these images only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipped, "mnist", halves.__getitem__)
        yield


@pytest.fixture(scope="session")
def dense_bundle(halves: Halves, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of a dense network that has seen 900 of them; no test writes into it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipped, "mnist", halves.__getitem__)
        return train.train(replace(DENSE, output=tmp_path_factory.mktemp("dense") / "new" / "bundle"))


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a training draw no plots of its test, which take longer than a small training."""
    monkeypatch.setattr(train, "draw", lambda *_: None)

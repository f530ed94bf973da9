"""A training's folder as it stands after the first epoch, for tests that go on from there."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from batchdigits.training import loop
from batchdigits.training.loop import EpochRecord


@contextmanager
def first_epoch_copied(output: Path, copy: Path) -> Iterator[None]:
    """Copy the folder of a training that is run in the block, as soon as its first epoch is kept."""
    keep = loop._Checkpoints.keep

    def keep_and_copy(self: Any, model: Any, average: Any, record: EpochRecord) -> None:
        keep(self, model, average, record)
        if record.epoch == 1:
            shutil.copytree(output, copy)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Checkpoints, "keep", keep_and_copy)
        yield

"""What many tests share: the ink finder that ships, loaded once a process."""

from collections.abc import Iterator

import pytest

from batchdigits.inference import bundle
from batchdigits.inference.runtimes import InkFinder
from batchdigits.settings import Runtime


@pytest.fixture(scope="session")
def network() -> Iterator[InkFinder]:
    """The packaged ink finder, by LiteRT, which starts at once."""
    with InkFinder(bundle.PACKAGED, runtime=Runtime.LITERT) as finder:
        yield finder

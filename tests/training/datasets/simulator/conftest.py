"""What the tests of the simulator share: those who write its training pages."""

import functools

import numpy as np

from batchdigits.training.datasets.simulator.hands import Sources, sources


@functools.cache
def training() -> Sources:
    """The hands of the training half, and 1,000 of MNIST's digits."""
    return sources("train", np.arange(1000))

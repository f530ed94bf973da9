"""Images without a digit, for the gate to learn from."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from batchdigits.training.datasets import negatives as module
from batchdigits.training.datasets.negatives import negatives
from tests.digits import digits

Make = Callable[[np.random.Generator], NDArray[np.uint8]]


@pytest.mark.parametrize("make", [module._scribble, module._blot, module._strokes, module._shape, module._texture])
def test_every_image_has_ink_and_paper_and_is_another(make: Make) -> None:
    rng = np.random.default_rng(1)
    made = [make(rng) for _ in range(50)]
    for page in made:
        assert page.dtype == np.uint8
        assert 0.02 < (page > 127).mean() < 0.9
    assert len({page.tobytes() for page in made}) == 50


def test_the_pool_is_seeded_and_every_image_has_ink() -> None:
    first, again, other = (negatives(digits(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert len(first) > 8000
    assert first.any((1, 2)).all()
    assert first.shape[1:] == (28, 28)
    assert len(first) != len(other) or (first != other).any()

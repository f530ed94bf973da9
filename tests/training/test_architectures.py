"""The networks: what they take and give, and that a folded one is the same function."""

from functools import cache

import numpy as np
import pytest

from batchdigits.inference.runtimes import start_tensorflow
from batchdigits.preprocessing.looks import look, whole
from batchdigits.records import DIGITS, KINDS, LOOK_CELLS
from batchdigits.settings import Arch
from batchdigits.training.architectures import OUTPUTS, build, fold
from tests.sample_pages import digits, on_page

PIXELS = digits()[:5]
PAGES = [on_page(digit, 60, 80) for digit in PIXELS]
LOOKS = np.stack([look(page, whole(page)).cells for page in PAGES])

built = cache(build)
"""For tests that change nothing of what was built; to build takes longer than to ask."""

every_arch = pytest.mark.parametrize("arch", Arch)
readers = pytest.mark.parametrize("arch", [arch for arch in Arch if arch is not Arch.FINDER])


def seen_by(arch: Arch) -> np.ndarray:
    return LOOKS if arch is Arch.FINDER else PIXELS


@pytest.fixture(autouse=True, scope="module")
def tensorflow() -> None:
    """Start it as the program does: the number of threads is fixed once a process."""
    start_tensorflow()


@readers
def test_a_model_takes_raw_pixels_and_gives_ten_logits_or_more_an_image(arch: Arch) -> None:
    model = built(arch)
    assert (model.input_shape, model.inputs[0].dtype) == ((None, 28, 28), "uint8")
    logits = np.asarray(model(PIXELS, training=False))
    assert (logits.shape, logits.dtype) == ((5, OUTPUTS[arch]), np.float32)
    assert OUTPUTS[arch] >= DIGITS == 10
    assert (np.abs(logits.sum(axis=1) - 1) > 1e-3).any()  # no softmax at the end


def test_the_finder_takes_looks_and_gives_the_ink_of_each_cell_and_the_kinds() -> None:
    model = built(Arch.FINDER)
    assert (model.input_shape, model.inputs[0].dtype) == ((None, LOOK_CELLS, LOOK_CELLS, 3), "uint8")
    found = np.asarray(model(LOOKS, training=False))
    assert (found.shape, found.dtype) == ((5, LOOK_CELLS**2 + len(KINDS)), np.float32)
    assert OUTPUTS[Arch.FINDER] == 4100
    assert found.min() < 0  # logits, for the loss


def test_what_the_finder_tells_of_a_cell_is_about_that_part_of_the_page() -> None:
    model = fold(build(Arch.FINDER), Arch.FINDER)
    dark = np.full((64, 64, 3), 200, np.uint8)
    before = np.asarray(model(dark[None], training=False))[0, : LOOK_CELLS**2].reshape(64, 64)
    dark[40:44, 8:12] = 0
    after = np.asarray(model(dark[None], training=False))[0, : LOOK_CELLS**2].reshape(64, 64)
    row, column = np.unravel_index(np.abs(after - before).argmax(), (64, 64))
    assert (abs(row - 42) <= 12, abs(column - 10) <= 12) == (True, True)


@every_arch
def test_the_pixels_are_rescaled_inside_the_model(arch: Arch) -> None:
    (rescaling,) = [layer for layer in built(arch).layers if type(layer).__name__ == "Rescaling"]
    scaled = np.asarray(rescaling(np.array([[0, 255]], np.uint8)))[0]
    assert scaled.tolist() == pytest.approx([-2, 255 / 64 - 2] if arch is Arch.FINDER else [0, 1])


@every_arch
def test_an_image_does_not_depend_on_the_others_of_its_batch(arch: Arch) -> None:
    model = built(arch)
    seen = seen_by(arch)
    together = np.asarray(model(seen, training=False))
    alone = np.concatenate([np.asarray(model(seen[row : row + 1], training=False)) for row in range(5)])
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_the_dense_network_is_the_tutorials() -> None:
    model = built(Arch.DENSE)
    dense = [layer for layer in model.layers if type(layer).__name__ == "Dense"]
    assert [(layer.units, layer.activation.__name__) for layer in dense] == [(50, "relu"), (50, "relu"), (10, "linear")]
    assert model.count_params() == 784 * 50 + 50 + 50 * 50 + 50 + 50 * 10 + 10


def test_the_shipped_network_is_smaller_than_its_teacher() -> None:
    assert built(Arch.CNN).count_params() < 200_000 < built(Arch.TEACHER).count_params()


@every_arch
def test_a_folded_model_says_the_same_without_batch_normalisation(arch: Arch) -> None:
    rng = np.random.default_rng(0)
    model = build(arch)
    for layer in model.layers:
        if "BatchNormalization" in type(layer).__name__:  # as if it had been trained
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    folded = fold(model, arch)
    assert not any("BatchNormalization" in type(layer).__name__ for layer in folded.layers)
    assert not any(layer.name.endswith("_norm") for layer in folded.layers)
    said, expected = (np.asarray(each(seen_by(arch), training=False)) for each in (folded, model))
    if arch is Arch.FINDER:  # the ink becomes shares
        expected = expected.copy()
        expected[:, : LOOK_CELLS**2] = 1 / (1 + np.exp(-expected[:, : LOOK_CELLS**2]))
        assert ((said[:, : LOOK_CELLS**2] > 0) & (said[:, : LOOK_CELLS**2] < 1)).all()
    np.testing.assert_allclose(said, expected, rtol=1e-3, atol=1e-4)
    assert expected.std(axis=0).max() > 0  # it tells the images apart


@every_arch
def test_folding_changes_nothing_of_the_model_and_is_told_by_the_names_of_its_layers(arch: Arch) -> None:
    model = build(arch)
    before = model.get_weights()
    folded = fold(model, arch)
    assert all((weight == other).all() for weight, other in zip(model.get_weights(), before, strict=True))
    assert {layer.name for layer in folded.layers if layer.weights} <= {layer.name for layer in model.layers}

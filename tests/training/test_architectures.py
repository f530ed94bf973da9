import numpy as np
import pytest

from batchdigits.inference.runtimes import start_tensorflow
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.settings import Arch
from batchdigits.training.architectures import DIGITS, OUTPUTS, build, fold
from tests.digits import digits

PIXELS = normalise(list(digits()[:5])).pixels

every_arch = pytest.mark.parametrize("arch", Arch)


@pytest.fixture(autouse=True, scope="module")
def tensorflow() -> None:
    """Start it as the program does: the number of threads is fixed once a process."""
    start_tensorflow()


@every_arch
def test_a_model_takes_raw_pixels_and_gives_ten_logits_or_more_an_image(arch: Arch) -> None:
    model = build(arch)
    assert (model.input_shape, model.inputs[0].dtype) == ((None, 28, 28), "uint8")
    logits = np.asarray(model(PIXELS, training=False))
    assert (logits.shape, logits.dtype) == ((5, OUTPUTS[arch]), np.float32)
    assert OUTPUTS[arch] >= DIGITS == 10
    assert (np.abs(logits.sum(axis=1) - 1) > 1e-3).any()  # no softmax at the end


@every_arch
def test_the_pixels_are_rescaled_inside_the_model(arch: Arch) -> None:
    model = build(arch)
    rescaling, *others = model.layers
    assert type(rescaling).__name__ == "Rescaling"
    scaled = PIXELS.astype(np.float32) / 255
    for layer in others:
        scaled = layer(scaled, training=False) if layer.name.startswith(("dropout", "batch")) else layer(scaled)
    np.testing.assert_allclose(np.asarray(scaled), np.asarray(model(PIXELS, training=False)), atol=1e-5)


@every_arch
def test_an_image_does_not_depend_on_the_others_of_its_batch(arch: Arch) -> None:
    model = build(arch)
    together = np.asarray(model(PIXELS, training=False))
    alone = np.concatenate([np.asarray(model(PIXELS[row : row + 1], training=False)) for row in range(5)])
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_the_dense_network_is_the_tutorials() -> None:
    model = build(Arch.DENSE)
    dense = [layer for layer in model.layers if type(layer).__name__ == "Dense"]
    assert [(layer.units, layer.activation.__name__) for layer in dense] == [(50, "relu"), (50, "relu"), (10, "linear")]
    assert model.count_params() == 784 * 50 + 50 + 50 * 50 + 50 + 50 * 10 + 10


def test_the_shipped_network_is_smaller_than_its_teacher() -> None:
    assert build(Arch.CNN).count_params() < 200_000 < build(Arch.TEACHER).count_params()


@every_arch
def test_a_folded_model_says_the_same_without_batch_normalisation(arch: Arch) -> None:
    rng = np.random.default_rng(0)
    model = build(arch)
    model.set_weights([rng.uniform(0.5, 1.5, weight.shape) * (weight + 0.1) for weight in model.get_weights()])
    folded = fold(model, arch)
    assert not any("BatchNormalization" in type(layer).__name__ for layer in folded.layers)
    said, expected = (np.asarray(each(PIXELS, training=False)) for each in (folded, model))
    np.testing.assert_allclose(said, expected, rtol=1e-4)
    assert expected.std(axis=0).min() > 0  # it tells the images apart

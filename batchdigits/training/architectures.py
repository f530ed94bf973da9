"""The networks: an `Arch` in, an untrained Keras model out.

Every model takes uint8[N, 28, 28], bright ink on 0, and gives logits float32[N, K], K ≥ 10. The channel axis and the
rescaling to 0…1 are layers inside the model, so that no caller can forget them. Keras is imported when called.
"""

from typing import TYPE_CHECKING

from batchdigits.normalisation import SIDE
from batchdigits.settings import Arch

if TYPE_CHECKING:
    import keras

DIGITS = 10
NOT_A_DIGIT, BLANK = 10, 11
"""Outputs beyond the ten digits, which only the gate uses."""
OUTPUTS = {Arch.CNN: 12, Arch.DENSE: DIGITS}
"""Logits of each architecture."""


def build(arch: Arch) -> "keras.Model":
    """Build an untrained model.

    Args:
        arch: `cnn` is the network that ships; `dense` is the classic tutorial's.

    Returns:
        uint8[N, 28, 28] -> logits float32[N, `OUTPUTS[arch]`].
    """
    import keras

    layers = [keras.Input((SIDE, SIDE), dtype="uint8"), keras.layers.Rescaling(1 / 255)]
    layers += {Arch.CNN: _cnn, Arch.DENSE: _dense}[arch]()
    layers += [keras.layers.Dense(OUTPUTS[arch], name="logits")]
    return keras.Sequential(layers, name=arch.value)


def _cnn() -> "list[keras.Layer]":
    """A small convolutional network that halves the image twice by strides instead of pooling."""
    from keras.layers import Dense, Dropout, Flatten, Reshape

    return [
        Reshape((SIDE, SIDE, 1)),
        *_convolution(32, 5, strides=2),  # -> [N, 14, 14, 32]
        *_convolution(48, 3, strides=1),  # -> [N, 14, 14, 48]
        *_convolution(64, 3, strides=2),  # -> [N, 7, 7, 64]
        *_convolution(64, 3, strides=1),  # -> [N, 7, 7, 64]
        Flatten(),
        Dropout(0.2),
        Dense(128, activation="relu"),
        Dropout(0.3),
    ]


def _convolution(filters: int, size: int, *, strides: int) -> "list[keras.Layer]":
    from keras.layers import BatchNormalization, Conv2D, ReLU

    convolution = Conv2D(filters, size, strides=strides, padding="same", use_bias=False)
    return [convolution, BatchNormalization(), ReLU()]


def _dense() -> "list[keras.Layer]":
    """Two hidden layers of 50, as the classic MNIST tutorial has them; its sigmoid outputs are logits here."""
    from keras.layers import Dense, Flatten

    return [Flatten(), Dense(50, activation="relu"), Dense(50, activation="relu")]

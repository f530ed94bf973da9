"""Build the networks, untrained, by the name of their `Arch`.

Every model takes uint8[N, 28, 28], bright ink on 0, and gives logits float32[N, K], K ≥ 10. The channel axis and the
rescaling to 0…1 are layers inside the model, so that no caller can forget them. Keras is imported when called.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batchdigits.records import BLANK, DIGITS, SIDE
from batchdigits.settings import Arch

if TYPE_CHECKING:
    import keras

OUTPUTS = {Arch.CNN: BLANK + 1, Arch.TEACHER: BLANK + 1, Arch.DENSE: DIGITS}
"""Logits of each architecture: the digits, and what the gate uses."""


def build(arch: Arch, *, folded: bool = False) -> "keras.Model":
    """Build an untrained model.

    Args:
        arch: `cnn` is the network that ships, `teacher` the larger one that it learns from; `dense` is the classic
            tutorial's.
        folded: Without batch normalisation: what `fold` fills, for predicting only.

    Returns:
        uint8[N, 28, 28] -> logits float32[N, `OUTPUTS[arch]`].
    """
    import keras

    layers = [keras.Input((SIDE, SIDE), dtype="uint8"), keras.layers.Rescaling(1 / 255)]
    if arch is Arch.DENSE:
        layers += _dense()
    else:
        layers += [keras.layers.Reshape((SIDE, SIDE, 1)), *{Arch.CNN: _cnn, Arch.TEACHER: _teacher}[arch](folded)]
    layers += [keras.layers.Dense(OUTPUTS[arch], name="logits")]
    return keras.Sequential(layers, name=arch.value)


def fold(model: "keras.Model", arch: Arch) -> "keras.Model":
    """Copy a model, each batch normalisation merged into the convolution before it: the same function with less to do.

    Args:
        model: A trained model as `build(arch)` gives it; it stays as it is.
        arch: Its architecture.
    """
    import keras

    weights: list[NDArray[np.float32]] = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            scale = gamma / np.sqrt(variance + layer.epsilon)
            weights[-1] = weights[-1] * scale  # the kernel's last axis is the filter
            weights.append(beta - mean * scale)
        else:
            weights += layer.get_weights()
    result = build(arch, folded=True)
    result.set_weights(weights)
    return result


def _cnn(folded: bool) -> "list[keras.Layer]":
    """Three convolutions, two of which halve the image: most of what so few multiplications can learn.

    The first one is not padded, and does not look at the last row and column, which are almost always empty.
    """
    from keras.layers import Dense, Flatten

    return [
        *_convolution(16, 5, strides=2, padding="valid", folded=folded),  # -> [N, 12, 12, 16]
        *_convolution(64, 3, strides=2, padding="same", folded=folded),  # -> [N, 6, 6, 64]
        *_convolution(64, 3, strides=1, padding="valid", folded=folded),  # -> [N, 4, 4, 64]
        Flatten(),
        Dense(96, activation="relu"),
    ]


def _teacher(folded: bool) -> "list[keras.Layer]":
    """Six times the multiplications, and dropout."""
    from keras.layers import Dense, Dropout, Flatten

    return [
        *_convolution(32, 5, strides=2, padding="same", folded=folded),  # -> [N, 14, 14, 32]
        *_convolution(48, 3, strides=1, padding="same", folded=folded),  # -> [N, 14, 14, 48]
        *_convolution(64, 3, strides=2, padding="same", folded=folded),  # -> [N, 7, 7, 64]
        *_convolution(64, 3, strides=1, padding="same", folded=folded),  # -> [N, 7, 7, 64]
        Flatten(),
        Dropout(0.2),
        Dense(128, activation="relu"),
        Dropout(0.3),
    ]


def _convolution(filters: int, size: int, *, strides: int, padding: str, folded: bool) -> "list[keras.Layer]":
    from keras.layers import BatchNormalization, Conv2D, ReLU

    convolution = Conv2D(filters, size, strides=strides, padding=padding, use_bias=folded)
    return [convolution, ReLU()] if folded else [convolution, BatchNormalization(), ReLU()]


def _dense() -> "list[keras.Layer]":
    """Two hidden layers of 50, as the classic MNIST tutorial has them; its sigmoid outputs are logits here."""
    from keras.layers import Dense, Flatten

    return [Flatten(), Dense(50, activation="relu"), Dense(50, activation="relu")]
